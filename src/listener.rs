//! One port for all doors: accept, limits, `Host`, `Origin`, token, upgrade.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::call::{CallError, Principal};
use crate::door::Hub;
use crate::http::{self, Answered};
use crate::proto::mcp::Mcp;
use crate::proto::op::Op;
use crate::session::{self, Paced};
use crate::tasks::TaskKind;

mod guard;
#[doc(hidden)]
pub mod handshake;

use guard::Gate;
use handshake::{Door, Upgrade, taken_over};

/// How long a request's head may take to arrive, the first and each later one on a connection.
const HEAD: Duration = Duration::from_secs(15);
/// The same above the connection limit: only `/healthz` and `/readyz` are answered there.
const HEAD_OVER_LIMIT: Duration = Duration::from_secs(2);
/// How large a request's head may be. hyper takes no less than 8 KiB.
const HEAD_BYTES: usize = 16 * 1024;
/// Places above the connection limit, kept for `/healthz` and `/readyz`.
const RESERVED: usize = 4;
/// After an error of accept (no file descriptor is left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listening side of the daemon.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    hub: Arc<Hub>,
    gate: Arc<Gate>,
    sessions: Arc<http::Sessions>,
    traffic: Arc<Traffic>,
}

/// Connections of one listener.
#[derive(Debug)]
pub struct Traffic {
    open: Arc<AtomicUsize>,
    accepted: AtomicUsize,
}

impl Traffic {
    /// Those that live.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// All there ever were.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Traffic>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One connection, as its requests see it.
struct Connection {
    hub: Arc<Hub>,
    gate: Arc<Gate>,
    sessions: Arc<http::Sessions>,
    peer: IpAddr,
    over_limit: bool,
    /// Counts it until its session, too, has ended.
    _open: Open,
}

impl Listener {
    /// Serves `socket` once [`Listener::run`] is called.
    ///
    /// # Errors
    /// The socket does not know its own address.
    pub fn new(socket: TcpListener, hub: Arc<Hub>, allowed_origins: Vec<String>) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        let gate = Arc::new(Gate::new(address, allowed_origins));
        let traffic = Arc::new(Traffic { open: Arc::clone(&hub.connections), accepted: AtomicUsize::new(0) });
        Ok(Self { socket, address, hub, gate, sessions: Arc::default(), traffic })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Accepts until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: IpAddr) {
        self.traffic.accepted.fetch_add(1, Ordering::AcqRel);
        let before = self.traffic.open.fetch_add(1, Ordering::AcqRel);
        let open = Open(Arc::clone(&self.traffic));
        let limit = self.hub.limits.connections;
        if before >= limit + RESERVED {
            // Told without being read, and without a task.
            let _ = stream.try_write(TOO_MANY);
            return;
        }
        // A frame is a message: it must not wait for more to be written.
        let _ = stream.set_nodelay(true);
        let over_limit = before >= limit;
        let connection = Connection {
            hub: Arc::clone(&self.hub),
            gate: Arc::clone(&self.gate),
            sessions: Arc::clone(&self.sessions),
            peer,
            over_limit,
            _open: open,
        };
        self.hub.tasks.spawn(TaskKind::Connection, serve(stream, connection));
    }
}

const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves one connection's HTTP, until it ends or becomes a WebSocket.
async fn serve(stream: TcpStream, connection: Connection) {
    let head = if connection.over_limit { HEAD_OVER_LIMIT } else { HEAD };
    let hub = Arc::clone(&connection.hub);
    let connection = Arc::new(connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, Infallible>(answer(connection, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Paced::new(stream)), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let closed = tokio::select! {
        closed = serving.as_mut() => closed,
        () = hub.closing.wait() => {
            // Answer what was asked, then close.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(connection: Arc<Connection>, mut request: Request<Incoming>) -> Answered {
    let path = request.uri().path();
    if matches!(path, "/healthz" | "/readyz") && connection.gate.host_matches(&request) {
        return http::health(&connection.hub, path);
    }
    if connection.over_limit {
        return too_many(connection.hub.limits.connections);
    }
    if let Err((status, reason)) = connection.gate.check(&request) {
        return http::refused(status, &CallError::Invalid(reason.to_owned()));
    }
    let upgrade = match handshake::read(&request) {
        Ok(upgrade) => upgrade,
        Err(reason) => return http::refused(StatusCode::BAD_REQUEST, &CallError::Invalid(reason.to_owned())),
    };
    match upgrade {
        None => match admitted(&connection.hub, &request, false) {
            Some(principal) => {
                let Connection { hub, sessions, peer, .. } = &*connection;
                // hyper keeps room for this future as long as the connection: most of it is needed only meanwhile.
                Box::pin(http::route(hub, sessions, *peer, &principal, request)).await
            }
            None => unauthorized(),
        },
        Some(upgrade) => {
            let principal = admitted(&connection.hub, &request, true);
            // Only the op protocol can bring its token later, in its hello; a wrong one is refused at once.
            if principal.is_none() && (upgrade.door == Door::Mcp || brings_token(&request)) {
                return unauthorized();
            }
            switch(connection, &mut request, upgrade, principal)
        }
    }
}

/// Answers the upgrade, and starts the session that takes over.
fn switch(
    connection: Arc<Connection>,
    request: &mut Request<Incoming>,
    upgrade: Upgrade,
    principal: Option<Arc<Principal>>,
) -> Answered {
    let upgraded = hyper::upgrade::on(request);
    let (door, session_key, answer) = (upgrade.door, upgrade.session, upgrade.answer());
    let hub = Arc::clone(&connection.hub);
    let tasks = hub.tasks.clone();
    tasks.spawn(TaskKind::Session, async move {
        let Ok(upgraded) = upgraded.await else { return };
        let Some((stream, came)) = taken_over(upgraded) else { return };
        let admitted = principal.is_some();
        let mut caller = hub.new_caller(principal.unwrap_or_else(|| Arc::clone(hub.auth.nobody())));
        // A task of its own, which carries nothing of the way here; the connection counts until its session has ended.
        let tasks = hub.tasks.clone();
        match door {
            Door::Mcp => {
                // The op protocol brings its key in its hello, once it is known who speaks.
                caller.attachment = session_key.and_then(|key| hub.attach(&caller, key));
                let session = session::serve(stream, came, Mcp::default(), hub, caller).keeping(connection);
                tasks.spawn(TaskKind::Session, session);
            }
            Door::Op => {
                let op = Op::new(caller.session.id, admitted);
                let session = session::serve(stream, came, op, hub, caller).keeping(connection);
                tasks.spawn(TaskKind::Session, session);
            }
        }
    });
    answer
}

/// Whom the request's token stands for. It may stand in the query of an upgrade, for clients that cannot set headers.
fn admitted(hub: &Hub, request: &Request<Incoming>, upgrade: bool) -> Option<Arc<Principal>> {
    let bearer = bearer(request);
    let query = if upgrade && bearer.is_none() { query_token(request) } else { None };
    hub.auth.admit(bearer.or(query.as_deref())).cloned()
}

fn brings_token(request: &Request<Incoming>) -> bool {
    bearer(request).is_some() || query_token(request).is_some()
}

fn bearer(request: &Request<Incoming>) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn query_token(request: &Request<Incoming>) -> Option<String> {
    let query = request.uri().query()?;
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    Some(handshake::percent_decoded(token))
}

fn unauthorized() -> Answered {
    let body = "{\"error\":{\"code\":\"UNAUTHORIZED\",\"message\":\"bring the daemon's token as Authorization: Bearer …\",\"retryable\":false}}";
    http::json(StatusCode::UNAUTHORIZED, body.into())
}

fn too_many(limit: usize) -> Answered {
    let text = format!("{limit} connections are open, which is the limit");
    let mut response = http::refused(StatusCode::SERVICE_UNAVAILABLE, &CallError::Invalid(text));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
