//! Where the daemon is: one URL and one token, and the way to open a connection to it.

use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, Uri, header};
use tokio_tungstenite::tungstenite::{self, HandshakeError};

use crate::client::wire::{self, Reader, Sender, Socket};
use crate::config::Secret;
use crate::ids::SessionKey;

/// The daemon's address when nobody says another.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:8079";

/// The subprotocol that carries one JSON-RPC message in each text frame.
const SUBPROTOCOL: &str = "mcp";
/// Where the daemon tells its version.
const VERSION: &str = "inflightd-version";

/// Why a URL or token cannot name a daemon.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The text is no URL at all.
    #[error("read the daemon's URL; it looks like {DEFAULT_URL}")]
    NotAUrl,
    /// TLS is not built in.
    #[error("use the scheme {scheme}: the daemon is reached by ws:// or http://")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// Nothing says where to connect.
    #[error("find a host in the daemon's URL; it looks like {DEFAULT_URL}")]
    NoHost,
    /// A header could not carry the token.
    #[error("send the token: it has characters that a header cannot carry")]
    Token,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host's name has no address.
    #[error("find the host")]
    Resolve(#[source] std::io::Error),
    /// Nobody listens there, or the network is in the way.
    #[error("connect")]
    Reach(#[source] std::io::Error),
    /// Somebody listens there, and does not answer.
    #[error("get an answer to the WebSocket handshake in time")]
    Silent,
    /// The token is missing or wrong.
    #[error("get in: the daemon wants a token (HTTP 401); set INFLIGHTD_TOKEN")]
    Unauthorized,
    /// The daemon does not talk to this host or origin.
    #[error("get in: the daemon refused this client (HTTP 403); use the address that it listens on")]
    Forbidden,
    /// Too many connections, or the daemon is going down.
    #[error("get in: the daemon takes no connections right now (HTTP 503)")]
    Busy,
    /// Something else than a daemon answered.
    #[error("find a daemon there: the answer was HTTP {status}")]
    NotADaemon {
        /// What it said instead of 101.
        status: u16,
    },
    /// The handshake broke.
    #[error("finish the WebSocket handshake")]
    Handshake(#[source] Box<tungstenite::Error>),
}

/// A daemon's address with the token it wants.
#[derive(Debug, Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    /// Path and query as given; never shown, since a query may carry a token.
    path: String,
    token: Option<Secret>,
    session: Option<SessionKey>,
}

/// A connection that is open.
#[derive(Debug)]
pub struct Connected {
    /// Its reading half.
    pub reader: Reader,
    /// Its sending half.
    pub sender: Sender,
    /// The daemon's version, if it is one that tells.
    pub version: Option<String>,
}

impl Endpoint {
    /// Reads `ws://host:port/path` or `http://host:port/path`; an empty text is [`DEFAULT_URL`].
    pub fn parse(url: &str, token: Option<Secret>) -> Result<Self, EndpointError> {
        let url = if url.trim().is_empty() { DEFAULT_URL } else { url.trim() };
        let uri: Uri = url.parse().map_err(|_| EndpointError::NotAUrl)?;
        match uri.scheme_str() {
            Some("ws" | "http") => {}
            Some(other) => return Err(EndpointError::Scheme { scheme: other.to_owned() }),
            None => return Err(EndpointError::NotAUrl),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EndpointError::NoHost)?.to_owned();
        let token = token.filter(|token| !token.reveal().is_empty());
        if token.as_ref().is_some_and(|token| bearer(token).is_none()) {
            return Err(EndpointError::Token);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), path, token, session: None })
    }

    /// The same daemon, told by what this client finds its calls again over another connection.
    #[must_use]
    pub fn with_session(self, key: SessionKey) -> Self {
        Self { session: Some(key), ..self }
    }

    /// What a daemon on this machine would listen on to be found here; `None` for another machine's.
    pub fn local_address(&self) -> Option<String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_local = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        is_local.then(|| format!("{}:{}", self.host, self.port))
    }

    /// What the daemon wants to see.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Opens a connection and upgrades it, within `budget`.
    pub fn connect(&self, budget: Duration) -> Result<Connected, ConnectError> {
        let until = Instant::now() + budget;
        let tcp = self.reach(until)?;
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let socket = Socket::new(tcp, left).map_err(ConnectError::Reach)?;
        let request = self.request()?;
        let upgraded = tungstenite::client::client_with_config(request, socket, Some(wire::config()));
        match upgraded {
            Ok((websocket, response)) => {
                let version = response.headers().get(VERSION).and_then(|version| version.to_str().ok());
                let version = version.map(str::to_owned);
                let (reader, sender) = wire::split(websocket).map_err(ConnectError::Reach)?;
                Ok(Connected { reader, sender, version })
            }
            Err(HandshakeError::Interrupted(_)) => Err(ConnectError::Silent),
            Err(HandshakeError::Failure(error)) => Err(refusal(error)),
        }
    }

    pub(super) fn reach(&self, until: Instant) -> Result<TcpStream, ConnectError> {
        // A literal IPv6 address stands in brackets in a URL, and nowhere else.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (host, self.port).to_socket_addrs().map_err(ConnectError::Resolve)?;
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ConnectError::Silent);
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = error,
            }
        }
        Err(ConnectError::Reach(last))
    }

    /// The head of a GET that is no upgrade.
    pub(super) fn plain_request(&self, path: &str) -> String {
        let authorization = match &self.token {
            Some(token) => format!("Authorization: Bearer {}\r\n", token.reveal()),
            None => String::new(),
        };
        let (host, port) = (&self.host, self.port);
        format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}Connection: close\r\n\r\n")
    }

    fn request(&self) -> Result<tungstenite::handshake::client::Request, ConnectError> {
        let url = format!("ws://{}:{}{}", self.host, self.port, self.path);
        let mut request = url.into_client_request().map_err(|e| ConnectError::Handshake(Box::new(e)))?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        if let Some(value) = self.token.as_ref().and_then(bearer) {
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Some(value) = self.session.and_then(|key| HeaderValue::try_from(key.reveal()).ok()) {
            let mut value = value;
            value.set_sensitive(true);
            headers.insert(SessionKey::HEADER, value);
        }
        Ok(request)
    }
}

/// The address without path and query: safe to show.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ws://{}:{}", self.host, self.port)
    }
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal())).ok()?;
    // tungstenite writes headers as text, and refuses others.
    value.to_str().ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn refusal(error: tungstenite::Error) -> ConnectError {
    let status = match error {
        tungstenite::Error::Http(response) => response.status(),
        other => return ConnectError::Handshake(Box::new(other)),
    };
    match status {
        StatusCode::UNAUTHORIZED => ConnectError::Unauthorized,
        StatusCode::FORBIDDEN => ConnectError::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => ConnectError::Busy,
        other => ConnectError::NotADaemon { status: other.as_u16() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Endpoint::parse(url, None).unwrap().to_string()
    }

    #[test]
    fn ws_and_http_forms_name_the_same_daemon() {
        assert_eq!(shown("ws://127.0.0.1:8079"), "ws://127.0.0.1:8079");
        assert_eq!(shown("http://127.0.0.1:8079/"), "ws://127.0.0.1:8079");
        assert_eq!(shown(" "), DEFAULT_URL);
        assert_eq!(shown("ws://[::1]:9/mcp"), "ws://[::1]:9");
    }

    #[test]
    fn a_token_in_the_url_is_never_shown() {
        assert_eq!(shown("ws://user:secret@host:1/?token=secret"), "ws://host:1");
    }

    #[test]
    fn only_a_loopback_address_is_of_this_machine() {
        let local = |url| Endpoint::parse(url, None).unwrap().local_address();
        assert_eq!(local("ws://localhost:1").as_deref(), Some("localhost:1"));
        assert_eq!(local("http://127.0.0.1:8079/mcp").as_deref(), Some("127.0.0.1:8079"));
        assert_eq!(local("ws://[::1]:9").as_deref(), Some("[::1]:9"));
        for other in ["ws://10.0.0.1:8079", "ws://localhost.example.com:1", "ws://example.com"] {
            assert_eq!(local(other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_name_a_daemon_is_refused_with_a_reason() {
        assert!(matches!(Endpoint::parse("wss://h", None), Err(EndpointError::Scheme { .. })));
        assert!(matches!(Endpoint::parse("127.0.0.1:8079", None), Err(EndpointError::NotAUrl)));
        let token = Some(Secret::new("line\nbreak"));
        assert!(matches!(Endpoint::parse(DEFAULT_URL, token), Err(EndpointError::Token)));
    }
}
