//! A connection over Streamable HTTP: each request is a POST of its own, answered as JSON or as events. Dropping a
//! request closes its stream, which takes it back in the stateless era; in the older one the server is told.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::provider::Logged;
use crate::provider::asking::{Method as Asked, Nobody, QUESTION_BYTES, Question};
use crate::provider::sse::{Cut, Events};
use crate::provider::upstream::instance::Live;
use crate::provider::upstream::link::{Param, Request};
use crate::provider::upstream::message::{self, Era, Incoming, Progress};
use crate::provider::upstream::pipe::{Failed, Hear, Oddities, Outcome};
use crate::provider::upstream::questions;
use crate::provider::upstream::text::header_text;
use crate::provider::upstream::watched::Watched;

/// How long the server may take to take a notification.
const TOLD: Duration = Duration::from_secs(5);
/// Requests that were dropped and whose server is still to be told.
const TAKEN_BACK: usize = 256;
/// What a server may ask while it answers one request.
const QUESTIONS: usize = 64;
/// The pause before its stream of changes is opened again, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// Its one URL.
    pub(super) url: Arc<str>,
    /// Headers of every request.
    pub(super) headers: HeaderMap,
    pub(super) client: Client,
}

/// One session with a server, or what stands for one where there are none.
pub(super) struct Session {
    address: Address,
    id: OnceLock<HeaderValue>,
    /// The revision, once it is agreed.
    version: OnceLock<HeaderValue>,
    last_id: AtomicU64,
    limit: usize,
    hear: Arc<dyn Hear>,
    oddities: Arc<Oddities>,
    taken_back: mpsc::Sender<u64>,
    /// Set when the server knows the session no more.
    gone: CancellationToken,
}

/// What a session's owner must do.
pub(super) struct Chores {
    taken_back: mpsc::Receiver<u64>,
}

/// A request under way in the older era: dropped early, its server is told.
struct UnderWay<'a> {
    id: u64,
    taken_back: Option<&'a mpsc::Sender<u64>>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(taken_back) = self.taken_back {
            // Where so many were dropped at once, the server finds out by itself.
            let _ = taken_back.try_send(self.id);
        }
    }
}

/// What one stream or body is read for.
struct Reading<'a> {
    id: u64,
    request: Request<'a>,
    progress: f64,
    questions: usize,
    /// Those that somebody thinks about.
    asked: FuturesUnordered<BoxFuture<'a, String>>,
}

impl<'a> Reading<'a> {
    fn of(id: u64, request: Request<'a>) -> Self {
        Self { id, request, progress: f64::NEG_INFINITY, questions: 0, asked: FuturesUnordered::new() }
    }

    /// Takes a question, where there is somebody to be asked.
    fn question(&mut self, id: &str, method: &str, params: Option<&str>) -> bool {
        let Some((ask, method)) = self.request.ask.zip(Asked::parse(method)) else { return false };
        let too_long = params.is_some_and(|params| params.len() > QUESTION_BYTES);
        if too_long || self.asked.len() >= QUESTIONS {
            return false;
        }
        let (id, question) = (Box::<str>::from(id), Arc::new(Question::new(method, params)));
        let answer = ask.ask(Arc::clone(&question));
        self.asked.push(
            async move {
                let said = answer.await.unwrap_or_else(|Nobody| question.nobody());
                questions::response(&id, &said)
            }
            .boxed(),
        );
        true
    }
}

impl Session {
    /// A session that is still to be greeted.
    pub(super) fn new(
        address: Address,
        limit: usize,
        hear: Arc<dyn Hear>,
        oddities: Arc<Oddities>,
    ) -> (Arc<Self>, Chores) {
        let (send, taken_back) = mpsc::channel(TAKEN_BACK);
        let session = Self {
            address,
            id: OnceLock::new(),
            version: OnceLock::new(),
            last_id: AtomicU64::new(0),
            limit,
            hear,
            oddities,
            taken_back: send,
            gone: CancellationToken::new(),
        };
        (Arc::new(session), Chores { taken_back })
    }

    /// The revision that was agreed.
    pub(super) fn speaks(&self, version: &str) {
        if let Ok(version) = HeaderValue::try_from(version) {
            let _ = self.version.set(version);
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, request: Request<'_>, era: Era) -> Outcome {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let told = era == Era::Handshake && request.method != "initialize";
        let mut under_way = UnderWay { id, taken_back: told.then_some(&self.taken_back) };
        let mut headers = HeaderMap::new();
        if era == Era::Stateless {
            headers = stateless_headers(&request);
        }
        let response = self.post(request.write(id, era), headers).await;
        let outcome = match response {
            Ok(response) => self.read(response, Reading::of(id, request)).await,
            Err(failed) => Err(failed),
        };
        under_way.taken_back = None;
        outcome
    }

    /// Tells it something.
    pub(super) async fn notify(&self, line: String) -> Result<(), Failed> {
        let told = Deadline::after(TOLD).limit(self.post(line, HeaderMap::new())).await;
        told.unwrap_or(Err(Failed::Broken("it does not take a notification"))).map(drop)
    }

    async fn post(&self, body: String, headers: HeaderMap) -> Result<Response, Failed> {
        let request = self.request(Method::POST).headers(headers).body(body);
        let request = request.header(CONTENT_TYPE, "application/json");
        let sent = request.header(ACCEPT, "application/json, text/event-stream").send().await;
        let response = sent.map_err(|error| {
            if error.is_connect() {
                Failed::NotSent(if error.is_timeout() { "connecting took too long" } else { "no connection" })
            } else {
                Failed::Broken("no answer to the request")
            }
        })?;
        if response.status() == StatusCode::NOT_FOUND && self.id.get().is_some() {
            self.gone.cancel();
            return Err(Failed::Gone);
        }
        if let Some(id) = response.headers().get("mcp-session-id") {
            let _ = self.id.set(id.clone());
        }
        Ok(response)
    }

    fn request(&self, method: Method) -> reqwest::RequestBuilder {
        let request = self.address.client.request(method, &*self.address.url);
        let mut request = request.headers(self.address.headers.clone());
        if let Some(id) = self.id.get() {
            request = request.header("mcp-session-id", id);
        }
        if let Some(version) = self.version.get() {
            request = request.header("mcp-protocol-version", version);
        }
        request
    }

    async fn read(&self, response: Response, mut reading: Reading<'_>) -> Outcome {
        let status = response.status();
        if is_stream(&response) && status.is_success() {
            let mut events = Events::new(response.bytes_stream(), self.limit.saturating_mul(2));
            while let Some(event) = self.next(&mut events, &mut reading).await {
                let event = event.map_err(cut)?;
                if let Some(outcome) = self.take(&event, &mut reading).await {
                    return outcome;
                }
            }
            return Err(Failed::Broken("its answer was cut"));
        }
        let refused = Failed::Status { status: status.as_u16(), retry_after: retry_after(&response) };
        let body = self.body(response).await;
        if status.is_success() {
            let answer = self.take(&body?, &mut reading).await;
            return answer.unwrap_or(Err(Failed::Broken("what it sent is no answer")));
        }
        // An error of JSON-RPC may come with any status, and without the id of a request that was not read.
        let mut refusal = None;
        if let Ok(body) = body {
            message::read(&body, |message| {
                if let Incoming::Answer(_, Err(error)) | Incoming::StrangeRefusal(error) = message {
                    refusal = Some(Failed::Refused(error));
                }
            });
        }
        Err(refusal.unwrap_or(refused))
    }

    /// The next event; what people say meanwhile is handed on.
    async fn next(&self, events: &mut Events, reading: &mut Reading<'_>) -> Option<Result<String, Cut>> {
        loop {
            tokio::select! {
                biased;
                event = events.next() => return event,
                Some(said) = reading.asked.next() => drop(self.notify(said).await),
            }
        }
    }

    async fn body(&self, response: Response) -> Result<String, Failed> {
        let mut body = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            body.extend_from_slice(&piece.map_err(|_| Failed::Broken("its answer was cut"))?);
            if body.len() > self.limit {
                return Err(Failed::TooLarge);
            }
        }
        String::from_utf8(body).map_err(|_| Failed::Broken("its answer is not UTF-8"))
    }

    /// Takes what came; the outcome once it is there.
    async fn take(&self, text: &str, reading: &mut Reading<'_>) -> Option<Outcome> {
        let (mut outcome, mut answers) = (None, Vec::new());
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        message::read(text, |message| match message {
            Incoming::Answer(id, answer) if id == reading.id => {
                outcome = Some(answer.map(Box::from).map_err(Failed::Refused));
            }
            Incoming::Request(id, method, params) => {
                let asked = reading.question(id, &method, params);
                answers.extend((!asked).then(|| message::answer(id, &method)));
            }
            Incoming::Notice(method, params) if method == "notifications/progress" => {
                let progress = params.and_then(|params| serde_json::from_str::<Progress<'_>>(params).ok());
                if let Some(progress) = progress.filter(|progress| progress.token == reading.id) {
                    progress.tell(reading.request.tell, &mut reading.progress);
                }
            }
            Incoming::Notice(method, params) if method == "notifications/message" => {
                let logged = params.and_then(Logged::read);
                if let (Some(tell), Some(logged)) = (reading.request.tell, logged) {
                    tell.log(logged);
                }
            }
            Incoming::Notice(method, params) => self.hear.notice(&method, params),
            Incoming::Answer(..) | Incoming::Stranger | Incoming::StrangeRefusal(_) => {
                count(&self.oddities.strangers);
            }
            Incoming::Garbage => count(&self.oddities.garbage),
        });
        for answer in answers {
            reading.questions += 1;
            if reading.questions <= QUESTIONS {
                let _ = self.notify(answer).await;
            }
        }
        outcome
    }

    /// Whatever a session needs beside its requests, until it is told to stop or its server knows it no more.
    pub(super) async fn keep(
        &self,
        mut chores: Chores,
        live: &Live,
        watched: &Watched,
        stop: &CancellationToken,
    ) {
        let asking = async {
            match live.greeting.era {
                Era::Handshake => watched.ask_for_each(live).await,
                // One list has all of it.
                Era::Stateless => std::future::pending().await,
            }
        };
        let telling = async {
            while let Some(id) = chores.taken_back.recv().await {
                let _ = self.notify(message::cancelled(id)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.gone.cancelled() => return,
            never = self.listen(live.greeting.era, watched) => match never {},
            never = asking => match never {},
            () = telling => {}
        }
        if self.id.get().is_some() {
            let _ = Deadline::after(TOLD).limit(self.request(Method::DELETE).send()).await;
        }
    }

    /// Hears of what changes, over one stream after the other.
    async fn listen(&self, era: Era, watched: &Watched) -> Infallible {
        let (mut pause, longest) = PAUSE;
        let mut stream = None;
        loop {
            // The one before ends only now: there is no time at which nothing is told.
            stream = match self.open(era, watched).await {
                Ok(opened) => Some(opened),
                Err(again) if again || stream.is_some() => stream,
                // It has no such stream.
                Err(_) => {
                    watched.changed().await;
                    continue;
                }
            };
            let heard = async {
                let mut reading = Reading::of(0, Request::new("subscriptions/listen", &[]));
                while let Some(Ok(event)) = stream.as_mut()?.next().await {
                    self.take(&event, &mut reading).await;
                }
                Some(())
            };
            tokio::select! {
                _ended = heard => {
                    stream = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                () = watched.changed(), if era == Era::Stateless => {}
            }
        }
    }

    /// Opens a stream of what changes; else says whether it is worth another try.
    async fn open(&self, era: Era, watched: &Watched) -> Result<Events, bool> {
        let opened = match era {
            Era::Stateless => {
                let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
                let list = watched.list(id);
                let params = [("notifications", Param::Json(&list))];
                let request = Request::new("subscriptions/listen", &params);
                self.post(request.write(id, era), stateless_headers(&request)).await
            }
            Era::Handshake => {
                let get = self.request(Method::GET).header(ACCEPT, "text/event-stream").send().await;
                get.map_err(|_| Failed::Broken("no answer to the request"))
            }
        };
        let response = opened.map_err(|failed| {
            watched.refused(&failed);
            true
        })?;
        if response.status().is_success() && is_stream(&response) {
            return Ok(Events::new(response.bytes_stream(), usize::MAX));
        }
        // 405 and the like.
        let status = response.status();
        watched.refused(&Failed::Status { status: status.as_u16(), retry_after: retry_after(&response) });
        Err(status.is_server_error())
    }
}

/// What the stateless era wants to see without reading the body.
fn stateless_headers(request: &Request<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(header_text(value))) {
            headers.insert(name, value);
        }
    };
    set("mcp-protocol-version", message::STATELESS);
    set("mcp-method", request.method);
    if let Some(name) = request.text("name").or_else(|| request.text("uri")) {
        set("mcp-name", name);
    }
    for (name, value) in request.headers {
        set(name, value);
    }
    headers
}

fn cut(cut: Cut) -> Failed {
    match cut {
        Cut::TooLong => Failed::TooLarge,
        Cut::Broken => Failed::Broken("its answer was cut"),
    }
}

fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
