use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::good_bye::GOOD_BYE;
use super::*;
use crate::call::tests::rig::{Rig, secs, settle};
use crate::call::tests::stage::{Order, Progress};
use crate::deadline::Deadline;
use crate::health::Health;
use crate::ids::ClientSessionId;
use crate::proto::mcp::Mcp;
use crate::proto::op::Op;
use crate::tasks::TaskKind;

/// A connection whose writes are counted.
struct Counted {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client on a session.
struct Client {
    rig: Rig,
    hub: Arc<Hub>,
    socket: WebSocketStream<DuplexStream>,
    writes: Arc<AtomicUsize>,
    opened: Instant,
}

impl Client {
    async fn connect(dialect: impl Dialect) -> Self {
        Self::connect_with(dialect, &[]).await
    }

    async fn connect_with(dialect: impl Dialect, keys: &[(&str, &str)]) -> Self {
        let rig = Rig::new(keys);
        let hub =
            Hub::new(&rig.config, Arc::clone(&rig.calls), Arc::new(Health::default()), rig.tasks.clone());
        let hub = Arc::new(hub);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::new(0));
        let stream = Counted { stream: theirs, writes: Arc::clone(&writes) };
        let caller = hub.new_caller(Arc::clone(&hub.auth.principals()[0]));
        rig.tasks.spawn(TaskKind::Session, serve(stream, Vec::new(), dialect, Arc::clone(&hub), caller));
        settle().await;
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        Self { rig, hub, socket, writes, opened: Instant::now() }
    }

    async fn op() -> Self {
        Self::connect(Op::new(ClientSessionId(1), true)).await
    }

    /// An op client that has said hello.
    async fn greeted() -> Self {
        let mut client = Self::op().await;
        client.say(&json!({"op": "hello"})).await;
        assert_eq!(client.hear().await["ok"], true);
        client
    }

    /// An MCP client that has initialized.
    async fn mcp() -> Self {
        let mut client = Self::connect(Mcp::default()).await;
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}});
        client.say(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await;
        assert_eq!(client.hear().await["id"], 0);
        client
    }

    async fn say(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        self.socket.next().await.unwrap().unwrap()
    }

    /// The next text, past pings.
    async fn hear(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Nothing is there to be heard.
    fn silence(&mut self) {
        if let Some(message) = self.socket.next().now_or_never() {
            panic!("{message:?}");
        }
    }

    /// Calls `look` under this label over op, and hears that it is under way.
    async fn look(&mut self, label: &str) {
        self.say(&json!({"op": "call_tool", "request_id": label, "name": "look", "arguments": {"k": label}}))
            .await;
        assert_eq!(self.hear().await["op"], "call_tool_ack");
    }

    async fn ended(&self, within: Duration) {
        let bound = Deadline::after(within);
        self.rig.tasks.drained(TaskKind::Session, bound).await.expect("the session is still there");
    }

    fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }
}

fn close_code(message: &Message) -> u16 {
    match message {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_never_comes_closes_after_15_seconds() {
    let mut client = Client::op().await;
    assert_eq!(close_code(&client.next().await), 4002);
    assert_eq!(client.opened.elapsed(), secs(15));
    assert!(client.socket.next().await.is_none());
    client.ended(secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_before_hello_is_no_hello() {
    let mut client = Client::op().await;
    tokio::time::advance(secs(10)).await;
    client.socket.send(Message::Ping(Vec::new().into())).await.unwrap();
    assert!(matches!(client.next().await, Message::Pong(_)));
    assert_eq!(close_code(&client.next().await), 4002);
    assert_eq!(client.opened.elapsed(), secs(15));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_client_is_pinged_and_one_that_answers_is_kept() {
    let mut client = Client::greeted().await;
    for pings in 1..=3 {
        assert!(matches!(client.next().await, Message::Ping(_)));
        assert_eq!(client.opened.elapsed().as_secs() / 30, pings);
    }
    assert_eq!(client.rig.tasks.live(TaskKind::Session), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_ping_is_gone_10_seconds_later() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    let work = client.rig.stage.last();
    while !matches!(client.next().await, Message::Ping(_)) {}
    assert_eq!(client.opened.elapsed(), secs(30));
    // Nothing is read from here on, so nothing is answered either.
    client.ended(secs(11)).await;
    assert_eq!(client.opened.elapsed(), secs(40));
    assert_eq!(
        client.rig.stage.progress(work),
        Progress::Running,
        "a read lingers for one who may come back"
    );
    tokio::time::advance(secs(2)).await;
    settle().await;
    client.rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_tells_of_itself_every_5_seconds() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    for told in 1..=8 {
        let progress = client.hear().await;
        assert_eq!(client.opened.elapsed(), secs(5 * told));
        assert_eq!((&progress["op"], &progress["request_id"]), (&json!("progress"), &json!("a")));
        assert_eq!(progress["progress"], told);
        assert_eq!(progress["message"], format!("still running after {} s", 5 * told));
    }
    client.rig.stage.order(client.rig.stage.find("a"), Order::answer("done"));
    let answer = client.hear().await;
    assert_eq!((&answer["op"], &answer["outputs"][0]["text"]), (&json!("call_tool_res"), &json!("done")));
    assert_eq!(client.opened.elapsed(), secs(40));
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_hears_no_heartbeat() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    client.rig.stage.order(client.rig.stage.find("a"), Order::answer("done"));
    assert_eq!(client.hear().await["op"], "call_tool_res");
    assert!(matches!(client.next().await, Message::Ping(_)), "the next thing is a ping");
    assert_eq!(client.opened.elapsed(), secs(30));
}

/// Calls `look` over MCP, with or without a progress token.
async fn tools_call(client: &mut Client, id: u32, token: Option<&str>) {
    let mut params = json!({"name": "look", "arguments": {"k": id.to_string()}});
    if let Some(token) = token {
        params["_meta"] = json!({"progressToken": token});
    }
    client.say(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_mcp_client_is_told_of_progress_only_under_its_token() {
    let mut client = Client::mcp().await;
    tools_call(&mut client, 1, None).await;
    tools_call(&mut client, 2, Some("t")).await;
    for told in 1..=3 {
        let progress = client.hear().await;
        assert_eq!(client.opened.elapsed(), secs(5 * told));
        assert_eq!(progress["method"], "notifications/progress");
        assert_eq!(
            (&progress["params"]["progressToken"], &progress["params"]["progress"]),
            (&json!("t"), &json!(told))
        );
    }
    client.silence();
}

#[tokio::test(start_paused = true)]
async fn an_mcp_client_without_a_token_hears_nothing_before_its_answer() {
    let mut client = Client::mcp().await;
    tools_call(&mut client, 1, None).await;
    assert!(matches!(client.next().await, Message::Ping(_)));
    assert_eq!(client.opened.elapsed(), secs(30));
    client.rig.stage.order(client.rig.stage.find("1"), Order::answer("done"));
    assert_eq!(client.hear().await["result"]["content"][0]["text"], "done");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_mcp_call_gets_no_response() {
    let mut client = Client::mcp().await;
    tools_call(&mut client, 1, None).await;
    let work = client.rig.stage.find("1");
    client
        .say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}))
        .await;
    settle().await;
    client.silence();
    assert_eq!(client.rig.stage.progress(work), Progress::CutOff);
    assert_eq!(client.rig.calls.watch().lifecycle().totals().cancelled, 1);
    tools_call(&mut client, 1, None).await;
    client.rig.stage.order(client.rig.stage.find("1"), Order::answer("the id is free again"));
    assert_eq!(client.hear().await["result"]["content"][0]["text"], "the id is free again");
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_while_calls_run() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    client.say(&json!({"op": "ping", "request_id": "p"})).await;
    assert_eq!(client.hear().await["op"], "pong");
    client.say(&json!({"op": "cancel", "request_id": "a"})).await;
    assert_eq!(client.hear().await["op"], "cancelled");
    let answer = client.hear().await;
    assert_eq!((&answer["op"], &answer["error"]["code"]), (&json!("call_tool_res"), &json!("CANCELLED")));
}

#[tokio::test(start_paused = true)]
async fn an_id_in_use_is_refused_and_its_call_is_not_disturbed() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    client.say(&json!({"op": "call_tool", "request_id": "a", "name": "look", "arguments": {"k": "b"}})).await;
    assert_eq!(client.hear().await["error"]["code"], "INVALID_REQUEST");
    client.rig.stage.order(client.rig.stage.find("a"), Order::answer("done"));
    assert_eq!(client.hear().await["outputs"][0]["text"], "done");
    assert_eq!(client.rig.stage.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_to_frames_that_came_together_leave_together() {
    const FRAMES: usize = 20;
    let mut client = Client::greeted().await;
    let before = client.writes();
    for id in 0..FRAMES {
        let frame = json!({"op": "call_tool", "request_id": id, "name": "echo", "arguments": {"text": id.to_string()}});
        client.socket.feed(Message::text(frame.to_string())).await.unwrap();
    }
    client.socket.flush().await.unwrap();
    settle().await;
    assert_eq!(client.writes() - before, 1, "one write for {FRAMES} acknowledgements and {FRAMES} answers");
    for id in 0..FRAMES {
        assert_eq!(client.hear().await["op"], "call_tool_ack");
        assert_eq!(client.hear().await["request_id"], id);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_calls_that_end_together_leave_together() {
    let mut client = Client::greeted().await;
    let labels = ["a", "b", "c", "d"];
    for label in labels {
        client.look(label).await;
    }
    let before = client.writes();
    for label in labels {
        client.rig.stage.order(client.rig.stage.find(label), Order::answer(label));
    }
    settle().await;
    assert_eq!(client.writes() - before, 1);
    for _ in labels {
        assert_eq!(client.hear().await["op"], "call_tool_res");
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_goes_says_so() {
    let mut client = Client::greeted().await;
    client.hub.closing.set();
    assert_eq!(close_code(&client.next().await), 1001);
    assert!(client.socket.next().await.is_none());
    client.ended(secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_say_good_bye_is_not_waited_for() {
    let client = Client::greeted().await;
    client.hub.closing.set();
    let before = Instant::now();
    client.ended(GOOD_BYE + secs(1)).await;
    assert_eq!(before.elapsed(), GOOD_BYE);
}

/// Its close frame may be what was broken: there may be no other to wait for.
#[tokio::test(start_paused = true)]
async fn whoever_breaks_the_protocol_is_told_and_not_waited_for() {
    let opcode_3 = [0x83, 0x80, 0, 0, 0, 0];
    let code_of_one_byte = [0x88, 0x81, 0, 0, 0, 0, 3];
    let reason_of_no_text = [0x88, 0x83, 0, 0, 0, 0, 3, 0xe8, 0xff];
    for (broken, code) in
        [(&opcode_3[..], 1002_u16), (&code_of_one_byte[..], 1002), (&reason_of_no_text[..], 1007)]
    {
        let mut client = Client::greeted().await;
        let (before, mut told) = (Instant::now(), Vec::new());
        let raw = client.socket.get_mut();
        raw.write_all(broken).await.unwrap();
        raw.read_to_end(&mut told).await.unwrap();
        assert_eq!((told[0], &told[2..4]), (0x88, &code.to_be_bytes()[..]), "{broken:?}");
        assert_eq!(before.elapsed(), Duration::ZERO, "{broken:?}");
        let Client { rig, socket, .. } = client;
        drop(socket);
        rig.tasks.drained(TaskKind::Session, Deadline::after(secs(1))).await.expect("the session is over");
    }
}

/// A socket that is closed over what was not read takes the close frame with it.
#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_frame_that_is_too_big_is_let_go_of() {
    let mut client = Client::greeted().await;
    let raw = client.socket.get_mut();
    raw.write_all(&[0x81, 0xff, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    // More than lies between the two.
    raw.write_all(&vec![b'x'; 3 << 20]).await.unwrap();
    assert_eq!(close_code(&client.next().await), 1009);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_goes_takes_its_calls_along() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    let Client { rig, socket, .. } = client;
    drop(socket);
    settle().await;
    assert_eq!((rig.tasks.live(TaskKind::Session), rig.calls.watch().active()), (0, 0));
    tokio::time::advance(secs(2)).await;
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_client_that_is_slow_to_say_good_bye_are_left_before_it_does() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    client.hub.closing.set();
    settle().await;
    assert_eq!((client.rig.tasks.live(TaskKind::Session), client.rig.calls.watch().active()), (1, 0));
}

mod client_limits;
mod slow_links;

/// An op client with more waiting for it than its connection takes.
async fn flooded() -> Client {
    let op = Op::new(ClientSessionId(1), true);
    let mut client = Client::connect_with(op, &[("WRITE_QUEUE_BYTES", "65536")]).await;
    client.say(&json!({"op": "hello"})).await;
    client.hear().await;
    for _ in 0..1000 {
        client.say(&json!({"op": "list_tools"})).await;
    }
    settle().await;
    client
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_full_queue_that_reads_nothing_for_5_seconds_is_closed_with_1008() {
    let mut client = flooded().await;
    tokio::time::sleep(DOES_NOT_READ + secs(1)).await;
    let mut answers = 0;
    let close = loop {
        match client.next().await {
            Message::Text(_) => answers += 1,
            close @ Message::Close(_) => break close,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(close_code(&close), 1008);
    assert!(answers < 1000, "what it did not take was not made: {answers}");
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_full_queue_that_reads_slowly_gets_everything() {
    let mut client = flooded().await;
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert_eq!(client.hear().await["op"], "list_tools_res");
    }
}
