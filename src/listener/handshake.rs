//! The WebSocket handshake (RFC 6455, section 4.2.1).

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::ids::SessionKey;

/// Which language the client speaks after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// No subprotocol: the op protocol.
    Op,
    /// Subprotocol `mcp`.
    Mcp,
}

/// A handshake that can be answered.
#[derive(Debug)]
pub(super) struct Upgrade {
    pub(super) door: Door,
    pub(super) accept: HeaderValue,
    /// By what its client finds its calls again.
    pub(super) session: Option<SessionKey>,
}

/// Reads a request's handshake; `None` if it asks for no WebSocket.
///
/// # Errors
/// Why it cannot be answered.
pub(super) fn read(request: &Request<Incoming>) -> Result<Option<Upgrade>, &'static str> {
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
    Ok(Some(Upgrade { door, accept, session }))
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
