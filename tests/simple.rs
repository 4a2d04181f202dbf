//! Old shims: one send, one receive for each request, nothing else, and a minute's patience.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    missing_docs,
    reason = "a test ends at the first surprise, and plays the client, whose clock is its own"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use inflightd::app::App;
use inflightd::config::{Sources, resolve};
use inflightd::deadline::Deadline;
use inflightd::door::Hub;
use inflightd::proto::op::Op;
use inflightd::provider::{Context, Fault, Job, Reply};
use inflightd::session;
use inflightd::tasks::TaskKind;
use inflightd::tool::{Effect, PlainWork, Worth};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// The shim gives up then.
const LIMIT: Duration = Duration::from_secs(60);
/// It takes no frame of this size.
const FRAME_BYTES: usize = 1 << 20;

/// An old shim, written from its description alone.
struct Shim<S> {
    socket: WebSocketStream<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shim<S> {
    async fn greet(socket: WebSocketStream<S>) -> Self {
        Self::greet_as("old", socket).await
    }

    async fn greet_as(name: &str, socket: WebSocketStream<S>) -> Self {
        let mut shim = Self { socket };
        let hello = json!({"op": "hello", "protocolVersion": "2024-11-05", "capabilities": {},
            "clientInfo": {"name": name, "version": "1.0.0"}, "token": "none is needed"});
        let ack = shim.exchange(&hello).await;
        assert_eq!((&ack["op"], &ack["ok"]), (&json!("hello_ack"), &json!(true)));
        shim
    }

    async fn send(&mut self, frame: &str) {
        self.socket.send(Message::text(frame)).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(LIMIT, self.socket.next()).await.expect("the shim gave up");
            match message.unwrap().unwrap() {
                Message::Text(text) => {
                    assert!(text.len() < FRAME_BYTES, "{} bytes", text.len());
                    return serde_json::from_str(&text).unwrap();
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Frames that nobody asked for would be taken for the next answer.
    async fn hears_nothing_for(&mut self, span: Duration) {
        let heard = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_))) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        let _: tokio::time::error::Elapsed = tokio::time::timeout(span, heard).await.unwrap_err();
    }

    async fn exchange(&mut self, frame: &Value) -> Value {
        self.send(&frame.to_string()).await;
        self.next().await
    }

    /// The one frame that answers a call; its id is constant for the connection.
    async fn call(&mut self, name: &str, arguments: Value) -> Value {
        let answer = self.exchange(&call(name, arguments)).await;
        assert_eq!((&answer["op"], &answer["id"]), (&json!("call_tool_res"), &json!("call_1")));
        answer
    }

    async fn text(&mut self, name: &str, arguments: Value) -> String {
        text(&self.call(name, arguments).await)
    }
}

fn call(name: &str, arguments: Value) -> Value {
    json!({"op": "call_tool", "id": "call_1", "name": name, "arguments": arguments})
}

/// All texts of a result.
fn text(answer: &Value) -> String {
    let blocks = answer["result"].as_array().unwrap_or_else(|| panic!("no result in {answer}"));
    blocks.iter().map(|block| block["text"].as_str().unwrap()).collect()
}

/// The request that a text names.
fn named(text: &str) -> Value {
    let start = text.find("req_").unwrap_or_else(|| panic!("no request in {text}"));
    let id: String = text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    json!(id)
}

/// Work that waits for a permit.
#[derive(Debug, Clone)]
struct Gated(Arc<Semaphore>);

impl PlainWork for Gated {
    fn job(&self, _: &Value) -> Box<dyn Job> {
        Box::new(self.clone())
    }
}

impl Job for Gated {
    fn run(self: Box<Self>, _: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            self.0.acquire().await.unwrap().forget();
            Ok(Reply::text("gone through"))
        }
        .boxed()
    }
}

/// A daemon in this process, with tools of each effect behind one gate.
struct Daemon {
    app: App,
    gate: Arc<Semaphore>,
}

impl Daemon {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let fixed = [("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "error")];
        let flags =
            fixed.iter().chain(settings).map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let config = resolve(Sources { flags, ..Sources::default() }).unwrap().config;
        let gate = Arc::new(Semaphore::new(0));
        let app = App::bind_with(&config, |registry, ladder| {
            for (name, effect) in
                [("look", Effect::Read), ("put", Effect::Idempotent), ("post", Effect::Write)]
            {
                let work = Box::new(Gated(Arc::clone(&gate)));
                registry.add_custom(name, effect, Worth::Paid, work, ladder)?;
            }
            Ok(())
        });
        Self { app: app.await.unwrap(), gate }
    }

    fn hub(&self) -> &Arc<Hub> {
        self.app.hub()
    }

    /// A connection without a socket, for tests that drive the clock.
    async fn pipe(&self) -> WebSocketStream<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let caller = self.hub().new_caller(Arc::clone(&self.hub().auth.principals()[0]));
        let op = Op::new(caller.session.id, true);
        let hub = Arc::clone(self.hub());
        tokio::spawn(session::serve(theirs, Vec::new(), op, hub, caller));
        WebSocketStream::from_raw_socket(ours, Role::Client, None).await
    }

    async fn shim(&self) -> Shim<DuplexStream> {
        Shim::greet(self.pipe().await).await
    }

    /// A client of the ordinary kind.
    async fn ordinary(&self) -> Shim<DuplexStream> {
        let mut client = Shim { socket: self.pipe().await };
        assert_eq!(client.exchange(&json!({"op": "hello"})).await["ok"], true);
        client
    }

    fn executions(&self) -> Value {
        use inflightd::tool::Insight as _;
        self.hub().calls.server_stats()["dedup"]["executions"].clone()
    }
}

async fn over_tcp(port: u16) -> Shim<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let config = WebSocketConfig::default().max_message_size(Some(FRAME_BYTES - 1));
    let url = format!("ws://127.0.0.1:{port}/");
    let (socket, _) = client_async_with_config(url, stream, Some(config)).await.unwrap();
    Shim::greet(socket).await
}

#[tokio::test]
async fn an_old_shim_works_call_after_call_through_errors_large_answers_and_reconnects() {
    let daemon = Daemon::start(&[]).await;
    let port = daemon.app.address().port();
    let (_stop, stopped) = tokio::sync::mpsc::channel(1);
    tokio::spawn(daemon.app.run(stopped));
    let large = "é\"\n😀x".repeat(1_500_000 / 10);
    for round in 0..3 {
        let mut shim = over_tcp(port).await;
        let list = shim.exchange(&json!({"op": "list_tools", "id": "list_1"})).await;
        assert_eq!((&list["op"], &list["id"]), (&json!("list_tools_res"), &json!("list_1")));
        let tools = list["tools"].as_array().unwrap();
        assert!(
            tools.iter().all(|tool| tool["inputSchema"].is_object() && tool.get("outputSchema").is_none())
        );

        let answer = shim.call("echo", json!({"text": "hi"})).await;
        assert_eq!(answer["result"], json!([{"type": "text", "text": "hi"}]));
        assert_eq!(answer["outputs"], answer["result"]);
        assert!(answer.get("error").is_none());
        assert!(shim.text("chat", json!({"prompt": "who?"})).await.contains("stand-in"));

        for (name, arguments, code) in [
            ("no such tool", json!({}), "TOOL_NOT_FOUND"),
            ("echo", json!({"text": 1}), "VALIDATION_ERROR"),
            ("echo", json!([]), "INVALID_REQUEST"),
            (&*"x".repeat(FRAME_BYTES), json!({}), "TOOL_NOT_FOUND"),
        ] {
            let answer = shim.call(name, arguments).await;
            assert_eq!(answer["error"]["code"], code);
            assert!(text(&answer).starts_with(code) && answer["outputs"] == answer["result"]);
        }
        shim.send("{\"op\":\"call_tool\",\"id\":\"call_1\"").await;
        assert!(text(&shim.next().await).starts_with("INVALID_REQUEST"));

        let mut collected = String::new();
        let mut answer = shim.call("echo", json!({"text": format!("{round}{large}")})).await;
        loop {
            let blocks = answer["result"].as_array().unwrap();
            let texts: Vec<_> = blocks.iter().map(|block| block["text"].as_str().unwrap()).collect();
            // What get_request tells of the request comes first, what says that there is more last.
            let (word, pieces) = match *texts {
                [ref pieces @ .., word] if word.starts_with("[The answer is cut") => (Some(word), pieces),
                ref pieces => (None, pieces),
            };
            collected.push_str(pieces.last().unwrap());
            let Some(word) = word else { break };
            let arguments = &word[word.find('{').unwrap()..=word.rfind('}').unwrap()];
            answer = shim.call("get_request", serde_json::from_str(arguments).unwrap()).await;
        }
        assert!(collected == format!("{round}{large}"), "{} bytes", collected.len());
        assert_eq!(shim.exchange(&json!({"op": "ping", "id": 7})).await["id"], 7);
    }
}

#[tokio::test]
async fn what_was_cut_for_a_shim_is_collected_whole_by_others() {
    let daemon = Daemon::start(&[]).await;
    let large = "x".repeat(1_500_000);
    let request = named(&daemon.shim().await.text("echo", json!({"text": large})).await);
    let (mut client, stop) = (Shim { socket: daemon.pipe().await }, FRAME_BYTES);
    client.exchange(&json!({"op": "hello"})).await;
    client.send(&call("get_request", json!({"request_id": request})).to_string()).await;
    let Some(Ok(Message::Text(frame))) = client.socket.next().await else { panic!("no answer") };
    let answer: Value = serde_json::from_str(&frame).unwrap();
    assert!(frame.len() > stop && answer["outputs"][1]["text"] == large);
    let past = json!({"request_id": request, "offset": 1_500_001});
    assert_eq!(client.exchange(&call("get_request", past)).await["error"]["details"]["argument"], "offset");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_still_runs_is_answered_before_the_shim_gives_up_and_goes_on() {
    let daemon = Daemon::start(&[]).await;
    for tool in ["look", "put", "post"] {
        let mut shim = daemon.shim().await;
        let sent = Instant::now();
        let answer = shim.call(tool, json!({})).await;
        assert_eq!(sent.elapsed().as_secs(), 55, "{tool}");
        assert!(answer.get("error").is_none() && answer["still_running"] == true);
        assert!(text(&answer).contains("get_request"), "{answer}");
        let request = named(&text(&answer));
        let running = shim.text("get_request", json!({"request_id": request})).await;
        assert!(running.contains("\"running\""), "{running}");

        shim.hears_nothing_for(Duration::from_secs(100)).await;
        daemon.gate.add_permits(1);
        let landed = shim.call("get_request", json!({"request_id": request})).await;
        assert!(text(&landed).ends_with("gone through"), "{tool}: {landed}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_after_a_minute_whatever_it_calls_itself_and_others_are_given() {
    for (name, unknown, answered) in
        [("mcp", "60", 55), ("claude-code", "60", 55), ("old", "300", 55), ("old", "30", 25)]
    {
        let daemon = Daemon::start(&[("UNKNOWN_CLIENT_LIMIT_SECS", unknown)]).await;
        let mut shim = Shim::greet_as(name, daemon.pipe().await).await;
        let sent = Instant::now();
        let answer = shim.call("look", json!({})).await;
        assert_eq!((sent.elapsed().as_secs(), &answer["still_running"]), (answered, &json!(true)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_promised_to_a_shim_is_kept_when_others_take_their_calls_back() {
    let daemon = Daemon::start(&[]).await;
    let (mut shim, mut other) = (daemon.shim().await, daemon.ordinary().await);
    shim.send(&call("look", json!({})).to_string()).await;
    let mut joins = call("look", json!({}));
    joins["request_id"] = json!("r");
    assert_eq!(other.exchange(&joins).await["op"], "call_tool_ack");
    // Progress is read as it comes, until the shim was answered.
    let told = async {
        let answered = Instant::now() + Duration::from_secs(55);
        while Instant::now() < answered {
            assert_eq!(other.next().await["op"], "progress");
        }
    };
    let (early, ()) = tokio::join!(shim.next(), told);
    let request = named(&text(&early));
    other.send(&json!({"op": "cancel", "request_id": "r"}).to_string()).await;
    while other.next().await["error"]["code"] != "CANCELLED" {}
    daemon.gate.add_permits(1);
    assert!(shim.text("get_request", json!({"request_id": request})).await.ends_with("gone through"));
    assert_eq!(daemon.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_behind_a_running_call_wait_their_turn_whatever_their_ids() {
    let daemon = Daemon::start(&[]).await;
    let mut shim = daemon.shim().await;
    for frame in [
        call("post", json!({})).to_string(),
        call("post", json!({})).to_string(),
        json!({"op": "ping", "id": "call_1"}).to_string(),
        "not JSON".into(),
        json!({"op": "list_tools", "id": "list_1"}).to_string(),
        call("echo", json!({"text": "last"})).to_string(),
    ] {
        shim.send(&frame).await;
    }
    // A frame with `request_id` is answered in the ordinary way: at once, and with an acknowledgement.
    let ordinary =
        json!({"op": "call_tool", "request_id": "call_1", "name": "echo", "arguments": {"text": "x"}});
    assert_eq!(shim.exchange(&ordinary).await["op"], "call_tool_ack");
    assert_eq!(shim.next().await["request_id"], "call_1");
    assert_eq!(daemon.executions(), 2, "the second call has not begun");
    daemon.gate.add_permits(2);
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(shim.next().await);
    }
    let ops: Vec<_> = answers.iter().map(|answer| answer["op"].as_str().unwrap()).collect();
    let call = "call_tool_res";
    assert_eq!(ops, [call, call, "pong", "error", "list_tools_res", call]);
    assert_eq!(text(&answers[5]), "last");
}

#[tokio::test(start_paused = true)]
async fn too_many_waiting_requests_are_refused_in_their_turn() {
    let daemon = Daemon::start(&[]).await;
    let mut shim = daemon.shim().await;
    shim.send(&call("post", json!({})).to_string()).await;
    for n in 0..258 {
        shim.send(&json!({"op": "ping", "id": n}).to_string()).await;
    }
    // Answered at once: all before it was read.
    assert_eq!(shim.exchange(&json!({"op": "ping", "request_id": "r"})).await["request_id"], "r");
    daemon.gate.add_permits(1);
    assert_eq!(text(&shim.next().await), "gone through");
    for n in 0..258 {
        let answer = shim.next().await;
        assert_eq!(answer["id"], n);
        let full = n >= 256;
        assert_eq!(answer["op"], if full { "error" } else { "pong" });
        assert_eq!(full, answer["error"]["code"] == "OVER_CAPACITY");
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_asking_beyond_all_bounds_is_told_why_it_is_closed() {
    let daemon = Daemon::start(&[]).await;
    let mut shim = daemon.shim().await;
    shim.send(&call("post", json!({})).to_string()).await;
    for n in 0..=256 + 1024 {
        shim.send(&json!({"op": "ping", "id": n}).to_string()).await;
    }
    let Message::Close(Some(frame)) = shim.socket.next().await.unwrap().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(frame.code), &*frame.reason), (1008, "too many requests wait for their turn"));
}

#[tokio::test(start_paused = true)]
async fn a_shim_cancels_the_call_that_runs_and_is_answered_in_order() {
    let daemon = Daemon::start(&[]).await;
    let mut shim = daemon.shim().await;
    shim.send(&call("look", json!({})).to_string()).await;
    let answer = shim.exchange(&json!({"op": "cancel", "id": "call_1"})).await;
    assert!(text(&answer).starts_with("CANCELLED"), "{answer}");
    assert_eq!(shim.next().await, json!({"op": "cancelled", "id": "call_1"}));
}

#[tokio::test(start_paused = true)]
async fn the_first_request_decides_how_a_connection_is_served() {
    let daemon = Daemon::start(&[]).await;
    let mut client = daemon.shim().await;
    let ordinary = json!({"op": "ping", "id": "call_1", "request_id": "r"});
    assert_eq!(client.exchange(&ordinary).await["request_id"], "r");
    let answer = client.exchange(&call("echo", json!({"text": "x"}))).await;
    assert!(answer.get("id").is_none() && answer.get("result").is_none(), "{answer}");
    let mut client = daemon.ordinary().await;
    let answer = client.exchange(&call("echo", json!({"text": "x"}))).await;
    assert!(answer.get("id").is_none(), "its hello had no clientInfo: {answer}");
}

#[tokio::test(start_paused = true)]
async fn a_shim_that_reconnects_in_a_call_joins_its_own_work() {
    let daemon = Daemon::start(&[]).await;
    let mut shim = daemon.shim().await;
    shim.send(&call("look", json!({})).to_string()).await;
    while daemon.executions() == 0 {
        tokio::task::yield_now().await;
    }
    drop(shim);
    let mut shim = daemon.shim().await;
    shim.send(&call("look", json!({})).to_string()).await;
    shim.send(&json!({"op": "ping", "request_id": "r"}).to_string()).await;
    assert_eq!(shim.next().await["op"], "pong");
    daemon.gate.add_permits(1);
    let answer = shim.next().await;
    assert_eq!((&*text(&answer), &answer["from_inflight"]), ("gone through", &json!(true)));
    assert_eq!(daemon.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_when_the_daemon_goes_down_are_told_so() {
    let daemon = Daemon::start(&[]).await;
    let mut shim = daemon.shim().await;
    shim.send(&call("post", json!({})).to_string()).await;
    shim.send(&call("post", json!({})).to_string()).await;
    assert_eq!(shim.exchange(&json!({"op": "ping", "request_id": "r"})).await["op"], "pong");
    daemon.hub().calls.start_draining();
    daemon.gate.add_permits(1);
    let within = Deadline::after(LIMIT);
    daemon.hub().tasks.drained(TaskKind::Run, within).await.unwrap();
    daemon.hub().closing.set();
    assert_eq!(text(&shim.next().await), "gone through");
    assert!(text(&shim.next().await).starts_with("SHUTTING_DOWN"));
}
