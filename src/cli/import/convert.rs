//! A client's entry → an entry of ours, its text kept.

use std::path::Path;

use serde_json::{Map, Value};

use super::document::{Change, Document, quoted};
use crate::config::servers;

/// What decides whether two entries are one server; the rest is how it is used.
const CORE: [&str; 6] = ["command", "args", "env", "cwd", "url", "headers"];
/// What a client does for a server and the daemon does not.
const CLIENTS_OWN: [&str; 4] = ["envFile", "headersHelper", "oauth", "auth"];

/// Why an entry stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stays {
    /// It starts our shim.
    #[error("is the daemon itself")]
    Ours,
    /// Nothing that could be started.
    #[error("is not an object")]
    NotObject,
    /// Something that only its client does.
    #[error("has `{0}`, which only its client understands")]
    OfTheClient(&'static str),
    /// The daemon would refuse to start with it.
    #[error("{0}")]
    Refused(String),
    /// It was asked for.
    #[error("is skipped, as you say")]
    Skipped,
}

/// An entry of ours.
#[derive(Debug, Clone)]
pub(super) struct Converted {
    /// Its JSON: the client's own text, comments and all.
    pub(super) text: String,
    core: Map<String, Value>,
}

impl Converted {
    /// Whether both start the same.
    pub(super) fn same(&self, other: &Value) -> bool {
        self.core == core(other)
    }
}

/// Converts an entry; `folder` is where its client runs it, if that is known.
pub(super) fn convert(name: &str, text: &str, folder: Option<&Path>) -> Result<Converted, Stays> {
    let refused = |error: &dyn std::fmt::Display| Stays::Refused(error.to_string());
    let document = Document::new(text);
    let object = document.object(&[]).map_err(|error| match error {
        super::document::DocumentError::NotObject(_) => Stays::NotObject,
        error => refused(&error),
    })?;
    let members = object.map(|object| object.members).unwrap_or_default();
    let has = |name: &str| members.iter().any(|member| member.name == name);
    if let Some(own) = CLIENTS_OWN.into_iter().find(|own| has(own)) {
        return Err(Stays::OfTheClient(own));
    }
    if is_ours(&parsed(text)) {
        return Err(Stays::Ours);
    }
    let mut text = text.to_owned();
    if let Some(url) = members.iter().find(|member| member.name == "serverUrl") {
        // As Windsurf calls it.
        let add = [("url", document.text(&url.value).to_owned())];
        let change = Change { remove: &["serverUrl"], add: &add };
        text = document.changed(&[], &change).map_err(|error| refused(&error))?;
    }
    // As Cursor and VS Code call it.
    text = text.replace("${userHome}", "${HOME}");
    if let Some(folder) = folder.and_then(Path::to_str).filter(|_| has("command") && !has("cwd")) {
        let add = [("cwd", quoted(folder))];
        let change = Change { remove: &[], add: &add };
        text = Document::new(&text).changed(&[], &change).map_err(|error| refused(&error))?;
    }
    let value = parsed(&text);
    let problems = servers::problems_of(name, &value);
    if let Some(problem) = problems.first() {
        return Err(Stays::Refused(problem.clone()));
    }
    Ok(Converted { text: outdented(&text), core: core(&value) })
}

fn parsed(text: &str) -> Value {
    let plain = crate::config::jsonc::plain(text);
    // It was read already.
    serde_json::from_str(plain.trim()).unwrap_or_default()
}

fn core(value: &Value) -> Map<String, Value> {
    let members = value.as_object().into_iter().flatten();
    let said = members.filter(|(name, value)| {
        let nothing = match value {
            Value::Null => true,
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        CORE.contains(&name.as_str()) && !nothing
    });
    said.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_ours(value: &Value) -> bool {
    let command = value.get("command").and_then(Value::as_str).unwrap_or_default();
    let file = command.rsplit(['/', '\\']).next().unwrap_or_default();
    let starts_shim = value.pointer("/args/0").and_then(Value::as_str) == Some("shim");
    starts_shim && matches!(file, "inflightd" | "inflightd.exe")
}

/// Its lines as they stand in a file of ours, four spaces in.
fn outdented(text: &str) -> String {
    let indentation = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let Some(least) = text.lines().skip(1).filter(|l| !l.trim().is_empty()).map(indentation).min() else {
        return text.to_owned();
    };
    let mut lines = text.lines();
    let mut out = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        out.push_str("\n    ");
        out.push_str(line.get(least..).unwrap_or_default());
    }
    out
}
