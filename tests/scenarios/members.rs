//! The op protocol's frames, member by member: what clients written from its description alone read.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::Provider;
use crate::support::wire::Wire;

/// Tools of which one has a TTL.
const CACHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/principals/tools.toml");

/// The names in an object, in the order of the alphabet.
fn names(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn is_id(id: &Value, parts: &[(&str, usize)]) -> bool {
    let pieces: Vec<_> = id.as_str().unwrap().split('_').collect();
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
    let fits = |(piece, (word, length)): (&&str, &(&str, usize))| match *word {
        "" => piece.len() == *length && hex(piece),
        word => *piece == word,
    };
    pieces.len() == parts.len() && pieces.iter().zip(parts).all(fits)
}

/// `2026-01-31T23:59:59.123Z`, as far as its form goes.
fn is_timestamp(text: &Value) -> bool {
    let form: String =
        text.as_str().unwrap().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00T00:00:00.000Z"
}

#[tokio::test]
async fn each_frame_has_the_members_of_the_specification_on_any_path() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op { wire: Wire::open(daemon.address, "/any/path?x=1", &[]).await.unwrap() };
    let ack = client.hello(&json!({"op": "hello"})).await;
    assert_eq!(names(&ack), ["ok", "op", "server", "session_id", "timeouts"]);
    assert_eq!(names(&ack["server"]), ["name", "version"]);
    assert_eq!(names(&ack["timeouts"]), ["client_secs", "daemon_secs", "shim_secs", "tool_secs"]);

    client.wire.send(&json!({"op": "list_tools", "request_id": "r-1"})).await;
    let list = client.wire.find(|frame| frame["op"] == "list_tools_res").await;
    assert_eq!(names(&list), ["op", "request_id", "timestamp", "tools"]);
    assert!(is_timestamp(&list["timestamp"]), "{list}");
    let tools = list["tools"].as_array().unwrap();
    assert!(tools.iter().any(|tool| tool["name"] == "ask"));
    for tool in tools {
        assert_eq!(names(tool), ["description", "inputSchema", "name"], "{tool}");
    }

    let more = json!({"timeout_secs": 60, "priority": "low", "dedup": "guard", "resume": false});
    client.call_with("r-2", "ask", &json!({"prompt": "p"}), &more).await;
    let taken = client.wire.find(|frame| frame["op"] == "call_tool_ack").await;
    let expected = json!({"op": "call_tool_ack", "request_id": "r-2", "accepted": true, "timeout_secs": 60});
    assert_eq!(taken, expected);
    let answer = client.answer("r-2").await;
    assert_eq!(names(&answer), ["metadata", "op", "outputs", "request_id"]);
    assert_eq!(answer["outputs"], json!([{"type": "text", "text": "answer 1 to p"}]));
    let metadata = &answer["metadata"];
    for name in ["request_id", "session_id", "role", "executed", "latency", "provider", "model", "session"] {
        assert!(metadata.get(name).is_some(), "{name} is missing: {metadata}");
    }
    assert!(is_id(&metadata["request_id"], &[("req", 0), ("", 16), ("", 13)]), "{metadata}");
    assert!(is_id(&metadata["session_id"], &[("session", 0), ("", 12)]), "{metadata}");
    assert_eq!((&metadata["role"], &metadata["executed"]), (&json!("leader"), &json!(true)));
    let latency = &metadata["latency"];
    let parts = ["overhead_ms", "permit_ms", "provider_ms", "queue_ms", "total_ms"];
    assert_eq!(names(latency), parts);
    let [overhead, permit, provider, queue, total] = parts.map(|part| latency[part].as_f64().unwrap());
    assert!((total - queue - permit - provider - overhead).abs() < 0.01, "{latency}");
    let session = &metadata["session"];
    assert_eq!(names(session), ["duration_seconds", "request_id", "session_id"]);
    assert_eq!(
        (&session["request_id"], &session["session_id"]),
        (&metadata["request_id"], &metadata["session_id"])
    );

    client.wire.send(&json!({"op": "ping", "request_id": "p"})).await;
    let pong = client.wire.find(|frame| frame["op"] == "pong").await;
    assert_eq!((names(&pong), &pong["request_id"]), (vec!["op", "request_id", "timestamp"], &json!("p")));
    assert!(is_timestamp(&pong["timestamp"]), "{pong}");
    client.wire.send(&json!({"op": "stats", "request_id": "s"})).await;
    let stats = client.wire.find(|frame| frame["op"] == "stats_res").await;
    assert_eq!((names(&stats), &stats["request_id"]), (vec!["op", "request_id", "stats"], &json!("s")));
    assert_eq!(stats["stats"]["total_executions"], 1);
}

#[tokio::test]
async fn each_error_says_its_code_what_is_wrong_and_whether_to_try_again() {
    let daemon = Daemon::offline(&[]).await;
    let mut client = Op::connect(&daemon).await;
    let answer = client.ask("r", "echo", &json!({"text": 7})).await;
    assert_eq!(names(&answer), ["error", "metadata", "op", "request_id"]);
    let error = &answer["error"];
    assert_eq!(names(error), ["code", "details", "message", "retryable"]);
    assert_eq!(
        (&error["code"], &error["retryable"], &error["details"]),
        (&json!("VALIDATION_ERROR"), &json!(false), &json!({"argument": "text"}))
    );
    let answer = client.ask("r", "ecko", &json!({})).await;
    assert_eq!(op::code(&answer), "TOOL_NOT_FOUND");
    assert!(answer["error"]["message"].as_str().unwrap().contains("echo"), "near names: {answer}");
    let answer = client.ask("r", "get_request", &json!({"request_id": "req_0123456789abcdef_1"})).await;
    assert_eq!(answer["error"]["retryable"], false, "{answer}");
}

#[tokio::test]
async fn an_answer_from_the_cache_says_so_on_every_door() {
    let daemon = Daemon::offline(&[("TOOLS_FILE", CACHED)]).await;
    let (mut by_op, mut by_mcp) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    let arguments = json!({"text": "x"});
    let first = by_op.ask("r", "cached", &arguments).await;
    assert_eq!((&first["metadata"]["role"], first.get("from_cache")), (&json!("leader"), None));
    let kept = by_op.ask("r", "cached", &arguments).await;
    assert_eq!((&kept["from_cache"], kept.get("from_inflight")), (&json!(true), None));
    let metadata = &kept["metadata"];
    assert_eq!((&metadata["role"], &metadata["executed"]), (&json!("cache"), &json!(false)));
    assert_eq!(kept["outputs"], first["outputs"]);
    by_mcp.call(1, "cached", &arguments, &json!({})).await;
    assert_eq!(mcp::role(&by_mcp.answer(json!(1)).await), "cache");
    assert_eq!((daemon.stat("/dedup/executions"), daemon.stat("/dedup/cache_hits")), (1, 2));
    assert_eq!(daemon.stat("/dedup/executions_saved"), 2);
}
