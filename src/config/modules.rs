//! Local commands: the `[modules.NAME]` tables of the TOML file, and what bounds them all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Secret;
use super::keys::Kind;
use super::parse::{self, Wrong};
use super::problem::{Origin, Problem, Shown};
use super::servers::SaidEffect;
use super::tables::{self, Member, Table};

/// The section of modules.
pub(super) const TABLE: &str = "modules";

/// What would do in place of a section that is none.
const REMEDY: &str = "a table [modules.NAME] with a program would do";

/// The words of an effect.
const EFFECTS: [&str; 3] = ["read", "idempotent", "write"];

/// The longest name of a module.
const NAME_CHARS: usize = 64;

/// What a table takes.
pub(super) static MEMBERS: [Member; 8] = [
    member(
        "program",
        "\"/usr/bin/python3\"",
        "The program, as a path from the daemon's working folder. No shell reads it. Must be set.",
    ),
    member("args", "[\"-u\", \"tools/lint.py\"]", "Its first arguments; those of a call come behind them."),
    member(
        "cwd",
        "[\"/srv/repos\"]",
        "Folders in or below which a call may have it work (`cwd`). None: it always works in a folder of its own, which is removed afterwards.",
    ),
    member("env", "[\"PATH\", \"HOME\"]", "What it sees of the daemon's environment, by name. Nothing else."),
    member(
        "effect",
        "\"read\"",
        "`read`, `idempotent` or `write`: who may share a run, and what happens when its callers leave. Unset, `write`.",
    ),
    member(
        "timeout_secs",
        "60",
        "How long a run may take. Unset, as long as its tool may, less the time that ending it takes.",
    ),
    member(
        "read",
        "[\"/srv/data\"]",
        "What else it may read and run where the kernel can hold it to that (Landlock): the system's programs and libraries, its own folder and its program's folder it may always.",
    ),
    member("write", "[\"/srv/out\"]", "What else it may write. `[\"/\"]` takes the fence away."),
];

const fn member(name: &'static str, example: &'static str, help: &'static str) -> Member {
    Member { name, example, help }
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleConfig {
    /// What it is called by.
    pub id: Box<str>,
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<String>,
    /// Where calls may have it work.
    pub cwd: Vec<PathBuf>,
    /// What it sees of our environment.
    pub env: Vec<(String, Secret)>,
    /// What running it does to the world.
    pub effect: SaidEffect,
    /// How long a run may take, if less than its tool may.
    pub timeout: Option<Duration>,
    /// What else it may read.
    pub read: Vec<PathBuf>,
    /// What else it may write.
    pub write: Vec<PathBuf>,
}

/// When a machine has too little left for another module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateRules {
    /// Above this, its processors are too busy.
    pub cpu_percent: f64,
    /// Below this, there is too little memory.
    pub memory_gb: f64,
}

/// Local commands, and what bounds them all.
#[derive(Debug, Clone)]
pub struct ModulesConfig {
    /// Those that are declared.
    pub declared: Vec<ModuleConfig>,
    /// Folders whose scripts may be run without being declared.
    pub script_dirs: Vec<PathBuf>,
    /// Runs at once.
    pub max_concurrent: usize,
    /// How much is kept of each stream.
    pub output_bytes: usize,
    /// Nothing is started, only shown.
    pub dry_run: bool,
    /// What the machine must have left; `None`: nobody looks.
    pub gate: Option<GateRules>,
    /// This very program, which guards each run.
    pub guard: PathBuf,
}

impl ModulesConfig {
    /// Whether there is anything that could be run.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.script_dirs.is_empty()
    }
}

/// Reads the tables.
pub(super) fn read(
    said: Option<&toml::Value>,
    environment: &BTreeMap<String, String>,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<ModuleConfig> {
    let tables = tables::each(TABLE, said, REMEDY, problems);
    tables.into_iter().filter_map(|(id, members)| one(id, members, environment, folder, problems)).collect()
}

fn one(
    id: &str,
    members: &toml::Table,
    environment: &BTreeMap<String, String>,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ModuleConfig> {
    let path = format!("{TABLE}.{}", tables::shown(id));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if id.is_empty() || id.len() > NAME_CHARS || !id.chars().all(fits) {
        let setting = Shown::without_value(&path, Origin::Toml);
        problems.push(Problem::Value { setting, wrong: Wrong::NotName, remedy: REMEDY.to_owned() });
    }
    let mut table = Table::new(path, members, &MEMBERS, problems);
    let program = table.need("program", Kind::Path, tables::text);
    let args = table.strings("args").unwrap_or_default();
    let names = table.strings("env").unwrap_or_default();
    let effect = table.get("effect", Kind::Choice(&EFFECTS), |text| parse::choice(text, &EFFECTS));
    let timeout = table.get("timeout_secs", Kind::Seconds, parse::seconds);
    let mut paths = |member| -> Vec<PathBuf> {
        let said = table.strings(member).unwrap_or_default();
        said.into_iter().map(|path| folder.join(path)).collect()
    };
    let (cwd, read, write) = (paths("cwd"), paths("read"), paths("write"));
    let seen = |name: String| environment.get(&name).map(|value| (name.clone(), Secret::new(value.as_str())));
    let env = names.into_iter().filter_map(seen);
    Some(ModuleConfig {
        id: id.into(),
        program: folder.join(&*program?),
        args,
        cwd,
        env: env.collect(),
        effect: match effect {
            Some("read") => SaidEffect::Read,
            Some("idempotent") => SaidEffect::Idempotent,
            Some(_) | None => SaidEffect::Write,
        },
        timeout,
        read,
        write,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> (Vec<ModuleConfig>, Vec<String>) {
        let toml: toml::Table = text.parse().unwrap();
        let environment = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        let mut problems = Vec::new();
        let found = read(toml.get(TABLE), &environment, Path::new("/srv"), &mut problems);
        (found, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_module_is_read_with_all_that_it_may() {
        let (found, problems) = reads(
            "[modules.lint]\nprogram = \"bin/lint\"\nargs = [\"-a\", \"b, c\"]\ncwd = [\"/repos\", \"own\"]\n\
             env = [\"HOME\", \"ABSENT\"]\neffect = \"read\"\ntimeout_secs = 1.5\nread = [\"/data\"]\nwrite = [\"out\"]",
        );
        assert_eq!(problems, Vec::<String>::new());
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let expected = ModuleConfig {
            id: "lint".into(),
            program: "/srv/bin/lint".into(),
            args: vec!["-a".into(), "b, c".into()],
            cwd: paths(&["/repos", "/srv/own"]),
            env: vec![("HOME".into(), Secret::new("/root"))],
            effect: SaidEffect::Read,
            timeout: Some(Duration::from_millis(1500)),
            read: paths(&["/data"]),
            write: paths(&["/srv/out"]),
        };
        assert_eq!(found, [expected]);
        let (found, _) = reads("[modules.plain]\nprogram = \"/bin/true\"");
        assert_eq!((found[0].effect, found[0].timeout, found[0].cwd.len()), (SaidEffect::Write, None, 0));
    }

    #[test]
    fn each_wrong_module_is_a_problem_with_what_would_do() {
        for (text, expected) in [
            ("modules = 1", "modules (from the TOML file): is a number in TOML; a table [modules.NAME]"),
            ("[modules]\nlint = 1", "modules.lint (from the TOML file): is a number in TOML; a table"),
            (
                "[modules.lint]",
                "modules.lint.program (from the TOML file): is missing; program = \"/usr/bin/python3\"",
            ),
            ("[modules.\"a b\"]\nprogram = \"x\"", "modules.a b (from the TOML file): "),
            (
                "[modules.lint]\nprogram = \"x\"\nargs = \"-a\"",
                "modules.lint.args (from the TOML file): is a string in TOML; args = [\"-u\", \"tools/lint.py\"]",
            ),
            (
                "[modules.lint]\nprogram = \"x\"\neffect = \"all\"",
                "modules.lint.effect (from the TOML file): is none of read, idempotent, write; effect = \"read\"",
            ),
            (
                "[modules.lint]\nprogram = \"x\"\ntimeout_secs = 0",
                "modules.lint.timeout_secs (from the TOML file): ",
            ),
            (
                "[modules.lint]\nprogram = \"x\"\nprogramm = \"y\"",
                "modules.lint.programm (from the TOML file): there is no such key; the nearest is program",
            ),
        ] {
            let (_, problems) = reads(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].starts_with(expected), "{text}: {}", problems[0]);
        }
    }
}
