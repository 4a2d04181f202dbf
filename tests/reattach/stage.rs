//! A daemon in this process with tools that wait for a word, and a client for each connection. Every wait has a
//! bound.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use inflightd::app::App;
use inflightd::config::{Sources, resolve};
use inflightd::door::Hub;
use inflightd::provider::{Context, Fault, Job, Reply};
use inflightd::tool::{Effect, PlainWork, Worth};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client::client};

/// Longer than anything takes on a busy machine; reached only when a promise is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const KEY: &str = "00112233445566778899aabbccddeeff";

/// What the tools `look` (read), `put` (idempotent) and `change` (write) wait for.
#[derive(Debug)]
pub struct Gate {
    begun: Mutex<usize>,
    news: Condvar,
    go: Semaphore,
    ended: AtomicUsize,
}

impl Gate {
    fn new() -> Arc<Self> {
        let (begun, news, ended) = (Mutex::new(0), Condvar::new(), AtomicUsize::new(0));
        Arc::new(Self { begun, news, go: Semaphore::new(0), ended })
    }

    /// How often work has begun.
    pub fn runs(&self) -> usize {
        *self.begun.lock().unwrap()
    }

    /// Until work has begun so often.
    pub fn wait_for(&self, runs: usize) {
        let begun = self.begun.lock().unwrap();
        let waited = self.news.wait_timeout_while(begun, PATIENCE, |begun| *begun < runs).unwrap();
        assert!(!waited.1.timed_out(), "work has not begun");
    }

    /// Lets one piece of work end.
    pub fn open(&self) {
        self.go.add_permits(1);
    }

    /// Until so much work has ended or was stopped.
    pub fn wait_for_ends(&self, ends: usize) {
        let since = Instant::now();
        while self.ended.load(Ordering::Acquire) < ends {
            assert!(since.elapsed() < PATIENCE, "work has not ended");
            std::thread::yield_now();
        }
    }
}

#[derive(Debug)]
struct Gated(Arc<Gate>);

struct AtWork(Arc<Gate>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

impl PlainWork for Gated {
    fn job(&self, _arguments: &Value) -> Box<dyn Job> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl Job for Gated {
    fn run(self: Box<Self>, _context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            let gate = AtWork(Arc::clone(&self.0));
            let run = {
                let mut begun = gate.0.begun.lock().unwrap();
                *begun += 1;
                *begun
            };
            gate.0.news.notify_all();
            gate.0.go.acquire().await.unwrap().forget();
            Ok(Reply::text(&format!("answer {run}")))
        }
        .boxed()
    }
}

/// A daemon of this process, stopped at the end of the test.
pub struct Daemon {
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    pub gate: Arc<Gate>,
    stop: mpsc::Sender<()>,
    serving: Option<JoinHandle<()>>,
}

impl Daemon {
    pub fn start() -> Self {
        let set = [("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "error"), ("DRAIN_TIMEOUT_SECS", "1")];
        let flags = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = resolve(Sources { flags, ..Sources::default() }).unwrap().config;
        let gate = Gate::new();
        let (stop, stopped) = mpsc::channel(2);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let tools = Arc::clone(&gate);
        let serving = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
                let app = App::bind_with(&config, |registry, ladder| {
                    let work = || Box::new(Gated(Arc::clone(&tools)));
                    registry.add_custom("look", Effect::Read, Worth::Paid, work(), ladder)?;
                    registry.add_custom("put", Effect::Idempotent, Worth::Cheap, work(), ladder)?;
                    registry.add_custom("change", Effect::Write, Worth::Cheap, work(), ladder)
                });
                let app = app.await.unwrap();
                tell.send((app.address(), Arc::clone(app.hub()))).unwrap();
                app.run(stopped).await;
            });
        });
        let (address, hub) = told.recv_timeout(PATIENCE).unwrap();
        Self { address, hub, gate, stop, serving: Some(serving) }
    }

    pub fn connect(&self, key: Option<&str>) -> Peer {
        Peer::connect(self.address, key, Some("mcp"))
    }

    /// An op connection that has said nothing.
    pub fn op(&self) -> Peer {
        Peer::connect(self.address, None, None)
    }

    /// An op connection that has said hello.
    pub fn greet(&self, key: Option<&str>) -> Peer {
        let mut peer = self.op();
        peer.send(&json!({"op": "hello", "session_key": key}));
        assert_eq!(peer.read()["ok"], true);
        peer
    }

    /// What the statistics say of calls sent again: those that were found, and those that ran again.
    pub fn resumed(&self) -> (u64, u64) {
        let totals = self.hub.calls.watch().lifecycle().totals();
        (totals.resumed, totals.resumed_again)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.stop.try_send(());
        let _ = self.stop.try_send(());
        let _ = self.serving.take().unwrap().join();
    }
}

/// One connection of a client.
pub struct Peer(WebSocket<TcpStream>);

impl Peer {
    fn connect(address: SocketAddr, key: Option<&str>, subprotocol: Option<&str>) -> Self {
        let mut request = format!("ws://{address}").into_client_request().unwrap();
        let named = [("inflightd-session", key), ("sec-websocket-protocol", subprotocol)];
        for (name, value) in named {
            let Some(value) = value else { continue };
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, response) = client(request, tcp).unwrap();
        assert_eq!(response.headers()["inflightd-version"], env!("CARGO_PKG_VERSION"));
        Self(socket)
    }

    pub fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).unwrap();
    }

    pub fn read(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Sends a call of the stateless era.
    pub fn call(&mut self, id: &str, tool: &str, arguments: &Value, resume: bool) {
        let mut meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        if resume {
            meta["inflightd/resume"] = json!(true);
        }
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
    }

    pub fn cancel(&mut self, id: &str) {
        let params = json!({"requestId": id});
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
    }

    /// The next answer's text and role.
    pub fn answer(&mut self, id: &str) -> (String, String) {
        let answer = self.read();
        assert_eq!(answer["id"], id, "{answer}");
        let text = answer["result"]["content"][0]["text"].as_str().unwrap().to_owned();
        let role = answer["result"]["_meta"]["inflightd/role"].as_str().unwrap_or_default().to_owned();
        (text, role)
    }

    /// The next answer's error code.
    pub fn refused(&mut self, id: &str) -> String {
        let answer = self.read();
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"]["_meta"]["inflightd/error"]["code"].as_str().unwrap().to_owned()
    }
}
