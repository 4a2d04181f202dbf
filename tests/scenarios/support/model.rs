//! A model service that speaks any of the wires, writes down what comes, and has bad days of every kind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::until;

/// Which wire a model is spoken to over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    OpenAi,
    Anthropic,
    Gemini,
}

impl Speaks {
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::Gemini];

    /// The provider of this wire that the tests use.
    pub fn provider(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    pub fn prefix(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI",
            Self::Anthropic => "ANTHROPIC",
            Self::Gemini => "GEMINI",
        }
    }
}

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It streams its answer.
    Answer,
    /// It sends its answer whole.
    Whole,
    /// It streams the first half, waits for "go", then streams the rest.
    Halves,
    /// It takes the request, and says nothing.
    Hang,
    /// It begins a stream, and says nothing more.
    HangMidStream,
    /// It streams a byte a second.
    Drip,
    /// It resets the connection in the middle of the stream.
    Reset,
    /// It ends the stream in its middle.
    Cut,
    /// It refuses with this status, and says to come back after so many seconds.
    Refuse(u16, Option<u32>),
    /// It answers with what is no JSON.
    Garbage,
    /// It streams what is no JSON.
    GarbageStream,
    /// It sends a body without end.
    Endless,
    /// It streams one event without end.
    EndlessEvent,
    /// It streams events without end.
    EndlessStream,
    /// It streams an error after the first half.
    Error,
}

/// What it counts for each answer.
pub const USAGE: (u64, u64) = (3, 5);

#[derive(Debug, Clone)]
pub struct Request {
    /// Request line and headers, as they came.
    pub head: String,
    pub body: String,
}

#[derive(Debug)]
struct State {
    does: Does,
    requests: Vec<Request>,
    connections: usize,
    hung_up: usize,
}

#[derive(Debug)]
struct Shared {
    speaks: Speaks,
    state: Mutex<State>,
    gate: Semaphore,
    close: Semaphore,
}

/// One service on a port of its own, for as long as the test's runtime lives.
#[derive(Debug, Clone)]
pub struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Model {
    pub async fn open(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { does: Does::Answer, requests: Vec::new(), connections: 0, hung_up: 0 };
        let shared =
            Shared { speaks, state: Mutex::new(state), gate: Semaphore::new(0), close: Semaphore::new(0) };
        let model = Self { address, shared: Arc::new(shared) };
        let shared = Arc::clone(&model.shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.state.lock().unwrap().connections += 1;
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        model
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The keys under which the daemon finds it.
    pub fn keys(&self) -> Vec<(String, String)> {
        let prefix = self.shared.speaks.prefix();
        vec![(format!("{prefix}_API_URL"), self.url()), (format!("{prefix}_API_KEY"), KEY.to_owned())]
    }

    pub fn does(&self, does: Does) {
        self.shared.state.lock().unwrap().does = does;
    }

    /// Lets one that waits go on.
    pub fn go(&self) {
        self.shared.gate.add_permits(1);
    }

    /// Closes every connection that waits for a request.
    pub fn close_idle(&self) {
        self.shared.close.add_permits(1000);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    pub async fn started(&self, requests: usize) {
        until(&format!("request {requests} at the model"), || self.requests().len() >= requests).await;
    }

    pub async fn sees_hang_up(&self, times: usize) {
        until(&format!("hang-up {times} at the model"), || {
            self.shared.state.lock().unwrap().hung_up >= times
        })
        .await;
    }
}

/// The key that the tests' services have.
pub const KEY: &str = "sk-hush-of-the-models";

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    loop {
        let request = tokio::select! {
            request = read(&mut stream) => request,
            _ = shared.close.acquire() => return,
        };
        let Some(request) = request else { return };
        let (does, number) = {
            let mut state = shared.state.lock().unwrap();
            state.requests.push(request);
            (state.does, state.requests.len())
        };
        if play(&mut stream, &shared, does, number).await.is_none() {
            return;
        }
    }
}

/// `None` where the connection is over.
async fn play(stream: &mut TcpStream, shared: &Shared, does: Does, number: usize) -> Option<()> {
    let speaks = shared.speaks;
    let (first, rest) = halves(speaks, number);
    match does {
        Does::Answer => {
            let text = format!("{STREAM}{}{}", chunk(&(first + &rest)), "0\r\n\r\n");
            stream.write_all(text.as_bytes()).await.ok()
        }
        Does::Whole => json_answer(stream, 200, "", &whole(speaks, number)).await,
        Does::Halves => {
            stream.write_all(format!("{STREAM}{}", chunk(&first)).as_bytes()).await.ok()?;
            waits(stream, shared).await?;
            stream.write_all(format!("{}0\r\n\r\n", chunk(&rest)).as_bytes()).await.ok()
        }
        Does::Hang => waits(stream, shared).await,
        Does::HangMidStream => {
            stream.write_all(format!("{STREAM}{}", chunk(&first)).as_bytes()).await.ok()?;
            waits(stream, shared).await
        }
        Does::Drip => {
            stream.write_all(STREAM.as_bytes()).await.ok()?;
            for byte in (first + &rest).chars() {
                stream.write_all(chunk(&byte.to_string()).as_bytes()).await.ok()?;
                tokio::select! {
                    waited = waits(stream, shared) => return waited,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
            None
        }
        Does::Reset => {
            stream.write_all(format!("{STREAM}{}", chunk(&first)).as_bytes()).await.ok()?;
            waits(stream, shared).await?;
            stream.set_zero_linger().ok()?;
            None
        }
        Does::Cut => {
            let text = format!("{STREAM}{}0\r\n\r\n", chunk(&first));
            stream.write_all(text.as_bytes()).await.ok()
        }
        Does::Refuse(status, after) => {
            let header = after.map_or_else(String::new, |after| format!("Retry-After: {after}\r\n"));
            json_answer(stream, status, &header, &refusal(speaks)).await
        }
        Does::Garbage => json_answer(stream, 200, "", "so it goes {").await,
        Does::GarbageStream => {
            let text = format!("{STREAM}{}0\r\n\r\n", chunk("data: so it goes {\n\n"));
            stream.write_all(text.as_bytes()).await.ok()
        }
        Does::Endless => {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            endless(stream, head, "{\"a\":\"", "xxxxxxxxxxxxxxxx").await
        }
        Does::EndlessEvent => endless(stream, STREAM, "data: ", "xxxxxxxxxxxxxxxx").await,
        Does::EndlessStream => endless(stream, STREAM, "", &first).await,
        Does::Error => {
            let error = match speaks {
                Speaks::OpenAi => event(&json!({"error": {"message": "marker", "code": 500}})),
                Speaks::Anthropic => event(
                    &json!({"type": "error", "error": {"type": "overloaded_error", "message": "marker"}}),
                ),
                Speaks::Gemini => event(&json!({"error": {"code": 503, "message": "marker"}})),
            };
            let text = format!("{STREAM}{}0\r\n\r\n", chunk(&(first + &error)));
            stream.write_all(text.as_bytes()).await.ok()
        }
    }
}

/// Waits for "go"; `None` when its caller has hung up.
async fn waits(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let mut byte = [0];
    tokio::select! {
        pass = shared.gate.acquire() => {
            pass.unwrap().forget();
            Some(())
        }
        read = stream.read(&mut byte) => {
            assert!(!matches!(read, Ok(1..)), "a second request came before the first was answered");
            shared.state.lock().unwrap().hung_up += 1;
            None
        }
    }
}

async fn endless(stream: &mut TcpStream, head: &str, begin: &str, more: &str) -> Option<()> {
    let begin = if begin.is_empty() { String::new() } else { chunk(begin) };
    stream.write_all(format!("{head}{begin}").as_bytes()).await.ok()?;
    let more = chunk(&more.repeat(64));
    while stream.write_all(more.as_bytes()).await.is_ok() {}
    None
}

async fn json_answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> Option<()> {
    let text = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.ok()
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn event(json: &Value) -> String {
    format!("data: {json}\n\n")
}

/// The error object that the service has, quoting what must not be shown.
fn refusal(speaks: Speaks) -> String {
    let error = match speaks {
        Speaks::OpenAi => json!({"message": "you said marker", "code": "on_purpose"}),
        Speaks::Anthropic => json!({"type": "on_purpose", "message": "you said marker"}),
        Speaks::Gemini => json!({"code": 429, "message": "you said marker", "status": "ON_PURPOSE"}),
    };
    json!({"type": "error", "error": error}).to_string()
}

/// The events of an answer, in two parts: `answer N ` and `from here`.
fn halves(speaks: Speaks, number: usize) -> (String, String) {
    let (input, output) = USAGE;
    let [first, rest] = [format!("answer {number} "), "from here".to_owned()];
    match speaks {
        Speaks::OpenAi => {
            let piece =
                |text: &str| event(&json!({"model": "fake-1", "choices": [{"delta": {"content": text}}]}));
            let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
            let usage = json!({"choices": [],
                "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}});
            (piece(&first), format!("{}{}{}data: [DONE]\n\n", piece(&rest), event(&end), event(&usage)))
        }
        Speaks::Anthropic => {
            let named = |name: &str, json: &Value| format!("event: {name}\n{}", event(json));
            let piece = |text: &str| {
                named(
                    "content_block_delta",
                    &json!({"type": "content_block_delta", "index": 0,
                    "delta": {"type": "text_delta", "text": text}}),
                )
            };
            let start = json!({"type": "message_start", "message": {"model": "fake-1",
                "usage": {"input_tokens": input - 1, "cache_read_input_tokens": 1, "output_tokens": 1}}});
            let thought = json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "thinking_delta", "thinking": "hm"}});
            let end = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": output}});
            (
                format!(
                    "{}{}{}{}",
                    named("message_start", &start),
                    named("ping", &json!({"type": "ping"})),
                    named("content_block_delta", &thought),
                    piece(&first)
                ),
                format!(
                    "{}{}{}",
                    piece(&rest),
                    named("message_delta", &end),
                    named("message_stop", &json!({"type": "message_stop"}))
                ),
            )
        }
        Speaks::Gemini => {
            let piece = |text: &str| {
                event(&json!({"modelVersion": "fake-1",
                    "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}],
                    "usageMetadata": {"promptTokenCount": input}}))
            };
            let end = json!({"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": output - 1,
                    "thoughtsTokenCount": 1}});
            let thought = json!({"candidates": [{"content": {"parts": [{"text": "hm", "thought": true}]}}]});
            (event(&thought) + &piece(&first), piece(&rest) + &event(&end))
        }
    }
}

/// The same answer in one object.
fn whole(speaks: Speaks, number: usize) -> String {
    let (input, output) = USAGE;
    let text = format!("answer {number} from here");
    let whole = match speaks {
        Speaks::OpenAi => json!({"model": "fake-1",
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": input, "completion_tokens": output}}),
        Speaks::Anthropic => json!({"type": "message", "model": "fake-1", "stop_reason": "end_turn",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}],
            "usage": {"input_tokens": input, "output_tokens": output}}),
        Speaks::Gemini => json!({"modelVersion": "fake-1",
            "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": output}}),
    };
    whole.to_string()
}

/// One request; `None` when the connection is over.
async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let length = text.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
    });
    let length = length.unwrap();
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { head: text, body: String::from_utf8(bytes[head..].to_vec()).unwrap() })
}
