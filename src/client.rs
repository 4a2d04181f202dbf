//! A blocking MCP client over one WebSocket: what the command line speaks to the daemon.
//!
//! No runtime: a command makes one call and ends, and the shim is two threads. The connection itself, which
//! both share, is in [`wire`]; where it goes is in [`endpoint`].

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::CLI_NAME;

pub mod endpoint;
mod fetch;
mod pulse;
pub mod wire;

pub use endpoint::{ConnectError, Connected, Endpoint, EndpointError};
pub use wire::{LinkLost, Reader, Sender};

/// What a command waits for a connection: a daemon on the same machine answers in a millisecond.
const CONNECT_BUDGET: Duration = Duration::from_secs(5);
/// What a command waits for the daemon to introduce itself.
const INITIALIZE_BUDGET: Duration = Duration::from_secs(10);
/// A registry has far fewer pages; a daemon that never ends its list must not hold a command.
const MAX_PAGES: usize = 1_000;

/// An error with its causes in one line: `connect: Connection refused (os error 111)`. A cause that the text
/// before it already tells, as some libraries do, is not told twice.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("reach the daemon")]
    Connect(#[from] ConnectError),
    /// The connection went while an answer was awaited.
    #[error("wait for the answer: whether the call ran is unknown")]
    Lost(#[from] LinkLost),
    /// No answer came in time.
    #[error("get an answer in time: the daemon may still be at work")]
    TimedOut,
    /// The daemon refused the request.
    #[error("get a result: {message} (code {code})")]
    Refused {
        /// JSON-RPC code.
        code: i64,
        /// What the daemon said.
        message: String,
    },
    /// The daemon's answer makes no sense here.
    #[error("understand the daemon's answer")]
    Answer(#[source] serde_json::Error),
    /// The list of tools has no end.
    #[error("read the list of tools: it has more than {MAX_PAGES} pages")]
    Endless,
}

/// One tool call.
#[derive(Debug)]
pub struct Call<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// Its arguments, sent as they are.
    pub arguments: &'a RawValue,
    /// How long the daemon may take; `None` leaves it to the daemon's own ladder.
    pub timeout: Option<Duration>,
}

/// How far a call is.
#[derive(Debug, Deserialize)]
pub struct Progress {
    /// Rises from one to the next.
    pub progress: f64,
    /// Where it ends, if the tool knows.
    #[serde(default)]
    pub total: Option<f64>,
    /// What is being done.
    #[serde(default)]
    pub message: Option<String>,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: P,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

#[derive(Serialize)]
struct CallParams<'a> {
    name: &'a str,
    arguments: &'a RawValue,
    #[serde(rename = "_meta")]
    meta: CallMeta,
}

#[derive(Serialize)]
struct CallMeta {
    #[serde(rename = "progressToken")]
    progress_token: u64,
    #[serde(rename = "inflightd/timeout_ms", skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
struct ToolPage {
    tools: Vec<Box<RawValue>>,
    #[serde(rename = "nextCursor", default)]
    next_cursor: Option<String>,
}

/// A connection that has introduced itself.
#[derive(Debug)]
pub struct Client {
    reader: Reader,
    sender: Sender,
    last_id: u64,
}

impl Client {
    /// Connects and initialises.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let Connected { reader, sender, .. } = endpoint.connect(CONNECT_BUDGET)?;
        let mut client = Self { reader, sender, last_id: 0 };
        let params = serde_json::json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": CLI_NAME, "version": env!("CARGO_PKG_VERSION")},
        });
        let until = Some(Instant::now() + INITIALIZE_BUDGET);
        client.request("initialize", params, until, &mut |_| {})?;
        client.sender.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)?;
        Ok(client)
    }

    /// Every tool, as the daemon describes it, page by page.
    pub fn tools(&mut self) -> Result<Vec<Box<RawValue>>, ClientError> {
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| serde_json::json!({}), |c| serde_json::json!({"cursor": c}));
            let until = Some(Instant::now() + INITIALIZE_BUDGET);
            let result = self.request("tools/list", params, until, &mut |_| {})?;
            let page: ToolPage = serde_json::from_str(result.get()).map_err(ClientError::Answer)?;
            tools.extend(page.tools);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(tools),
            }
        }
        Err(ClientError::Endless)
    }

    /// Calls a tool and waits for its result, until `until` if that is given.
    pub fn call(
        &mut self,
        call: &Call<'_>,
        until: Option<Instant>,
        on_progress: &mut dyn FnMut(&Progress),
    ) -> Result<Box<RawValue>, ClientError> {
        let timeout_ms = call.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let params = CallParams {
            name: call.tool,
            arguments: call.arguments,
            meta: CallMeta { progress_token: self.last_id + 1, timeout_ms },
        };
        self.request("tools/call", params, until, on_progress)
    }

    fn request(
        &mut self,
        method: &str,
        params: impl Serialize,
        until: Option<Instant>,
        on_progress: &mut dyn FnMut(&Progress),
    ) -> Result<Box<RawValue>, ClientError> {
        self.last_id += 1;
        let id = self.last_id.to_string();
        let request = Request { jsonrpc: "2.0", id: self.last_id, method, params };
        self.sender.send(serde_json::to_string(&request).map_err(ClientError::Answer)?)?;
        loop {
            let Some(text) = self.reader.next(until)? else {
                return Err(ClientError::TimedOut);
            };
            let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(ClientError::Answer)?;
            match envelope {
                Envelope { method: Some(method), params, .. } => {
                    if method == "notifications/progress"
                        && let Some(progress) = params.and_then(|p| serde_json::from_str(p.get()).ok())
                    {
                        on_progress(&progress);
                    }
                }
                Envelope { id: Some(answered), .. } if answered.get() != id => {}
                Envelope { error: Some(Refusal { code, message }), .. } => {
                    return Err(ClientError::Refused { code, message });
                }
                Envelope { result: Some(result), .. } => return Ok(result.to_owned()),
                Envelope { .. } => {}
            }
        }
    }
}

/// Says good-bye, so that the daemon does not take the end of a command for a lost connection.
impl Drop for Client {
    fn drop(&mut self) {
        self.sender.close();
    }
}
