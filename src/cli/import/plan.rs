//! What an import would do: worked out before anything is written.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::convert::{self, Stays};
use super::document::{Change, Document, DocumentError, Object, quoted};
use super::places::{Client, Place};
use crate::config::{jsonc, servers};

/// A file of ours that is not there yet.
const EMPTY: &str = "{\n  \"mcpServers\": {}\n}\n";
/// The members of our file that servers may stand in.
const MEMBERS: [&str; 2] = ["mcpServers", "servers"];

/// Why nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// Our file cannot be read.
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// It is not what it should be.
    #[error("add servers to {}, which {error}", path.display())]
    Document { path: PathBuf, error: DocumentError },
    /// Its one server has bare names.
    #[error(
        "add servers to {}: its server `{name}` has prefix = false, which is for one server alone; leave prefix out",
        path.display()
    )]
    Bare { path: PathBuf, name: String },
}

/// What becomes of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is added to our file, under this name.
    Added(String),
    /// It is there already, under this name.
    There(String),
    /// It stays with its client alone.
    Stays(Stays),
}

/// What becomes of a client's file.
pub(super) struct Planned {
    pub(super) place: Place,
    /// Its entries.
    pub(super) entries: Vec<(String, Fate)>,
    /// Why it is left alone.
    pub(super) fault: Option<String>,
    pub(super) before: String,
    /// As it is rewritten; `None`: nothing of it moves.
    pub(super) after: Option<String>,
}

/// The whole.
pub(super) struct Plan {
    pub(super) files: Vec<Planned>,
    pub(super) output: PathBuf,
    pub(super) output_before: Option<String>,
    pub(super) output_after: String,
    pub(super) added: usize,
}

/// How clients start the shim.
pub(super) struct Shim {
    pub(super) command: String,
    /// Of its environment.
    pub(super) env: Vec<(&'static str, String)>,
}

/// Our file, as it grows.
struct Growing {
    path: PathBuf,
    text: String,
    member: &'static str,
    servers: Vec<(String, Value)>,
    added: usize,
}

/// Works out what an import does.
pub(super) fn plan(
    places: Vec<Place>,
    output: &Path,
    shim: &Shim,
    skip: &[String],
) -> Result<Plan, PlanError> {
    let before = match std::fs::read_to_string(output) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(PlanError::Read { path: output.to_owned(), error }),
    };
    let text = before.as_ref().filter(|text| !text.trim().is_empty()).map_or(EMPTY, String::as_str);
    let mut growing = Growing::read(output, text)?;
    let mut files = Vec::new();
    for place in places {
        files.push(planned(place, &mut growing, shim, skip)?);
    }
    let bare = growing.servers.iter().find(|(_, server)| server.get("prefix") == Some(&Value::Bool(false)));
    if let Some((name, _)) = bare.filter(|_| growing.added > 0 && growing.servers.len() > 1) {
        return Err(PlanError::Bare { path: output.to_owned(), name: name.clone() });
    }
    Ok(Plan {
        files,
        output: output.to_owned(),
        output_before: before,
        output_after: growing.text,
        added: growing.added,
    })
}

fn planned(place: Place, growing: &mut Growing, shim: &Shim, skip: &[String]) -> Result<Planned, PlanError> {
    let mut planned = Planned { place, entries: Vec::new(), fault: None, before: String::new(), after: None };
    match std::fs::read_to_string(&planned.place.path) {
        // Some clients make an empty file first.
        Ok(text) if text.trim().is_empty() => return Ok(planned),
        Ok(text) => planned.before = text,
        Err(error) => {
            planned.fault = Some(format!("cannot be read: {error}"));
            return Ok(planned);
        }
    }
    let groups = match groups(&planned.place, &planned.before) {
        Ok(groups) => groups,
        Err(error) => {
            planned.fault = Some(error.to_string());
            return Ok(planned);
        }
    };
    let document = Document::new(&planned.before);
    let mut moved = Vec::new();
    for group in groups {
        let mut names = Vec::new();
        for member in &group.object.members {
            let text = document.text(&member.value);
            let fate = fate(&planned.place, &member.name, text, &group, growing, skip)?;
            if !matches!(fate, Fate::Stays(_)) {
                names.push(member.name.clone());
            }
            let folder = group.folder.as_ref().filter(|_| planned.place.project.is_none());
            let shown = folder.map_or_else(
                || member.name.clone(),
                |folder| format!("{} (in {})", member.name, folder.display()),
            );
            planned.entries.push((shown, fate));
        }
        if !names.is_empty() {
            moved.push((group.path, names));
        }
    }
    if !moved.is_empty() {
        match rewritten(planned.place.client, &planned.before, &moved, shim) {
            Ok(text) => planned.after = Some(text),
            Err(error) => planned.fault = Some(error.to_string()),
        }
    }
    Ok(planned)
}

fn fate(
    place: &Place,
    name: &str,
    text: &str,
    group: &Group,
    growing: &mut Growing,
    skip: &[String],
) -> Result<Fate, PlanError> {
    if skip.iter().any(|skipped| skipped == name) {
        return Ok(Fate::Stays(Stays::Skipped));
    }
    let folder = group.folder.as_deref();
    match convert::convert(&servers::name_like(name), text, folder) {
        Ok(converted) => match growing.servers.iter().find(|(_, server)| converted.same(server)) {
            Some((there, _)) => Ok(Fate::There(there.clone())),
            None => growing.add(name, place.client, &converted.text).map(Fate::Added),
        },
        Err(stays) => Ok(Fate::Stays(stays)),
    }
}

/// Servers that stand together in a file.
struct Group {
    path: Vec<String>,
    object: Object,
    /// Where their client runs them.
    folder: Option<PathBuf>,
}

fn groups(place: &Place, text: &str) -> Result<Vec<Group>, DocumentError> {
    let document = Document::new(text);
    let member = place.client.member();
    let mut groups = Vec::new();
    let all = document.object(&[member])?;
    groups.extend(all.map(|object| Group {
        path: vec![member.to_owned()],
        object,
        folder: place.project.clone(),
    }));
    // Claude Code keeps what is for one project and one user alone in the user's file.
    let of_projects = place.client == Client::ClaudeCode && place.project.is_none();
    let projects = if of_projects { document.object(&["projects"])? } else { None };
    for project in projects.into_iter().flat_map(|projects| projects.members) {
        if let Some(object) = document.object(&["projects", &project.name, member])? {
            let path = vec!["projects".to_owned(), project.name.clone(), member.to_owned()];
            groups.push(Group { path, object, folder: Some(PathBuf::from(project.name)) });
        }
    }
    Ok(groups)
}

/// The client's file without what has moved, and with the shim.
fn rewritten(
    client: Client,
    before: &str,
    moved: &[(Vec<String>, Vec<String>)],
    shim: &Shim,
) -> Result<String, DocumentError> {
    let mut text = before.to_owned();
    for (path, names) in moved {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        text = Document::new(&text).changed(&path, &Change { remove: &names, add: &[] })?;
    }
    let document = Document::new(&text);
    let home = [client.member()];
    let members = document.object(&home)?.map(|object| object.members).unwrap_or_default();
    let is_shim = |text: &str| convert::convert("shim", text, None).err() == Some(Stays::Ours);
    if members.iter().any(|member| is_shim(document.text(&member.value))) {
        return Ok(text);
    }
    let free = |name: &String| members.iter().all(|member| member.name != *name);
    let names = std::iter::once("inflightd".to_owned()).chain((2..).map(|n| format!("inflightd-{n}")));
    let name = names.into_iter().find(free).unwrap_or_default();
    document.changed(&home, &Change { remove: &[], add: &[(&name, shim.entry(client))] })
}

impl Shim {
    fn entry(&self, client: Client) -> String {
        let kind = if client.wants_type() { "\"type\": \"stdio\", " } else { "" };
        let env: Vec<_> =
            self.env.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value))).collect();
        let env = if env.is_empty() { String::new() } else { format!(", \"env\": {{{}}}", env.join(", ")) };
        format!("{{{kind}\"command\": {}, \"args\": [\"shim\"]{env}}}", quoted(&self.command))
    }
}

impl Growing {
    fn read(path: &Path, text: &str) -> Result<Self, PlanError> {
        let wrong = |error| PlanError::Document { path: path.to_owned(), error };
        let document = Document::new(text);
        let mut found = None;
        for member in MEMBERS {
            if found.is_none() {
                found = document.object(&[member]).map_err(wrong)?.map(|object| (member, object));
            }
        }
        let (member, object) = found.map_or(("mcpServers", None), |(member, object)| (member, Some(object)));
        let members = object.map(|object| object.members).unwrap_or_default();
        let value = |member: &super::document::Member| {
            serde_json::from_str(document.plain(&member.value)).unwrap_or_default()
        };
        let servers = members.iter().map(|member| (member.name.clone(), value(member))).collect();
        Ok(Self { path: path.to_owned(), text: text.to_owned(), member, servers, added: 0 })
    }

    /// Adds a server under a free name near its own, and returns that.
    fn add(&mut self, name: &str, client: Client, text: &str) -> Result<String, PlanError> {
        let base = servers::name_like(name);
        let with = |suffix: &str| {
            let room = servers::NAME_CHARS.saturating_sub(suffix.len() + 1);
            format!("{}-{suffix}", base.chars().take(room).collect::<String>())
        };
        let free = |name: &String| self.servers.iter().all(|(taken, _)| taken != name);
        let names = [base.clone(), with(client.suffix())].into_iter();
        let numbered = (2..).map(|number: u32| with(&number.to_string()));
        let name = names.chain(numbered).find(free).unwrap_or_default();
        let add = [(&*name, text.to_owned())];
        let changed = Document::new(&self.text).changed(&[self.member], &Change { remove: &[], add: &add });
        self.text = changed.map_err(|error| PlanError::Document { path: self.path.clone(), error })?;
        let value = serde_json::from_str(jsonc::plain(text).trim()).unwrap_or_default();
        self.servers.push((name.clone(), value));
        self.added += 1;
        Ok(name)
    }
}
