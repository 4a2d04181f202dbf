//! Going down: what runs may finish, what waits is told at once, and nobody is left without an answer.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::Provider;
use crate::support::{until, within};

#[tokio::test]
async fn running_calls_finish_and_then_every_socket_is_closed_with_1001() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "20")]).await;
    let (mut by_op, mut by_mcp, mut idle) =
        (Op::connect(&daemon).await, Mcp::connect(&daemon).await, Op::connect(&daemon).await);
    let mut silent = Op::silent(&daemon).await;
    let mut more = Vec::new();
    for number in 0..18 {
        let mut client = Op::connect(&daemon).await;
        client.question("r", "ask", &format!("{number}")).await;
        more.push(client);
    }
    by_op.question("r", "ask", "op").await;
    by_mcp.call(1, "post", &json!({"prompt": "mcp"}), &json!({})).await;
    provider.started(20).await;
    daemon.stop();
    until("the drain", || daemon.hub.calls.watch().lifecycle().draining()).await;
    provider.go();
    assert!(op::text(&by_op.answer("r").await).ends_with("to op"));
    assert!(mcp::text(&by_mcp.answer(json!(1)).await).ends_with("to mcp"));
    for client in &mut more {
        op::text(&client.answer("r").await);
        assert_eq!(client.wire.closed().await, 1001);
    }
    for wire in [&mut by_op.wire, &mut by_mcp.wire, &mut idle.wire, &mut silent.wire] {
        assert_eq!(wire.closed().await, 1001);
    }
    let drained = daemon.ended().await;
    assert!(drained.is_clean() && !drained.timeout_reached);
    assert_eq!((drained.initial_active_sessions, drained.final_active_sessions), (20, 0));
}

#[tokio::test]
async fn queued_and_new_calls_are_told_at_once_and_what_runs_is_not_disturbed() {
    let provider = Provider::held().await;
    let keys = [("KIMI_MAX_INFLIGHT", "1"), ("SESSION_MAX_INFLIGHT", "1")];
    let daemon = Daemon::start(&provider, &keys).await;
    let (mut by_op, mut by_mcp) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    by_op.question("works", "ask", "works").await;
    provider.started(1).await;
    by_op.question("waits for its session", "post", "a").await;
    by_mcp.call(1, "ask", &json!({"prompt": "waits for kimi"}), &json!({})).await;
    daemon.has_waiters(3).await;
    daemon.stop();
    let answer = by_op.answer("waits for its session").await;
    assert_eq!((op::code(&answer), &answer["error"]["retryable"]), ("SHUTTING_DOWN", &json!(true)));
    assert_eq!(mcp::code(&by_mcp.answer(json!(1)).await), "SHUTTING_DOWN");
    let answer = by_op.ask("new", "ask", &json!({"prompt": "new"})).await;
    assert_eq!(answer["error"]["message"], "Session manager is shutting down, cannot create new sessions");
    assert_eq!(op::code(&answer), "SHUTTING_DOWN");
    assert_eq!(by_op.tell("health", &json!({})).await["status"], "draining");
    assert_eq!(provider.requests(), 1, "all of this while the first still worked");
    provider.go();
    assert_eq!(op::text(&by_op.answer("works").await), "answer 1 to works");
    let drained = daemon.ended().await;
    assert!(drained.is_clean());
    assert_eq!((drained.initial_active_sessions, drained.sessions_completed), (3, 1), "two were refused");
}

#[tokio::test]
async fn a_second_signal_cuts_the_work_off_and_a_write_may_have_been_done() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut by_op, mut by_mcp) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    by_op.question("read", "ask", "p").await;
    by_op.question("write", "post", "p").await;
    by_op.question("idempotent", "put", "p").await;
    by_mcp.call(1, "post", &json!({"prompt": "p"}), &json!({})).await;
    by_mcp.call(2, "ask", &json!({"prompt": "p"}), &json!({})).await;
    provider.started(4).await;
    daemon.has_waiters(5).await;
    daemon.stop();
    daemon.stop();
    assert_eq!(op::code(&by_op.answer("read").await), "SHUTTING_DOWN");
    assert_eq!(op::code(&by_op.answer("idempotent").await), "SHUTTING_DOWN");
    assert_eq!(op::code(&by_op.answer("write").await), "OUTCOME_UNKNOWN");
    assert_eq!(mcp::code(&by_mcp.answer(json!(1)).await), "OUTCOME_UNKNOWN");
    assert_eq!(mcp::code(&by_mcp.answer(json!(2)).await), "SHUTTING_DOWN");
    assert_eq!((by_op.wire.closed().await, by_mcp.wire.closed().await), (1001, 1001));
    let drained = daemon.ended().await;
    assert!(!drained.is_clean() && drained.timeout_reached);
    assert_eq!((drained.initial_active_sessions, drained.final_active_sessions), (4, 4));
    provider.sees_hang_up(4).await;
}

#[tokio::test]
async fn the_drain_has_a_bound() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("DRAIN_TIMEOUT_SECS", "0.1")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("r", "post", "p").await;
    provider.started(1).await;
    daemon.stop();
    assert_eq!(op::code(&client.answer("r").await), "OUTCOME_UNKNOWN");
    let drained = daemon.ended().await;
    assert!(drained.timeout_reached && !drained.is_clean());
}

#[tokio::test]
async fn a_daemon_without_work_ends_at_once() {
    let daemon = Daemon::offline(&[]).await;
    let address = daemon.address;
    daemon.stop();
    let drained = daemon.ended().await;
    assert!(drained.is_clean());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

/// A connection over which one request follows the other.
struct Kept(BufReader<TcpStream>);

impl Kept {
    async fn open(daemon: &Daemon) -> Self {
        Self(BufReader::new(TcpStream::connect(daemon.address).await.unwrap()))
    }

    /// The head of the answer, and its body.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (String, Value) {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all((head + body).as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(within("a line of the head", self.0.read_line(&mut head)).await.unwrap(), 0, "{head}");
        }
        let length = head.to_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        within("the body", self.0.read_exact(&mut body)).await.unwrap();
        (head, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn while_it_drains_nobody_new_is_let_in_and_it_says_that_it_is_not_ready() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut client, mut probe) = (Op::connect(&daemon).await, Kept::open(&daemon).await);
    let (head, ready) = probe.ask("GET", "/readyz", "").await;
    assert_eq!((&head[..12], &ready["ready"]), ("HTTP/1.1 200", &json!(true)));
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    daemon.stop();
    until("the drain", || daemon.hub.calls.watch().lifecycle().draining()).await;
    let (head, ready) = probe.ask("GET", "/readyz", "").await;
    let draining = json!({"ready": false, "reasons": ["draining: the daemon is going down"], "version": env!("CARGO_PKG_VERSION")});
    assert_eq!((&head[..12], ready), ("HTTP/1.1 503", draining));
    let (head, alive) = probe.ask("GET", "/healthz", "").await;
    assert_eq!((&head[..12], &alive["status"]), ("HTTP/1.1 200", &json!("ok")));
    let call = r#"{"tool":"ask","arguments":{"prompt":"new"}}"#;
    let (head, refused) = probe.ask("POST", "/api/v1/execute", call).await;
    assert_eq!((&head[..12], op::code(&refused)), ("HTTP/1.1 503", "SHUTTING_DOWN"));
    assert_eq!(refused["error"]["retry_after_ms"], 1000);
    assert!(head.to_lowercase().contains("retry-after: 1\r\n"), "{head}");
    until("a closed door", || std::net::TcpStream::connect(daemon.address).is_err()).await;
    provider.go();
    assert_eq!(op::text(&client.answer("r").await), "answer 1 to p");
    assert!(daemon.ended().await.is_clean());
}

#[cfg(unix)]
mod as_a_process {
    use serde_json::json;

    use crate::support::daemon::{API_KEY, TOOLS};
    use crate::support::op::{self, Op};
    use crate::support::program::Program;
    use crate::support::provider::Provider;
    use crate::support::wire::Wire;
    use crate::support::{until, within};

    async fn start(provider: &Provider) -> (Program, Op) {
        let url = provider.url();
        let keys = [
            ("KIMI_API_KEY", API_KEY),
            ("KIMI_API_URL", &url),
            ("TOOLS_FILE", TOOLS),
            ("LOG_FORMAT", "json"),
            ("KIMI_MAX_INFLIGHT", "20"),
            ("SESSION_MAX_INFLIGHT", "20"),
        ];
        let program = Program::start(&keys).await;
        let client = connect(&program).await;
        (program, client)
    }

    async fn connect(program: &Program) -> Op {
        let mut client = Op { wire: Wire::open(program.address, "/", &[]).await.unwrap() };
        client.hello(&json!({"op": "hello"})).await;
        client
    }

    /// Waits until so many calls are in the queues.
    async fn queued(client: &mut Op, calls: u64) {
        while client.tell("get_server_stats", &json!({})).await["queue_size"] != calls {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn term_under_20_running_calls_ends_with_0_and_exit_code_0_and_tells_the_queue_at_once() {
        let provider = Provider::held().await;
        let (program, mut client) = start(&provider).await;
        for number in 0..20 {
            client.question(&number.to_string(), "ask", &number.to_string()).await;
        }
        provider.started(20).await;
        let mut other = connect(&program).await;
        for id in ["a", "b"] {
            other.question(id, "post", "waits for kimi").await;
        }
        within("the queue", queued(&mut client, 2)).await;
        program.terminate();
        for id in ["a", "b"] {
            assert_eq!(op::code(&other.answer(id).await), "SHUTTING_DOWN");
        }
        let new = other.ask("new", "echo", &json!({"text": "new"})).await;
        assert_eq!(op::code(&new), "SHUTTING_DOWN");
        assert_eq!(provider.requests(), 20, "all of this while they still worked");
        provider.go();
        for number in 0..20 {
            let answer = client.answer(&number.to_string()).await;
            assert!(op::text(&answer).ends_with(&format!("to {number}")), "{answer}");
        }
        assert_eq!((client.wire.closed().await, other.wire.closed().await), (1001, 1001));
        let ended = program.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let last: serde_json::Value = serde_json::from_str(ended.log.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&last["final_active_sessions"], &last["timeout_reached"]),
            (&json!(0), &json!(false)),
            "{last}"
        );
    }

    #[tokio::test]
    async fn term_drains_and_exits_with_0() {
        let provider = Provider::held().await;
        let (program, mut client) = start(&provider).await;
        client.question("r", "ask", "p").await;
        provider.started(1).await;
        program.terminate();
        until("the drain", || program.log().contains("stopping: new calls are refused")).await;
        provider.go();
        assert_eq!(op::text(&client.answer("r").await), "answer 1 to p");
        assert_eq!(client.wire.closed().await, 1001);
        let ended = program.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let last: serde_json::Value = serde_json::from_str(ended.log.lines().last().unwrap()).unwrap();
        assert_eq!((&last["message"], &last["timeout_reached"]), (&json!("stopped"), &json!(false)));
        assert_eq!(
            (&last["initial_active_sessions"], &last["final_active_sessions"]),
            (&json!(1), &json!(0))
        );
        assert_eq!(last["sessions_completed_during_shutdown"], 1);
        assert!(last["shutdown_duration"].is_number());
        assert!(
            ended.log.contains(r#""message":"call""#),
            "the line of the last call is written: {}",
            ended.log
        );
    }

    /// The log's line of each call, however it ended.
    #[tokio::test]
    async fn each_call_has_one_line_whatever_became_of_it() {
        let provider = Provider::held().await;
        let (program, mut client) = start(&provider).await;
        let mut follower = connect(&program).await;
        client.question("leads", "ask", "p").await;
        provider.started(1).await;
        follower.question("follows", "ask", "p").await;
        client.question("taken back", "ask", "q").await;
        provider.started(2).await;
        client.cancel("taken back").await;
        assert_eq!(op::code(&client.answer("taken back").await), "CANCELLED");
        let wrong = [("no such tool", json!({})), ("echo", json!({"text": 1}))];
        for (tool, arguments) in &wrong {
            client.ask("r", tool, arguments).await;
        }
        op::text(&client.ask("r", "echo", &json!({"text": "hi"})).await);
        client.tell("version", &json!({})).await;
        within("both", async {
            while client.tell("get_server_stats", &json!({})).await["dedup"]["joined"] != 1 {}
        })
        .await;
        provider.go();
        for (client, id) in [(&mut client, "leads"), (&mut follower, "follows")] {
            op::text(&client.answer(id).await);
        }
        program.terminate();
        let log = program.ended().await.log;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let calls: Vec<_> = lines
            .filter(|line| line["message"] == "call" && line["tool"] != "get_server_stats")
            .map(|line| (line["request"].to_string(), line["outcome"].as_str().unwrap().to_owned()))
            .collect();
        let ids: std::collections::BTreeSet<_> = calls.iter().map(|(id, _)| id).collect();
        let mut ends: Vec<_> = calls.iter().map(|(_, end)| &**end).collect();
        ends.sort_unstable();
        assert_eq!(ids.len(), calls.len());
        assert_eq!(
            ends,
            ["cancelled", "completed", "completed", "completed", "completed", "rejected", "rejected"]
        );
    }

    #[tokio::test]
    async fn int_drains_as_term_does() {
        let provider = Provider::held().await;
        let (program, mut client) = start(&provider).await;
        client.question("r", "ask", "p").await;
        provider.started(1).await;
        program.interrupt();
        until("the drain", || program.log().contains("stopping: new calls are refused")).await;
        provider.go();
        assert_eq!(op::text(&client.answer("r").await), "answer 1 to p");
        assert_eq!(client.wire.closed().await, 1001);
        assert_eq!(program.ended().await.code, Some(0));
    }

    #[tokio::test]
    async fn a_second_signal_of_either_kind_exits_with_75_at_once() {
        let provider = Provider::held().await;
        let (program, mut client) = start(&provider).await;
        client.question("r", "post", "p").await;
        provider.started(1).await;
        program.interrupt();
        until("the drain", || program.log().contains("stopping: new calls are refused")).await;
        program.terminate();
        assert_eq!(op::code(&client.answer("r").await), "OUTCOME_UNKNOWN");
        assert_eq!(client.wire.closed().await, 1001);
        let ended = program.ended().await;
        assert_eq!(ended.code, Some(75), "{}", ended.log);
    }
}
