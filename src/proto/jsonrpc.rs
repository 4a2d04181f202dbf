//! JSON-RPC 2.0 envelopes, borrowed from their frame.

use serde::de::{Error as _, IgnoredAny, MapAccess};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::proto::fill::{self, Fill};
use crate::proto::{Str, read_object};
use crate::provider::push_json_string;

/// Not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// Not a request.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Parameters that do not fit.
pub const INVALID_PARAMS: i32 = -32602;

/// One message, whichever kind.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Str<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Str<'a>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// An id that is `null` is there, and wrong; one that is not there makes a notification.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// A request whose parameters go elsewhere.
struct Head<'a, 'p, P> {
    version: Option<Str<'a>>,
    id: Option<&'a RawValue>,
    method: Option<Str<'a>>,
    params: Option<&'p mut P>,
}

impl<'de, P: Fill<'de>> Fill<'de> for Head<'de, '_, P> {
    const WHAT: &'static str = "an object";

    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let again = |name| Err(A::Error::duplicate_field(name));
        match name {
            "jsonrpc" if self.version.is_some() => return again("jsonrpc"),
            "jsonrpc" => self.version = Some(map.next_value()?),
            "id" if self.id.is_some() => return again("id"),
            "id" => self.id = Some(map.next_value()?),
            "method" if self.method.is_some() => return again("method"),
            "method" => self.method = Some(map.next_value()?),
            "params" => match self.params.take() {
                Some(params) => map.next_value_seed(fill::Into(params))?,
                None => return again("params"),
            },
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Reads a well-formed request in one pass, its parameters into `params`; `None` for whatever else: [`read`] then says
/// what it is.
pub(super) fn read_request<'a, P: Fill<'a>>(text: &'a str, params: &mut P) -> Option<(&'a str, Str<'a>)> {
    let mut head = Head { version: None, id: None, method: None, params: Some(params) };
    fill::read(text, &mut head).ok()?;
    let id = head.id.map(RawValue::get).filter(|id| is_id(id))?;
    let is_current = head.version.is_some_and(|version| version.0 == "2.0");
    Some((id, head.method.filter(|_| is_current)?))
}

/// A message, by what it is.
#[derive(Debug)]
pub enum Message<'a> {
    /// Something to be answered under this id (JSON text).
    Request {
        /// The client's id, as JSON text.
        id: &'a str,
        /// What is asked.
        method: Str<'a>,
        /// Its parameters, as JSON text.
        params: Option<&'a str>,
    },
    /// Something that is not answered.
    Notification {
        /// What happened.
        method: Str<'a>,
        /// Its parameters, as JSON text.
        params: Option<&'a str>,
    },
    /// An answer to something that the daemon never asked.
    Response,
    /// None of these: the error that says so, ready to be sent.
    Malformed(String),
}

/// Reads one frame.
pub fn read(text: &str) -> Message<'_> {
    let envelope: Envelope<'_> = match read_object(text) {
        Ok(envelope) => envelope,
        Err(error) if error.is_data() => {
            return Message::Malformed(error_response(
                "",
                INVALID_REQUEST,
                "the message is not a JSON-RPC object",
                None,
            ));
        }
        Err(_) => {
            return Message::Malformed(error_response(
                "",
                PARSE_ERROR,
                "the message is not valid JSON",
                None,
            ));
        }
    };
    let id = envelope.id.map(RawValue::get);
    let params = envelope.params.map(RawValue::get);
    if envelope.jsonrpc.as_ref().map(|version| &*version.0) != Some("2.0") {
        let id = id.filter(|id| is_id(id)).unwrap_or_default();
        return Message::Malformed(error_response(id, INVALID_REQUEST, "`jsonrpc` must be \"2.0\"", None));
    }
    match (envelope.method, id) {
        (Some(method), Some(id)) if is_id(id) => Message::Request { id, method, params },
        (Some(_), Some(_)) => {
            Message::Malformed(error_response("", INVALID_REQUEST, "`id` must be a string or a number", None))
        }
        (Some(method), None) => Message::Notification { method, params },
        (None, _) => Message::Response,
    }
}

/// Ids are strings and numbers; `null` would be answered into the void.
fn is_id(id: &str) -> bool {
    id.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

/// An error response; `data` is JSON text. An `id` that nobody knows is left out, as MCP's schema has it: its
/// clients refuse `null` (seen with the TypeScript SDK v1 and the Python SDK 1.x).
pub fn error_response(id: &str, code: i32, message: &str, data: Option<&str>) -> String {
    let mut out = String::with_capacity(96 + message.len());
    out.push_str("{\"jsonrpc\":\"2.0\"");
    if !id.is_empty() {
        out.push_str(",\"id\":");
        out.push_str(id);
    }
    out.push_str(",\"error\":{\"code\":");
    out.push_str(itoa::Buffer::new().format(code));
    out.push_str(",\"message\":");
    push_json_string(&mut out, message);
    if let Some(data) = data {
        out.push_str(",\"data\":");
        out.push_str(data);
    }
    out.push_str("}}");
    out
}

/// The start of a successful response, up to the opening brace of its result.
pub fn open_result(id: &str, capacity: usize) -> String {
    let mut out = String::new();
    push_result(&mut out, id, capacity);
    out
}

/// Appends the same, where `capacity` bytes are to follow.
pub fn push_result(out: &mut String, id: &str, capacity: usize) {
    out.reserve(capacity + id.len() + 40);
    out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
    out.push_str(id);
    out.push_str(",\"result\":{");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        assert!(matches!(
            read(r#"{"jsonrpc":"2.0","id":"a\"b","method":"ping"}"#),
            Message::Request { id: r#""a\"b""#, .. }
        ));
        assert!(matches!(
            read(r#"{"jsonrpc":"2.0","id":-7,"method":"ping"}"#),
            Message::Request { id: "-7", .. }
        ));
        assert!(matches!(read(r#"{"jsonrpc":"2.0","method":"x"}"#), Message::Notification { .. }));
        assert!(matches!(read(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Message::Response));
    }

    #[test]
    fn what_is_no_message_gets_a_typed_error() {
        let code = |text: &str| match read(text) {
            Message::Malformed(error) => {
                serde_json::from_str::<serde_json::Value>(&error).unwrap()["error"]["code"].as_i64().unwrap()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(code("{"), -32700);
        assert_eq!(code("garbage"), -32700);
        assert_eq!(code("[]"), -32600);
        assert_eq!(code("17"), -32600);
        assert_eq!(code(r#"["2.0",1,"ping",{}]"#), -32600);
        assert_eq!(code(r#"{"id":1,"method":"ping"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#), -32600);
    }
}
