//! `consensus`: several models are asked the same question, and each answer is shown. Nobody judges them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value, json};

use crate::provider::submit::{Child, ChildFailed};
use crate::provider::{Context, Fault, Job, Reply, Step, Usage, content};

/// Its name, and that of its slots.
pub const NAME: &str = "consensus";

/// The tool that asks one model.
pub const ASKS: &str = "chat";

/// The most that are asked.
pub const MOST: usize = 10;

/// What a model chooses it by.
pub const DESCRIPTION: &str = "Ask several language models the same question at the same time and read each answer \
    under its own heading: for decisions that deserve more than one opinion. Nobody judges the answers; that is yours \
    to do. The same model may be named more than once. Send file contents in `files`: the daemon reads no file by itself.";

/// The JSON Schema of its arguments.
pub fn input_schema() -> Map<String, Value> {
    let text = |description: &str| json!({"type": "string", "minLength": 1, "description": description});
    let schema = json!({
        "type": "object",
        "required": ["prompt"],
        "additionalProperties": false,
        "properties": {
            "prompt": text("What to ask each of them."),
            "models": {
                "type": "array", "minItems": 1, "maxItems": MOST,
                "description": "Whom to ask; see listmodels. Every configured provider's default model when absent.",
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "provider": text("Which provider answers. The first configured one when absent."),
                        "model": text("Which model answers. The provider's default when absent."),
                    },
                },
            },
            "system": {"type": "string", "description": "Instructions for the models that hold for the whole answer."},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2,
                "description": "Sampling temperature; each provider's default when absent."},
            "files": {
                "type": "array", "maxItems": 100, "description": "Files to read along with the question.",
                "items": {
                    "type": "object",
                    "required": ["name", "text"],
                    "additionalProperties": false,
                    "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
                },
            },
        },
    });
    schema.as_object().cloned().unwrap_or_default()
}

/// One of those who are asked.
pub(super) struct Asked {
    /// Who answers.
    pub(super) provider: Arc<str>,
    /// With which model.
    pub(super) model: Arc<str>,
    /// The provider and model that the caller named: only these are handed on, so that the question is equal to one
    /// that somebody asks directly.
    pub(super) named: Value,
}

/// A question to several, ready to be asked.
pub(super) struct AskAll {
    asked: Vec<(Asked, Child)>,
}

impl AskAll {
    /// Makes ready to ask them what these arguments say, which fit the schema.
    pub(super) fn new(arguments: &Value, asked: Vec<Asked>) -> Self {
        let mut question = arguments.as_object().cloned().unwrap_or_default();
        question.remove("models");
        let mut children: Vec<(Asked, Child)> = Vec::with_capacity(asked.len());
        for each in asked {
            let mut its = question.clone();
            its.extend(each.named.as_object().cloned().unwrap_or_default());
            let its = Value::Object(its).to_string();
            let equal = children.iter().filter(|(_, child)| child.arguments == its).count();
            let ordinal = u32::try_from(equal).unwrap_or(u32::MAX);
            children.push((each, Child { tool: Arc::from(ASKS), arguments: its, ordinal }));
        }
        Self { asked: children }
    }
}

impl Job for AskAll {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let Some(children) = context.children else {
            unreachable!("the path gives every composite a way to call, and this is one")
        };
        let total = self.asked.len();
        let mut pending: FuturesUnordered<_> = self
            .asked
            .into_iter()
            .enumerate()
            .map(|(place, (asked, child))| {
                let end = children.submit(child);
                async move { (place, asked, end.await) }
            })
            .collect();
        async move {
            let (mut ends, mut failed) = (Vec::with_capacity(total), 0);
            while let Some(end) = pending.next().await {
                failed += usize::from(end.2.is_err());
                ends.push(end);
                let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
                let message = format!("{} of {total} answered{failures}", ends.len() - failed);
                let (progress, of) = (count(ends.len()), Some(count(total)));
                context.tell.step(Step { progress, total: of, message });
            }
            ends.sort_by_key(|(place, ..)| *place);
            Ok(put_together(ends.into_iter().map(|(_, asked, end)| (asked, end))))
        }
        .boxed()
    }
}

/// There are at most [`MOST`].
fn count(answers: usize) -> f64 {
    u32::try_from(answers).map_or(f64::MAX, f64::from)
}

/// Each answer under its heading, in the order in which they were asked for. It failed where all have; where some
/// have, it says so first.
fn put_together(ends: impl Iterator<Item = (Asked, Result<Arc<Reply>, ChildFailed>)>) -> Reply {
    let (mut shown, mut answers) = (String::new(), Vec::new());
    let (mut usage, mut answered) = (None, 0);
    for (asked, end) in ends {
        let reply = end.as_ref().ok();
        let provider = reply.and_then(|reply| reply.provider.clone()).unwrap_or(asked.provider);
        let model = reply.and_then(|reply| reply.model.clone()).unwrap_or(asked.model);
        let mut answer = json!({"provider": &*provider, "model": &*model});
        let (member, value, text) = match end {
            Ok(reply) => {
                answered += 1;
                usage = sum(usage, reply.usage);
                let text = content::text(reply.content());
                ("text", Value::from(&*text), text)
            }
            Err(failed) => {
                let text = format!("No answer: {}: {failed}", failed.code);
                ("error", json!({"code": failed.code, "message": failed.message}), text)
            }
        };
        if let Some(members) = answer.as_object_mut() {
            members.insert(member.into(), value);
        }
        answers.push(answer);
        let gap = if shown.is_empty() { "" } else { "\n\n" };
        for piece in [gap, "## ", &provider, ": ", &model, "\n\n", &text] {
            shown.push_str(piece);
        }
    }
    let asked = answers.len();
    let partial = 0 < answered && answered < asked;
    if partial {
        shown.insert_str(0, &format!("Partial: {answered} of {asked} answered.\n\n"));
    }
    let told = json!({"answers": answers, "asked": asked, "answered": answered, "partial": partial});
    let mut reply = Reply::text(&shown).with_structure(&told);
    (reply.is_error, reply.is_partial) = (answered == 0, partial);
    reply.usage = usage;
    reply
}

fn sum(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.plus(other)),
        (one, other) => one.or(other),
    }
}
