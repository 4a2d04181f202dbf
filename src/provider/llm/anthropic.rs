//! Anthropic's `/messages`.

use hyper::header::HeaderName;
use serde::Deserialize;

use crate::config::Secret;
use crate::provider::chat::{ChatRequest, ChatRole, Image, Message};
use crate::provider::llm::answer::{Answer, Nonsense};
use crate::provider::llm::json::{push_each, push_more, push_raw, push_some};
use crate::provider::push_json_string;

/// Behind the base URL.
pub(super) const PATH: &str = "/messages";

/// Which version of the API is spoken, in a header of its own.
pub(super) const VERSION_HEADER: HeaderName = HeaderName::from_static("anthropic-version");
/// See [`VERSION_HEADER`].
pub(super) const VERSION: &str = "2023-06-01";

/// The API wants a bound on every answer; this is the largest that every current model takes.
const MAX_TOKENS: &str = "8192";

/// Where the key goes.
pub(super) fn key_header(key: &Secret) -> (HeaderName, String) {
    (HeaderName::from_static("x-api-key"), key.reveal().to_owned())
}

/// The request.
pub(super) fn body(request: &ChatRequest, stream: bool) -> String {
    let room: usize = request.messages.iter().map(|message| message.bytes()).sum();
    let mut body = String::with_capacity(room + room / 16 + 256);
    body.push_str("{\"model\":");
    push_json_string(&mut body, &request.model);
    let is_system = |message: &&std::sync::Arc<Message>| message.role == ChatRole::System;
    let mut system = request.messages.iter().filter(is_system).peekable();
    if system.peek().is_some() {
        body.push_str(",\"system\":[");
        push_each(&mut body, system, |body, message| push_text(body, &message.text));
        body.push(']');
    }
    body.push_str(",\"messages\":[");
    let said = request.messages.iter().filter(|message| !is_system(message));
    push_each(&mut body, said, |body, message| push_message(body, message));
    body.push(']');
    let parameters = &request.parameters;
    if let Some(most) = parameters.max_tokens.as_deref() {
        push_raw(&mut body, "max_tokens", most);
    } else {
        body.push_str(",\"max_tokens\":");
        body.push_str(MAX_TOKENS);
    }
    push_some(&mut body, "temperature", parameters.temperature.as_deref());
    push_more(&mut body, parameters);
    if stream {
        body.push_str(",\"stream\":true");
    }
    body.push('}');
    body
}

fn push_text(body: &mut String, text: &str) {
    body.push_str("{\"type\":\"text\",\"text\":");
    push_json_string(body, text);
    body.push('}');
}

fn push_message(body: &mut String, message: &Message) {
    body.push_str("{\"role\":\"");
    body.push_str(message.role.label());
    body.push_str("\",\"content\":[");
    for image in &message.images {
        body.push_str("{\"type\":\"image\",\"source\":{\"type\":");
        match image {
            Image::Data { mime_type, data } => {
                body.push_str("\"base64\",\"media_type\":");
                push_json_string(body, mime_type);
                body.push_str(",\"data\":");
                push_json_string(body, data);
            }
            Image::Url(url) => {
                body.push_str("\"url\",\"url\":");
                push_json_string(body, url);
            }
        }
        body.push_str("}},");
    }
    push_text(body, &message.text);
    body.push_str("]}");
}

/// One event of a stream.
pub(super) fn event(data: &str, answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    let event: Event = serde_json::from_str(data).map_err(|_| Nonsense::Event)?;
    match &*event.kind {
        "message_start" => {
            if let Some(message) = event.message {
                answer.by(message.model);
                count(message.usage, answer);
            }
        }
        "content_block_delta" => {
            // What it thinks, and what it wants to call, is no text of the answer.
            let piece = event.delta.filter(|delta| delta.kind == "text_delta").and_then(|delta| delta.text);
            answer.push(&piece.unwrap_or_default());
        }
        "message_delta" => {
            answer.is_finished |= event.delta.is_some_and(|delta| delta.stop_reason.is_some());
            count(event.usage, answer);
        }
        "message_stop" => {
            answer.is_finished = true;
            answer.is_over = true;
        }
        "error" => return Err(Nonsense::Error),
        // New kinds of events are to be passed over.
        _ => {}
    }
    Ok(())
}

/// An answer that came whole.
pub(super) fn whole(body: &[u8], answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    let message: Whole = serde_json::from_slice(body).map_err(|_| Nonsense::Whole)?;
    answer.by(message.model);
    count(message.usage, answer);
    for block in message.content.into_iter().filter(|block| block.kind == "text") {
        answer.push(&block.text.unwrap_or_default());
    }
    Ok(())
}

/// What was read from the provider's cache, and what was put there, was sent as well.
fn count(usage: Option<Counted>, answer: &mut Answer<'_>) {
    let Some(usage) = usage else { return };
    let cached = [usage.cache_creation, usage.cache_read];
    let cached: u64 = cached.into_iter().flatten().fold(0, u64::saturating_add);
    let input = usage.input.map(|input| input.saturating_add(cached));
    answer.counted(input, usage.output);
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    message: Option<Start>,
    delta: Option<Delta>,
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct Start {
    model: Option<String>,
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default, rename = "type")]
    kind: String,
    text: Option<String>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Whole {
    model: Option<String>,
    content: Vec<Block>,
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "input_tokens")]
    input: Option<u64>,
    #[serde(rename = "output_tokens")]
    output: Option<u64>,
    #[serde(rename = "cache_creation_input_tokens")]
    cache_creation: Option<u64>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<u64>,
}
