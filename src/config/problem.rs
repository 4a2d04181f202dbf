//! What can be wrong with a configuration, each problem in one line: key, origin, what, and what would do.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::ladder::Violation;
use super::parse::Wrong;

/// The longest value that a problem shows; longer ones are cut.
const SHOWN_CHARS: usize = 80;

/// Where a value came from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command.
    Flag,
    /// The environment of the process.
    Process,
    /// The file `.env` in the working folder.
    Dotenv,
    /// The TOML file.
    Toml,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "the command line",
            Self::Process => "the environment",
            Self::Dotenv => ".env",
            Self::Toml => "the TOML file",
        })
    }
}

/// A setting as a problem names it: on one line, and without the value where that must not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    key: String,
    value: Option<String>,
    origin: Origin,
}

impl Shown {
    /// A setting with its value.
    pub fn with_value(key: &str, value: &str, origin: Origin) -> Self {
        let mut shown: String = value.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
        if value.chars().nth(SHOWN_CHARS).is_some() {
            shown.push('…');
        }
        Self { key: key.to_owned(), value: Some(shown), origin }
    }

    /// A setting whose value stays hidden.
    pub fn without_value(key: &str, origin: Origin) -> Self {
        Self { key: key.to_owned(), value: None, origin }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value} (from {})", self.key, self.origin),
            None => write!(f, "{} (from {})", self.key, self.origin),
        }
    }
}

/// One thing that keeps the daemon from starting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A value that cannot be taken.
    #[error("{setting}: {wrong}; {remedy}")]
    Value {
        /// Which one.
        setting: Shown,
        /// Why.
        wrong: Wrong,
        /// What would do.
        remedy: String,
    },
    /// A name in the TOML file, or of a flag, that is no key.
    #[error("{} (from {origin}): there is no such key; {remedy}", name.escape_debug())]
    Unknown {
        /// As it is written.
        name: String,
        /// Where.
        origin: Origin,
        /// The nearest right one.
        remedy: String,
    },
    /// Timeouts that do not hold together.
    #[error(transparent)]
    Ladder(#[from] Violation),
    /// A file that is there, or was asked for, and cannot be read.
    #[error("{}: cannot be read: {cause}; {remedy}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: String,
        /// What would do.
        remedy: String,
    },
    /// A line of `.env` that is none. Its text is not shown: it may hold a secret.
    #[error("{} line {line}: is not NAME=value; put quotes around a value with spaces, or # before a comment", path.display())]
    DotenvLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Something of an upstream server.
    #[error("{place}: {what}; {remedy}")]
    Server {
        /// File or table, server and member.
        place: String,
        /// Why it cannot be taken.
        what: String,
        /// What would do.
        remedy: String,
    },
    /// A TOML file that is none.
    #[error("{} line {line}: {message}; kimi_timeout_secs = 60 is what a line looks like", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said, without the text of the line.
        message: String,
    },
}

/// Every problem of a configuration, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(.0))]
pub struct Problems(pub Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The nearest of `names` to a name that is none of them, whatever the case; `None` where none is near.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    names
        .map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(steps, _)| steps * 2 <= name.chars().count())
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    if right.is_empty() {
        return left.chars().count();
    }
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, a) in left.chars().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            before = replaced.min(diagonal + 1).min(before + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (left, right, steps) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(left, right), steps, "{left} {right}");
        }
    }

    #[test]
    fn a_name_far_from_all_has_no_nearest() {
        assert_eq!(nearest("kimi", ["KIMI_TIMEOUT_SECS"].into_iter()), None);
        assert_eq!(
            nearest("kimi_timeout_sec", ["GLM_TIMEOUT_SECS", "KIMI_TIMEOUT_SECS"].into_iter()),
            Some("KIMI_TIMEOUT_SECS")
        );
    }

    #[test]
    fn a_value_stays_on_one_line_and_is_cut() {
        let shown =
            Shown::with_value("LOG_LEVEL", &format!("a\n{}", "b".repeat(100)), Origin::Process).to_string();
        assert!(shown.starts_with("LOG_LEVEL=a\\nbbb"), "{shown}");
        assert!(shown.ends_with("b… (from the environment)"), "{shown}");
    }
}
