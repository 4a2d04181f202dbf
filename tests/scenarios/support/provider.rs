//! A model provider that the test plays: it counts what comes, waits for "go", and sees who hangs up.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::until;

/// More than any test asks.
const ALL: usize = 1 << 20;

/// What it does once it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// It answers with a text that no other request gets.
    Answer,
    /// It streams half of the answer, waits for another "go", then streams the rest.
    Halves,
    /// It streams half of the answer and closes.
    CutStream,
    /// It refuses with this status.
    Refuse(u16),
    /// It refuses with this status, and says to come back after so many seconds.
    LaterBy(u16, u64),
    /// It refuses with this status and quotes question and key in its error.
    Quote(u16),
    /// It answers with something that is not JSON.
    Garbage,
    /// It closes without an answer.
    HangUp,
}

#[derive(Debug)]
struct State {
    questions: Vec<String>,
    keys: Vec<String>,
    at_work: usize,
    most_at_once: usize,
    hung_up: usize,
    play: Play,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    gate: Semaphore,
}

/// One provider on a port of its own, for as long as the test's runtime lives.
#[derive(Debug, Clone)]
pub struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Provider {
    /// A provider that answers at once.
    pub async fn open() -> Self {
        Self::new(ALL).await
    }

    /// A provider that takes every request and answers none before [`Provider::go`].
    pub async fn held() -> Self {
        Self::new(0).await
    }

    async fn new(passes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            questions: Vec::new(),
            keys: Vec::new(),
            at_work: 0,
            most_at_once: 0,
            hung_up: 0,
            play: Play::Answer,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), gate: Semaphore::new(passes) });
        let provider = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        provider
    }

    /// Where it is, for `KIMI_API_URL` and its like.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where nobody is.
    pub async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/v1", listener.local_addr().unwrap())
    }

    /// Lets everything pass, now and later.
    pub fn go(&self) {
        self.shared.gate.add_permits(ALL);
    }

    /// Lets this many requests pass.
    pub fn let_pass(&self, requests: usize) {
        self.shared.gate.add_permits(requests);
    }

    /// Holds what comes from now on.
    pub fn hold(&self) {
        self.shared.gate.forget_permits(usize::MAX >> 4);
    }

    /// What it does from now on, also with what is held.
    pub fn plays(&self, play: Play) {
        self.shared.state.lock().unwrap().play = play;
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.shared.state.lock().unwrap().questions.len()
    }

    /// What was asked, in the order in which it came.
    pub fn questions(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().questions.clone()
    }

    /// The `Authorization` headers that came.
    pub fn keys(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().keys.clone()
    }

    /// The most requests that it ever had at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.state.lock().unwrap().most_at_once
    }

    /// How many connections closed over a request that waited for its answer.
    pub fn hung_up(&self) -> usize {
        self.shared.state.lock().unwrap().hung_up
    }

    /// "Started": so many requests have come.
    pub async fn started(&self, requests: usize) {
        until(&format!("request {requests} at the provider"), || self.requests() >= requests).await;
    }

    /// So many callers have hung up.
    pub async fn sees_hang_up(&self, times: usize) {
        until(&format!("hang-up {times} at the provider"), || self.hung_up() >= times).await;
    }
}

/// Counts a request until it is answered or left.
struct AtWork<'a>(&'a Shared);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().at_work -= 1;
    }
}

impl Shared {
    fn begin(&self, request: &Request) -> (usize, AtWork<'_>) {
        let mut state = self.state.lock().unwrap();
        state.questions.push(request.question.clone());
        state.keys.push(request.key.clone());
        state.at_work += 1;
        state.most_at_once = state.most_at_once.max(state.at_work);
        (state.questions.len(), AtWork(self))
    }

    /// Whether the request may go on; `false` when its caller has hung up.
    async fn pass(&self, stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        let passed = tokio::select! {
            pass = self.gate.acquire() => {
                pass.unwrap().forget();
                true
            }
            read = stream.read(&mut byte) => {
                assert!(!matches!(read, Ok(1..)), "a second request came before the first was answered");
                false
            }
        };
        if !passed {
            self.state.lock().unwrap().hung_up += 1;
        }
        passed
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read(&mut stream).await {
        let (number, at_work) = shared.begin(&request);
        if !shared.pass(&mut stream).await {
            return;
        }
        let play = shared.state.lock().unwrap().play;
        if play == Play::Halves {
            let (first, rest) = halves(number, &request.question);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{head}{first}").as_bytes()).await;
            if shared.pass(&mut stream).await {
                drop(at_work);
                let _ = stream.write_all(rest.as_bytes()).await;
            }
            return;
        }
        // Its caller may ask again as soon as it is answered.
        drop(at_work);
        let answer = answer(play, number, &request);
        if stream.write_all(answer.as_bytes()).await.is_err() || answer.is_empty() || play == Play::CutStream
        {
            return;
        }
    }
}

fn answer(play: Play, number: usize, request: &Request) -> String {
    let question = &request.question;
    let later;
    let (status, headers, body) = match play {
        Play::Answer => {
            let (first, rest) = halves(number, question);
            (200, "Content-Type: text/event-stream\r\n", first + &rest)
        }
        Play::CutStream => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
            return format!("{head}{}", halves(number, question).0);
        }
        Play::Refuse(status) => (status, "", json!({"error": {"code": "on_purpose"}}).to_string()),
        Play::LaterBy(status, seconds) => {
            later = format!("Retry-After: {seconds}\r\n");
            (status, &*later, json!({"error": {"code": "on_purpose"}}).to_string())
        }
        Play::Quote(status) => {
            let text = format!("{} asked: {question}", request.key);
            (status, "", json!({"error": {"message": text, "code": text, "type": text}}).to_string())
        }
        Play::Garbage => (200, "Content-Type: application/json\r\n", "so it goes {".into()),
        Play::HangUp => return String::new(),
        Play::Halves => unreachable!("played by its caller"),
    };
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The events of an answer, in two parts.
fn halves(number: usize, question: &str) -> (String, String) {
    let piece = |text: &str| {
        format!("data: {}\n\n", json!({"model": "fake-1", "choices": [{"delta": {"content": text}}]}))
    };
    let usage = json!({"choices": [{"delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
    (
        piece(&format!("answer {number} ")),
        format!("{}data: {usage}\n\ndata: [DONE]\n\n", piece(&format!("to {question}"))),
    )
}

struct Request {
    question: String,
    key: String,
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
    let header = |name: &str| {
        let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let length: usize = header("content-length").unwrap().parse().unwrap();
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body: Value = serde_json::from_slice(&bytes[head..]).unwrap();
    let question =
        body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    Some(Request { question, key: header("authorization").unwrap_or_default() })
}
