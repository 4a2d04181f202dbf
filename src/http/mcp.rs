//! `/mcp`: MCP's Streamable HTTP, in both eras. A thin transport: what messages mean is the dialect's.
//!
//! A request of the newer era brings all there is to know of its client; closing its response takes it back. One of the older
//! era belongs to a session, and a lost response is a lost connection.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::call::{Call, CallError, Caller, Full, Principal, Submitted};
use crate::door::{Hub, Subscription};
use crate::http::listening;
use crate::http::sessions::{Session, Sessions};
use crate::http::under_way::{End, Told, UnderWay};
use crate::http::{Answered, Body, body_of, json, refused, whole};
use crate::proto::mcp::Mcp;
use crate::proto::mcp::headers::{self, Headers, Read};
use crate::proto::{self, CallFrame, Continued, Dialect, one_spelling};
use crate::provider::asking::Can;

/// Names a session of the older era.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

const EVENTS: &str = "text/event-stream";

/// Answers one request.
pub(super) async fn route(
    hub: &Arc<Hub>,
    sessions: &Sessions,
    peer: IpAddr,
    principal: &Arc<Principal>,
    request: Request<Incoming>,
) -> Answered {
    match *request.method() {
        Method::POST => post(hub, sessions, peer, principal, request).await,
        Method::GET => listen(hub, sessions, principal, request.headers()),
        Method::DELETE => {
            let id = text_of(request.headers(), &SESSION);
            match id.filter(|id| sessions.close(id, principal.id)) {
                Some(_) => empty(StatusCode::OK),
                None => no_session(),
            }
        }
        _ => {
            let error = CallError::Invalid("use POST, GET or DELETE here".into());
            let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &error);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
            response
        }
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn accepts(headers: &HeaderMap, what: &str) -> bool {
    let kind = what.split('/').next().unwrap_or(what).as_bytes();
    // Bytes: searching short texts for characters costs far more.
    let mut parts = headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|it| *it == b','));
    parts.any(|part| {
        let part = part.split(|it| *it == b';').next().unwrap_or_default().trim_ascii();
        part.eq_ignore_ascii_case(what.as_bytes())
            || part.strip_suffix(b"/*").is_some_and(|of| of == b"*" || of == kind)
    })
}

fn no_session() -> Answered {
    let text = "there is no such session of yours: initialize again";
    refused(StatusCode::NOT_FOUND, &CallError::Invalid(text.into()))
}

fn empty(status: StatusCode) -> Answered {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// One message.
async fn post(
    hub: &Arc<Hub>,
    sessions: &Sessions,
    peer: IpAddr,
    principal: &Arc<Principal>,
    request: Request<Incoming>,
) -> Answered {
    let (Parts { headers: head, .. }, body) = request.into_parts();
    let takes_events = accepts(&head, EVENTS);
    if head.contains_key(ACCEPT) && !takes_events && !accepts(&head, "application/json") {
        let error = CallError::Invalid(format!("accept application/json and {EVENTS}"));
        return refused(StatusCode::NOT_ACCEPTABLE, &error);
    }
    let body = match body_of(hub, body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return refused(StatusCode::BAD_REQUEST, &CallError::Invalid("the body is not UTF-8".into()));
    };
    let read = Read::at(text);
    let look = read.look();
    let said = Headers {
        version: text_of(&head, &VERSION),
        method: text_of(&head, &METHOD),
        name: text_of(&head, &NAME),
    };
    if let Some(error) = look.mismatch(said) {
        return json(StatusCode::BAD_REQUEST, error);
    }
    let (stateless, opens, head) = (look.is_stateless(), look.opens(), &head);
    let mut post = Post { hub, principal, head, takes_events, stateless, session: None };
    if opens {
        return post.opens(read, sessions).await;
    }
    let Some(id) = text_of(head, &SESSION).filter(|_| !stateless) else {
        // Who needs a session and has none can only be told so, in the words of the dialect.
        let caller = hub.caller_at(Arc::clone(principal), peer);
        let request = Mcp::default().take(read, &hub.view(principal));
        return post.answer(request, &caller).await;
    };
    let Some(session) = sessions.find(id, principal.id) else { return no_session() };
    post.session = Some(Arc::clone(&session));
    // Its dialect is held only while the message is read.
    let request = session.dialect.lock().take(read, &hub.view(principal));
    post.answer(request, &session.caller).await
}

/// One message, and what is known of who sent it.
struct Post<'a> {
    hub: &'a Arc<Hub>,
    principal: &'a Arc<Principal>,
    head: &'a HeaderMap,
    takes_events: bool,
    stateless: bool,
    session: Option<Arc<Session>>,
}

impl Post<'_> {
    /// A client introduces itself: it gets a session.
    async fn opens(&mut self, read: Read<'_>, sessions: &Sessions) -> Answered {
        let mut dialect = Mcp::default();
        let caller = self.hub.new_caller(Arc::clone(self.principal));
        let request = dialect.take(read, &self.hub.view(self.principal));
        let mut response = self.answer(request, &caller).await;
        if !dialect.is_initialized() {
            return response;
        }
        let Some(session) = sessions.open(self.hub, caller, dialect) else {
            let full = Full::Connection { limit: self.hub.limits.connections };
            let error = CallError::Full { full, retry_after: Some(Duration::from_secs(1)) };
            return refused(StatusCode::SERVICE_UNAVAILABLE, &error);
        };
        if let Ok(id) = HeaderValue::from_str(&session.id) {
            response.headers_mut().insert(SESSION, id);
        }
        response
    }

    async fn answer(&self, request: proto::Request<'_>, caller: &Caller) -> Answered {
        use proto::Request as Asks;
        match request {
            Asks::Call(frame) => self.call(frame, caller).await,
            Asks::Reply(text)
            | Asks::ReplyInTurn(text)
            | Asks::ReplyThenClose(text, _)
            | Asks::Welcome { text, .. } => {
                let status = headers::status(&text, self.stateless);
                json(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), text)
            }
            Asks::Cancel { id, .. } => {
                if let Some(session) = &self.session {
                    session.cancel(&one_spelling(&id));
                }
                empty(StatusCode::ACCEPTED)
            }
            Asks::Said(id, said) => {
                if let Some(session) = &self.session {
                    session.said(id, said);
                }
                empty(StatusCode::ACCEPTED)
            }
            Asks::Listen { id, wanted, acknowledged } => match Subscription::open(id, wanted, caller) {
                Ok(subscription) => {
                    listening::of_subscription(self.hub, caller.clone(), subscription, acknowledged)
                }
                Err(error) => {
                    let ticket = proto::Ticket { id: Some(id.into()), ..proto::Ticket::default() };
                    json(StatusCode::OK, Mcp::default().refuse(&ticket, &error))
                }
            },
            Asks::Watch { server, uri, frame } => {
                let watched = self
                    .session
                    .as_ref()
                    .map(|session| session.news.lock().subscription.watch(&session.caller, server, uri));
                if let Some(Err(error)) = watched {
                    return json(StatusCode::OK, Mcp::default().refuse(&frame.ticket, &error));
                }
                self.call(frame, caller).await
            }
            Asks::Unwatch { uri, text } => {
                if let Some(session) = &self.session {
                    session.news.lock().subscription.unwatch(&uri);
                }
                json(StatusCode::OK, text)
            }
            Asks::Nothing | Asks::Wait | Asks::Close(_) => empty(StatusCode::ACCEPTED),
        }
    }

    /// The error response, where headers do not say what the arguments say. In the older era nobody sends them.
    fn differing(&self, frame: &CallFrame<'_>) -> Option<String> {
        let view = self.hub.view(self.principal);
        let registry = view.calls.registry();
        let may = self.stateless && self.principal.allows(&frame.tool);
        let tool = registry.find(&frame.tool).filter(|tool| may && !tool.mirrored.is_empty())?;
        let id = frame.ticket.id.as_deref().unwrap_or_default();
        let header = |name: &str| self.head.get(name).map(HeaderValue::as_bytes);
        headers::differs(id, &tool.mirrored, &frame.arguments, header)
    }

    async fn call(&self, frame: CallFrame<'_>, caller: &Caller) -> Answered {
        if let Some(error) = self.differing(&frame) {
            return json(StatusCode::BAD_REQUEST, error);
        }
        let CallFrame { ticket, tool, arguments, extra, mut options, continues } = frame;
        let id = ticket.id.as_deref().map(one_spelling).unwrap_or_default().into_owned();
        if self.session.as_ref().is_some_and(|session| session.has(&id)) {
            return in_use(&ticket);
        }
        if !self.takes_events && !self.stateless {
            // There is no way to ask it.
            options.can = Can::NOTHING;
        }
        let call = Call {
            id: ticket.id.as_deref(),
            tool: &tool,
            arguments: &arguments,
            extra: extra.as_deref(),
            options,
        };
        let continues = continues.as_ref().map(Continued::continues);
        let waiter = match self.hub.calls.resubmit(caller, call, continues) {
            Submitted::Answered(answer) => return said(End::new(&ticket, &answer)),
            Submitted::Waiting(waiter) => waiter,
        };
        let is_told = ticket.progress.is_some() || options.log.is_some();
        let wants_events = is_told || options.can != Can::NOTHING && !self.stateless;
        let Some(mut under_way) = UnderWay::new(waiter, ticket, id, self.session.clone(), self.stateless)
        else {
            return in_use(&proto::Ticket::default());
        };
        if wants_events && self.takes_events {
            return events(stream::unfold(Some(under_way), next_event));
        }
        loop {
            // Nobody hears of the way.
            if let Told::End(end) = under_way.next().await {
                return said(end);
            }
        }
    }
}

fn in_use(ticket: &proto::Ticket) -> Answered {
    let error = CallError::Invalid("this request id is still in use in this session".into());
    json(StatusCode::BAD_REQUEST, Mcp::default().refuse(ticket, &error))
}

/// The end of a call; one that was taken back has none.
fn said(End { text, status }: End) -> Answered {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    match text {
        Some(text) => json(status, text),
        None => empty(status),
    }
}

async fn next_event(
    under_way: Option<UnderWay>,
) -> Option<(Result<Frame<Bytes>, Infallible>, Option<UnderWay>)> {
    let mut under_way = under_way?;
    match under_way.next().await {
        Told::Way(text) => Some((Ok(event(&text)), Some(under_way))),
        Told::End(End { text, .. }) => Some((Ok(text.map_or_else(quiet, |text| event(&text))), None)),
    }
}

/// A message as an event. JSON may be broken between its tokens, and only there.
pub(super) fn event(text: &str) -> Frame<Bytes> {
    let mut event = String::with_capacity(text.len() + 32);
    event.push_str("event: message\n");
    for line in text.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    Frame::data(Bytes::from(event))
}

pub(super) fn quiet() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b":\n\n"))
}

pub(super) fn events(
    events: impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
) -> Answered {
    let mut response = Response::new(Body::Right(StreamBody::new(events).boxed_unsync()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What the daemon says without being asked goes here, until the session or the daemon ends.
fn listen(hub: &Arc<Hub>, sessions: &Sessions, principal: &Arc<Principal>, head: &HeaderMap) -> Answered {
    if !accepts(head, EVENTS) {
        let error = CallError::Invalid(format!("accept {EVENTS}"));
        return refused(StatusCode::NOT_ACCEPTABLE, &error);
    }
    let session = text_of(head, &SESSION).and_then(|id| sessions.find(id, principal.id));
    let Some(session) = session else { return no_session() };
    listening::of_session(hub, &session)
}
