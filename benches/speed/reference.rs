//! The reference: the smallest honest tool server, what the daemon's cost is held against.
//!
//! tokio-tungstenite with 4 KiB buffers on a plain listener; each request is parsed once into borrowed types,
//! each answer is typed and serialised. It knows `initialize` and one tool, and nothing is bounded but the
//! channel of a connection.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// How a connection answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Each answer is sent before the next request is read.
    Inline,
    /// A task a call; answers that wait together are flushed together. The one that can hold calls.
    Spawned {
        /// How long each call is held.
        latency: Duration,
    },
}

#[derive(Deserialize)]
struct Asked<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow, alias = "prompt")]
    text: Cow<'a, str>,
}

#[derive(Serialize)]
struct Answer<T> {
    jsonrpc: &'static str,
    id: u64,
    result: T,
}

#[derive(Serialize)]
struct Refusal {
    jsonrpc: &'static str,
    id: u64,
    error: Fault,
}

#[derive(Serialize)]
struct Fault {
    code: i32,
    message: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Called<'a> {
    content: [Content<'a>; 1],
    is_error: bool,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: &'static str,
    capabilities: Capabilities,
    server_info: Info,
}

#[derive(Serialize)]
struct Capabilities {
    tools: Tools,
}

#[derive(Serialize)]
struct Tools {}

#[derive(Serialize)]
struct Info {
    name: &'static str,
    version: &'static str,
}

/// Serves every connection of `listener`, for ever.
pub async fn serve(listener: TcpListener, flavour: Flavour) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(connection(stream, flavour));
    }
}

#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the signature is tungstenite's")]
fn subprotocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if let Some(offered) = request.headers().get("sec-websocket-protocol") {
        response.headers_mut().insert("sec-websocket-protocol", offered.clone());
    }
    Ok(response)
}

async fn connection(stream: TcpStream, flavour: Flavour) {
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    let accepted = tokio_tungstenite::accept_hdr_async_with_config(stream, subprotocol, Some(config)).await;
    let Ok(socket) = accepted else { return };
    match flavour {
        Flavour::Inline => inline(socket).await,
        Flavour::Spawned { latency } => spawned(socket, latency).await,
    }
}

async fn inline(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Some(answer) = answer(text.as_str()) else { continue };
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}

async fn spawned(mut socket: WebSocketStream<TcpStream>, latency: Duration) {
    let (answers, mut answered) = mpsc::channel::<String>(256);
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                let answers = answers.clone();
                // Whoever asked may be gone when the answer is there; then nobody waits for it.
                let call = async move {
                    if let Some(answer) = answer(text.as_str()) {
                        let _ = answers.send(answer).await;
                    }
                };
                // Two kinds of task, so that the one that is compared carries no timer with it.
                if latency.is_zero() {
                    tokio::spawn(call);
                } else {
                    tokio::spawn(async move {
                        tokio::time::sleep(latency).await;
                        call.await;
                    });
                }
            }
            first = answered.recv() => {
                // The first answer's task woke this one ahead of its fellows: let them finish too, so that
                // what was asked together is flushed together.
                tokio::task::yield_now().await;
                let mut next = first;
                while let Some(answer) = next {
                    if socket.feed(Message::text(answer)).await.is_err() {
                        return;
                    }
                    next = answered.try_recv().ok();
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The answer to one message; a notification has none.
fn answer(text: &str) -> Option<String> {
    let asked: Asked = serde_json::from_str(text).unwrap();
    let id = asked.id?;
    let params = asked.params.filter(|params| params.name.is_some());
    let answer = match (asked.method.as_ref(), params.and_then(|params| params.arguments)) {
        ("tools/call", Some(Arguments { text })) => {
            result(id, Called { content: [Content { kind: "text", text: &text }], is_error: false })
        }
        ("initialize", _) => {
            let info = Info { name: "reference", version: "1" };
            let capabilities = Capabilities { tools: Tools {} };
            result(id, Initialized { protocol_version: "2025-11-25", capabilities, server_info: info })
        }
        _ => {
            let error = Fault { code: -32601, message: "no such method" };
            serde_json::to_string(&Refusal { jsonrpc: "2.0", id, error })
        }
    };
    Some(answer.unwrap())
}

fn result<T: Serialize>(id: u64, result: T) -> serde_json::Result<String> {
    serde_json::to_string(&Answer { jsonrpc: "2.0", id, result })
}
