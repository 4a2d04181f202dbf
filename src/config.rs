//! What the operator asked for: read once at start, checked whole, then handed down by value.
//!
//! Process environment beats `.env` beats `inflightd.toml` beats defaults; flags beat all. Each key stands
//! once, in [`keys`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod aliases;
mod build;
pub mod env;
mod fallbacks;
pub mod flows;
pub mod jsonc;
pub mod keys;
pub mod ladder;
pub mod modules;
mod money;
mod parse;
pub mod principals;
mod problem;
pub mod providers;
mod render;
pub mod secret_files;
pub mod servers;
mod sources;
mod tables;
mod values;

pub use aliases::Alias;
pub use fallbacks::Fallback;
pub use flows::FlowsConfig;
pub use ladder::Ladder;
pub use modules::{GateRules, ModuleConfig, ModulesConfig};
pub use money::{Cost, Price, Prices};
pub use parse::Wrong;
pub use principals::PrincipalConfig;
pub use problem::{Origin, Problem, Problems, Shown};
pub use providers::{ProviderConfig, Wire, provider_presets};
pub use servers::ServerConfig;
pub use sources::Sources;
use values::Values;

/// A text that must never be shown: `Debug` prints nothing of it, `Display` does not exist.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that must send or compare it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// Which log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what must never be.
    Error,
    /// What an operator should look at.
    Warn,
    /// One line a call, and the daemon's own life.
    Info,
    /// What a developer of inflightd looks at.
    Debug,
    /// Everything.
    Trace,
}

/// The bounds of everything that could grow.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Permits over all providers.
    pub global: usize,
    /// Runs of `consensus` at work.
    pub consensus: usize,
    /// Calls of `run_batch` at work.
    pub batches: usize,
    /// Runs of `execute_flow` at work.
    pub flows: usize,
    /// Those that wait for one to end.
    pub flows_queue: usize,
    /// Runs at work for each client session.
    pub session: usize,
    /// Runs that wait in one provider's queue, and in one session's.
    pub queue: usize,
    /// Executions in all, waiting or working.
    pub executions: usize,
    /// Connections served; above, the answer is 503.
    pub connections: usize,
    /// Waiters on one flight.
    pub waiters: usize,
    /// Bytes of results kept for equal calls, for each principal.
    pub result_cache_bytes: usize,
    /// Bytes of one WebSocket frame or message, or of one HTTP body.
    pub frame_bytes: usize,
    /// Bytes of one result.
    pub result_bytes: usize,
    /// Bytes that wait to be written to one slow reader.
    pub write_queue_bytes: usize,
}

/// When a provider's breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Calls older than this do not count.
    pub window: Duration,
    /// Fewer calls than this are too few to judge.
    pub min_calls: u32,
    /// Of a hundred calls, so many failures are too many.
    pub failure_percent: u32,
    /// How long nothing passes before a probe may.
    pub open_for: Duration,
}

/// How often a call is attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Attempts in all.
    pub attempts: u32,
    /// Between the first and the second at most; between later ones twice as long each time.
    pub backoff: Duration,
}

/// What is done about providers that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resilience {
    /// Keeps calls away.
    pub breaker: BreakerRules,
    /// Makes them again.
    pub retry: RetryRules,
}

/// What an `offline` provider plays that has a bad day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineFault {
    /// It refuses with HTTP 500.
    Error,
    /// It refuses with HTTP 429, and says when to come back.
    RateLimit,
    /// It never answers.
    Hang,
    /// It streams a byte a second.
    Drip,
    /// It breaks off in the middle of its stream.
    Reset,
    /// It answers with what is no JSON.
    Garbage,
    /// Its answer has no end.
    Endless,
    /// The TLS handshake with it fails.
    Tls,
}

/// The built-in provider that needs no key.
#[derive(Debug, Clone)]
pub struct OfflineConfig {
    /// How long each answer takes.
    pub latency: Duration,
    /// What it plays, if the day is bad…
    pub fault: Option<OfflineFault>,
    /// …in each so-manieth call.
    pub fault_every: usize,
    /// When it says to come back.
    pub retry_after: Duration,
    /// Permits.
    pub max_inflight: usize,
}

/// How many conversations are kept, how large, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ConversationBounds {
    /// Of each principal.
    pub count: usize,
    /// Of all of a principal's together.
    pub bytes: usize,
    /// Since each was used last.
    pub age: Duration,
}

/// Everything `serve` needs, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The one address of all doors.
    pub listen: SocketAddr,
    /// Who may call. Once one of them has a token, every caller must bring one; without, there is only `local`, and
    /// the address is loopback.
    pub principals: Vec<PrincipalConfig>,
    /// Origins allowed beside the daemon's own.
    pub allowed_origins: Vec<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogLevel,
    /// Threads of the runtime; `None` follows the machine.
    pub worker_threads: Option<usize>,
    /// Bounds.
    pub limits: Limits,
    /// What is done about providers that fail.
    pub resilience: Resilience,
    /// The ladder of timeouts, validated.
    pub ladder: Ladder,
    /// Providers that are offered, in the order in which they are preferred.
    pub providers: Vec<ProviderConfig>,
    /// What is kept of conversations.
    pub conversations: ConversationBounds,
    /// Other names for models.
    pub aliases: Vec<Alias>,
    /// Who is asked where a provider fails.
    pub fallbacks: Vec<Fallback>,
    /// What models cost.
    pub prices: Prices,
    /// Connections kept for each provider while nobody uses them.
    pub idle_connections: usize,
    /// The provider that is always there.
    pub offline: OfflineConfig,
    /// Between two looks of the health task.
    pub health_interval: Duration,
    /// What a drain may take.
    pub drain_timeout: Duration,
    /// How long a paid-for call is kept for a caller that lost its connection.
    pub reattach: Duration,
    /// When a client gives up of whom nothing is known, and which hears nothing of its call.
    pub unknown_client_limit: Duration,
    /// How long the outcome of a guarded call also answers a twin.
    pub guard_window: Duration,
    /// A TOML file with prompt tools, instead of the built-in ones.
    pub tools_file: Option<PathBuf>,
    /// Local commands.
    pub modules: ModulesConfig,
    /// What flows may touch.
    pub flows: FlowsConfig,
    /// Upstream MCP servers.
    pub servers: Vec<ServerConfig>,
    /// The files that were read, to see when they change.
    pub files: Vec<PathBuf>,
    /// What a child's environment has of ours.
    pub child_environment: Vec<(String, String)>,
    /// How long the daemon waits for its servers before it serves.
    pub servers_wait: Duration,
}

impl Config {
    /// Whether callers must bring a token.
    pub fn token_required(&self) -> bool {
        self.principals.iter().any(|principal| !principal.tokens.is_empty())
    }
}

/// A configuration that holds, and what its operator should know.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Reads the process environment, and in the working folder `.env` and the TOML file. Only `serve` calls this: other
/// commands run inside other people's projects.
///
/// `flags` are what the command line says, by the name of their key.
///
/// # Errors
/// Every problem, of the files as of the values.
pub fn load(flags: &[(&'static str, String)], working_folder: &Path) -> Result<Loaded, Problems> {
    let (process, problems) = env::process();
    load_from(flags, process, problems, working_folder)
}

fn load_from(
    flags: &[(&'static str, String)],
    process: BTreeMap<String, String>,
    mut problems: Vec<Problem>,
    working_folder: &Path,
) -> Result<Loaded, Problems> {
    let mut sources = Sources {
        flags: flags.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        process,
        dotenv: sources::dotenv(working_folder, &mut problems),
        toml: toml::Table::new(),
        environment: env::whole(),
        working_folder: working_folder.to_owned(),
    };
    let asked = Values::new(sources.clone()).raw("INFLIGHTD_CONFIG");
    secret_files::open(&mut sources.process, Origin::Process, working_folder, &mut problems);
    secret_files::open(&mut sources.dotenv, Origin::Dotenv, working_folder, &mut problems);
    sources.toml = sources::toml(asked.as_deref(), working_folder, &mut problems);
    match resolve(sources) {
        Ok(loaded) if problems.is_empty() => Ok(loaded),
        Ok(_) => Err(Problems(problems)),
        Err(Problems(more)) => {
            problems.extend(more);
            Err(Problems(problems))
        }
    }
}

/// Checks what the sources say, whole, and fills in the rest. Reads nothing global; looks whether files that are
/// named are there.
///
/// # Errors
/// Every problem.
pub fn resolve(sources: Sources) -> Result<Loaded, Problems> {
    let mut values = Values::new(sources);
    match build::config(&mut values) {
        Some(config) if values.problems.is_empty() => Ok(Loaded { config, warnings: values.warnings }),
        _ => Err(Problems(values.problems)),
    }
}

#[cfg(test)]
mod tests;
