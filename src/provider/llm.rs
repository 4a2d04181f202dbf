//! Models behind an HTTP API: pooled connections, streamed answers, cancelled by dropping the call. What differs
//! between the APIs is one file each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode, Uri};

use crate::config::{ProviderConfig, Wire};
use crate::deadline::Deadline;
use crate::provider::chat::{ChatProvider, ChatRequest};
use crate::provider::pool::{Body, Gauges, NoAnswer, Pool, PoolRules, TlsError};
use crate::provider::retry;
use crate::provider::sse::{Cut, Events};
use crate::provider::{Context, Fault, Reply};

mod answer;
mod anthropic;
mod gemini;
mod json;
mod models;
mod openai;

use answer::{Answer, Nonsense};

/// How long the end of a stream is waited for once its last event has come.
const END_OF_STREAM: Duration = Duration::from_millis(20);

/// Why a provider could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The key holds characters that no HTTP header can carry.
    #[error("the key of {0} holds characters that no HTTP header can carry")]
    Key(Box<str>),
    /// The connections.
    #[error("set up the connections to {0}")]
    Pool(Box<str>, #[source] TlsError),
}

/// One provider behind an HTTP API.
#[derive(Clone)]
pub struct Llm {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    wire: Wire,
    base_url: Box<str>,
    headers: HeaderMap,
    stream: bool,
    newer_max_tokens: bool,
    pool: Pool,
}

impl Llm {
    /// Sets the provider's connection pool up; nothing is connected yet.
    pub fn new(config: &ProviderConfig, rules: PoolRules) -> Result<Self, SetupError> {
        let name = &config.name;
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.api_key {
            let (header, value) = match config.wire {
                Wire::OpenAi => openai::key_header(key),
                Wire::Anthropic => anthropic::key_header(key),
                Wire::Gemini => gemini::key_header(key),
            };
            let mut value = HeaderValue::try_from(value).map_err(|_| SetupError::Key(name.clone()))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        if config.wire == Wire::Anthropic {
            headers.insert(anthropic::VERSION_HEADER, HeaderValue::from_static(anthropic::VERSION));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        let agent = concat!("inflightd/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let pool =
            Pool::new(&config.base_url, rules).map_err(|error| SetupError::Pool(name.clone(), error))?;
        let shared = Shared {
            name: Arc::from(&**name),
            wire: config.wire,
            base_url: config.base_url.as_str().into(),
            headers,
            stream: config.stream,
            newer_max_tokens: config.newer_max_tokens,
            pool,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What its connections are doing.
    pub fn gauges(&self) -> Arc<Gauges> {
        self.shared.pool.gauges()
    }
}

impl ChatProvider for Llm {
    fn chat(&self, request: ChatRequest, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let shared = Arc::clone(&self.shared);
        async move { shared.ask(request, &context).await }.boxed()
    }

    fn models(&self, context: &Context) -> BoxFuture<'static, Result<Vec<String>, Fault>> {
        let (shared, context) = (Arc::clone(&self.shared), context.clone());
        async move { shared.models(&context).await }.boxed()
    }
}

impl Shared {
    async fn ask(&self, request: ChatRequest, context: &Context) -> Result<Reply, Fault> {
        let sent = self.request(&request)?;
        let (head, body) = self.sent(sent).await?;
        if !head.status.is_success() {
            return Err(self.refusal(&head, body, context).await);
        }
        let mut answer = Answer::new(request.meter.clone(), context);
        if is_event_stream(&head.headers) {
            self.read_stream(body, &mut answer, context).await?;
        } else {
            self.read_whole(body, &mut answer, context).await?;
        }
        let model = answer.model.take().map_or(request.model, Arc::from);
        Ok(Reply::text(&answer.text).answered_by(model, answer.usage()))
    }

    async fn models(&self, context: &Context) -> Result<Vec<String>, Fault> {
        let mut sent = self.to(models::path(self.wire), Bytes::new())?;
        *sent.method_mut() = Method::GET;
        sent.headers_mut().remove(CONTENT_TYPE);
        let (head, body) = self.sent(sent).await?;
        if !head.status.is_success() {
            return Err(self.refusal(&head, body, context).await);
        }
        let body = read_limited(body, context.max_reply_bytes).await.map_err(|cut| self.cut(cut, context))?;
        models::read(self.wire, &body).map_err(|nonsense| self.nonsense(nonsense))
    }

    async fn sent(&self, request: Request<Full<Bytes>>) -> Result<(Parts, Body), Fault> {
        self.pool.send(request).await.map_err(|error| match error {
            NoAnswer::Unreachable(reason) => Fault::Unreachable { provider: Arc::clone(&self.name), reason },
            NoAnswer::Broken => self.broken("no answer to the request"),
        })
    }

    fn request(&self, request: &ChatRequest) -> Result<Request<Full<Bytes>>, Fault> {
        let (path, body) = match self.wire {
            Wire::OpenAi => {
                (openai::PATH.to_owned(), openai::body(request, self.stream, self.newer_max_tokens))
            }
            Wire::Anthropic => (anthropic::PATH.to_owned(), anthropic::body(request, self.stream)),
            Wire::Gemini => (gemini::path(&request.model, self.stream), gemini::body(request)),
        };
        self.to(&path, Bytes::from(body))
    }

    fn to(&self, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Fault> {
        // The base is a URL, and whatever a path cannot hold is escaped: only its length may be too much.
        let url = Uri::try_from(format!("{}{path}", self.base_url)).map_err(|_| Fault::Unreachable {
            provider: Arc::clone(&self.name),
            reason: "the model's name is too long",
        })?;
        let mut sent = Request::new(Full::new(body));
        *sent.method_mut() = Method::POST;
        *sent.uri_mut() = url;
        *sent.headers_mut() = self.headers.clone();
        Ok(sent)
    }

    async fn read_stream(&self, body: Body, answer: &mut Answer<'_>, context: &Context) -> Result<(), Fault> {
        let mut events = Events::new(body, raw_limit(context));
        while let Some(event) = events.next().await {
            let data = event.map_err(|cut| self.cut(cut, context))?;
            match self.wire {
                Wire::OpenAi => openai::event(&data, answer),
                Wire::Anthropic => anthropic::event(&data, answer),
                Wire::Gemini => gemini::event(&data, answer),
            }
            .map_err(|nonsense| self.nonsense(nonsense))?;
            if answer.text.len() > context.max_reply_bytes {
                return Err(self.too_large(context));
            }
            if answer.is_over {
                // Read to its very end, the connection serves the next request; the end is hardly ever late.
                drop(Deadline::after(END_OF_STREAM).limit(events.next()).await);
                return Ok(());
            }
        }
        // Not every service says that it is over; one that never finished its text was cut.
        if answer.is_finished { Ok(()) } else { Err(self.broken("the stream ended early")) }
    }

    async fn read_whole(&self, body: Body, answer: &mut Answer<'_>, context: &Context) -> Result<(), Fault> {
        let body = read_limited(body, raw_limit(context)).await.map_err(|cut| match cut {
            Cut::TooLong => self.too_large(context),
            Cut::Broken => self.broken("the body was cut"),
        })?;
        match self.wire {
            Wire::OpenAi => openai::whole(&body, answer),
            Wire::Anthropic => anthropic::whole(&body, answer),
            Wire::Gemini => gemini::whole(&body, answer),
        }
        .map_err(|nonsense| self.nonsense(nonsense))?;
        if answer.text.len() > context.max_reply_bytes { Err(self.too_large(context)) } else { Ok(()) }
    }

    fn broken(&self, reason: &'static str) -> Fault {
        Fault::Broken { provider: Arc::clone(&self.name), reason }
    }

    fn nonsense(&self, nonsense: Nonsense) -> Fault {
        self.broken(nonsense.reason())
    }

    fn cut(&self, cut: Cut, context: &Context) -> Fault {
        match cut {
            Cut::TooLong => self.too_large(context),
            Cut::Broken => self.broken("the event stream was cut"),
        }
    }

    fn too_large(&self, context: &Context) -> Fault {
        Fault::TooLarge { provider: Arc::clone(&self.name), limit: context.max_reply_bytes }
    }

    async fn refusal(&self, head: &Parts, body: Body, context: &Context) -> Fault {
        /// Enough for any error object; the rest of an endless one is not waited for.
        const ERROR_BODY_BYTES: usize = 64 * 1024;
        let limit = ERROR_BODY_BYTES.min(context.max_reply_bytes);
        let body = read_limited(body, limit).await.unwrap_or_default();
        Fault::Refused {
            provider: Arc::clone(&self.name),
            status: StatusCode::as_u16(&head.status),
            code: json::error_code(&body),
            retry_after: retry_after(&head.headers),
        }
    }
}

/// A token of text comes in some 250 bytes of event, so the raw bound lies above the reply's.
fn raw_limit(context: &Context) -> usize {
    context.max_reply_bytes.saturating_mul(8)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

/// When the provider says to come back.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    retry::asked(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

async fn read_limited<B: AsRef<[u8]>, E>(
    stream: impl Stream<Item = Result<B, E>>,
    limit: usize,
) -> Result<Vec<u8>, Cut> {
    let mut stream = std::pin::pin!(stream);
    let mut body = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Cut::Broken)?;
        if body.len() + piece.as_ref().len() > limit {
            return Err(Cut::TooLong);
        }
        body.extend_from_slice(piece.as_ref());
    }
    Ok(body)
}
