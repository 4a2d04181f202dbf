//! Secrets that stand in files of their own: `NAME_FILE` names the file with the value of `NAME`, as orchestrators mount
//! them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use super::keys::{self, Kind};
use super::parse::Wrong;
use super::problem::{Origin, Problem, Shown};

/// What follows a secret's name in the name of its file.
pub(super) const SUFFIX: &str = "_FILE";

/// More than any key or token: whoever names another file by mistake is told so.
const MOST_BYTES: u64 = 64 * 1024;

/// Why a secret's file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("read it")]
    Read(#[from] std::io::Error),
    /// Nothing stands in it.
    #[error("find anything in it: it is empty")]
    Empty,
    /// No secret is so long.
    #[error("take it for a secret: it has more than {MOST_BYTES} bytes")]
    TooLong,
}

/// The secret that a name with our suffix speaks of, if it does.
pub(super) fn is_one(name: &str) -> bool {
    let secret = name.strip_suffix(SUFFIX).and_then(keys::find);
    secret.is_some_and(|key| key.kind == Kind::Secret)
}

/// The text of a secret's file, without the white space around it.
///
/// # Errors
/// It cannot be read, is empty, or is too long for a secret.
pub fn read(path: &Path) -> Result<String, SecretFileError> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MOST_BYTES) {
        return Err(SecretFileError::TooLong);
    }
    let text = text.trim();
    if text.is_empty() { Err(SecretFileError::Empty) } else { Ok(text.to_owned()) }
}

/// Puts what stands in the files that are named in the place of their names.
pub(super) fn open(
    said: &mut BTreeMap<String, String>,
    origin: Origin,
    folder: &Path,
    problems: &mut Vec<Problem>,
) {
    for key in keys::all().filter(|key| key.kind == Kind::Secret) {
        let named = said.remove(&format!("{}{SUFFIX}", key.name));
        let Some(named) = named.filter(|named| !named.trim().is_empty()) else { continue };
        if said.get(key.name).is_some_and(|value| !value.trim().is_empty()) {
            let setting = Shown::without_value(&format!("{}{SUFFIX}", key.name), origin);
            let remedy = format!("leave one of the two out: {} is set as well", key.name);
            problems.push(Problem::Value { setting, wrong: Wrong::TwoSecrets, remedy });
            continue;
        }
        let path = folder.join(named.trim());
        match read(&path) {
            Ok(secret) => {
                said.insert(key.name.to_owned(), secret);
            }
            Err(error) => {
                let cause = match &error {
                    SecretFileError::Read(cause) => cause.to_string(),
                    SecretFileError::Empty | SecretFileError::TooLong => error.to_string(),
                };
                let remedy = format!("{}{SUFFIX} must name a file with the secret, or be unset", key.name);
                problems.push(Problem::File { path, cause, remedy });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(said: &[(&str, &str)], folder: &Path) -> (BTreeMap<String, String>, Vec<String>) {
        let said = said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (mut said, mut problems) = (said.collect(), Vec::new());
        open(&mut said, Origin::Process, folder, &mut problems);
        (said, problems.iter().map(ToString::to_string).collect())
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("inflightd-secret-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_secret_comes_from_its_file() {
        let folder = folder("read");
        std::fs::write(folder.join("key"), "  sk-1234\n").unwrap();
        let (said, problems) = opened(&[("KIMI_API_KEY_FILE", "key"), ("LOG_LEVEL", "warn")], &folder);
        assert_eq!((said["KIMI_API_KEY"].as_str(), said.len()), ("sk-1234", 2));
        assert!(problems.is_empty(), "{problems:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_no_secret_is_a_problem_with_its_name_and_not_its_text() {
        let folder = folder("wrong");
        std::fs::write(folder.join("empty"), "\n").unwrap();
        std::fs::write(folder.join("long"), "x".repeat(70_000)).unwrap();
        let said = [
            ("KIMI_API_KEY_FILE", "missing"),
            ("GLM_API_KEY_FILE", "empty"),
            ("OPENAI_API_KEY_FILE", "long"),
            ("INFLIGHTD_TOKEN_FILE", "long"),
            ("INFLIGHTD_TOKEN", "tttttttttttttttt"),
        ];
        let (said, problems) = opened(&said, &folder);
        assert_eq!(said.keys().collect::<Vec<_>>(), ["INFLIGHTD_TOKEN"]);
        let all = problems.join("\n");
        for part in [
            "KIMI_API_KEY_FILE must name",
            "it is empty",
            "more than 65536 bytes",
            "INFLIGHTD_TOKEN is set as well",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("xxx") && !all.contains("ttt"), "{all}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_secrets_have_files() {
        assert!(is_one("INFLIGHTD_TOKEN_FILE") && is_one("GLM_API_KEY_FILE"));
        assert!(!is_one("TOOLS_FILE") && !is_one("LOG_LEVEL_FILE") && !is_one("_FILE"));
    }
}
