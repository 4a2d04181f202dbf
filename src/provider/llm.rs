//! Models behind an OpenAI-compatible `/chat/completions`: pooled connections, streamed answers, cancelled by
//! dropping the call.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::config::ProviderConfig;
use crate::provider::chat::{ChatProvider, ChatRequest};
use crate::provider::sse::Events;
use crate::provider::{Context, Fault, Reply, Usage};

/// Idle connections kept for each provider: more than its permits would never be used.
const IDLE_CONNECTIONS: usize = 5;

/// Why a provider could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The key holds characters that no HTTP header can carry.
    #[error("the key of {0} holds characters that no HTTP header can carry")]
    Key(&'static str),
    /// The HTTP client.
    #[error("cannot set up the HTTP client of {0}")]
    Client(&'static str, #[source] reqwest::Error),
}

/// One OpenAI-compatible provider.
#[derive(Debug, Clone)]
pub struct OpenAi {
    name: Arc<str>,
    url: Arc<str>,
    client: Client,
}

impl OpenAi {
    /// Sets up the provider's connection pool; nothing is connected yet.
    pub fn new(config: &ProviderConfig, connect: Duration) -> Result<Self, SetupError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", config.api_key.reveal()))
            .map_err(|_| SetupError::Key(config.name))?;
        bearer.set_sensitive(true);
        let client = Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            .user_agent(concat!("inflightd/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .connect_timeout(connect)
            // A redirect would carry the prompt, perhaps the key, to somebody the operator did not name.
            .redirect(reqwest::redirect::Policy::none())
            // Retries are decided on the path of the call, where effect and budget are known.
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| SetupError::Client(config.name, error))?;
        let url = format!("{}/chat/completions", config.base_url);
        Ok(Self { name: Arc::from(config.name), url: Arc::from(url), client })
    }

    async fn ask(self, request: ChatRequest, context: Context) -> Result<Reply, Fault> {
        let wire = WireRequest {
            model: &request.model,
            messages: request
                .messages
                .iter()
                .map(|(role, content)| WireMessage { role: role.label(), content })
                .collect(),
            temperature: request.temperature.as_ref(),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        };
        let sent = self.client.post(&*self.url).json(&wire).send().await;
        let response = sent.map_err(|error| self.send_fault(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, &context).await);
        }
        let answer = if is_event_stream(&response) {
            self.read_stream(response, &context).await?
        } else {
            self.read_whole(response, &context).await?
        };
        let model = answer.model.map_or(request.model, Arc::from);
        Ok(Reply::text(&answer.text).answered_by(model, answer.usage))
    }

    async fn read_stream(&self, response: Response, context: &Context) -> Result<Answer, Fault> {
        let mut answer = Answer::default();
        let mut events = Events::new(response.bytes_stream(), Self::raw_limit(context));
        let mut finished = false;
        while let Some(event) = events.next().await {
            let data = event.map_err(|reason| self.broken(reason))?;
            if data.trim() == "[DONE]" {
                return Ok(answer);
            }
            let chunk: WireChunk =
                serde_json::from_str(&data).map_err(|_| self.broken("an event is not JSON"))?;
            finished |= answer.take(chunk, context);
            if answer.text.len() > context.max_reply_bytes {
                return Err(self.too_large(context));
            }
        }
        // Some servers close without `[DONE]`; a stream that never finished its choice was cut.
        if finished { Ok(answer) } else { Err(self.broken("the stream ended early")) }
    }

    async fn read_whole(&self, response: Response, context: &Context) -> Result<Answer, Fault> {
        let limit = Self::raw_limit(context);
        let body = read_limited(response.bytes_stream(), limit).await;
        let body = body.map_err(|end| match end {
            BodyEnd::TooLarge => self.too_large(context),
            BodyEnd::Broken => self.broken("the body was cut"),
        })?;
        let chunk: WireChunk =
            serde_json::from_slice(&body).map_err(|_| self.broken("the answer is not JSON"))?;
        let mut answer = Answer::default();
        answer.take(chunk, context);
        if answer.text.len() > context.max_reply_bytes { Err(self.too_large(context)) } else { Ok(answer) }
    }

    /// A token of text comes in some 250 bytes of event, so the raw bound lies above the reply's.
    fn raw_limit(context: &Context) -> usize {
        context.max_reply_bytes.saturating_mul(8)
    }

    fn broken(&self, reason: &'static str) -> Fault {
        Fault::Broken { provider: Arc::clone(&self.name), reason }
    }

    fn too_large(&self, context: &Context) -> Fault {
        Fault::TooLarge { provider: Arc::clone(&self.name), limit: context.max_reply_bytes }
    }

    fn send_fault(&self, error: &reqwest::Error) -> Fault {
        if error.is_connect() {
            let reason = if error.is_timeout() { "connecting took too long" } else { "no connection" };
            return Fault::Unreachable { provider: Arc::clone(&self.name), reason };
        }
        self.broken("no answer to the request")
    }

    async fn refusal(&self, response: Response, context: &Context) -> Fault {
        /// Enough for any error object; the rest of an endless one is not waited for.
        const ERROR_BODY_BYTES: usize = 64 * 1024;
        let status = response.status();
        let retry_after = retry_after(&response);
        let limit = ERROR_BODY_BYTES.min(context.max_reply_bytes);
        let body = read_limited(response.bytes_stream(), limit).await.unwrap_or_default();
        let code = serde_json::from_slice::<WireError>(&body).ok().and_then(|error| error.error.short_code());
        Fault::Refused {
            provider: Arc::clone(&self.name),
            status: StatusCode::as_u16(&status),
            code,
            retry_after,
        }
    }
}

impl ChatProvider for OpenAi {
    fn chat(&self, request: ChatRequest, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        self.clone().ask(request, context).boxed()
    }
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// `Retry-After` in seconds; the date form is not used by model providers.
fn retry_after(response: &Response) -> Option<Duration> {
    /// Longer than this, a caller had better ask somebody else.
    const LONGEST: Duration = Duration::from_secs(3600);
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

enum BodyEnd {
    TooLarge,
    Broken,
}

async fn read_limited<B: AsRef<[u8]>, E>(
    stream: impl Stream<Item = Result<B, E>>,
    limit: usize,
) -> Result<Vec<u8>, BodyEnd> {
    let mut stream = std::pin::pin!(stream);
    let mut body = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| BodyEnd::Broken)?;
        if body.len() + piece.as_ref().len() > limit {
            return Err(BodyEnd::TooLarge);
        }
        body.extend_from_slice(piece.as_ref());
    }
    Ok(body)
}

#[derive(Default)]
struct Answer {
    text: String,
    model: Option<String>,
    usage: Option<Usage>,
}

impl Answer {
    /// Takes what one chunk brings, and says whether it finished the answer.
    fn take(&mut self, chunk: WireChunk, context: &Context) -> bool {
        if self.model.is_none() {
            self.model = chunk.model;
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(Usage {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
            });
        }
        let mut finished = false;
        for choice in chunk.choices.into_iter().take(1) {
            finished = choice.finish_reason.is_some();
            if let Some(piece) = choice.delta.or(choice.message).and_then(|message| message.content) {
                context.tell.text(&piece);
                self.text.push_str(&piece);
            }
        }
        finished
    }
}

#[derive(Serialize)]
struct WireRequest<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a serde_json::Number>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Deserialize)]
struct WireChunk {
    model: Option<String>,
    #[serde(default)]
    choices: Vec<WireChoice>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireChoice {
    delta: Option<WireContent>,
    message: Option<WireContent>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireContent {
    content: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct WireError {
    error: WireErrorBody,
}

#[derive(Deserialize)]
struct WireErrorBody {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default, rename = "type")]
    kind: serde_json::Value,
}

impl WireErrorBody {
    /// The error's machine-readable name, and only if it has the form of one: free text may quote the prompt.
    fn short_code(&self) -> Option<String> {
        let is_name = |name: &&str| {
            !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
                })
        };
        [&self.code, &self.kind]
            .into_iter()
            .filter_map(serde_json::Value::as_str)
            .find(is_name)
            .map(String::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_kept_of_a_providers_error() {
        let code = |json: &str| serde_json::from_str::<WireError>(json).unwrap().error.short_code();
        assert_eq!(
            code(r#"{"error":{"code":"context_length_exceeded","message":"my prompt"}}"#).as_deref(),
            Some("context_length_exceeded")
        );
        assert_eq!(code(r#"{"error":{"code":1301,"type":"rate_limit"}}"#).as_deref(), Some("rate_limit"));
        assert_eq!(code(r#"{"error":{"code":"You said: my prompt"}}"#), None);
    }
}
