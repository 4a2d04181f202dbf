//! Messages to and from an upstream server: envelopes borrowed from their line, results spliced as raw bytes. Typed
//! models drop members that they do not know and turn large integers into floats; a gateway must do neither.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::asking::{Can, one_line};
use crate::provider::{Step, Tell, push_json_string};

/// What of an error's text is kept: a model reads it, nobody reads more.
const ERROR_CHARS: usize = 2048;
/// Messages in one array: the revision 2025-03-26 had batches.
const BATCH: usize = 1024;

/// Members of a result that speak of one connection, not of the answer.
const OF_THE_CONNECTION: [&str; 4] = ["_meta", "resultType", "ttlMs", "cacheScope"];

/// Why a server has no result for a request: it said so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error {code}: {message}")]
pub(super) struct Refusal {
    /// Its JSON-RPC code.
    pub(super) code: i64,
    /// Its text, cut.
    pub(super) message: Box<str>,
    /// What it says beside it, as JSON text on one line.
    pub(super) data: Option<Box<str>>,
}

/// One message of a server.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    /// The end of a request of ours: its result as JSON text, or why there is none.
    Answer(u64, Result<&'a str, Refusal>),
    /// Something that wants an answer under this id, which is JSON text, with its parameters as JSON text.
    Request(&'a str, Cow<'a, str>, Option<&'a str>),
    /// Something that is told, with its parameters as JSON text.
    Notice(Cow<'a, str>, Option<&'a str>),
    /// An answer to something that was never asked.
    Stranger,
    /// An error that names no request of ours: over HTTP it still belongs to the one that it answers.
    StrangeRefusal(Refusal),
    /// Not a message.
    Garbage,
}

/// Derived structures are also read from arrays, by position: [`read`] looks at the first character before.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Error<'a> {
    #[serde(default)]
    code: i64,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads what came in one line or event; a batch is several messages.
pub(super) fn read<'a>(text: &'a str, mut each: impl FnMut(Incoming<'a>)) {
    let text = text.trim_ascii();
    if !text.starts_with('[') {
        return each(one(text));
    }
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(batch) if batch.len() <= BATCH => batch.into_iter().for_each(|message| each(one(message.get()))),
        Ok(_) | Err(_) => each(Incoming::Garbage),
    }
}

fn one(text: &str) -> Incoming<'_> {
    if !text.starts_with('{') {
        return Incoming::Garbage;
    }
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return Incoming::Garbage };
    let id = envelope.id.map(RawValue::get);
    let Some(method) = envelope.method else {
        let outcome = match (envelope.result, envelope.error) {
            (Some(result), None) => Ok(result.get()),
            (_, Some(error)) => Err(refusal(error.get())),
            (None, None) => return Incoming::Garbage,
        };
        // Ours are whole numbers; whatever else was never asked.
        return match (id.and_then(|id| id.parse().ok()), outcome) {
            (Some(id), outcome) => Incoming::Answer(id, outcome),
            (None, Ok(_)) => Incoming::Stranger,
            (None, Err(refusal)) => Incoming::StrangeRefusal(refusal),
        };
    };
    let Some(method) = string(method.get()) else { return Incoming::Garbage };
    match id {
        Some(id) => Incoming::Request(id, method, envelope.params.map(RawValue::get)),
        None => Incoming::Notice(method, envelope.params.map(RawValue::get)),
    }
}

/// What an error says, given as JSON text.
pub(super) fn refusal(error: &str) -> Refusal {
    let error = if error.starts_with('{') { serde_json::from_str::<Error<'_>>(error).ok() } else { None };
    let error =
        error.unwrap_or(Error { code: 0, message: Cow::Borrowed("an error without a form"), data: None });
    let data = error.data.map(RawValue::get).filter(|data| data.len() <= ERROR_CHARS).map(one_line);
    Refusal { code: error.code, message: error.message.chars().take(ERROR_CHARS).collect(), data }
}

/// What a JSON string says, borrowed where it holds no escape.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let plain = json.strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(plain))
}

/// What a `notifications/progress` says.
#[derive(Debug, Deserialize)]
pub(super) struct Progress<'a> {
    #[serde(rename = "progressToken")]
    pub(super) token: u64,
    #[serde(rename = "progress")]
    pub(super) reached: f64,
    #[serde(default)]
    pub(super) total: Option<f64>,
    #[serde(borrow, default)]
    pub(super) message: Option<Cow<'a, str>>,
}

impl Progress<'_> {
    /// Tells of it, if it rises above what was told last; what does not says nothing new.
    pub(super) fn tell(self, tell: Option<&Arc<dyn Tell>>, last: &mut f64) {
        if self.reached <= *last {
            return;
        }
        *last = self.reached;
        if let Some(tell) = tell {
            let message = self.message.unwrap_or_default().into_owned();
            tell.step(Step { progress: self.reached, total: self.total, message });
        }
    }
}

/// Members of a result that belong to the answer, as their server wrote them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spliced {
    /// Without braces.
    pub(super) members: String,
    /// Where in `members` the content array stands; empty where there is none.
    pub(super) content: Range<usize>,
    /// The tool says that it failed. That member is not in `members`.
    pub(super) is_error: bool,
    /// The server asks something instead of answering.
    pub(super) asks: bool,
}

impl<'de> Deserialize<'de> for Spliced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Spliced;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spliced, A::Error> {
                let mut spliced =
                    Spliced { members: String::new(), content: 0..0, is_error: false, asks: false };
                while let Some(key) = map.next_key::<&'de RawValue>()? {
                    let value: &'de RawValue = map.next_value()?;
                    spliced.take(key.get(), value.get());
                }
                Ok(spliced)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Spliced {
    /// Takes a result apart; `None` where it is no object.
    pub(super) fn of(result: &str) -> Option<Self> {
        let mut spliced: Self = serde_json::from_str(result).ok()?;
        if spliced.members.is_empty() && !spliced.is_error {
            // Whoever reads a tool's result looks for it.
            spliced.take("\"content\"", "[]");
        }
        Some(spliced)
    }

    fn take(&mut self, key: &str, value: &str) {
        let name = string(key).unwrap_or_default();
        if OF_THE_CONNECTION.contains(&&*name) {
            self.asks |= name == "resultType" && value != "\"complete\"";
            return;
        }
        if name == "isError" && value == "true" {
            self.is_error = true;
            return;
        }
        if !self.members.is_empty() {
            self.members.push(',');
        }
        self.members.push_str(key);
        self.members.push(':');
        let start = self.members.len();
        self.members.push_str(value);
        if name == "content" {
            self.content = start..self.members.len();
        }
    }
}

/// How requests are written: a revision reached by `initialize`, or the stateless one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// 2025-11-25 and older.
    Handshake,
    /// 2026-07-28: every request says who asks.
    Stateless,
}

/// The newest revision of each era.
pub(super) const STATELESS: &str = "2026-07-28";
pub(super) const HANDSHAKE: &str = "2025-11-25";

/// Who asks.
pub(super) const CLIENT_INFO: &str =
    concat!("{\"name\":\"inflightd\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");

/// A request that is being written.
pub(super) struct Draft {
    text: String,
    has_members: bool,
}

impl Draft {
    /// A request of this method.
    pub(super) fn new(id: u64, method: &str, capacity: usize) -> Self {
        let mut text = String::with_capacity(capacity + method.len() + 384);
        text.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
        text.push_str(itoa::Buffer::new().format(id));
        text.push_str(",\"method\":\"");
        text.push_str(method);
        text.push_str("\",\"params\":{");
        Self { text, has_members: false }
    }

    /// Adds a parameter that is JSON text already, kept as it is. A line must not end within it: between two tokens
    /// a space says the same as the end of a line, and inside of a string JSON has none.
    pub(super) fn raw(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
            self.text.push_str(json);
        } else {
            self.text.extend(json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
        }
        self
    }

    /// Adds a parameter that is a text.
    pub(super) fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        push_json_string(&mut self.text, value);
        self
    }

    /// Adds `_meta`: who asks and what it can be asked for, where every request says so, and whatever `more` writes behind it, each with a comma
    /// before it.
    pub(super) fn meta(mut self, era: Era, can: Can, more: &str) -> Self {
        let more = match era {
            Era::Handshake => more.strip_prefix(',').unwrap_or(more),
            Era::Stateless => more,
        };
        if era == Era::Handshake && more.is_empty() {
            return self;
        }
        self.name("_meta");
        self.text.push('{');
        if era == Era::Stateless {
            self.text.push_str("\"io.modelcontextprotocol/protocolVersion\":\"");
            self.text.push_str(STATELESS);
            self.text.push_str("\",\"io.modelcontextprotocol/clientCapabilities\":");
            self.text.push_str(&can.capabilities());
            self.text.push_str(",\"io.modelcontextprotocol/clientInfo\":");
            self.text.push_str(CLIENT_INFO);
        }
        self.text.push_str(more);
        self.text.push('}');
        self
    }

    /// The whole message.
    pub(super) fn done(mut self) -> String {
        self.text.push_str("}}");
        self.text
    }

    fn name(&mut self, name: &str) {
        if self.has_members {
            self.text.push(',');
        }
        self.has_members = true;
        push_json_string(&mut self.text, name);
        self.text.push(':');
    }
}

/// Takes a request of ours back.
pub(super) fn cancelled(id: u64) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\
         \"reason\":\"nobody waits for it any more\"}}}}"
    )
}

/// The answer to what a server asks: it is there, or it is not for it.
pub(super) fn answer(id: &str, method: &str) -> String {
    if method == "ping" {
        return format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}");
    }
    let mut out = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32601,\"message\":");
    let name: String = method.chars().take(64).collect();
    push_json_string(&mut out, &format!("inflightd did not declare that it serves `{name}`"));
    out.push_str("}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        read(text, |message| {
            kinds.push(match message {
                Incoming::Answer(_, Ok(_)) => "result",
                Incoming::Answer(_, Err(_)) => "error",
                Incoming::Request(..) => "request",
                Incoming::Notice(..) => "notice",
                Incoming::Stranger | Incoming::StrangeRefusal(_) => "stranger",
                Incoming::Garbage => "garbage",
            });
        });
        kinds
    }

    #[test]
    fn messages_are_told_apart() {
        for (text, kind) in [
            (r#"{"result":{},"jsonrpc":"2.0","id":7}"#, "result"),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"x"}}"#, "error"),
            (r#"{"jsonrpc":"2.0","id":7,"error":17}"#, "error"),
            (r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#, "request"),
            (r#"{"jsonrpc":"2.0","method":"notifications/x"}"#, "notice"),
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, "stranger"),
            (r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#, "stranger"),
            (r#"{"jsonrpc":"2.0","id":7}"#, "garbage"),
            ("starting up…", "garbage"),
            (r#"["2.0",1]"#, "garbage"),
        ] {
            assert_eq!(kinds(text)[0], kind, "{text}");
        }
        assert_eq!(kinds(r#"[{"id":1,"result":{}},{"method":"x"}]"#), ["result", "notice"]);
    }

    #[test]
    fn a_result_is_spliced_as_it_was_written() {
        let result = r#"{ "content" : [{"type":"text","text":"a\u0062","n":18446744073709551616}], "_meta":{"x":1},
            "resultType":"complete","zahl":1.50e+07,"isError":false,"\u005fmeta":2,"ttlMs":1,"cacheScope":"private" }"#;
        let spliced = Spliced::of(result).unwrap();
        let content = r#"[{"type":"text","text":"a\u0062","n":18446744073709551616}]"#;
        assert_eq!(spliced.members, format!("\"content\":{content},\"zahl\":1.50e+07,\"isError\":false"));
        assert_eq!(&spliced.members[spliced.content], content);
        assert!(!spliced.is_error && !spliced.asks);
    }

    #[test]
    fn a_failure_and_a_question_are_seen() {
        let failed = Spliced::of(r#"{"content":[],"isError":true}"#).unwrap();
        assert!(failed.is_error && failed.members == "\"content\":[]");
        assert!(Spliced::of(r#"{"resultType":"input_required"}"#).unwrap().asks);
        assert_eq!(Spliced::of("{}").unwrap().members, "\"content\":[]");
        assert_eq!((Spliced::of("[]"), Spliced::of("7")), (None, None));
    }

    #[test]
    fn a_request_stays_on_one_line_and_keeps_its_arguments() {
        let arguments = "{\"n\": 18446744073709551616,\r\n \"f\": 1E+2, \"s\": \"a\\nb\"}";
        let request = Draft::new(3, "tools/call", 0).text("name", "a\"b").raw("arguments", arguments);
        assert_eq!(
            request.meta(Era::Handshake, Can::NOTHING, ",\"progressToken\":3").done(),
            "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/call\",\"params\":{\"name\":\"a\\\"b\",\"arguments\":\
             {\"n\": 18446744073709551616,   \"f\": 1E+2, \"s\": \"a\\nb\"},\"_meta\":{\"progressToken\":3}}}"
        );
    }

    #[test]
    fn a_stateless_request_says_who_asks() {
        let text = Draft::new(1, "server/discover", 0).meta(Era::Stateless, Can::NOTHING, "").done();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], STATELESS);
        assert!(json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"].is_object());
        let plain = Draft::new(1, "ping", 0).meta(Era::Handshake, Can::NOTHING, "").done();
        assert!(plain.ends_with("\"params\":{}}"), "{plain}");
    }
}
