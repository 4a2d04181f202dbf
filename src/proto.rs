//! Bytes ↔ calls: what a frame asks for, and how an answer is written. No sockets, no waiting.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::call::{Answer, CallError, Calls, Continues, Options, Principal, no_such_tool};
use crate::clients::Clients;
use crate::config::Ladder;
use crate::ids::{QuestionId, SessionKey};
use crate::proto::unasked::{Unasked, Wanted};
use crate::provider::asking::{Question, Said};
use crate::provider::upstream::Server;
use crate::provider::{Logged, Usage, push_json_string};
use crate::tool::{Insight, Tool};

mod auth;
mod fill;
pub mod jsonrpc;
pub mod mcp;
pub mod op;
pub mod progress;
mod short;
pub mod unasked;

pub use auth::Auth;
use progress::{Numbers, Progress};
pub use short::Short;

/// What a dialect may look at while it reads a frame.
pub struct View<'a> {
    /// The path of a call, with its tools.
    pub calls: &'a Calls,
    /// Statistics.
    pub insight: &'a dyn Insight,
    /// Timeouts to announce.
    pub ladder: &'a Ladder,
    /// Who may come in.
    pub auth: &'a Auth,
    /// Who asks.
    pub principal: &'a Principal,
    /// Who the clients are, and when they give up.
    pub clients: &'a Clients,
    /// Whether a request that is answered in turn is served at once.
    pub turn: Turn,
}

impl View<'_> {
    /// The tools that are there for who asks, in the order in which they are listed.
    pub fn tools(&self) -> Vec<Arc<Tool>> {
        let registry = self.calls.registry();
        registry.tools().iter().filter(|tool| self.principal.allows(&tool.name)).cloned().collect()
    }

    /// What calling a tool that is not there for who asks is answered with.
    pub fn no_such_tool(&self, name: &str) -> CallError {
        no_such_tool(&self.calls.registry(), self.principal, name)
    }
}

/// How many requests of one connection may wait for their turn. A client that takes one answer for each request sends one
/// at a time, unless it is wrong.
pub const WAIT_FOR_TURN: usize = 256;

/// What becomes of a request whose client is answered strictly in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nobody is before it.
    Free,
    /// It waits for those before it.
    Taken,
    /// Too many wait already: it can only be refused, in turn.
    Full,
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
    /// 1008
    AsksTooMuch,
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
            Self::AsksTooMuch => (1008, "too many requests wait for their turn"),
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
    /// This answer to the client's introduction.
    Welcome {
        /// The answer.
        text: String,
        /// For whom calls are made from here on, where the introduction said so.
        principal: Option<Arc<Principal>>,
        /// Under which key what the client may lose is kept for it, where it brought one.
        key: Option<SessionKey>,
    },
    /// This answer, behind those before it.
    ReplyInTurn(String),
    /// Nothing yet: the frame is read again when its turn has come.
    Wait,
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
        /// What says that there is no such call, to be taken back or collected.
        unknown: Option<String>,
        /// Whether the call is one that is answered in turn; its answer comes before the acknowledgement then.
        in_turn: bool,
    },
    /// What is said to a question.
    Said(QuestionId, Said),
    /// To be told of changes until this is taken back.
    Listen {
        /// The client's id of it, as JSON text.
        id: &'a str,
        /// Of which.
        wanted: Wanted,
        /// What is said first.
        acknowledged: String,
    },
    /// To be told when a resource changes.
    Watch {
        /// Whose it is.
        server: Arc<Server>,
        /// Which.
        uri: Box<str>,
        /// The call that waits for what its server says to it.
        frame: CallFrame<'a>,
    },
    /// To be told of it no more.
    Unwatch {
        /// Which.
        uri: Cow<'a, str>,
        /// What is answered.
        text: String,
    },
}

/// A client's id in the spelling by which it is compared: `"x"` and `"\u0078"` are one id.
pub fn one_spelling(id: &str) -> Cow<'_, str> {
    if !id.contains('\\') {
        return Cow::Borrowed(id);
    }
    // Only a text is spelt in several ways; whatever else has a backslash somewhere inside stays as it is.
    let Ok(text) = serde_json::from_str::<String>(id) else { return Cow::Borrowed(id) };
    let mut spelt = String::with_capacity(id.len());
    push_json_string(&mut spelt, &text);
    Cow::Owned(spelt)
}

/// A call as a frame holds it.
#[derive(Debug)]
pub struct CallFrame<'a> {
    /// What its answer needs.
    pub ticket: Ticket,
    /// Which tool.
    pub tool: Cow<'a, str>,
    /// Its arguments, as JSON text.
    pub arguments: Cow<'a, str>,
    /// What else distinguishes it, as one JSON object.
    pub extra: Option<String>,
    /// What else the caller says.
    pub options: Options,
    /// The earlier call that it goes on with.
    pub continues: Option<Continued<'a>>,
}

/// What a call brings that goes on with an earlier one.
#[derive(Debug)]
pub struct Continued<'a> {
    /// What the earlier one's result named.
    pub state: Option<Cow<'a, str>>,
    /// What is said to its questions, as JSON text.
    pub responses: Option<&'a str>,
}

impl Continued<'_> {
    /// The same for the path of a call.
    pub fn continues(&self) -> Continues<'_> {
        Continues { state: self.state.as_deref(), responses: self.responses }
    }
}

/// What a request is for, which decides how it is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Serves {
    /// A tool.
    #[default]
    Tool,
    /// A resource of a server's.
    Resource,
    /// Whatever else a server serves.
    Other,
}

/// What an answer needs to find its request at the client.
#[derive(Debug, Default)]
pub struct Ticket {
    /// The client's id, as JSON text; a client may name none.
    pub id: Option<Short>,
    /// What progress goes by, as JSON text; none: no progress is wanted.
    pub progress: Option<Short>,
    /// The numbers of its progress messages.
    pub numbers: Numbers,
    /// Whether it is of the stateless era (MCP).
    pub stateless: bool,
    /// What it is for.
    pub serves: Serves,
    /// Whether it goes on with an earlier one.
    pub continues: bool,
    /// Whether whatever comes behind it waits for its answer, which is all that is said of it.
    pub in_turn: bool,
}

/// One language of clients.
pub trait Dialect: Send + Unpin + 'static {
    /// Reads a text frame.
    fn read<'a>(&mut self, text: &'a str, view: &View<'_>) -> Request<'a>;

    /// Answers a frame that is not text.
    fn not_text(&self) -> Request<'static>;

    /// Whether the client has still to introduce itself.
    fn awaits_hello(&self) -> bool;

    /// What says that a call is under way, where the language has it.
    fn accepted(&self, ticket: &Ticket, patience: Duration) -> Option<String>;

    /// A message of the log of a call under way; `None`: it is not told.
    fn logged(&self, logged: &Logged) -> Option<String>;

    /// A progress message, where the client wants it.
    fn progress(&self, ticket: &Ticket, progress: &Progress<'_>) -> Option<String>;

    /// Writes the end of a call to `out`, which is empty; says whether the language answers it.
    fn answer(&self, ticket: &Ticket, answer: &Answer, out: &mut String) -> bool;

    /// A question to whoever called, where the language has them: only callers that can be asked are.
    fn question(&self, id: QuestionId, question: &Question) -> Option<String>;

    /// What says that a question needs no answer any more.
    fn withdrawn(&self, id: QuestionId) -> Option<String>;

    /// What tells of something, where the language has it; `of`: the subscription that wants it, as JSON text, where they
    /// have names.
    fn tell(&self, what: Unasked<'_>, of: Option<&str>) -> Option<String>;

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

/// What is read from an object only. A derived struct would also be read from an array, by position, which nobody
/// means.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// Who a client says it is.
#[derive(Debug, Default, Deserialize)]
pub struct ClientInfo<'a> {
    /// What it is called.
    #[serde(borrow, default)]
    pub name: Option<Str<'a>>,
    /// Which one it is.
    #[serde(borrow, default)]
    pub version: Option<Str<'a>>,
}

impl<'a> ClientInfo<'a> {
    /// Reads it; what does not fit says nothing, which is no reason to refuse the client.
    pub fn read(text: &'a str) -> Self {
        read_object(text).unwrap_or_default()
    }

    /// Its name and version, empty where it says none.
    pub fn parts(&self) -> (&str, &str) {
        (
            self.name.as_ref().map_or("", |name| &name.0),
            self.version.as_ref().map_or("", |version| &version.0),
        )
    }
}

/// Reads a JSON object.
pub fn read_object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    serde_json::from_str(text).map(|Object(read)| read)
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

/// Appends what an answer cost, as `{"prompt_tokens","completion_tokens","cost"?}`.
pub fn push_usage(out: &mut String, usage: Usage) {
    out.push_str("{\"prompt_tokens\":");
    out.push_str(itoa::Buffer::new().format(usage.prompt_tokens));
    out.push_str(",\"completion_tokens\":");
    out.push_str(itoa::Buffer::new().format(usage.completion_tokens));
    if let Some(cost) = usage.cost {
        out.push_str(",\"cost\":");
        cost.push_json(out);
    }
    out.push('}');
}

/// Appends a span in milliseconds, with microseconds behind the point.
pub fn push_ms(out: &mut String, span: Duration) {
    // Wide numbers are slow to write.
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let mut digits = itoa::Buffer::new();
    out.push_str(digits.format(micros / 1000));
    let rest = micros % 1000;
    if rest > 0 {
        // Three digits, with zeros in front.
        let padded = digits.format(rest + 1000);
        out.push('.');
        out.push_str(padded.get(1..).unwrap_or_default());
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
}
