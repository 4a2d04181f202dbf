//! The file of a flow: JSON as the editor saves it → [`Flow`], or everything that is wrong with it.
//!
//! Only what is needed is taken out; the rest is skipped without being built, so that a file never takes much more
//! memory than it is long, however deep it nests.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::provider::flow::graph::{Flow, Link, Node};
use crate::provider::flow::kind::{NodeKind, OUTPUT, Port};
use crate::provider::flow::problem::{End, Problem, Shown};

mod custom;
mod json;

pub use custom::{Custom, Sampling};
use json::{Array, Object, all_of, array, member, object, text};

/// The largest file that is read: a node takes under 1 KiB, so it holds more nodes than are run.
pub const MOST_BYTES: u64 = 16 << 20;
/// The most nodes that are run: far above what anybody draws.
pub const MOST_NODES: usize = 10_000;
/// The most connections.
pub const MOST_CONNECTIONS: usize = 100_000;

/// Reads a flow.
///
/// # Errors
/// Every problem there is.
pub fn parse(bytes: &[u8]) -> Result<Flow, Vec<Problem>> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(vec![Problem::NotUtf8]) };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let top: &RawValue = serde_json::from_str(text)
        .map_err(|error| vec![Problem::NotJson { line: error.line(), column: error.column() }])?;
    let Some(members) = object(top) else { return Err(vec![Problem::TopLevel]) };
    let mut problems = Vec::new();
    let read = nodes(member(&members, "nodes"), &mut problems);
    let links = connections(member(&members, "connections"), &read, &mut problems);
    let nodes: Option<Vec<Node>> = read.nodes.into_iter().collect();
    let Some(nodes) = nodes else {
        // A cycle is looked for only where every node is known: its problems come first.
        return Err(problems);
    };
    Flow::new(nodes, links, problems)
}

/// The nodes of a file: those that make no sense keep their id, so that connections to them are not called missing.
struct Nodes<'a> {
    nodes: Vec<Option<Node>>,
    places: HashMap<Cow<'a, str>, usize>,
}

fn nodes<'a>(value: Option<&'a RawValue>, problems: &mut Vec<Problem>) -> Nodes<'a> {
    let mut read = Nodes { nodes: Vec::new(), places: HashMap::new() };
    let Some(value) = value else {
        problems.push(Problem::NoNodes);
        return read;
    };
    let Some(Object(members, found)) = all_of(value) else {
        problems.push(Problem::NodesNoObject);
        return read;
    };
    match found {
        0 => problems.push(Problem::NoNodes),
        _ if found > MOST_NODES => {
            problems.push(Problem::TooMany { what: "nodes", found, limit: MOST_NODES });
            return read;
        }
        _ => {}
    }
    // As in every reader of JSON, the last one of a name counts.
    let last: HashMap<&str, usize> = members.iter().enumerate().map(|(at, (id, _))| (&**id, at)).collect();
    for (at, (id, value)) in members.iter().enumerate() {
        if last.get(&**id) == Some(&at) {
            read.places.insert(id.clone(), read.nodes.len());
            read.nodes.push(node(id, value, problems));
        }
    }
    read
}

fn node(id: &str, value: &RawValue, problems: &mut Vec<Problem>) -> Option<Node> {
    let shown = || Shown::new(id);
    let Some(members) = object(value) else {
        problems.push(Problem::NodeNoObject(shown()));
        return None;
    };
    let member = |name: &str| member(&members, name);
    let type_ = member("type_").and_then(text);
    let kind = type_.as_ref().and_then(|type_| NodeKind::parse(type_));
    match &type_ {
        None => problems.push(Problem::NoType(shown())),
        Some(type_) if kind.is_none() => {
            problems.push(Problem::UnknownType { node: shown(), type_: Shown::new(type_) });
        }
        Some(_) => {}
    }
    let custom = custom::read(member("custom"));
    if custom.is_none() {
        problems.push(Problem::CustomNoObject(shown()));
    }
    let (kind, custom) = (kind?, custom?);
    let name = member("name").and_then(text).unwrap_or_else(|| kind.short().into());
    let disabled = member("disabled").is_some_and(|value| value.get() == "true");
    Some(Node { id: Arc::from(id), name: Arc::from(&*name), kind, disabled, custom })
}

fn connections(value: Option<&RawValue>, nodes: &Nodes<'_>, problems: &mut Vec<Problem>) -> Vec<Link> {
    // Absent means empty.
    let Some(value) = value else { return Vec::new() };
    let Some(Array(items, found)) = array(value) else {
        problems.push(Problem::ConnectionsNoArray);
        return Vec::new();
    };
    if found > MOST_CONNECTIONS {
        problems.push(Problem::TooMany { what: "connections", found, limit: MOST_CONNECTIONS });
        return Vec::new();
    }
    let numbered = (1..).zip(items);
    numbered.filter_map(|(number, value)| connection(number, value, nodes, problems)).collect()
}

fn connection(
    number: usize,
    value: &RawValue,
    nodes: &Nodes<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Link> {
    let Some(members) = object(value) else {
        problems.push(Problem::ConnectionNoObject(number));
        return None;
    };
    let mut end = |end: End| {
        let pair = member(&members, end.label()).and_then(pair);
        if pair.is_none() {
            problems.push(Problem::NoPair { number, end });
        }
        pair
    };
    let (from, to) = (end(End::Out), end(End::In));
    let mut at = |end: End, pair: Option<(Cow<'_, str>, Cow<'_, str>)>| {
        let (node, port) = pair?;
        let Some(place) = nodes.places.get(&node) else {
            problems.push(Problem::MissingNode { number, node: Shown::new(&node) });
            return None;
        };
        // What is wrong with the node itself was said; its ports are not known.
        let kind = nodes.nodes.get(*place)?.as_ref()?.kind;
        let input = match end {
            End::Out => (kind.gives() && port == OUTPUT).then_some(Port::Text),
            End::In => Port::parse(&port).filter(|port| kind.takes(*port)),
        };
        if input.is_none() {
            let (node, port) = (Shown::new(&node), Shown::new(&port));
            problems.push(Problem::MissingPort { number, end, node, type_: kind.type_(), port });
        }
        Some((*place, input?))
    };
    let (from, to) = (at(End::Out, from), at(End::In, to));
    let ((from, _), (to, port)) = (from?, to?);
    Some(Link { from, to, port })
}

/// A node's id and a port's name.
fn pair(value: &RawValue) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let items = array(value)?.0;
    let [node, port] = items.as_slice() else { return None };
    Some((text(node)?, text(port)?))
}

#[cfg(test)]
mod tests;
