//! Gemini's `generateContent`.

use std::fmt::Write as _;
use std::sync::Arc;

use hyper::header::HeaderName;
use serde::Deserialize;

use crate::config::Secret;
use crate::provider::chat::{ChatRequest, ChatRole, Image, Message, Parameters};
use crate::provider::llm::answer::{Answer, Nonsense};
use crate::provider::llm::json::{push_each, push_raw};
use crate::provider::push_json_string;

/// Where the key goes: never into the URL, which proxies and their logs see.
pub(super) fn key_header(key: &Secret) -> (HeaderName, String) {
    (HeaderName::from_static("x-goog-api-key"), key.reveal().to_owned())
}

/// Behind the base URL. `models/` and its like may stand in the model's name already.
pub(super) fn path(model: &str, stream: bool) -> String {
    let mut path = String::with_capacity(model.len() + 48);
    path.push_str(if model.contains('/') { "/" } else { "/models/" });
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path.push_str(if stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" });
    path
}

/// The request.
pub(super) fn body(request: &ChatRequest) -> String {
    let room: usize = request.messages.iter().map(|message| message.bytes()).sum();
    let mut body = String::with_capacity(room + room / 16 + 256);
    let is_system = |message: &&Arc<Message>| message.role == ChatRole::System;
    body.push_str("{\"contents\":[");
    let said = request.messages.iter().filter(|message| !is_system(message));
    push_each(&mut body, said, |body, message| push_message(body, message));
    body.push(']');
    let mut system = request.messages.iter().filter(is_system).peekable();
    if system.peek().is_some() {
        body.push_str(",\"systemInstruction\":{\"parts\":[");
        push_each(&mut body, system, |body, message| push_text(body, &message.text));
        body.push_str("]}");
    }
    push_generation(&mut body, &request.parameters);
    body.push('}');
    body
}

fn push_generation(body: &mut String, parameters: &Parameters) {
    let named = [("temperature", &parameters.temperature), ("maxOutputTokens", &parameters.max_tokens)];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let more = parameters.more.iter().map(|(name, value)| (name.as_str(), &**value));
    let mut set = String::new();
    for (name, value) in named.chain(more) {
        push_raw(&mut set, name, value);
    }
    if let Some(members) = set.strip_prefix(',') {
        body.push_str(",\"generationConfig\":{");
        body.push_str(members);
        body.push('}');
    }
}

fn push_text(body: &mut String, text: &str) {
    body.push_str("{\"text\":");
    push_json_string(body, text);
    body.push('}');
}

fn push_message(body: &mut String, message: &Message) {
    let role = if message.role == ChatRole::Assistant { "model" } else { "user" };
    body.push_str("{\"role\":\"");
    body.push_str(role);
    body.push_str("\",\"parts\":[");
    push_text(body, &message.text);
    for image in &message.images {
        match image {
            Image::Data { mime_type, data } => {
                body.push_str(",{\"inlineData\":{\"mimeType\":");
                push_json_string(body, mime_type);
                body.push_str(",\"data\":");
                push_json_string(body, data);
            }
            Image::Url(url) => {
                body.push_str(",{\"fileData\":{\"fileUri\":");
                push_json_string(body, url);
            }
        }
        body.push_str("}}");
    }
    body.push_str("]}");
}

/// One event of a stream.
pub(super) fn event(data: &str, answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    take(serde_json::from_str(data).map_err(|_| Nonsense::Event)?, answer)
}

/// An answer that came whole.
pub(super) fn whole(body: &[u8], answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    take(serde_json::from_slice(body).map_err(|_| Nonsense::Whole)?, answer)
}

fn take(chunk: Chunk, answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    if chunk.error.is_some() {
        return Err(Nonsense::Error);
    }
    answer.by(chunk.model_version);
    if let Some(usage) = chunk.usage_metadata {
        let completion = match (usage.candidates, usage.thoughts) {
            (None, None) => None,
            (said, thought) => Some(said.unwrap_or_default().saturating_add(thought.unwrap_or_default())),
        };
        answer.counted(usage.prompt, completion);
    }
    if chunk.candidates.is_empty()
        && chunk.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some())
    {
        return Err(Nonsense::Blocked);
    }
    if let Some(candidate) = chunk.candidates.into_iter().next() {
        answer.is_finished |= candidate.finish_reason.is_some();
        let parts = candidate.content.map(|content| content.parts).unwrap_or_default();
        for part in parts.into_iter().filter(|part| !part.thought) {
            answer.push(&part.text.unwrap_or_default());
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    model_version: Option<String>,
    #[serde(default)]
    candidates: Vec<Candidate>,
    usage_metadata: Option<Counted>,
    prompt_feedback: Option<Feedback>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "promptTokenCount")]
    prompt: Option<u64>,
    #[serde(rename = "candidatesTokenCount")]
    candidates: Option<u64>,
    #[serde(rename = "thoughtsTokenCount")]
    thoughts: Option<u64>,
}
