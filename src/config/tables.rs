//! The sections of the TOML file that name things of one's own: `[providers.NAME]`, `[aliases]`, `[prices]`.

use super::keys::Kind;
use super::parse::Wrong;
use super::problem::{Origin, Problem, Shown};
use super::sources;

/// One member that a section takes.
pub(super) struct Member {
    pub(super) name: &'static str,
    /// A value that would do.
    pub(super) example: &'static str,
    pub(super) help: &'static str,
}

/// One table, read member by member; what is wrong is taken down.
pub(super) struct Table<'a> {
    path: String,
    members: &'a toml::Table,
    known: &'static [Member],
    problems: &'a mut Vec<Problem>,
}

/// The tables of a section, by name; what is no table is taken down.
pub(super) fn each<'a>(
    section: &str,
    said: Option<&'a toml::Value>,
    remedy: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(&'a str, &'a toml::Table)> {
    let mut not_a_table = |path: String, value: &toml::Value| {
        let setting = Shown::without_value(&path, Origin::Toml);
        let wrong = Wrong::TomlType { found: sources::kind_of(value) };
        problems.push(Problem::Value { setting, wrong, remedy: remedy.to_owned() });
    };
    match said {
        None => Vec::new(),
        Some(toml::Value::Table(tables)) => tables
            .iter()
            .filter_map(|(name, value)| match value {
                toml::Value::Table(members) => Some((name.as_str(), members)),
                other => {
                    not_a_table(format!("{section}.{}", shown(name)), other);
                    None
                }
            })
            .collect(),
        Some(other) => {
            not_a_table(section.to_owned(), other);
            Vec::new()
        }
    }
}

/// A name as a problem shows it.
pub(super) fn shown(name: &str) -> String {
    name.escape_debug().take(80).collect()
}

impl<'a> Table<'a> {
    /// A table at `path`; members that it does not take are taken down.
    pub(super) fn new(
        path: String,
        members: &'a toml::Table,
        known: &'static [Member],
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        for member in members.keys().filter(|name| !known.iter().any(|known| known.name == **name)) {
            let names: Vec<_> = known.iter().map(|known| known.name.to_owned()).collect();
            let mut problem = sources::unknown(member, Origin::Toml, &names);
            if let Problem::Unknown { name, .. } = &mut problem {
                *name = format!("{path}.{member}");
            }
            problems.push(problem);
        }
        Self { path, members, known, problems }
    }

    /// A member that is one text or number; `None` where it is not there, or cannot be taken.
    pub(super) fn get<T>(
        &mut self,
        member: &str,
        kind: Kind,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.members.get(member)?;
        let read = sources::text(value, kind).map_err(|found| Wrong::TomlType { found });
        match read.and_then(|text| parse(text.trim())) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.refuse(member, wrong);
                None
            }
        }
    }

    /// A member that must be there.
    pub(super) fn need<T>(
        &mut self,
        member: &str,
        kind: Kind,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.members.contains_key(member) {
            self.refuse(member, Wrong::Missing);
            return None;
        }
        self.get(member, kind, parse)
    }

    /// An array of strings, as they are.
    pub(super) fn strings(&mut self, member: &str) -> Option<Vec<String>> {
        let found = self.members.get(member)?;
        let strings = match found {
            toml::Value::Array(entries) => {
                entries.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        if strings.is_none() {
            self.refuse(member, Wrong::TomlType { found: sources::kind_of(found) });
        }
        strings
    }

    /// A switch.
    pub(super) fn switch(&mut self, member: &str) -> Option<bool> {
        match self.members.get(member)? {
            toml::Value::Boolean(on) => Some(*on),
            other => {
                self.refuse(member, Wrong::TomlType { found: sources::kind_of(other) });
                None
            }
        }
    }

    /// Takes down why a member cannot be taken, without its value: it may be a secret.
    pub(super) fn refuse(&mut self, member: &str, wrong: Wrong) {
        let example =
            self.known.iter().find(|known| known.name == member).map_or("…", |known| known.example);
        let setting = Shown::without_value(&format!("{}.{member}", self.path), Origin::Toml);
        self.problems.push(Problem::Value {
            setting,
            wrong,
            remedy: format!("{member} = {example} would do"),
        });
    }
}

/// Any text that is not empty.
pub(super) fn text(text: &str) -> Result<Box<str>, Wrong> {
    if text.is_empty() { Err(Wrong::Missing) } else { Ok(text.into()) }
}
