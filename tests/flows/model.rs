//! A model that the test plays: it keeps what it was asked, and answers what the test says of it, once it may.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::until;

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// The header `Authorization`.
    pub key: String,
    pub body: Value,
}

impl Asked {
    /// The last message.
    pub fn question(&self) -> &str {
        self.body["messages"].as_array().and_then(|all| all.last()).unwrap()["content"].as_str().unwrap()
    }
}

type Answers = dyn Fn(&Asked) -> Result<String, u16> + Send + Sync;

struct Shared {
    asked: Mutex<Vec<Asked>>,
    /// How many are at work, the most there were, and how many hung up.
    counts: Mutex<(usize, usize, usize)>,
    gate: Semaphore,
    answers: Box<Answers>,
}

#[derive(Clone)]
pub struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
}

const ALL: usize = 1 << 20;

impl Model {
    /// One that answers at once: the text, or a refusal with a status.
    pub async fn new(answers: impl Fn(&Asked) -> Result<String, u16> + Send + Sync + 'static) -> Self {
        let model = Self::held(answers).await;
        model.go(ALL);
        model
    }

    /// One that answers nothing before [`Model::go`].
    pub async fn held(answers: impl Fn(&Asked) -> Result<String, u16> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            counts: Mutex::default(),
            gate: Semaphore::new(0),
            answers: Box::new(answers),
        });
        let model = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        model
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Lets so many answers pass.
    pub fn go(&self, answers: usize) {
        self.shared.gate.add_permits(answers);
    }

    pub fn all(&self) {
        self.go(ALL);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.shared.counts.lock().unwrap().1
    }

    pub async fn started(&self, requests: usize) {
        until(&format!("request {requests} at the model"), || self.asked().len() >= requests).await;
    }

    pub async fn sees_hang_up(&self, times: usize) {
        until("a hang-up", || self.shared.counts.lock().unwrap().2 >= times).await;
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(asked) = read(&mut stream).await {
        shared.asked.lock().unwrap().push(asked.clone());
        {
            let mut counts = shared.counts.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        let mut byte = [0];
        let passes = tokio::select! {
            permit = shared.gate.acquire() => { permit.unwrap().forget(); true }
            _ = stream.read(&mut byte) => false,
        };
        {
            let mut counts = shared.counts.lock().unwrap();
            counts.0 -= 1;
            counts.2 += usize::from(!passes);
        }
        if !passes {
            return;
        }
        let (status, body) = match (shared.answers)(&asked) {
            Ok(text) if asked.line.starts_with("GET") => (200, text),
            Ok(text) => (200, json!({"model": "fake-1", "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 5}}).to_string()),
            Err(status) => (status, json!({"error": {"code": "on_purpose", "message": asked.key}}).to_string()),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
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
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = if length == 0 { Value::Null } else { serde_json::from_slice(&bytes[head..]).unwrap() };
    let line = text.lines().next().unwrap().rsplit_once(' ').unwrap().0.to_owned();
    Some(Asked { line, key: header("authorization").unwrap_or_default(), body })
}
