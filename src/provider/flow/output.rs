//! What a run comes to: its output by the rule, and everything that is told of it.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::ids::FlowId;
use crate::provider::flow::engine::{Artifact, End, Ended, Ran};
use crate::provider::flow::graph::{Flow, Node};
use crate::provider::flow::kind::NodeKind;
use crate::provider::flow::problem::Shown;
use crate::provider::{Fault, Reply};

/// Between the texts of several nodes.
const BETWEEN: &str = "\n\n";
/// Texts of artifacts are told up to this, all together: whoever needs more lets the flow write where it stays.
const TOLD_BYTES: usize = 1 << 20;
/// So many node errors stand in the text of a run without output; the rest is in its structure.
const TOLD_ERRORS: usize = 20;

/// What the caller gets.
///
/// # Errors
/// The output is larger than `limit`, which can be delivered.
pub fn reply(id: FlowId, flow: &Flow, ran: &Ran, tool: &Arc<str>, limit: usize) -> Result<Reply, Fault> {
    let Ok(output) = output(flow, ran, limit) else {
        return Err(Fault::TooLarge { provider: Arc::clone(tool), limit });
    };
    let nodes: Vec<_> = flow.nodes().iter().zip(&ran.nodes).map(|(node, ended)| told(node, ended)).collect();
    let structure = json!({
        "execution_id": id.to_string(),
        "output": output,
        "nodes": nodes,
        "artifacts": artifacts(&ran.artifacts),
    });
    let mut reply = Reply::text(output.as_deref().unwrap_or(&no_output(flow, ran)));
    reply = reply.with_structure(&structure);
    let has_failed = |ended: &Ended| matches!(ended.end, End::Failed(_));
    reply.is_error = output.is_none();
    reply.is_partial = output.is_some() && ran.nodes.iter().any(has_failed);
    Ok(reply)
}

struct TooLarge;

/// The texts of those that show one, in the order of the connections that bring them; else of those that write one; else of
/// those that keep one; else of those that nobody reads.
fn output(flow: &Flow, ran: &Ran, limit: usize) -> Result<Option<String>, TooLarge> {
    let text = |place: usize| {
        let text = ran.nodes.get(place)?.text.as_ref();
        text.filter(|text| !text.is_empty())
    };
    let is = |place: usize, kind| flow.nodes().get(place).is_some_and(|node| node.kind == kind);
    for kind in [NodeKind::OutputDisplay, NodeKind::FileWrite, NodeKind::Clipboard] {
        let mut seen = std::collections::HashSet::new();
        let targets = flow.links().iter().map(|link| link.to);
        let targets = targets.filter(|place| is(*place, kind) && seen.insert(*place));
        if let Some(joined) = join(targets.filter_map(text), limit)? {
            return Ok(Some(joined));
        }
    }
    let mut read = vec![false; flow.nodes().len()];
    for link in flow.links() {
        if let Some(read) = read.get_mut(link.from) {
            *read = true;
        }
    }
    let sinks = read.iter().enumerate().filter(|(_, read)| !**read).map(|(place, _)| place);
    join(sinks.filter_map(text), limit)
}

fn join<'a>(texts: impl Iterator<Item = &'a Arc<str>>, limit: usize) -> Result<Option<String>, TooLarge> {
    let mut joined: Option<String> = None;
    for text in texts {
        let so_far = joined.get_or_insert_default();
        if so_far.len() + text.len() > limit {
            return Err(TooLarge);
        }
        if !so_far.is_empty() {
            so_far.push_str(BETWEEN);
        }
        so_far.push_str(text);
    }
    Ok(joined)
}

fn told(node: &Node, ended: &Ended) -> Value {
    let error = match &ended.end {
        End::Failed(error) => Value::from(&**error),
        End::Succeeded | End::Skipped => Value::Null,
    };
    let millis = u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX);
    json!({
        "id": &*node.id,
        "name": &*node.name,
        "type": node.kind.type_(),
        "state": ended.end.label(),
        "duration_ms": millis,
        "error": error,
    })
}

/// The run's folder is gone, so its files are told with their text; those that stay are not.
fn artifacts(artifacts: &[Artifact]) -> Vec<Value> {
    let mut room = TOLD_BYTES;
    let told = artifacts.iter().map(|artifact| {
        let bytes = artifact.text.len();
        if artifact.stays || bytes > room {
            return json!({"name": artifact.name, "bytes": bytes});
        }
        room -= bytes;
        json!({"name": artifact.name, "bytes": bytes, "text": &*artifact.text})
    });
    told.collect()
}

fn no_output(flow: &Flow, ran: &Ran) -> String {
    let errors = flow.nodes().iter().zip(&ran.nodes).filter_map(|(node, ended)| match &ended.end {
        End::Failed(error) => Some(format!("Node '{}': {error}", Shown::new(&node.id))),
        End::Succeeded | End::Skipped => None,
    });
    let errors: Vec<_> = errors.collect();
    let mut text = "Error: Flow produced no output".to_owned();
    let shown: Vec<_> = errors.iter().take(TOLD_ERRORS).map(String::as_str).collect();
    if !shown.is_empty() {
        text.push_str(": ");
        text.push_str(&shown.join("; "));
    }
    if errors.len() > shown.len() {
        // Writing to a String cannot fail.
        let _ = write!(text, "; and {} more", errors.len() - shown.len());
    }
    text
}
