//! What a chat node asks: its properties and inputs as the arguments of a child, and a judge's one message.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::provider::flow::format::Sampling;
use crate::provider::flow::graph::Node;

/// The inner tool that asks it.
pub const ASKS: &str = "execute_flow.chat";

const TEMPERATURE: f64 = 0.7;
const TOP_P: f64 = 1.0;

/// What a judge of candidates is told, before what the node says itself.
const JUDGE: &str = "You are given a request with its context, and candidate answers to it. Compare the candidates for \
    correctness, completeness and clarity, take the best parts of each, and give the one best answer to the request. \
    Answer with that alone: do not speak of the candidates.";

/// One chat call of a flow. What is absent has the default of its node's type, or is the provider's own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Question<'a> {
    /// The node's `type_`.
    pub kind: String,
    /// Whom.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base_url: Option<String>,
    /// As whom.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api_key: Option<String>,
    /// How to find the model.
    pub model_mode: String,
    /// Which model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// The sampling temperature.
    pub temperature: f64,
    /// The share of probability that is sampled from.
    pub top_p: f64,
    /// The instructions.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub system: Option<Cow<'a, str>>,
    /// The message.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
}

/// Why a node asks nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQuestion {
    /// A parameter that is none.
    #[error("`{0}` is not a number.")]
    NoNumber(&'static str),
}

impl<'a> Question<'a> {
    /// What a node asks with this text.
    ///
    /// # Errors
    /// Its properties make no sense.
    pub fn of(node: &Node, system: Option<&'a str>, text: &'a str) -> Result<Self, NoQuestion> {
        let custom = &node.custom;
        let number = |name, said, usual| match said {
            Sampling::Unset => Ok(usual),
            Sampling::Number(number) => Ok(number),
            Sampling::NoNumber => Err(NoQuestion::NoNumber(name)),
        };
        Ok(Self {
            kind: node.kind.type_().to_owned(),
            provider: custom.provider.clone(),
            base_url: custom.base_url.clone(),
            api_key: custom.api_key.as_ref().map(|key| key.reveal().to_owned()),
            model_mode: custom.model_mode.unwrap_or(node.kind.model_mode()).label().to_owned(),
            model: custom.model.clone(),
            temperature: number("temperature", custom.temperature, TEMPERATURE)?,
            top_p: number("top_p", custom.top_p, TOP_P)?,
            system: system.filter(|system| !system.trim().is_empty()).map(Cow::Borrowed),
            text: Cow::Borrowed(text),
        })
    }

    /// As the arguments of a call.
    pub fn arguments(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The JSON Schema of these arguments.
    pub fn schema() -> Map<String, Value> {
        let text = json!({"type": "string"});
        let schema = json!({
            "type": "object",
            "required": ["kind", "model_mode", "temperature", "top_p", "text"],
            "additionalProperties": false,
            "properties": {
                "kind": text, "provider": text, "base_url": text, "api_key": text, "model_mode": text, "model": text,
                "temperature": {"type": "number"}, "top_p": {"type": "number"}, "system": text, "text": text,
            },
        });
        schema.as_object().cloned().unwrap_or_default()
    }
}

/// The one message to a judge: what it is told, the context, then the candidates, numbered anew from 1. `None` where
/// there is nothing to judge, or nothing to judge it by.
pub fn judge(extra: Option<&str>, context: &str, candidates: &[Arc<str>]) -> Option<String> {
    let candidates: Vec<_> = candidates.iter().filter(|text| !text.trim().is_empty()).collect();
    if context.trim().is_empty() || candidates.is_empty() {
        return None;
    }
    let room: usize = candidates.iter().map(|text| text.len() + 32).sum();
    let mut message = String::with_capacity(JUDGE.len() + context.len() + room + 128);
    message.push_str(JUDGE);
    if let Some(extra) = extra {
        message.push_str("\n\n");
        message.push_str(extra);
    }
    // Writing to a String cannot fail.
    let _ = write!(message, "\n\n## Original context\n\n{context}");
    for (number, text) in (1..).zip(candidates) {
        let _: (u32, _) = (number, write!(message, "\n\n## Candidate {number}\n\n{text}"));
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_numbered_anew_and_gaps_are_fine() {
        let texts = ["", "two", " \n", "four"].map(Arc::from);
        let message = judge(Some("Be brief."), "the context", &texts).unwrap();
        let expected = "Be brief.\n\n## Original context\n\nthe context\n\n## Candidate 1\n\ntwo\n\n## Candidate 2\n\nfour";
        assert_eq!(message.strip_prefix(JUDGE).unwrap().trim_start(), expected);
        assert!(judge(None, "c", &[Arc::from("one")]).is_some(), "one is enough");
        assert_eq!(judge(None, " \n", &texts), None, "a blank context makes no call");
        assert_eq!(judge(None, "c", &[Arc::from(" ")]), None, "and so does no candidate");
    }
}
