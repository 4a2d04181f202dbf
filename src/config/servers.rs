//! Upstream MCP servers: the `mcpServers` object that clients use, with members of ours, from a JSON file or from the
//! tables `[mcp_servers.NAME]` of the TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Secret;
use super::principals::ToolPatterns;

mod read;
mod variables;

pub(super) use read::{Reader, TABLE};

/// The longest name of a server: with `__` and a tool's name behind it, it must fit 64 characters.
pub const NAME_CHARS: usize = 32;

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A child process, over its stdin and stdout.
    Stdio {
        /// The command.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// What its environment has beside the usual: `PATH`, `HOME` and the like.
        env: BTreeMap<String, Secret>,
        /// Where it runs; `None`: where the daemon does.
        folder: Option<PathBuf>,
    },
    /// Streamable HTTP.
    Http {
        /// Its one address.
        url: String,
        /// Headers of every request.
        headers: Vec<(String, Secret)>,
    },
}

/// Who shares one process or session of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All sessions of one principal.
    Principal,
    /// Everybody.
    All,
    /// Nobody: each client session has its own.
    Session,
}

/// What happens when a server ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It is started again, at once and then with growing pauses.
    Always,
    /// It stays down until the configuration is read again.
    Never,
}

/// What an operator says of a tool's effect, by its name in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidEffect {
    /// It changes nothing.
    Read,
    /// Doing it twice is doing it once.
    Idempotent,
    /// Each time counts.
    Write,
}

/// Which of a server's tools are offered, and how they are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolRules {
    /// Only these; `None`: all.
    pub allow: Option<ToolPatterns>,
    /// None of these, whatever is allowed.
    pub deny: Option<ToolPatterns>,
    /// Other names, by the server's own.
    pub rename: BTreeMap<String, String>,
}

/// One upstream server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// What it is called, and what its tools' names begin with.
    pub name: Box<str>,
    /// How it is reached.
    pub transport: Transport,
    /// Calls at work there at once.
    pub max_inflight: usize,
    /// How long one call may take there, if less than any tool.
    pub timeout: Option<Duration>,
    /// How long it may take to start.
    pub start_timeout: Duration,
    /// Effects, by the first pattern that fits a tool's name; where none fits, the server's own hints count.
    pub effects: Vec<(ToolPatterns, SaidEffect)>,
    /// Which tools.
    pub tools: ToolRules,
    /// What happens when it ends by itself.
    pub restart: Restart,
    /// Who shares it.
    pub share: Share,
    /// Whether its tools are called `server__tool`; else just `tool`.
    pub prefix: bool,
}

impl ServerConfig {
    /// Whether it is told that it may ask its client: only where it is known which one.
    pub fn may_ask(&self) -> bool {
        match self.transport {
            Transport::Stdio { .. } => self.share == Share::Session,
            // It asks on the stream of the call for which it does.
            Transport::Http { .. } => true,
        }
    }

    /// What the name of a tool of this server is to callers; `None` where it is not offered.
    pub fn offered_as(&self, tool: &str) -> Option<String> {
        let rules = &self.tools;
        let allowed = rules.allow.as_ref().is_none_or(|allow| allow.allow(tool));
        let denied = rules.deny.as_ref().is_some_and(|deny| deny.allow(tool));
        if !allowed || denied {
            return None;
        }
        let name = rules.rename.get(tool).map_or(tool, String::as_str);
        Some(if self.prefix { format!("{}__{name}", self.name) } else { name.to_owned() })
    }

    /// What the operator says of a tool's effect.
    pub fn effect_of(&self, tool: &str) -> Option<SaidEffect> {
        self.effects.iter().find(|(patterns, _)| patterns.allow(tool)).map(|(_, effect)| *effect)
    }

    /// Content hash of all that decides what it answers, secrets too. It never leaves the process.
    pub fn digest(&self) -> u64 {
        let mut text = format!("{self:?}");
        let mut add = |name: &str, secret: &Secret| {
            for part in [name, secret.reveal()] {
                text.push('\0');
                text.push_str(part);
            }
        };
        match &self.transport {
            Transport::Stdio { env, .. } => env.iter().for_each(|(name, value)| add(name, value)),
            Transport::Http { headers, .. } => headers.iter().for_each(|(name, value)| add(name, value)),
        }
        xxh3_64(text.as_bytes())
    }
}

/// What a child's environment has of ours: what programs need to run, and no key of anybody's.
pub fn usual_environment(process: &BTreeMap<String, String>) -> Vec<(String, String)> {
    const NAMES: [&str; 22] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",
        "TMPDIR",
        "TMP",
        "TEMP",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "APPDATA",
        "LOCALAPPDATA",
        "USERPROFILE",
        "USERNAME",
        "PROGRAMFILES",
        "PATHEXT",
        "COMSPEC",
        "NODE_EXTRA_CA_CERTS",
    ];
    const PREFIXES: [&str; 3] = ["LC_", "XDG_", "SSL_CERT_"];
    let is_usual = |name: &str| {
        NAMES.iter().any(|usual| usual.eq_ignore_ascii_case(name))
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    process.iter().filter(|(name, _)| is_usual(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// A name that begins a tool's name, and that fits a table of TOML.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=NAME_CHARS).contains(&text.len()) && text.bytes().all(fits) && !text.contains("__")
}

/// A name for a server that somebody calls otherwise; itself, where that does.
pub fn name_like(text: &str) -> String {
    if is_name(text) { text.to_owned() } else { near_name(text) }
}

/// What is wrong with a server as a client writes it; nothing: the daemon takes it.
pub fn problems_of(name: &str, server: &serde_json::Value) -> Vec<String> {
    let (variables, mut problems, mut warnings) = (super::env::whole(), Vec::new(), Vec::new());
    let folder = Path::new("");
    let (problems, warnings) = (&mut problems, &mut warnings);
    let mut reader = Reader { variables: &variables, folder, problems, warnings, servers: Vec::new() };
    reader.one(name, server);
    reader.problems.iter().map(ToString::to_string).collect()
}

/// A name near to a text that is none.
fn near_name(text: &str) -> String {
    let sound = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let name: String = text.chars().take(NAME_CHARS).map(sound).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "server".to_owned() } else { name.to_owned() }
}

fn in_folder(folder: &Path, path: &str) -> PathBuf {
    folder.join(path)
}
