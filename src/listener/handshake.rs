//! The WebSocket handshake (RFC 6455, section 4.2.1).

use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::{self, Answered};
use crate::ids::SessionKey;
use crate::session::Paced;

/// Which daemon took the upgrade: a shim warns when it is another version than its own.
const VERSION: HeaderName = HeaderName::from_static("inflightd-version");

/// Which language the client speaks after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// No subprotocol: the op protocol.
    Op,
    /// Subprotocol `mcp`.
    Mcp,
}

/// A handshake that can be answered.
#[derive(Debug)]
pub struct Upgrade {
    /// Which language the client asks for.
    pub door: Door,
    /// By what its client finds its calls again.
    pub session: Option<SessionKey>,
    accept: HeaderValue,
}

impl Upgrade {
    /// The answer behind which the WebSocket begins.
    pub fn answer(self) -> Answered {
        let mut response = Response::new(http::whole(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.insert(VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
        if self.door == Door::Mcp {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mcp"));
        }
        response
    }
}

/// Reads a request's handshake; `None` if it asks for no WebSocket.
///
/// # Errors
/// Why it cannot be answered.
pub fn read(request: &Request<Incoming>) -> Result<Option<Upgrade>, &'static str> {
    let headers = request.headers();
    if !lists(headers, &UPGRADE, "websocket") {
        return Ok(None);
    }
    if request.method() != hyper::Method::GET || !lists(headers, &CONNECTION, "upgrade") {
        return Err("a WebSocket handshake is a GET with Connection: Upgrade");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err("only version 13 of the WebSocket protocol is spoken here");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let Some(key) = key else { return Err("the handshake lacks a valid Sec-WebSocket-Key") };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accept = accept.map_err(|_| "the handshake's key cannot be answered")?;
    let door = if lists(headers, &SEC_WEBSOCKET_PROTOCOL, "mcp") { Door::Mcp } else { Door::Op };
    let session = match headers.get(SessionKey::HEADER) {
        None => None,
        Some(key) => Some(key.to_str().ok().and_then(SessionKey::parse).ok_or(SessionKey::FORM)?),
    };
    Ok(Some(Upgrade { door, session, accept }))
}

/// The bare stream, and what was read of it already. hyper's own buffer of 8 KiB goes here: held on to, it would be
/// the larger part of an idle connection.
pub fn taken_over(upgraded: Upgraded) -> Option<(Paced<TcpStream>, Vec<u8>)> {
    let parts = upgraded.downcast::<TokioIo<Paced<TcpStream>>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf.to_vec()))
}

/// Whether a header that is a list names this token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|each| each.trim().eq_ignore_ascii_case(token))
}

/// Undoes percent-encoding; what is not well encoded stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| *first == b'%');
        let decoded =
            escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_where_it_is_one() {
        assert_eq!(percent_decoded("a%2Bb%20c%zz%"), "a+b c%zz%");
    }
}
