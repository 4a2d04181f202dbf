//! MCP, both eras, message by message: `initialize` opens a 2025-11-25-or-older connection; a request whose
//! `_meta` names a protocol version is stateless (2026-07-28).

use std::borrow::Cow;
use std::time::Duration;

use crate::call::{Answer, Bounds, CallError, Options};
use crate::clients::Met;
use crate::ids::QuestionId;
use crate::proto::jsonrpc::{self, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message};
use crate::proto::progress::{Numbers, Progress, push_number};
use crate::proto::unasked::Unasked;
use crate::proto::{
    CallFrame, Continued, Dialect, Request, Serves, Ticket, View, push_ms, push_retry, push_usage,
};
use crate::provider::asking::{Can, Question};
use crate::provider::{Level, Logged, push_json_string};

mod asking;
mod failing;
pub mod headers;
mod listening;
mod params;
mod serving;
mod who;

use headers::Read;
use params::{Meta, Params};
use serving::Served;
pub use serving::server_of;
use who::{Who, meet};

/// The newest revision of the stateless era.
const STATELESS: &str = "2026-07-28";
/// Revisions reached by `initialize`, the newest first.
const HANDSHAKE: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// A protocol version that is not served.
const UNSUPPORTED_VERSION: i32 = -32022;
/// What is said to a level that is none.
const NO_LEVEL: &str =
    "the level of a log is debug, info, notice, warning, error, critical, alert or emergency";
/// Tools on one page of a list.
const PAGE: usize = 100;

/// What a model is told about the whole.
const INSTRUCTIONS: &str = "inflightd is one daemon between AI clients and everything they call. Identical calls in flight \
    run once. An error result carries _meta[\"inflightd/error\"] with a code, whether a retry helps, and when. A call that \
    timed out while its work goes on can be collected with get_request.";

/// `{"name":…,"version":…}` of this daemon.
const SERVER_INFO: &str = concat!("{\"name\":\"inflightd\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");

/// One MCP connection.
#[derive(Debug, Default)]
pub struct Mcp {
    initialized: bool,
    /// It was told that lists may change.
    told_of_changes: bool,
    /// What whoever initialized can be asked for.
    can: Can,
    /// From which level on it wants to read the logs of servers.
    log: Option<Level>,
    /// Who initialized.
    met: Option<Met>,
    /// Who sent the last stateless request, as its text had it: they hardly change on one connection.
    last: Option<(Box<str>, Met)>,
}

impl Mcp {
    /// Whether a client of the older era has introduced itself.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }
}

/// A request that is being read.
struct Asked<'a> {
    id: &'a str,
    stateless: bool,
}

impl Dialect for Mcp {
    fn read<'a>(&mut self, text: &'a str, view: &View<'_>) -> Request<'a> {
        self.take(Read::at(text), view)
    }

    fn not_text(&self) -> Request<'static> {
        Request::Reply(jsonrpc::error_response("", INVALID_REQUEST, "messages must be text frames", None))
    }

    fn awaits_hello(&self) -> bool {
        false
    }

    fn accepted(&self, _ticket: &Ticket, _patience: Duration) -> Option<String> {
        None
    }

    fn progress(&self, ticket: &Ticket, progress: &Progress<'_>) -> Option<String> {
        let token = ticket.progress.as_deref()?;
        let mut out = String::with_capacity(128 + progress.message.len());
        out.push_str(
            "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":",
        );
        out.push_str(token);
        out.push_str(",\"progress\":");
        push_number(&mut out, progress.number);
        if let Some(total) = progress.total {
            out.push_str(",\"total\":");
            push_number(&mut out, total);
        }
        if !progress.message.is_empty() {
            out.push_str(",\"message\":");
            push_json_string(&mut out, progress.message);
        }
        out.push_str("}}");
        Some(out)
    }

    fn logged(&self, logged: &Logged) -> Option<String> {
        let params = &logged.params;
        Some(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{params}}}"))
    }

    fn answer(&self, ticket: &Ticket, answer: &Answer, out: &mut String) -> bool {
        let Some(id) = ticket.id.as_deref() else { return false };
        match &answer.outcome {
            Ok(reply) => {
                push_open(out, id, ticket.stateless, reply.asks, reply.bytes());
                out.push_str(reply.members());
                if reply.is_error {
                    out.push_str(",\"isError\":true");
                }
                if ticket.stateless && ticket.serves == Serves::Resource && !reply.asks {
                    // How long it stays as it is, only its server would know.
                    out.push_str(",\"ttlMs\":0,\"cacheScope\":\"private\"");
                }
                push_meta(out, ticket.stateless, answer, None);
                true
            }
            Err(error) if ticket.serves != Serves::Tool || failing::is_for_the_client(ticket, error) => {
                serving::refusal(id, ticket.stateless, error).map(|text| *out = text).is_some()
            }
            Err(error) => {
                let refusal = failing::refusal(id, ticket.stateless, answer, error);
                refusal.map(|text| *out = text).is_some()
            }
        }
    }

    fn question(&self, id: QuestionId, question: &Question) -> Option<String> {
        Some(asking::question(id, question))
    }

    fn withdrawn(&self, id: QuestionId) -> Option<String> {
        Some(asking::withdrawn(id))
    }

    fn tell(&self, what: Unasked<'_>, of: Option<&str>) -> Option<String> {
        self.told(what, of)
    }

    fn refuse(&self, ticket: &Ticket, error: &CallError) -> String {
        jsonrpc::error_response(
            ticket.id.as_deref().unwrap_or_default(),
            INVALID_REQUEST,
            &error.to_string(),
            None,
        )
    }
}

impl Mcp {
    /// Takes a message that is read already.
    pub fn take<'a>(&mut self, read: Read<'a>, view: &View<'_>) -> Request<'a> {
        let Read { text, request, params } = read;
        if let Some((id, method)) = request {
            return self.request(id, &method.0, params, text, view);
        }
        match jsonrpc::read(text) {
            Message::Malformed(error) => Request::Reply(error),
            Message::Response => asking::said(text),
            Message::Notification { method, params } => notification(&method.0, params),
            Message::Request { id, method, params } => match params::read(params) {
                Ok(params) => self.request(id, &method.0, params, text, view),
                Err(text) => Request::Reply(jsonrpc::error_response(id, INVALID_PARAMS, &text, None)),
            },
        }
    }

    fn request<'a>(
        &mut self,
        id: &'a str,
        method: &str,
        params: Params<'a>,
        text: &'a str,
        view: &View<'_>,
    ) -> Request<'a> {
        let invalid = |text: &str| Request::Reply(jsonrpc::error_response(id, INVALID_PARAMS, text, None));
        let asked = Asked { id, stateless: params.meta.version.is_some() };
        if let Some(version) = &params.meta.version {
            if params.meta.capabilities.is_none() {
                return invalid("params._meta lacks io.modelcontextprotocol/clientCapabilities");
            }
            if version.0 != STATELESS {
                return Request::Reply(unsupported(id, &version.0));
            }
        } else if !self.initialized && method == "server/discover" {
            return invalid("params._meta lacks io.modelcontextprotocol/protocolVersion");
        } else if !self.initialized && !matches!(method, "initialize" | "ping") {
            let text = "initialize first, or name a protocol version in params._meta";
            return Request::Reply(jsonrpc::error_response(id, INVALID_REQUEST, text, None));
        }
        let has_servers = || !view.calls.registry().servers().is_empty();
        match (method, asked.stateless) {
            ("tools/call", _) => {
                let who = self.who(&params.meta, view);
                asked.call(params, who, view)
            }
            ("tools/list", _) => asked.list(params.cursor.as_ref().map(|cursor| &*cursor.0), view),
            ("initialize", false) => self.initialize(id, &params, view),
            ("logging/setLevel", false) if !view.calls.registry().servers().is_empty() => {
                let level = params.level.as_ref().and_then(|level| Level::parse(&level.0));
                let Some(level) = level else { return invalid(NO_LEVEL) };
                self.log = Some(level);
                Request::Reply(jsonrpc::open_result(id, 2) + "}}")
            }
            ("ping", false) => Request::Reply(jsonrpc::open_result(id, 2) + "}}"),
            ("server/discover", true) => asked.discover(view),
            ("subscriptions/listen", true) => asked.listen(text, view),
            ("resources/subscribe", false) if has_servers() => {
                let who = self.who(&params.meta, view);
                asked.watch(params, text, who, view)
            }
            ("resources/unsubscribe", false) if has_servers() => asked.unwatch(text),
            _ => {
                let served = Served::of(method).filter(|_| has_servers());
                if let Some(served) = served {
                    let Served::Passed(passed) = served else {
                        return asked.list_others(served, params.cursor.as_ref().map(|it| &*it.0), view);
                    };
                    let who = self.who(&params.meta, view);
                    return asked.pass(passed, params, text, who, view);
                }
                let text =
                    format!("there is no method `{}` here", method.chars().take(64).collect::<String>());
                Request::Reply(jsonrpc::error_response(id, METHOD_NOT_FOUND, &text, None))
            }
        }
    }

    fn initialize(&mut self, id: &str, params: &Params<'_>, view: &View<'_>) -> Request<'static> {
        let Some(asked) = &params.protocol_version else {
            return Request::Reply(jsonrpc::error_response(
                id,
                INVALID_PARAMS,
                "initialize needs protocolVersion",
                None,
            ));
        };
        self.initialized = true;
        self.can = params.capabilities.map_or(Can::NOTHING, |declared| Can::declared(declared.get()));
        let introduction = params.client_info.map_or("{}", serde_json::value::RawValue::get);
        self.met = Some(meet(introduction, view));
        let version = HANDSHAKE.into_iter().find(|version| asked.0 == **version).unwrap_or("2025-11-25");
        let mut out = jsonrpc::open_result(id, 512);
        out.push_str("\"protocolVersion\":\"");
        out.push_str(version);
        out.push_str("\",\"capabilities\":");
        let registry = view.calls.registry();
        self.told_of_changes = !registry.servers().is_empty();
        out.push_str(serving::capabilities(&registry));
        out.push_str(",\"serverInfo\":");
        out.push_str(SERVER_INFO);
        out.push_str(",\"instructions\":");
        push_json_string(&mut out, INSTRUCTIONS);
        out.push_str("}}");
        Request::Reply(out)
    }
}

impl<'a> Asked<'a> {
    fn call(self, params: Params<'a>, who: Who, view: &View<'_>) -> Request<'a> {
        let invalid =
            |text: &str| Request::Reply(jsonrpc::error_response(self.id, INVALID_PARAMS, text, None));
        let Some(name) = params.name else { return invalid("tools/call needs a name") };
        let arguments = params.arguments.map_or("{}", serde_json::value::RawValue::get);
        if !arguments.starts_with('{') {
            return invalid("arguments must be an object");
        }
        let Meta { progress, priority, timeout, dedup, resume, extra, .. } = params.meta;
        let (state, responses) = (params.request_state, params.input_responses);
        let ticket = Ticket {
            id: Some(self.id.into()),
            progress: progress.map(Into::into),
            numbers: Numbers::new(resume),
            stateless: self.stateless,
            serves: Serves::Tool,
            continues: state.is_some() || responses.is_some(),
            in_turn: false,
        };
        let wants_text = ticket.progress.is_some();
        let Who { patience, can, log } = who;
        let bounds =
            Bounds { answer_within: view.clients.answer_within(patience, wants_text), reply_bytes: None };
        let options =
            Options { priority, timeout, dedup, wants_text, log, resume, bounds, can, method: false };
        let continues = ticket.continues.then(|| Continued {
            state: state.map(|state| state.0),
            responses: responses.map(serde_json::value::RawValue::get),
        });
        Request::Call(CallFrame {
            ticket,
            tool: name.0,
            arguments: arguments.into(),
            extra,
            options,
            continues,
        })
    }

    /// One page of tools. A cursor is a place among the tools that are there for a principal, good until they change.
    fn list(&self, cursor: Option<&str>, view: &View<'_>) -> Request<'static> {
        let (registry, generation) = view.calls.offered();
        let seen = registry.tools().iter().filter(|tool| view.principal.allows(&tool.name));
        let tools: Vec<_> = seen.collect();
        let place = |cursor: &str| cursor.strip_prefix(&format!("tools:{generation}:"))?.parse().ok();
        let from = cursor.map_or(Some(0), place);
        let Some(from) = from.filter(|from| *from == 0 || *from < tools.len()) else {
            return Request::Reply(jsonrpc::error_response(
                self.id,
                INVALID_PARAMS,
                "the cursor is not one of this list as it is now: begin again without one",
                None,
            ));
        };
        let mut out = open(self.id, self.stateless, 4096);
        out.push_str("\"tools\":[");
        for (at, tool) in tools.iter().skip(from).take(PAGE).enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(&tool.listing);
        }
        out.push(']');
        if from + PAGE < tools.len() {
            out.push_str(",\"nextCursor\":\"tools:");
            out.push_str(itoa::Buffer::new().format(generation));
            out.push(':');
            out.push_str(itoa::Buffer::new().format(from + PAGE));
            out.push('"');
        }
        self.close_list(out)
    }

    fn discover(&self, view: &View<'_>) -> Request<'static> {
        let mut out = open(self.id, self.stateless, 512);
        out.push_str("\"supportedVersions\":[\"");
        out.push_str(STATELESS);
        out.push_str("\"],\"capabilities\":");
        out.push_str(serving::capabilities(&view.calls.registry()));
        out.push_str(",\"instructions\":");
        push_json_string(&mut out, INSTRUCTIONS);
        self.close_list(out)
    }

    /// What a client may keep, for how long, and whose it is.
    fn close_list(&self, mut out: String) -> Request<'static> {
        if self.stateless {
            // They change when a server's do, or with the configuration: a minute is short enough.
            out.push_str(",\"ttlMs\":60000,\"cacheScope\":\"private\",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
            out.push_str(SERVER_INFO);
            out.push('}');
        }
        out.push_str("}}");
        Request::Reply(out)
    }
}

fn notification<'a>(method: &str, params: Option<&'a str>) -> Request<'a> {
    if method != "notifications/cancelled" {
        return Request::Nothing;
    }
    match params::cancelled(params) {
        Some(id) => {
            Request::Cancel { id: Cow::Borrowed(id), acknowledge: None, unknown: None, in_turn: false }
        }
        None => Request::Nothing,
    }
}

fn unsupported(id: &str, requested: &str) -> String {
    // As `server/discover` has it: the others are reached by `initialize`.
    let mut data = format!("{{\"supported\":[\"{STATELESS}\"],\"requested\":");
    push_json_string(&mut data, requested);
    data.push('}');
    jsonrpc::error_response(id, UNSUPPORTED_VERSION, "this protocol version is not served", Some(&data))
}

/// The start of a result, up to where its own members go.
fn open(id: &str, stateless: bool, bytes: usize) -> String {
    let mut out = String::new();
    push_open(&mut out, id, stateless, false, bytes);
    out
}

fn push_open(out: &mut String, id: &str, stateless: bool, asks: bool, bytes: usize) {
    jsonrpc::push_result(out, id, bytes + 320);
    if stateless {
        out.push_str(if asks {
            "\"resultType\":\"input_required\","
        } else {
            "\"resultType\":\"complete\","
        });
    }
}

/// Appends `_meta` and the closing braces.
fn push_meta(out: &mut String, stateless: bool, answer: &Answer, error: Option<&CallError>) {
    // A result may have no member of its own.
    out.push_str(if out.ends_with(['{', ',']) { "\"_meta\":{" } else { ",\"_meta\":{" });
    out.push_str("\"inflightd/request_id\":\"");
    answer.request.write_to(out);
    if let Some(execution) = answer.execution {
        out.push_str("\",\"inflightd/session_id\":\"");
        execution.write_to(out);
    }
    if let Some(role) = answer.role {
        out.push_str("\",\"inflightd/role\":\"");
        out.push_str(role.label());
    }
    out.push_str("\",\"inflightd/duration_ms\":");
    push_ms(out, answer.spent.total);
    if let Some(usage) = answer.outcome.as_ref().ok().and_then(|reply| reply.usage) {
        out.push_str(",\"inflightd/usage\":");
        push_usage(out, usage);
    }
    if let Some(id) = answer.continuation() {
        out.push_str(",\"inflightd/continuation_id\":");
        push_json_string(out, &id.to_string());
    }
    if let Some(CallError::AnsweredEarly { .. }) = error {
        out.push_str(",\"inflightd/still_running\":true");
    } else if let Some(error) = error {
        out.push_str(",\"inflightd/error\":{\"code\":\"");
        out.push_str(error.code().label());
        out.push('"');
        push_retry(out, error);
        out.push('}');
    }
    if stateless {
        out.push_str(",\"io.modelcontextprotocol/serverInfo\":");
        out.push_str(SERVER_INFO);
    }
    out.push_str("}}}");
}
