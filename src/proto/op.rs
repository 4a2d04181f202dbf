//! The op protocol of shim clients: JSON objects with an `op`, one for each text frame.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::call::{Answer, Bounds, CallError, Options, Priority};
use crate::clients::{Met, Patience};
use crate::ids::{ClientSessionId, QuestionId, SessionKey, epoch_ms};
use crate::proto::progress::{Numbers, Progress, push_number};
use crate::proto::unasked::Unasked;
use crate::proto::{
    CallFrame, Close, Dialect, Request, Short, Str, Ticket, Turn, View, push_error, read_object,
};
use crate::provider::asking::Question;
use crate::provider::{Logged, push_json_string};
use crate::telemetry::push_timestamp;
use crate::tool::{Builtin, Dedup};

mod answer;
mod hello;
mod simple;

pub use answer::push_answer;
use simple::Mode;

/// One op connection.
#[derive(Debug)]
pub struct Op {
    session: ClientSessionId,
    /// A token came with the upgrade already, or none is needed.
    admitted: bool,
    greeted: bool,
    mode: Mode,
    met: Option<Met>,
}

/// Whom an answer goes to: the client's id of the request, as JSON text.
#[derive(Debug, Clone, Copy)]
enum To<'a> {
    /// In `request_id`.
    Ordinary(Option<&'a str>),
    /// In `id`, and strictly in order.
    Simple(Option<&'a str>),
}

/// Any frame of a client.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    op: Str<'a>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "clientInfo")]
    client_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    token: Option<Str<'a>>,
    #[serde(borrow, default)]
    session_id: Option<Str<'a>>,
    #[serde(borrow, default)]
    session_key: Option<Str<'a>>,
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    tool: Option<NamedTool<'a>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    priority: Option<Str<'a>>,
    #[serde(default)]
    timeout_secs: Option<f64>,
    #[serde(borrow, default)]
    dedup: Option<Str<'a>>,
    #[serde(default)]
    resume: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct NamedTool<'a> {
    #[serde(borrow)]
    name: Str<'a>,
}

/// The body of `POST /api/v1/execute`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execute<'a> {
    /// Which tool.
    #[serde(borrow)]
    pub tool: Str<'a>,
    /// Its arguments.
    #[serde(borrow, default)]
    pub arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    priority: Option<Str<'a>>,
    #[serde(default)]
    timeout_secs: Option<f64>,
    #[serde(borrow, default)]
    dedup: Option<Str<'a>>,
}

impl Execute<'_> {
    /// What the caller says beside the arguments.
    ///
    /// # Errors
    /// A text that names the member which does not fit.
    pub fn options(&self) -> Result<Options, String> {
        options(self.priority.as_ref(), self.timeout_secs, self.dedup.as_ref())
    }
}

impl Op {
    /// A connection that has not said hello. `admitted`: it needs no token in its hello.
    pub fn new(session: ClientSessionId, admitted: bool) -> Self {
        Self { session, admitted, greeted: false, mode: Mode::Ordinary, met: None }
    }

    fn hello(&mut self, text: &str, frame: &Frame<'_>, view: &View<'_>) -> Request<'static> {
        let token = frame.token.as_ref().map(|token| &*token.0);
        let principal = if self.admitted { None } else { view.auth.admit(token) };
        if principal.is_none() && !self.admitted {
            let refused = "{\"op\":\"hello_ack\",\"ok\":false,\"error\":\"unauthorized\"}";
            return Request::ReplyThenClose(refused.into(), Close::Unauthorized);
        }
        let key = frame.session_key.as_ref().map(|key| SessionKey::parse(&key.0));
        if key == Some(None) {
            let mut refused = String::from("{\"op\":\"hello_ack\",\"ok\":false,\"error\":");
            push_json_string(&mut refused, SessionKey::FORM);
            return Request::ReplyThenClose(refused + "}", Close::NoHello);
        }
        self.greeted = true;
        if frame.client_info.is_some() {
            self.mode = Mode::Undecided;
        }
        self.met = hello::introduced(text, view);
        let mut out = String::from("{\"op\":\"hello_ack\",\"ok\":true,\"session_id\":");
        match &frame.session_id {
            // A label of the client's own: it is given back, and nothing goes by it.
            Some(label) => push_json_string(&mut out, &label.0),
            None => push_json_string(&mut out, &format!("conn-{}", self.session.0)),
        }
        out.push_str(",\"server\":{\"name\":\"inflightd\",\"version\":\"");
        out.push_str(env!("CARGO_PKG_VERSION"));
        out.push_str("\"},\"timeouts\":{");
        hello::push_timeouts(&mut out, view.ladder);
        out.push_str("}}");
        Request::Welcome { text: out, principal: principal.cloned(), key: key.flatten() }
    }

    /// In which form a request is answered. The first one that has an id of either kind decides for a connection that
    /// may be simple; `request_id` always gets the ordinary form.
    fn asker<'a>(&mut self, request_id: Option<&'a RawValue>, id: Option<&'a RawValue>) -> To<'a> {
        if self.mode == Mode::Undecided {
            self.mode = match (request_id, id) {
                (Some(_), _) => Mode::Ordinary,
                (None, Some(_)) => Mode::Simple,
                (None, None) => Mode::Undecided,
            };
        }
        match (self.mode, request_id) {
            (Mode::Simple, None) => {
                To::Simple(id.map(RawValue::get).filter(|id| id.len() <= simple::ID_BYTES))
            }
            (_, id) => To::Ordinary(id.map(RawValue::get)),
        }
    }

    /// Whom a frame without any id comes from.
    fn unnamed(&self) -> To<'static> {
        if self.mode == Mode::Simple { To::Simple(None) } else { To::Ordinary(None) }
    }

    /// A frame after hello that cannot be read: answered under its id, if that much can be read of it.
    fn unreadable(&mut self, text: &str, error: &serde_json::Error, turn: Turn) -> Request<'static> {
        #[derive(Default, Deserialize)]
        struct OnlyIds<'a> {
            #[serde(borrow, default)]
            request_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
        }
        let ids: OnlyIds<'_> = read_object(text).unwrap_or_default();
        let to = self.asker(ids.request_id, ids.id);
        if let To::Simple(_) = to
            && let Some(waits) = in_turn(to, turn)
        {
            return waits;
        }
        let what = if error.is_data() {
            "the frame's members do not fit, or `op` is missing"
        } else {
            "the frame is not valid JSON"
        };
        Request::Reply(refused("error", to, &CallError::Invalid(what.into())))
    }

    fn call<'a>(&self, frame: Frame<'a>, to: To<'a>, view: &View<'_>) -> Request<'a> {
        let invalid = |text: &str| Request::Reply(call_refused(to, &CallError::Invalid(text.into())));
        let Some(tool) = frame.name.or(frame.tool.map(|tool| tool.name)) else {
            return invalid("call_tool needs a `name`");
        };
        let arguments = frame.arguments.map_or("{}", RawValue::get);
        if !arguments.starts_with('{') {
            return invalid("`arguments` must be an object");
        }
        let options = match options(frame.priority.as_ref(), frame.timeout_secs, frame.dedup.as_ref()) {
            Ok(options) => Options { resume: frame.resume.unwrap_or_default(), ..options },
            Err(text) => return invalid(&text),
        };
        let patience = self.met.as_ref().map_or(Patience::Unknown, Met::patience);
        let (ticket, options) = match to {
            To::Ordinary(id) => {
                let id: Option<Short> = id.map(Into::into);
                let numbers = Numbers::new(options.resume);
                let answer_within = view.clients.answer_within(patience, true);
                let bounds = Bounds { answer_within, reply_bytes: None };
                let options = Options { wants_text: id.is_some(), bounds, ..options };
                (Ticket { progress: id.clone(), id, numbers, ..Ticket::default() }, options)
            }
            To::Simple(id) => {
                let ticket = Ticket { id: id.map(Into::into), in_turn: true, ..Ticket::default() };
                (
                    ticket,
                    Options {
                        bounds: simple::bounds(view.clients.answer_simply_within(patience)),
                        ..options
                    },
                )
            }
        };
        Request::Call(CallFrame {
            ticket,
            tool: tool.0,
            arguments: arguments.into(),
            extra: None,
            options,
            continues: None,
        })
    }
}

impl Dialect for Op {
    fn logged(&self, _logged: &Logged) -> Option<String> {
        None
    }

    fn read<'a>(&mut self, text: &'a str, view: &View<'_>) -> Request<'a> {
        let frame: Frame<'a> = match read_object(text) {
            Ok(frame) => frame,
            Err(error) if !self.greeted => {
                return Request::Close(if error.is_data() { Close::NoHello } else { Close::NotJson });
            }
            Err(error) => return self.unreadable(text, &error, view.turn),
        };
        let to = self.asker(frame.request_id, frame.id);
        // Only cancelling does not wait for the call that it is to end.
        if let To::Simple(_) = to
            && frame.op.0 != "cancel"
            && let Some(waits) = in_turn(to, view.turn)
        {
            return waits;
        }
        match &*frame.op.0 {
            "hello" if !self.greeted => self.hello(text, &frame, view),
            _ if !self.greeted => Request::Close(Close::NoHello),
            "call_tool" | "tool_call" => self.call(frame, to, view),
            "list_tools" => Request::Reply(list_tools(to, view)),
            "cancel" => cancel(to),
            "ping" => Request::Reply(stamped(reply("pong", to))),
            "stats" if !view.principal.allows(Builtin::ServerStats.name()) => {
                Request::Reply(refused("stats_res", to, &view.no_such_tool(Builtin::ServerStats.name())))
            }
            "stats" => {
                let mut out = reply("stats_res", to);
                out.push_str(",\"stats\":");
                out.push_str(&view.insight.server_stats().to_string());
                Request::Reply(close(out))
            }
            "hello" => Request::Reply(refused(
                "error",
                to,
                &CallError::Invalid("this connection has said hello".into()),
            )),
            _ => {
                let text =
                    "there are the ops hello, list_tools, call_tool, tool_call, cancel, ping and stats";
                Request::Reply(refused("error", to, &CallError::Invalid(text.into())))
            }
        }
    }

    fn not_text(&self) -> Request<'static> {
        if self.greeted {
            let error = CallError::Invalid("frames must be text".into());
            Request::ReplyInTurn(refused("error", self.unnamed(), &error))
        } else {
            Request::Close(Close::NotJson)
        }
    }

    fn awaits_hello(&self) -> bool {
        !self.greeted
    }

    fn accepted(&self, ticket: &Ticket, patience: Duration) -> Option<String> {
        let id = ticket.id.as_deref().filter(|_| !ticket.in_turn)?;
        let mut out = reply("call_tool_ack", To::Ordinary(Some(id)));
        out.push_str(",\"accepted\":true,\"timeout_secs\":");
        push_secs(&mut out, patience);
        Some(close(out))
    }

    fn progress(&self, ticket: &Ticket, progress: &Progress<'_>) -> Option<String> {
        let mut out = reply("progress", To::Ordinary(Some(ticket.progress.as_deref()?)));
        out.push_str(",\"message\":");
        push_json_string(&mut out, progress.message);
        out.push_str(",\"progress\":");
        push_number(&mut out, progress.number);
        if let Some(total) = progress.total {
            out.push_str(",\"total\":");
            push_number(&mut out, total);
        }
        Some(close(out))
    }

    fn answer(&self, ticket: &Ticket, answer: &Answer, out: &mut String) -> bool {
        if ticket.in_turn {
            *out = simple::answer(ticket.id.as_deref(), answer);
            return true;
        }
        push_reply(out, "call_tool_res", To::Ordinary(ticket.id.as_deref()));
        out.push(',');
        push_answer(out, answer);
        out.push('}');
        true
    }

    fn question(&self, _id: QuestionId, _question: &Question) -> Option<String> {
        None
    }

    fn withdrawn(&self, _id: QuestionId) -> Option<String> {
        None
    }

    fn tell(&self, _what: Unasked<'_>, _of: Option<&str>) -> Option<String> {
        // Its clients ask when they want to know.
        None
    }

    fn refuse(&self, ticket: &Ticket, error: &CallError) -> String {
        let id = ticket.id.as_deref();
        call_refused(if ticket.in_turn { To::Simple(id) } else { To::Ordinary(id) }, error)
    }
}

/// What becomes of a request that is answered in turn; none: it has the turn.
fn in_turn(to: To<'_>, turn: Turn) -> Option<Request<'static>> {
    match turn {
        Turn::Free => None,
        Turn::Taken => Some(Request::Wait),
        Turn::Full => Some(Request::ReplyInTurn(refused("error", to, &simple::too_many()))),
    }
}

fn cancel(to: To<'_>) -> Request<'_> {
    let (To::Ordinary(id) | To::Simple(id)) = to;
    let in_turn = matches!(to, To::Simple(_));
    let Some(id) = id else {
        let refused = refused("error", to, &CallError::Invalid("cancel needs a `request_id`".into()));
        return if in_turn { Request::ReplyInTurn(refused) } else { Request::Reply(refused) };
    };
    let nobody = "no call with this request_id is under way here; it may have been answered already";
    let unknown = Some(refused("cancelled", to, &CallError::Invalid(nobody.into())));
    let acknowledge = Some(close(reply("cancelled", to)));
    Request::Cancel { id: Cow::Borrowed(id), acknowledge, unknown, in_turn }
}

fn options(
    priority: Option<&Str<'_>>,
    timeout_secs: Option<f64>,
    dedup: Option<&Str<'_>>,
) -> Result<Options, String> {
    let priority = match priority {
        None => Priority::default(),
        Some(name) => Priority::parse(&name.0).ok_or("`priority` must be high, medium or low")?,
    };
    let timeout = match timeout_secs {
        None => None,
        Some(secs) => {
            let span = Duration::try_from_secs_f64(secs).ok().filter(|span| !span.is_zero());
            Some(span.ok_or("`timeout_secs` must be a number of seconds above 0")?)
        }
    };
    let dedup = match dedup {
        None => None,
        Some(name) => Some(Dedup::parse(&name.0).ok_or("`dedup` must be read, guard or off")?),
    };
    Ok(Options { priority, timeout, dedup, ..Options::default() })
}

fn list_tools(to: To<'_>, view: &View<'_>) -> String {
    let mut out = reply("list_tools_res", to);
    out.push_str(",\"tools\":[");
    for (at, tool) in view.tools().iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&tool.plain_listing);
    }
    out.push(']');
    stamped(out)
}

fn call_refused(to: To<'_>, error: &CallError) -> String {
    refused("call_tool_res", to, error)
}

fn refused(op: &str, to: To<'_>, error: &CallError) -> String {
    let mut out = reply(op, to);
    match to {
        To::Ordinary(_) => {
            out.push_str(",\"error\":");
            push_error(&mut out, error);
        }
        To::Simple(_) => simple::push_error(&mut out, error),
    }
    close(out)
}

fn reply(op: &str, to: To<'_>) -> String {
    let mut out = String::with_capacity(256);
    push_reply(&mut out, op, to);
    out
}

fn push_reply(out: &mut String, op: &str, to: To<'_>) {
    out.push_str("{\"op\":\"");
    out.push_str(op);
    out.push('"');
    let (member, id) = match to {
        To::Ordinary(id) => (",\"request_id\":", id),
        To::Simple(id) => (",\"id\":", id),
    };
    if let Some(id) = id {
        out.push_str(member);
        out.push_str(id);
    }
}

fn close(mut out: String) -> String {
    out.push('}');
    out
}

fn stamped(mut out: String) -> String {
    out.push_str(",\"timestamp\":\"");
    push_timestamp(&mut out, epoch_ms());
    out.push_str("\"}");
    out
}

/// Appends a span in seconds, with a fraction only where there is one.
fn push_secs(out: &mut String, span: Duration) {
    out.push_str(&span.as_secs_f64().to_string());
}
