//! The op protocol of shim clients: JSON objects with an `op`, one for each text frame.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::call::{Answer, CallError, Options, Priority};
use crate::config::Ladder;
use crate::ids::{ClientSessionId, SessionKey, epoch_ms};
use crate::lifecycle::Role;
use crate::proto::{CallFrame, Close, Dialect, Request, Str, Ticket, View, push_error, push_ms, told_before};
use crate::provider::push_json_string;
use crate::telemetry::push_timestamp;
use crate::tool::Dedup;

/// One op connection.
#[derive(Debug)]
pub struct Op {
    session: ClientSessionId,
    /// A token came with the upgrade already, or none is needed.
    admitted: bool,
    greeted: bool,
}

/// Any frame of a client.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    op: Str<'a>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
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
        Self { session, admitted, greeted: false }
    }

    fn hello(&mut self, frame: &Frame<'_>, view: &View<'_>) -> Request<'static> {
        let token = frame.token.as_ref().map(|token| &*token.0);
        if !self.admitted && !view.auth.admits(token) {
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
        let mut out = String::from("{\"op\":\"hello_ack\",\"ok\":true,\"session_id\":");
        match &frame.session_id {
            // A label of the client's own: it is given back, and nothing goes by it.
            Some(label) => push_json_string(&mut out, &label.0),
            None => push_json_string(&mut out, &format!("conn-{}", self.session.0)),
        }
        out.push_str(",\"server\":{\"name\":\"inflightd\",\"version\":\"");
        out.push_str(env!("CARGO_PKG_VERSION"));
        out.push_str("\"},\"timeouts\":{");
        push_timeouts(&mut out, view.ladder);
        out.push_str("}}");
        match key.flatten() {
            Some(key) => Request::Attach(out, key),
            None => Request::Reply(out),
        }
    }

    fn call(frame: Frame<'_>) -> Request<'_> {
        let id = frame.request_id.map(RawValue::get);
        let invalid = |text: &str| Request::Reply(call_refused(id, &CallError::Invalid(text.into())));
        let Some(tool) = frame.name.or(frame.tool.map(|tool| tool.name)) else {
            return invalid("call_tool needs a `name`");
        };
        let arguments = frame.arguments.map_or("{}", RawValue::get);
        if !arguments.starts_with('{') {
            return invalid("`arguments` must be an object");
        }
        let options = match options(frame.priority.as_ref(), frame.timeout_secs, frame.dedup.as_ref()) {
            Ok(options) => {
                Options { wants_text: id.is_some(), resume: frame.resume.unwrap_or_default(), ..options }
            }
            Err(text) => return invalid(&text),
        };
        let id: Option<Box<str>> = id.map(Into::into);
        let told = told_before(options.resume);
        let ticket = Ticket { progress: id.clone(), id, told, stateless: false };
        Request::Call(CallFrame { ticket, tool: tool.0, arguments, extra: None, options })
    }
}

impl Dialect for Op {
    fn read<'a>(&mut self, text: &'a str, view: &View<'_>) -> Request<'a> {
        let frame: Frame<'a> = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) if !self.greeted => {
                return Request::Close(if error.is_data() { Close::NoHello } else { Close::NotJson });
            }
            Err(error) => return Request::Reply(unreadable(text, &error)),
        };
        let id = frame.request_id.map(RawValue::get);
        match &*frame.op.0 {
            "hello" if !self.greeted => self.hello(&frame, view),
            _ if !self.greeted => Request::Close(Close::NoHello),
            "call_tool" | "tool_call" => Self::call(frame),
            "list_tools" => Request::Reply(list_tools(id, view)),
            "cancel" => match id {
                Some(id) => {
                    let acknowledge = Some(close(reply("cancelled", Some(id))));
                    Request::Cancel { id: Cow::Borrowed(id), acknowledge }
                }
                None => Request::Reply(refused(
                    "error",
                    None,
                    &CallError::Invalid("cancel needs a `request_id`".into()),
                )),
            },
            "ping" => Request::Reply(stamped(reply("pong", id))),
            "stats" => {
                let mut out = reply("stats_res", id);
                out.push_str(",\"stats\":");
                out.push_str(&view.insight.server_stats().to_string());
                Request::Reply(close(out))
            }
            "hello" => Request::Reply(refused(
                "error",
                id,
                &CallError::Invalid("this connection has said hello".into()),
            )),
            _ => {
                let text =
                    "there are the ops hello, list_tools, call_tool, tool_call, cancel, ping and stats";
                Request::Reply(refused("error", id, &CallError::Invalid(text.into())))
            }
        }
    }

    fn not_text(&self) -> Request<'static> {
        if self.greeted {
            let error = CallError::Invalid("frames must be text".into());
            Request::Reply(refused("error", None, &error))
        } else {
            Request::Close(Close::NotJson)
        }
    }

    fn awaits_hello(&self) -> bool {
        !self.greeted
    }

    fn accepted(&self, ticket: &Ticket, patience: Duration) -> Option<String> {
        let id = ticket.id.as_deref()?;
        let mut out = reply("call_tool_ack", Some(id));
        out.push_str(",\"accepted\":true,\"timeout_secs\":");
        push_secs(&mut out, patience);
        Some(close(out))
    }

    fn progress(&self, ticket: &Ticket, message: &str) -> Option<String> {
        let mut out = reply("progress", Some(ticket.progress.as_deref()?));
        out.push_str(",\"message\":");
        push_json_string(&mut out, message);
        out.push_str(",\"progress\":");
        out.push_str(itoa::Buffer::new().format(ticket.told));
        Some(close(out))
    }

    fn answer(&self, ticket: &Ticket, answer: &Answer) -> Option<String> {
        let mut out = reply("call_tool_res", ticket.id.as_deref());
        out.push(',');
        push_answer(&mut out, answer);
        Some(close(out))
    }

    fn refuse(&self, ticket: &Ticket, error: &CallError) -> String {
        call_refused(ticket.id.as_deref(), error)
    }
}

/// Appends `"outputs":…,"metadata":…`, or `"error":…,"metadata":…`.
pub fn push_answer(out: &mut String, answer: &Answer) {
    match &answer.outcome {
        Ok(reply) => {
            out.push_str("\"outputs\":");
            out.push_str(reply.content());
            if answer.role == Some(Role::Follower) {
                out.push_str(",\"from_inflight\":true");
            }
        }
        Err(error) => {
            out.push_str("\"error\":");
            push_error(out, error);
        }
    }
    out.push_str(",\"metadata\":{\"request_id\":\"");
    answer.request.write_to(out);
    if let Some(execution) = answer.execution {
        out.push_str("\",\"session_id\":\"");
        execution.write_to(out);
    }
    if let Some(role) = answer.role {
        out.push_str("\",\"role\":\"");
        out.push_str(role.label());
    }
    out.push_str(if answer.execution.is_some() { "\",\"executed\":true" } else { "\",\"executed\":false" });
    push_latency(out, answer);
    if let Some(provider) = &answer.provider {
        out.push_str(",\"provider\":");
        push_json_string(out, provider);
    }
    if let Ok(reply) = &answer.outcome {
        if let Some(model) = &reply.model {
            out.push_str(",\"model\":");
            push_json_string(out, model);
        }
        if let Some(usage) = reply.usage {
            out.push_str(",\"usage\":{\"prompt_tokens\":");
            out.push_str(itoa::Buffer::new().format(usage.prompt_tokens));
            out.push_str(",\"completion_tokens\":");
            out.push_str(itoa::Buffer::new().format(usage.completion_tokens));
            out.push('}');
        }
    }
    out.push('}');
}

fn push_latency(out: &mut String, answer: &Answer) {
    let spent = &answer.spent;
    out.push_str(",\"latency\":{");
    let parts = [
        ("\"total_ms\":", spent.total),
        (",\"queue_ms\":", spent.queue),
        (",\"permit_ms\":", spent.permit),
        (",\"provider_ms\":", spent.provider),
        (",\"overhead_ms\":", spent.overhead()),
    ];
    for (name, span) in parts {
        out.push_str(name);
        push_ms(out, span);
    }
    out.push('}');
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
    Ok(Options { priority, timeout, dedup, wants_text: false, resume: false })
}

fn list_tools(id: Option<&str>, view: &View<'_>) -> String {
    let mut out = reply("list_tools_res", id);
    out.push_str(",\"tools\":[");
    for (at, tool) in view.registry.tools().iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&tool.plain_listing);
    }
    out.push(']');
    stamped(out)
}

/// A frame after hello that cannot be read: answered under its id, if that much can be read of it.
fn unreadable(text: &str, error: &serde_json::Error) -> String {
    #[derive(Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow, default)]
        request_id: Option<&'a RawValue>,
    }
    let id = serde_json::from_str::<OnlyId<'_>>(text).ok().and_then(|frame| frame.request_id);
    let what = if error.is_data() {
        "the frame's members do not fit, or `op` is missing"
    } else {
        "the frame is not valid JSON"
    };
    refused("error", id.map(RawValue::get), &CallError::Invalid(what.into()))
}

fn call_refused(id: Option<&str>, error: &CallError) -> String {
    refused("call_tool_res", id, error)
}

fn refused(op: &str, id: Option<&str>, error: &CallError) -> String {
    let mut out = reply(op, id);
    out.push_str(",\"error\":");
    push_error(&mut out, error);
    close(out)
}

fn reply(op: &str, id: Option<&str>) -> String {
    let mut out = String::with_capacity(256);
    out.push_str("{\"op\":\"");
    out.push_str(op);
    out.push('"');
    if let Some(id) = id {
        out.push_str(",\"request_id\":");
        out.push_str(id);
    }
    out
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

fn push_timeouts(out: &mut String, ladder: &Ladder) {
    let rungs = [
        ("\"tool_secs\":", ladder.tool()),
        (",\"daemon_secs\":", ladder.daemon),
        (",\"shim_secs\":", ladder.shim),
        (",\"client_secs\":", ladder.client),
    ];
    for (name, rung) in rungs {
        out.push_str(name);
        push_secs(out, rung);
    }
}

/// Appends a span in seconds, with a fraction only where there is one.
fn push_secs(out: &mut String, span: Duration) {
    out.push_str(&span.as_secs_f64().to_string());
}
