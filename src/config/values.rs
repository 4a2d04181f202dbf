//! Typed reading of the sources. A value that cannot be taken becomes a problem, and the default stands in for
//! it, so that one pass finds them all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::aliases::{self, Alias};
use super::fallbacks::{self, Fallback};
use super::flows;
use super::keys::{self, Default, Key, Kind};
use super::ladder::{Ladder, Rung, Set};
use super::modules::{self, GateRules, ModulesConfig};
use super::money::{self, Prices};
use super::parse::{self, Wrong};
use super::principals::{self, PrincipalConfig};
use super::problem::{Origin, Problem, Shown};
use super::providers::{self, Classes, ProviderConfig};
use super::servers::{self, ServerConfig};
use super::sources::{Sources, flatten, is_section, strangers, unknown};

/// The sources, and what was found wrong with them so far.
pub(super) struct Values {
    said: [(Origin, BTreeMap<String, String>); 4],
    /// The sections of the TOML file that are no keys.
    sections: toml::Table,
    environment: BTreeMap<String, String>,
    working_folder: PathBuf,
    /// What keeps the daemon from starting.
    pub(super) problems: Vec<Problem>,
    /// What does not.
    pub(super) warnings: Vec<String>,
    /// The keys that were asked for, to hold the table to them.
    #[cfg(test)]
    pub(super) read: std::collections::BTreeSet<&'static str>,
}

/// A value that somebody set.
pub(super) struct Found {
    key: &'static Key,
    text: String,
    origin: Origin,
}

impl Values {
    /// Looks for names that are no keys, and makes the rest ready to be read.
    pub(super) fn new(sources: Sources) -> Self {
        let names: Vec<String> = keys::all().map(|key| key.name.to_owned()).collect();
        let strange_flags = sources.flags.keys().filter(|name| keys::find(name).is_none());
        let mut problems: Vec<_> = strange_flags.map(|name| unknown(name, Origin::Flag, &names)).collect();
        let warnings = strangers(&sources.process, Origin::Process)
            .chain(strangers(&sources.dotenv, Origin::Dotenv))
            .collect();
        let (toml, wrong) = flatten(&sources.toml);
        problems.extend(wrong);
        Self {
            said: [
                (Origin::Flag, sources.flags),
                (Origin::Process, sources.process),
                (Origin::Dotenv, sources.dotenv),
                (Origin::Toml, toml),
            ],
            sections: sources.toml.into_iter().filter(|(name, _)| is_section(name)).collect(),
            environment: sources.environment,
            working_folder: sources.working_folder,
            problems,
            warnings,
            #[cfg(test)]
            read: std::collections::BTreeSet::new(),
        }
    }

    /// What the strongest source says that says anything; empty says nothing.
    fn found(&mut self, name: &str) -> (&'static Key, Option<Found>) {
        let Some(key) = keys::find(name) else {
            unreachable!(
                "{name} is read and not in the table: `every_key_is_read_and_every_read_is_a_key` fails"
            )
        };
        #[cfg(test)]
        self.read.insert(key.name);
        let found = self.said.iter().find_map(|(origin, said)| {
            let text = said.get(name)?.trim();
            (!text.is_empty()).then(|| Found { key, text: text.to_owned(), origin: *origin })
        });
        (key, found)
    }

    /// The set value, parsed; `None` where nobody set one, or none that can be taken.
    fn set<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<(T, Found)> {
        let found = self.found(name).1?;
        match parse(&found.text) {
            Ok(value) => Some((value, found)),
            Err(wrong) => {
                self.refuse(&found, wrong);
                None
            }
        }
    }

    /// The set value and who said so, or the default.
    fn value<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> (T, Option<Found>) {
        if let Some((value, found)) = self.set(name, &parse) {
            return (value, Some(found));
        }
        match parse(self.found(name).0.default.shown()) {
            Ok(value) => (value, None),
            Err(wrong) => {
                unreachable!("the default of {name} {wrong}: `the_defaults_alone_make_a_configuration` fails")
            }
        }
    }

    /// Takes down why a value cannot be taken.
    pub(super) fn refuse(&mut self, found: &Found, wrong: Wrong) {
        let setting = found.shown(&wrong);
        self.problems.push(Problem::Value { setting, remedy: remedy(found.key, &wrong), wrong });
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        self.value(name, |text| Ok(text.to_owned())).0
    }

    /// A secret of the form that `parse` takes; whether one was set at all, and who said so.
    pub(super) fn secret(
        &mut self,
        name: &str,
        parse: fn(&str) -> Result<&str, Wrong>,
    ) -> (Option<super::Secret>, bool) {
        let set = self.found(name).1.is_some();
        let secret = self.set(name, |text| parse(text).map(super::Secret::new));
        (secret.map(|(secret, _)| secret), set)
    }

    /// Everybody who may call, and whether somebody set a token.
    pub(super) fn principals(&mut self) -> (Vec<PrincipalConfig>, bool) {
        let (token, token_set) = self.secret("INFLIGHTD_TOKEN", parse::token);
        principals::read(self.sections.get(principals::TABLE), token.as_ref(), token_set, &mut self.problems)
    }

    /// One's own providers.
    pub(super) fn own_providers(&mut self, classes: &Classes, ladder: &Ladder) -> Vec<ProviderConfig> {
        providers::own(self.sections.get(providers::TABLE), classes, ladder, &mut self.problems)
    }

    /// Other names for models.
    pub(super) fn aliases(&mut self) -> Vec<Alias> {
        aliases::read(self.sections.get(aliases::TABLE), &mut self.problems)
    }

    /// Who is asked where one of these providers fails.
    pub(super) fn fallbacks(&mut self, aliases: &[Alias]) -> Vec<Fallback> {
        let own = self.sections.get(providers::TABLE).and_then(toml::Value::as_table);
        let own: Vec<_> = own.into_iter().flat_map(toml::Table::keys).map(String::as_str).collect();
        fallbacks::read(self.sections.get(fallbacks::TABLE), aliases, &own, &mut self.problems)
    }

    /// What models cost.
    pub(super) fn prices(&mut self) -> Prices {
        money::read(self.sections.get(money::TABLE), &mut self.problems)
    }

    /// Every upstream server, and the environment of one that is a child.
    pub(super) fn servers(&mut self) -> (Vec<ServerConfig>, Vec<(String, String)>) {
        let file = self.file("MCP_SERVERS_FILE");
        let [_, (_, process), (_, dotenv), _] = &self.said;
        let mut variables = dotenv.clone();
        variables.extend(self.environment.clone());
        variables.extend(process.clone());
        let environment = servers::usual_environment(&self.environment);
        let mut reader = servers::Reader {
            variables: &variables,
            folder: &self.working_folder,
            problems: &mut self.problems,
            warnings: &mut self.warnings,
            servers: Vec::new(),
        };
        if let Some(value) = self.sections.get(servers::TABLE) {
            reader.toml(value);
        }
        if let Some(file) = file {
            reader.file(&file);
        }
        (reader.finish(), environment)
    }

    /// Local commands and their bounds.
    pub(super) fn modules(&mut self) -> ModulesConfig {
        let [_, (_, process), (_, dotenv), _] = &self.said;
        let mut variables = dotenv.clone();
        variables.extend(self.environment.clone());
        variables.extend(process.clone());
        let section = self.sections.get(modules::TABLE);
        let declared = modules::read(section, &variables, &self.working_folder, &mut self.problems);
        let dirs = self.value("MODULES_SCRIPT_DIRS", |text| Ok(parse::list(text))).0;
        let at_once = self.value("MODULES_MAX_CONCURRENT", |text| parse::count_or_auto(text, keys::MANY)).0;
        let gate = GateRules {
            cpu_percent: amount(self.count("MODULES_GATE_CPU_PERCENT").0),
            memory_gb: amount(self.count("MODULES_GATE_MEMORY_GB").0),
        };
        ModulesConfig {
            declared,
            script_dirs: dirs.iter().map(|dir| self.working_folder.join(dir)).collect(),
            max_concurrent: at_once.unwrap_or_else(twice_the_processors),
            output_bytes: self.count("MODULES_OUTPUT_BYTES").0,
            dry_run: self.choice("MODULES_DRY_RUN") == "on",
            gate: (self.choice("MODULES_GATE") == "on").then_some(gate),
            guard: std::env::current_exe().unwrap_or_else(|_| "inflightd".into()),
        }
    }

    /// The files that say what is offered, there or not.
    pub(super) fn files(&mut self) -> Vec<PathBuf> {
        let mut said = |name| {
            let (key, found) = self.found(name);
            let shown = Some(key.default.shown()).filter(|shown| !shown.is_empty()).map(str::to_owned);
            found.map(|found| found.text).or(shown)
        };
        let names = ["INFLIGHTD_CONFIG", "TOOLS_FILE", "MCP_SERVERS_FILE"].map(&mut said);
        names.into_iter().flatten().map(|name| self.working_folder.join(name)).collect()
    }

    /// The value, and whether somebody set it.
    pub(super) fn count(&mut self, name: &str) -> (usize, bool) {
        let most = most(self.found(name).0);
        let (count, found) = self.value(name, |text| parse::count(text, most));
        (count, found.is_some())
    }

    pub(super) fn optional_count(&mut self, name: &str) -> Option<usize> {
        let most = most(self.found(name).0);
        self.set(name, |text| parse::count(text, most)).map(|(count, _)| count)
    }

    pub(super) fn seconds(&mut self, name: &str) -> Duration {
        self.value(name, parse::seconds).0
    }

    pub(super) fn milliseconds(&mut self, name: &str) -> Duration {
        self.value(name, parse::milliseconds).0
    }

    pub(super) fn rung(&mut self, name: &str) -> Rung {
        let key = self.found(name).0;
        let (value, found) = self.value(name, parse::seconds);
        let usual = parse::seconds(key.default.shown()).unwrap_or(value);
        let set = found.map(|found| Set { value, origin: found.origin });
        Rung { key: key.name, usual, set }
    }

    /// The URL, and whether somebody set it.
    pub(super) fn url(&mut self, name: &str) -> (String, bool) {
        let (url, found) = self.value(name, parse::url);
        (url, found.is_some())
    }

    /// The URL that somebody set.
    pub(super) fn optional_url(&mut self, name: &str) -> Option<String> {
        self.set(name, parse::url).map(|(url, _)| url)
    }

    /// The address, and who set it, if anybody did.
    pub(super) fn address(&mut self, name: &str) -> (SocketAddr, Option<Found>) {
        self.value(name, parse::address)
    }

    pub(super) fn choice(&mut self, name: &str) -> &'static str {
        let Kind::Choice(words) = self.found(name).0.kind else {
            unreachable!("{name} is read as a choice: `the_defaults_alone_make_a_configuration` fails")
        };
        self.value(name, |text| parse::choice(text, words)).0
    }

    pub(super) fn origins(&mut self, name: &str) -> Vec<String> {
        self.value(name, parse::origins).0
    }

    /// A file that is there.
    pub(super) fn file(&mut self, name: &str) -> Option<PathBuf> {
        let folder = self.working_folder.clone();
        let path = |text: &str| folder.join(Path::new(text));
        let is_there = |text: &str| path(text).is_file().then(|| path(text)).ok_or(Wrong::NoFile);
        self.set(name, is_there).map(|(path, _)| path)
    }

    /// Folders, which need not be there.
    pub(super) fn folders(&mut self, name: &str) -> Vec<PathBuf> {
        let folder = self.working_folder.clone();
        self.value(name, |text| Ok(flows::list(text, &folder))).0
    }

    /// A path, which need not be there.
    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        let folder = self.working_folder.clone();
        self.set(name, |text| Ok(folder.join(text))).map(|(path, _)| path)
    }

    /// The raw text of a key, for what must be known before everything else.
    pub(super) fn raw(&mut self, name: &str) -> Option<String> {
        self.found(name).1.map(|found| found.text)
    }
}

impl Found {
    fn shown(&self, wrong: &Wrong) -> Shown {
        if self.key.kind == Kind::Secret || *wrong == Wrong::UrlTooMuch {
            Shown::without_value(self.key.name, self.origin)
        } else {
            Shown::with_value(self.key.name, &self.text, self.origin)
        }
    }
}

fn twice_the_processors() -> usize {
    2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn amount(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

fn most(key: &Key) -> usize {
    match key.kind {
        Kind::Count { most } | Kind::CountOrAuto { most } | Kind::Bytes { most } => most,
        Kind::Text
        | Kind::Secret
        | Kind::Seconds
        | Kind::Milliseconds
        | Kind::Address
        | Kind::Url
        | Kind::Choice(_)
        | Kind::Path
        | Kind::List => {
            unreachable!("{} is read as a count: `the_defaults_alone_make_a_configuration` fails", key.name)
        }
    }
}

/// A value that would do.
fn remedy(key: &Key, wrong: &Wrong) -> String {
    let name = key.name;
    match (wrong, key.default) {
        (Wrong::OpenToAll, _) => {
            format!("set INFLIGHTD_TOKEN to what `openssl rand -hex 32` prints, or {name}=127.0.0.1:8079")
        }
        (Wrong::ShortToken { .. }, _) => format!("set {name} to what `openssl rand -hex 32` prints"),
        (Wrong::NotSendable, _) => format!("set {name} to visible ASCII characters without spaces"),
        (Wrong::NotOrigin, _) => format!("{name}=https://app.example.com would do"),
        (Wrong::NoFile, _) => format!("name a file that is there, or leave {name} unset"),
        (Wrong::TooMany { most }, _) => format!("{name}={most} would do"),
        (_, Default::Value(usual) | Default::Follows(usual)) => format!("{name}={usual} would do"),
        (_, Default::Unset) => match key.kind {
            Kind::Count { .. } | Kind::Bytes { .. } | Kind::Seconds => {
                format!("{name}=2 would do, or leave it unset")
            }
            Kind::Text
            | Kind::Secret
            | Kind::Milliseconds
            | Kind::Address
            | Kind::Url
            | Kind::Choice(_)
            | Kind::Path
            | Kind::CountOrAuto { .. }
            | Kind::List => format!("leave {name} unset, or see docs/configuration.md"),
        },
    }
}
