//! Where values come from: flags, process environment, `.env`, TOML. Reads the two files; nothing global.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::keys::{self, Kind};
use super::parse::Wrong;
use super::problem::{Origin, Problem, Shown, nearest};
use super::{aliases, fallbacks, modules, money, principals, providers, servers};

/// The sections of the TOML file that are no keys: each is read in a file of its own.
const SECTIONS: [&str; 7] = [
    principals::TABLE,
    providers::TABLE,
    aliases::TABLE,
    fallbacks::TABLE,
    money::TABLE,
    servers::TABLE,
    modules::TABLE,
];

/// Whether a name of the TOML file is a section's.
pub(super) fn is_section(name: &str) -> bool {
    SECTIONS.contains(&name)
}

/// Everything that was said, by where it was said; the names are those of [`keys`], in TOML in lower case.
///
/// Without `Debug`: there are secrets in it.
#[derive(Clone, Default)]
pub struct Sources {
    /// Flags of the command, by the name of their key.
    pub flags: BTreeMap<String, String>,
    /// The environment of the process.
    pub process: BTreeMap<String, String>,
    /// `.env`.
    pub dotenv: BTreeMap<String, String>,
    /// The TOML file.
    pub toml: toml::Table,
    /// All of that environment, ours or not: what upstream servers need of it is passed on to them.
    pub environment: BTreeMap<String, String>,
    /// From where files are named.
    pub working_folder: PathBuf,
}

/// Reads `.env` in this folder, and in no other. Where a name stands twice, its first line counts.
pub(super) fn dotenv(folder: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let path = folder.join(".env");
    let remedy = "make it readable, write it in UTF-8, or move it away";
    let Some(text) = read(&path, remedy, problems) else { return BTreeMap::new() };
    let mut text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    if !text.ends_with('\n') {
        // Without an end of line, dotenvy takes spaces at the very end for an open value.
        text.push('\n');
    }
    let line = Cell::new(0);
    let lines = LineByLine { rest: text.as_bytes(), line: &line };
    let mut found = BTreeMap::new();
    for entry in dotenvy::Iter::new(lines) {
        match entry {
            Ok((name, value)) => {
                found.entry(name).or_insert(value);
            }
            Err(dotenvy::Error::LineParse(bad, _)) => {
                // A value over several lines began above the line where reading stopped. One that is still open
                // at the end of the file comes with its last end of line.
                let above =
                    bad.trim_end_matches('\r').strip_suffix('\n').unwrap_or(&bad).matches('\n').count();
                let began = line.get().saturating_sub(above);
                problems.push(Problem::DotenvLine { path: path.clone(), line: began });
            }
            // Reading from memory does not fail; whatever else may come up is told without the text.
            Err(_) => problems.push(Problem::DotenvLine { path: path.clone(), line: line.get() }),
        }
    }
    found
}

/// Hands out one line a read, so that one knows which line a reader has come to.
struct LineByLine<'a> {
    rest: &'a [u8],
    line: &'a Cell<usize>,
}

impl Read for LineByLine<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |end| end + 1);
        let (line, after) = self.rest.split_at(end.min(buffer.len()));
        for (to, from) in buffer.iter_mut().zip(line) {
            *to = *from;
        }
        self.line.set(self.line.get() + usize::from(line.ends_with(b"\n")));
        self.rest = after;
        Ok(line.len())
    }
}

/// Reads the TOML file: the one that was asked for, or the default one if it is there.
pub(super) fn toml(asked: Option<&str>, folder: &Path, problems: &mut Vec<Problem>) -> toml::Table {
    let usual = keys::find("INFLIGHTD_CONFIG").map_or("", |key| key.default.shown());
    let path = folder.join(asked.unwrap_or(usual));
    let remedy = "name a file that is there with INFLIGHTD_CONFIG, or leave it unset";
    if asked.is_some() && !path.exists() {
        let cause = "it does not exist".to_owned();
        problems.push(Problem::File { path, cause, remedy: remedy.to_owned() });
        return toml::Table::new();
    }
    let Some(text) = read(&path, remedy, problems) else { return toml::Table::new() };
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().replace('\n', ", ");
        problems.push(Problem::Toml { path, line, message });
        toml::Table::new()
    })
}

/// The text of a file; `None` where there is none.
fn read(path: &Path, remedy: &str, problems: &mut Vec<Problem>) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let cause = error.to_string();
            problems.push(Problem::File { path: path.to_owned(), cause, remedy: remedy.to_owned() });
            None
        }
    }
}

/// What the TOML file says, by the names of the environment, with its own problems. Sections are read apart.
pub(super) fn flatten(table: &toml::Table) -> (BTreeMap<String, String>, Vec<Problem>) {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, value) in table.iter().filter(|(name, _)| !is_section(name)) {
        let key = keys::all().find(|key| key.name.to_ascii_lowercase() == *name);
        let Some(key) = key else {
            let names = keys::all().map(|key| key.name.to_ascii_lowercase());
            let names: Vec<_> = names.chain(SECTIONS.map(str::to_owned)).collect();
            problems.push(unknown(name, Origin::Toml, &names));
            continue;
        };
        let wrong = match text(value, key.kind) {
            Ok(_) if key.name == "INFLIGHTD_CONFIG" => Wrong::NamesItself,
            Ok(text) => {
                found.insert(key.name.to_owned(), text);
                continue;
            }
            Err(found) => Wrong::TomlType { found },
        };
        let setting = Shown::without_value(name, Origin::Toml);
        problems.push(Problem::Value { setting, remedy: toml_remedy(key, &wrong), wrong });
    }
    (found, problems)
}

fn toml_remedy(key: &keys::Key, wrong: &Wrong) -> String {
    let name = key.name.to_ascii_lowercase();
    if *wrong == Wrong::NamesItself {
        return format!("set {} in the environment", key.name);
    }
    match key.kind {
        Kind::List => format!("{name} = [\"https://app.example.com\"] would do"),
        Kind::Seconds | Kind::Milliseconds | Kind::Count { .. } | Kind::Bytes { .. } => {
            let shown = key.default.shown();
            format!("{name} = {} would do", if shown.is_empty() { "2" } else { shown })
        }
        Kind::Secret
        | Kind::Text
        | Kind::Address
        | Kind::Url
        | Kind::Choice(_)
        | Kind::Path
        | Kind::CountOrAuto { .. } => {
            let shown = key.default.shown();
            format!("{name} = \"{}\", in quotes, would do", if shown.is_empty() { "…" } else { shown })
        }
    }
}

/// The value as it would stand in the environment; else what it is.
pub(super) fn text(value: &toml::Value, kind: Kind) -> Result<String, &'static str> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        // Never with an exponent, and never without a point: a whole number is something else.
        toml::Value::Float(number) => {
            let text = number.to_string();
            Ok(if text.contains('.') { text } else { text + ".0" })
        }
        toml::Value::Array(entries) if kind == Kind::List => {
            let entries: Option<Vec<_>> = entries.iter().map(toml::Value::as_str).collect();
            entries.map(|entries| entries.join(",")).ok_or("an array of something else than strings")
        }
        toml::Value::Array(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Table(_) => Err(kind_of(value)),
    }
}

/// What a value is, in words.
pub(super) fn kind_of(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) | toml::Value::Float(_) => "a number",
        toml::Value::Array(_) => "an array",
        toml::Value::Boolean(_) => "a boolean",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Table(_) => "a table",
    }
}

/// A name that is no key, where that is an error.
pub(super) fn unknown(name: &str, origin: Origin, names: &[String]) -> Problem {
    let remedy = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("the nearest is {near}"),
        None => "docs/configuration.md lists them all".to_owned(),
    };
    Problem::Unknown { name: name.to_owned(), origin, remedy }
}

/// What to say of names under our prefix that are no keys. Orchestrators put some there: no error.
pub(super) fn strangers(names: &BTreeMap<String, String>, origin: Origin) -> impl Iterator<Item = String> {
    let known = |name: &str| {
        keys::find(name).is_some() || name == keys::CLIENT_URL || super::secret_files::is_one(name)
    };
    let ours = || {
        keys::all()
            .map(|key| key.name)
            .chain([keys::CLIENT_URL])
            .filter(|name| name.starts_with(keys::PREFIX))
    };
    names.keys().filter(move |name| name.starts_with(keys::PREFIX) && !known(name)).map(move |name| {
        let near = nearest(name, ours()).map(|near| format!("; the nearest is {near}")).unwrap_or_default();
        format!("{} (from {origin}): there is no such key, it is ignored{near}", name.escape_debug())
    })
}
