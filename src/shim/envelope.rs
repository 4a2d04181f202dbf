//! What the shim must know of a message: its id and method, read without touching its bytes.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The members of a JSON-RPC message that decide where it belongs.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// A message by what it asks for.
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// Wants an answer.
    Request { id: Id, method: Method, params: Option<&'a RawValue> },
    /// Wants none.
    Notification { method: Method, params: Option<&'a RawValue> },
    /// Is one.
    Response { id: Id, failed: bool },
    /// No JSON-RPC message: the daemon says what is wrong with it.
    Opaque,
}

/// The methods that the shim treats in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Opens a session of the older era.
    Initialize,
    /// Confirms it.
    Initialized,
    /// Asks whether anybody is there.
    Ping,
    /// May do something in the world.
    ToolsCall,
    /// Takes a request back.
    Cancelled,
    /// Any other.
    Other,
}

/// A request's id: its own text, for the answer, and a form in which equal ids are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    raw: Box<str>,
    key: Box<str>,
}

impl Id {
    fn new(raw: &RawValue) -> Self {
        let text = raw.get();
        // The same string can be written with and without escapes; numbers are compared as written.
        let plain = text.contains('\\').then(|| serde_json::from_str::<String>(text).ok()).flatten();
        let key = plain.map_or_else(|| text.into(), |plain| super::answer::quoted(&plain).into());
        Self { raw: text.into(), key }
    }

    /// As the client wrote it.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// Equal for equal ids.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl Method {
    fn new(name: &str) -> Self {
        match name {
            "initialize" => Self::Initialize,
            "notifications/initialized" => Self::Initialized,
            "ping" => Self::Ping,
            "tools/call" => Self::ToolsCall,
            "notifications/cancelled" => Self::Cancelled,
            _ => Self::Other,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a message; never fails, since what is wrong with one is the daemon's to say.
    pub(super) fn read(text: &'a str) -> Self {
        let Ok(envelope) = serde_json::from_str::<Envelope<'a>>(text) else {
            return Self::Opaque;
        };
        let method = envelope.method.as_deref().map(Method::new);
        let params = envelope.params;
        match (envelope.id.map(Id::new), method) {
            (Some(id), Some(method)) => Self::Request { id, method, params },
            (None, Some(method)) => Self::Notification { method, params },
            (Some(id), None) => Self::Response { id, failed: envelope.error.is_some() },
            (None, None) => Self::Opaque,
        }
    }
}

/// The request that a `notifications/cancelled` takes back.
pub(super) fn cancelled_id(params: Option<&RawValue>) -> Option<Id> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "requestId")]
        request_id: &'a RawValue,
    }
    let params: Params<'_> = serde_json::from_str(params?.get()).ok()?;
    Some(Id::new(params.request_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_in_other_escapes_is_the_same_id() {
        let Message::Request { id: asked, .. } = Message::read(r#"{"id":"\u0061/b","method":"x"}"#) else {
            panic!("a request");
        };
        let Message::Response { id: answered, failed } = Message::read(r#"{"id":"a\/b","result":{}}"#) else {
            panic!("a response");
        };
        assert_eq!(asked.key(), answered.key());
        assert_eq!(asked.raw(), r#""\u0061/b""#);
        assert!(!failed);
    }

    #[test]
    fn a_huge_number_is_an_id_like_any_other() {
        let text = r#"{"method":"tools\/call","id":18446744073709551616}"#;
        let Message::Request { id, method, .. } = Message::read(text) else { panic!("a request") };
        assert_eq!(id.raw(), "18446744073709551616");
        assert_eq!(method, Method::ToolsCall);
    }

    #[test]
    fn what_is_no_message_is_left_to_the_daemon() {
        for text in ["", "nonsense", "[]", "{}", r#"{"id":1,"id":2,"method":"x"}"#] {
            assert!(matches!(Message::read(text), Message::Opaque), "{text}");
        }
    }
}
