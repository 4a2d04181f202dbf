//! A daemon in this process. Every wait has a bound.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use inflightd::app::App;
use inflightd::call::queue::PoolView;
use inflightd::config::principals::TokenHash;
use inflightd::config::{Config, Sources, resolve};
use inflightd::deadline::Deadline;
use inflightd::door::Hub;
use inflightd::lifecycle::Totals;
use inflightd::provider::{Context, Fault, Job, Reply};
use inflightd::tool::{Effect, PlainWork, Worth};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longer than anything takes on a busy machine; reached only when a promise is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test's principal has as its hash: its token is the word itself.
pub fn hash(token: &str) -> String {
    TokenHash::of(token).text()
}

/// A configuration in which `$word` is the hash of `word`.
pub fn config(text: &str) -> Config {
    let mut toml = text.to_owned();
    for token in ["anna", "ben", "old", "new"] {
        toml = toml.replace(&format!("${token}"), &hash(token));
    }
    let flags = [("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "error")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let working_folder = env!("CARGO_MANIFEST_DIR").into();
    let sources = Sources { flags, toml: toml.parse().unwrap(), working_folder, ..Sources::default() };
    resolve(sources).unwrap().config
}

/// Waits until something holds.
pub async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(waiting).await;
}

async fn within<F: IntoFuture>(future: F) -> F::Output {
    Deadline::after(PATIENCE).limit(future.into_future()).await.expect("it takes longer than anything should")
}

/// Where work of the tools `gate` and `write_gate` says that it started, and waits to go on.
#[derive(Debug)]
struct Gate {
    names: Mutex<Vec<String>>,
    started: watch::Sender<usize>,
    go: Semaphore,
}

#[derive(Debug)]
struct Gated(Arc<Gate>);

struct AtGate(Arc<Gate>, String);

impl PlainWork for Gated {
    fn job(&self, arguments: &Value) -> Box<dyn Job> {
        let name = arguments["name"].as_str().unwrap_or_default().to_owned();
        Box::new(AtGate(Arc::clone(&self.0), name))
    }
}

impl Job for AtGate {
    fn run(self: Box<Self>, _context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            self.0.names.lock().unwrap().push(self.1);
            self.0.started.send_modify(|count| *count += 1);
            self.0.go.acquire().await.expect("it is never closed").forget();
            Ok(Reply::structured(&json!({"passed": true})))
        }
        .boxed()
    }
}

/// A daemon under test.
pub struct Daemon {
    pub hub: Arc<Hub>,
    address: SocketAddr,
    gate: Arc<Gate>,
    stop: mpsc::Sender<()>,
    http: reqwest::Client,
}

/// A whole HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> String {
        self.body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn text(&self) -> String {
        self.body["outputs"].to_string()
    }
}

/// Which WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Op,
    Mcp,
}

impl Daemon {
    /// Starts one on a free port.
    pub async fn start(toml: &str) -> Self {
        let gate = Gate { names: Mutex::default(), started: watch::Sender::new(0), go: Semaphore::new(0) };
        let gate = Arc::new(gate);
        let config = config(toml);
        let app = App::bind_with(&config, |registry, ladder| {
            let work = || Box::new(Gated(Arc::clone(&gate)));
            registry.add_custom("gate", Effect::Read, Worth::Cheap, work(), ladder)?;
            registry.add_custom("write_gate", Effect::Write, Worth::Cheap, work(), ladder)
        });
        let app = app.await.unwrap();
        let (address, hub) = (app.address(), Arc::clone(app.hub()));
        let (stop, stopped) = mpsc::channel(1);
        tokio::spawn(app.run(stopped));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { hub, address, gate, stop, http }
    }

    pub fn stop(&self) {
        self.stop.try_send(()).unwrap();
    }

    /// Waits until so many have started.
    pub async fn started(&self, count: usize) {
        let mut started = self.gate.started.subscribe();
        within(started.wait_for(|started| *started >= count)).await.unwrap();
    }

    /// Lets so many go on.
    pub fn go(&self, count: usize) {
        self.gate.go.add_permits(count);
    }

    /// The names of those that started.
    pub fn order(&self) -> Vec<String> {
        self.gate.names.lock().unwrap().clone()
    }

    pub fn totals(&self) -> Totals {
        self.hub.calls.watch().lifecycle().totals()
    }

    pub fn executions(&self) -> usize {
        self.hub.calls.flights().executions()
    }

    /// Calls that wait for a provider.
    pub fn queued(&self) -> usize {
        self.hub.calls.pools().1.iter().map(|(_, view)| view.queued).sum()
    }

    /// A principal's own places.
    pub fn own(&self, name: &str) -> PoolView {
        let mut all = self.hub.auth.principals().iter();
        all.find(|principal| &*principal.name == name).unwrap().slots.as_ref().unwrap().view()
    }

    /// A call over HTTP, under way at once.
    pub fn execute(&self, token: &str, body: Value) -> tokio::task::JoinHandle<Answer> {
        self.execute_with(Some(token), body)
    }

    pub fn execute_with(&self, token: Option<&str>, body: Value) -> tokio::task::JoinHandle<Answer> {
        let request = self.http.post(format!("http://{}/api/v1/execute", self.address)).json(&body);
        tokio::spawn(answer(request, token.map(str::to_owned)))
    }

    pub async fn get(&self, token: Option<&str>, path: &str) -> Answer {
        answer(self.http.get(format!("http://{}{path}", self.address)), token.map(str::to_owned)).await
    }

    /// A WebSocket, or the status of the refusal. An op client brings its token in the query.
    pub async fn connect(&self, door: Door, token: Option<&str>) -> Result<Client, u16> {
        let query =
            token.filter(|_| door == Door::Op).map(|token| format!("?token={token}")).unwrap_or_default();
        let mut request = format!("ws://{}/{query}", self.address).into_client_request().unwrap();
        if door == Door::Mcp {
            request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mcp"));
            if let Some(token) = token {
                let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
                request.headers_mut().insert("Authorization", value);
            }
        }
        match within(tokio_tungstenite::connect_async(request)).await {
            Ok((socket, _)) => Ok(Client::new(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn answer(request: reqwest::RequestBuilder, token: Option<String>) -> Answer {
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = within(request.send()).await.unwrap();
    let status = response.status().as_u16();
    let retry_after =
        response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
    Answer { status, retry_after, body: within(response.json()).await.unwrap() }
}

/// One WebSocket.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    fn new(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self { socket }
    }

    /// Small frames always fit into the socket.
    pub fn send(&mut self, frame: &Value) {
        let sent = self.socket.send(Message::text(frame.to_string()));
        sent.now_or_never().expect("a small frame fits").unwrap();
    }

    pub async fn next(&mut self) -> Value {
        match within(self.socket.next()).await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("no frame: {other:?}"),
        }
    }

    /// The next frame of this op.
    pub async fn answer(&mut self, op: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["op"] == op {
                return frame;
            }
        }
    }

    pub async fn close_code(&mut self) -> u16 {
        match within(self.socket.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
            other => panic!("no close: {other:?}"),
        }
    }
}
