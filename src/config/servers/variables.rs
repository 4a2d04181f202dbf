//! `${NAME}`, `${NAME:-instead}` and `${env:NAME}` in texts, as clients write them.

use std::collections::BTreeMap;

/// What cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// There is no such variable.
    Unset(String),
    /// Something that only its client knows: `${workspaceFolder}`, `${input:key}`.
    OfTheClient(String),
}

/// The text with its variables filled in.
pub(super) fn fill(text: &str, variables: &BTreeMap<String, String>) -> Result<String, Unfilled> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        out.push_str(&value(inside, variables)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inside: &str, variables: &BTreeMap<String, String>) -> Result<String, Unfilled> {
    let (name, instead) = match inside.split_once(":-") {
        Some((name, instead)) => (name, Some(instead)),
        None => (inside, None),
    };
    let name = name.strip_prefix("env:").unwrap_or(name);
    let is_variable = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    // Names of clients' own variables are words in lower case.
    if !is_variable
        || matches!(name, "workspaceFolder" | "workspaceFolderBasename" | "userHome" | "pathSeparator")
    {
        return Err(Unfilled::OfTheClient(format!("${{{inside}}}")));
    }
    let set = variables.get(name).filter(|value| !value.is_empty() || instead.is_none());
    set.cloned().or(instead.map(str::to_owned)).ok_or_else(|| Unfilled::Unset(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_as_clients_write_them() {
        let variables =
            BTreeMap::from([("KEY", "k"), ("EMPTY", "")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        let fill = |text| fill(text, &variables);
        assert_eq!(fill("Bearer ${KEY}-${env:KEY}").as_deref(), Ok("Bearer k-k"));
        assert_eq!(fill("${NONE:-x}${EMPTY:-y}${EMPTY}").as_deref(), Ok("xy"));
        assert_eq!(fill("$KEY ${open").as_deref(), Ok("$KEY ${open"));
        assert_eq!(fill("${NONE}"), Err(Unfilled::Unset("NONE".to_owned())));
        assert_eq!(fill("${input:key}"), Err(Unfilled::OfTheClient("${input:key}".to_owned())));
        assert_eq!(fill("${workspaceFolder}"), Err(Unfilled::OfTheClient("${workspaceFolder}".to_owned())));
    }
}
