//! OpenAI's `/chat/completions`.

use hyper::header::{AUTHORIZATION, HeaderName};
use serde::Deserialize;

use crate::config::Secret;
use crate::provider::chat::{ChatRequest, Image, Message};
use crate::provider::llm::answer::{Answer, Nonsense};
use crate::provider::llm::json::{push_each, push_more, push_some};
use crate::provider::push_json_string;

/// Behind the base URL.
pub(super) const PATH: &str = "/chat/completions";

/// Where the key goes.
pub(super) fn key_header(key: &Secret) -> (HeaderName, String) {
    (AUTHORIZATION, format!("Bearer {}", key.reveal()))
}

/// The request.
pub(super) fn body(request: &ChatRequest, stream: bool, newer_max_tokens: bool) -> String {
    let room: usize = request.messages.iter().map(|message| message.bytes()).sum();
    let mut body = String::with_capacity(room + room / 16 + 256);
    body.push_str("{\"model\":");
    push_json_string(&mut body, &request.model);
    body.push_str(",\"messages\":[");
    push_each(&mut body, &request.messages, |body, message| push_message(body, message));
    body.push(']');
    let parameters = &request.parameters;
    push_some(&mut body, "temperature", parameters.temperature.as_deref());
    let max_tokens = if newer_max_tokens { "max_completion_tokens" } else { "max_tokens" };
    push_some(&mut body, max_tokens, parameters.max_tokens.as_deref());
    push_more(&mut body, parameters);
    if stream {
        body.push_str(",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    }
    body.push('}');
    body
}

fn push_message(body: &mut String, message: &Message) {
    body.push_str("{\"role\":\"");
    body.push_str(message.role.label());
    body.push_str("\",\"content\":");
    if message.images.is_empty() {
        push_json_string(body, &message.text);
    } else {
        body.push_str("[{\"type\":\"text\",\"text\":");
        push_json_string(body, &message.text);
        body.push_str("},");
        push_each(body, &message.images, |body, image| {
            body.push_str("{\"type\":\"image_url\",\"image_url\":{\"url\":");
            match image {
                Image::Data { mime_type, data } => {
                    push_json_string(body, &format!("data:{mime_type};base64,{data}"));
                }
                Image::Url(url) => push_json_string(body, url),
            }
            body.push_str("}}");
        });
        body.push(']');
    }
    body.push('}');
}

/// One event of a stream.
pub(super) fn event(data: &str, answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    if data.trim() == "[DONE]" {
        answer.is_over = true;
        return Ok(());
    }
    let chunk: Chunk = serde_json::from_str(data).map_err(|_| Nonsense::Event)?;
    if chunk.error.is_some() {
        return Err(Nonsense::Error);
    }
    take(chunk, answer);
    Ok(())
}

/// An answer that came whole.
pub(super) fn whole(body: &[u8], answer: &mut Answer<'_>) -> Result<(), Nonsense> {
    let chunk: Chunk = serde_json::from_slice(body).map_err(|_| Nonsense::Whole)?;
    if chunk.error.is_some() {
        return Err(Nonsense::Error);
    }
    take(chunk, answer);
    Ok(())
}

fn take(chunk: Chunk, answer: &mut Answer<'_>) {
    answer.by(chunk.model);
    if let Some(usage) = chunk.usage {
        answer.counted(usage.prompt_tokens, usage.completion_tokens);
    }
    // Nobody asks for more than one.
    if let Some(choice) = chunk.choices.into_iter().next() {
        answer.is_finished |= choice.finish_reason.is_some();
        if let Some(piece) = choice.delta.or(choice.message).and_then(|message| message.content) {
            answer.push(&piece);
        }
    }
}

#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Counted>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Content>,
    message: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}
