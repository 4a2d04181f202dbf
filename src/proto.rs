//! Bytes ↔ calls: what a frame asks for, and how an answer is written. No sockets, no waiting.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::call::{Answer, CallError, Options};
use crate::config::{Ladder, Secret};
use crate::ids::{SessionKey, epoch_ms};
use crate::provider::push_json_string;
use crate::tool::{Insight, Registry};

pub mod jsonrpc;
pub mod mcp;
pub mod op;

/// What a dialect may look at while it reads a frame.
pub struct View<'a> {
    /// Tools and providers.
    pub registry: &'a Registry,
    /// Statistics.
    pub insight: &'a dyn Insight,
    /// Timeouts to announce.
    pub ladder: &'a Ladder,
    /// Who may come in.
    pub auth: &'a Auth,
}

/// Checks tokens, in constant time.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    token: Option<blake3::Hash>,
}

impl Auth {
    /// Only who brings this token comes in; everybody, where there is none.
    pub fn new(token: Option<&Secret>) -> Self {
        Self { token: token.map(|token| blake3::hash(token.reveal().as_bytes())) }
    }

    /// Whether callers must bring a token.
    pub fn required(&self) -> bool {
        self.token.is_some()
    }

    /// Whether this is the token, or none is needed.
    pub fn admits(&self, token: Option<&str>) -> bool {
        match (&self.token, token) {
            (None, _) => true,
            // Hashes are compared in constant time.
            (Some(expected), Some(token)) => *expected == blake3::hash(token.as_bytes()),
            (Some(_), None) => false,
        }
    }
}

/// Why a connection is closed, by its WebSocket close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// 1001
    GoingAway,
    /// 1002
    ProtocolError,
    /// 1007
    NotText,
    /// 1008
    DoesNotRead,
    /// 1009
    TooBig,
    /// 4000
    NotJson,
    /// 4001
    NoHello,
    /// 4002
    HelloTooLate,
    /// 4003
    Unauthorized,
}

impl Close {
    /// The code and the reason on the wire.
    pub fn frame(self) -> (u16, &'static str) {
        match self {
            Self::GoingAway => (1001, "shutting down"),
            Self::ProtocolError => (1002, "protocol error"),
            Self::NotText => (1007, "invalid UTF-8"),
            Self::DoesNotRead => (1008, "the client does not read"),
            Self::TooBig => (1009, "frame too big"),
            Self::NotJson => (4000, "not JSON"),
            Self::NoHello => (4001, "the first frame must be a hello"),
            Self::HelloTooLate => (4002, "no hello within 15 s"),
            Self::Unauthorized => (4003, "unauthorized"),
        }
    }
}

/// What a frame asks for.
#[derive(Debug)]
pub enum Request<'a> {
    /// Nothing that needs an answer.
    Nothing,
    /// This answer, at once.
    Reply(String),
    /// This answer to the client's introduction, which brought a session key.
    Attach(String, SessionKey),
    /// This answer, then the end of the connection.
    ReplyThenClose(String, Close),
    /// The end of the connection.
    Close(Close),
    /// A call.
    Call(CallFrame<'a>),
    /// To take a call back.
    Cancel {
        /// The client's id of the call, as JSON text.
        id: Cow<'a, str>,
        /// What acknowledges it.
        acknowledge: Option<String>,
    },
}

/// A call as a frame holds it.
#[derive(Debug)]
pub struct CallFrame<'a> {
    /// What its answer needs.
    pub ticket: Ticket,
    /// Which tool.
    pub tool: Cow<'a, str>,
    /// Its arguments, as JSON text.
    pub arguments: &'a str,
    /// What else distinguishes it, as one JSON object.
    pub extra: Option<String>,
    /// What else the caller says.
    pub options: Options,
}

/// What an answer needs to find its request at the client.
#[derive(Debug, Default)]
pub struct Ticket {
    /// The client's id, as JSON text; a client may name none.
    pub id: Option<Box<str>>,
    /// What progress goes by, as JSON text; none: no progress is wanted.
    pub progress: Option<Box<str>>,
    /// Progress messages sent so far.
    pub told: u64,
    /// Whether it is of the stateless era (MCP).
    pub stateless: bool,
}

/// Where the numbers of a call's progress messages begin. They must rise; how far they had come for a call that was
/// sent before nobody knows, but never more than one came each millisecond.
fn told_before(resume: bool) -> u64 {
    if resume { epoch_ms() } else { 0 }
}

/// One language of clients.
pub trait Dialect: Send + 'static {
    /// Reads a text frame.
    fn read<'a>(&mut self, text: &'a str, view: &View<'_>) -> Request<'a>;

    /// Answers a frame that is not text.
    fn not_text(&self) -> Request<'static>;

    /// Whether the client has still to introduce itself.
    fn awaits_hello(&self) -> bool;

    /// What says that a call is under way, where the language has it.
    fn accepted(&self, ticket: &Ticket, patience: Duration) -> Option<String>;

    /// A progress message with `ticket.told` as its number.
    fn progress(&self, ticket: &Ticket, message: &str) -> Option<String>;

    /// The end of a call, where the language answers it.
    fn answer(&self, ticket: &Ticket, answer: &Answer) -> Option<String>;

    /// A call that could not be handed over: its id is in use, or there are too many.
    fn refuse(&self, ticket: &Ticket, error: &CallError) -> String;
}

/// A JSON string that is borrowed from its frame where it holds no escape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Str<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Str<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Str(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Str(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Appends an error as `{"code","message","retryable","retry_after_ms"?,"details"?}`.
pub fn push_error(out: &mut String, error: &CallError) {
    out.push_str("{\"code\":\"");
    out.push_str(error.code().label());
    out.push_str("\",\"message\":");
    push_json_string(out, &error.to_string());
    push_retry(out, error);
    if let Some(argument) = error.argument() {
        out.push_str(",\"details\":{\"argument\":");
        push_json_string(out, argument);
        out.push('}');
    } else if error.still_running() {
        out.push_str(",\"details\":{\"still_running\":true,\"collect_with\":\"get_request\"}");
    }
    out.push('}');
}

/// Appends `,"retryable":…` and, where waiting helps, `,"retry_after_ms":…`.
pub fn push_retry(out: &mut String, error: &CallError) {
    out.push_str(if error.retryable() { ",\"retryable\":true" } else { ",\"retryable\":false" });
    if let Some(after) = error.retry_after_ms() {
        out.push_str(",\"retry_after_ms\":");
        out.push_str(itoa::Buffer::new().format(after));
    }
}

/// Appends a span in milliseconds, with microseconds behind the point.
pub fn push_ms(out: &mut String, span: Duration) {
    let micros = span.as_micros();
    let mut digits = itoa::Buffer::new();
    out.push_str(digits.format(micros / 1000));
    let rest = micros % 1000;
    if rest > 0 {
        // Writing to a String cannot fail.
        let _ = write!(out, ".{rest:03}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_in_milliseconds() {
        let of = |micros| {
            let mut text = String::new();
            push_ms(&mut text, Duration::from_micros(micros));
            text
        };
        assert_eq!([of(0), of(7), of(1000), of(1_234_050)], ["0", "0.007", "1", "1234.050"]);
    }

    #[test]
    fn only_the_token_itself_comes_in() {
        let auth = Auth::new(Some(&Secret::new("0123456789abcdef")));
        assert!(auth.admits(Some("0123456789abcdef")));
        for wrong in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdef ")] {
            assert!(!auth.admits(wrong));
        }
        assert!(Auth::new(None).admits(None));
    }
}
