//! The one place that reads the process environment.

use std::collections::BTreeMap;

use super::keys;
use super::parse::Wrong;
use super::problem::{Origin, Problem, Shown};
use super::secret_files;

/// The value of a variable of this process; empty counts as unset, and so does what is not UTF-8.
///
/// For the shim and the client commands, which read no file, and for tests.
#[expect(clippy::disallowed_methods, reason = "this is the file that wraps it")]
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The variables of this process that could be meant for the daemon: our keys, and names with our prefix.
/// Everything else stays unread.
pub(super) fn process() -> (BTreeMap<String, String>, Vec<Problem>) {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        let is_ours = keys::find(&name).is_some() || secret_files::is_one(&name);
        if !is_ours && !name.starts_with(keys::PREFIX) {
            continue;
        }
        if let Ok(value) = value.into_string() {
            found.insert(name, value);
        } else {
            let setting = Shown::without_value(&name, Origin::Process);
            let remedy = format!("unset it, or write it in UTF-8: {}", example(&name));
            problems.push(Problem::Value { setting, wrong: Wrong::NotUtf8, remedy });
        }
    }
    (found, problems)
}

/// All variables of this process that are UTF-8, for what upstream servers get of them.
pub(super) fn whole() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

fn example(name: &str) -> String {
    let shown = keys::find(name).map_or("", |key| key.default.shown());
    format!("{name}={shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_there_is_none() {
        assert_eq!(get("INFLIGHTD_THAT_NOBODY_SETS"), None);
    }

    #[test]
    fn other_peoples_variables_stay_unread() {
        let (found, _) = process();
        let is_ours = |name: &str| keys::find(name).is_some() || secret_files::is_one(name);
        assert!(found.keys().all(|name| is_ours(name) || name.starts_with(keys::PREFIX)));
    }
}
