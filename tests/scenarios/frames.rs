//! What comes in frames, and should not: the right answer or close code, and others go on undisturbed.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::Provider;
use crate::support::wire::Wire;
use crate::support::within;

/// A text frame as a client makes it, with everything about it open to be wrong.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, u8::from(masked) << 7 | u8::try_from(payload.len()).unwrap()];
    if masked {
        // A mask of zeros changes nothing.
        frame.extend_from_slice(&[0; 4]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// The head of a text frame that says it is so long.
fn head_of(length: u64) -> Vec<u8> {
    let mut frame = vec![0x81, 0xff];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame
}

async fn still_served(client: &mut Op) {
    assert_eq!(op::text(&client.ask("alive", "echo", &json!({"text": "alive"})).await), "alive");
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_with_its_codes() {
    let daemon = Daemon::offline(&[("MAX_FRAME_BYTES", "100000")]).await;
    let mut other = Op::connect(&daemon).await;
    for (what, bytes, code) in [
        ("unmasked", frame(0x81, false, b"{}"), 1002),
        ("a reserved bit", frame(0xc1, true, b"{}"), 1002),
        ("an unknown opcode", frame(0x83, true, b"{}"), 1002),
        ("a continuation of nothing", frame(0x80, true, b"{}"), 1002),
        ("a fragmented ping", frame(0x09, true, b""), 1002),
        ("invalid UTF-8", frame(0x81, true, b"{\"op\":\"\xff\xfe\"}"), 1007),
        ("a frame over the limit", head_of(100_001), 1009),
        ("a frame that nobody could send", head_of(1 << 62), 1009),
    ] {
        for greeted in [false, true] {
            let mut client = if greeted { Op::connect(&daemon).await } else { Op::silent(&daemon).await };
            client.wire.bytes(&bytes).await;
            assert_eq!(client.wire.closed().await, code, "{what}, greeted: {greeted}");
        }
        let mut client = Mcp::connect(&daemon).await;
        client.wire.bytes(&bytes).await;
        assert_eq!(client.wire.closed().await, code, "{what}, over mcp");
        still_served(&mut other).await;
    }
}

#[tokio::test]
async fn a_message_over_the_limit_in_small_frames_closes_with_1009() {
    let daemon = Daemon::offline(&[("MAX_FRAME_BYTES", "1000")]).await;
    let mut client = Op::connect(&daemon).await;
    client.wire.bytes(&frame(0x01, true, &[b' '; 100])).await;
    for _ in 0..10 {
        client.wire.bytes(&frame(0x00, true, &[b' '; 100])).await;
    }
    assert_eq!(client.wire.closed().await, 1009);
}

#[tokio::test]
async fn garbage_after_hello_is_answered_and_the_connection_lives() {
    let daemon = Daemon::offline(&[]).await;
    let mut client = Op::connect(&daemon).await;
    for (garbage, id) in [
        (Message::text("garbage"), None),
        (Message::text("{}"), None),
        (Message::text("[]"), None),
        (Message::text(r#"["ping","x"]"#), None),
        (Message::text(""), None),
        (Message::binary(vec![0, 1, 2]), None),
        (Message::text(r#"{"op":7,"request_id":"x"}"#), Some(json!("x"))),
        (Message::text(r#"{"op":"dance","request_id":{"a":1}}"#), Some(json!({"a": 1}))),
        (Message::text(r#"{"op":"call_tool","request_id":"x"}"#), Some(json!("x"))),
        (
            Message::text(r#"{"op":"call_tool","request_id":"x","name":"echo","arguments":[]}"#),
            Some(json!("x")),
        ),
        (
            Message::text(r#"{"op":"call_tool","request_id":"x","name":"echo","timeout_secs":-1}"#),
            Some(json!("x")),
        ),
        (
            Message::text(r#"{"op":"call_tool","request_id":"x","name":"echo","priority":"now"}"#),
            Some(json!("x")),
        ),
        (Message::text(r#"{"op":"cancel"}"#), None),
    ] {
        client.wire.message(garbage.clone()).await;
        let answer = client.wire.find(|frame| frame.get("error").is_some()).await;
        assert_eq!(op::code(&answer), "INVALID_REQUEST", "{garbage:?}");
        assert_eq!(answer.get("request_id"), id.as_ref(), "{garbage:?}");
        assert!(answer["op"].is_string(), "{garbage:?}");
    }
    still_served(&mut client).await;
    daemon.at_rest().await;
}

#[tokio::test]
async fn garbage_over_mcp_is_answered_and_the_connection_lives() {
    let daemon = Daemon::offline(&[]).await;
    let mut client = Mcp::connect(&daemon).await;
    for (garbage, code) in [
        (Message::text("garbage"), -32700),
        (Message::text("[]"), -32600),
        (Message::text(r#"["2.0",1,"ping"]"#), -32600),
        (Message::text(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#), -32600),
        (Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"dance"}"#), -32601),
        (Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#), -32602),
        (
            Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["echo",{"text":"t"}]}"#),
            -32602,
        ),
        (Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nope"}}"#), -32602),
        (
            Message::text(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":7}}"#,
            ),
            -32602,
        ),
        (Message::binary(vec![0, 1, 2]), -32600),
    ] {
        client.wire.message(garbage.clone()).await;
        let answer = client.wire.find(|message| message.get("error").is_some()).await;
        assert_eq!(answer["error"]["code"], code, "{garbage:?}");
    }
    client.ping().await;
    daemon.at_rest().await;
}

#[tokio::test]
async fn deep_nesting_is_a_typed_error_and_nothing_worse() {
    let daemon = Daemon::offline(&[]).await;
    let (mut client, mut other) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    let mut by_mcp = Mcp::connect(&daemon).await;
    for levels in [200, 100_000] {
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let frame = format!(
            r#"{{"op":"call_tool","request_id":"r","name":"ask","arguments":{{"prompt":"p","n":{deep}}}}}"#
        );
        client.wire.say(&frame).await;
        let answer = client.wire.find(|frame| frame.get("error").is_some()).await;
        assert_eq!(op::code(&answer), "INVALID_REQUEST", "{levels}");
        client.wire.say(&deep).await;
        let answer = client.wire.find(|frame| frame.get("error").is_some()).await;
        assert_eq!(op::code(&answer), "INVALID_REQUEST", "{levels}");
        let params = format!(r#"{{"name":"ask","arguments":{{"prompt":"p","n":{deep}}}}}"#);
        by_mcp
            .wire
            .say(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#))
            .await;
        let answer = by_mcp.answer(json!(1)).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        still_served(&mut other).await;
        still_served(&mut client).await;
    }
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_client_that_reads_gets_all_its_answers_however_much_ends_at_once() {
    let daemon = Daemon::offline(&[("OFFLINE_LATENCY_MS", "50"), ("WRITE_QUEUE_BYTES", "1000000")]).await;
    let mut client = Op::connect(&daemon).await;
    let text = "x".repeat(700_000);
    for number in 0..12 {
        client.call(&format!("r-{number}"), "echo", &json!({"text": text})).await;
    }
    for number in 0..12 {
        let answer = client.answer(&format!("r-{number}")).await;
        assert_eq!(op::text(&answer).len(), text.len(), "answer {number}");
    }
}

#[tokio::test]
async fn an_answer_larger_than_the_write_queue_passes_behind_its_own_ack() {
    let daemon = Daemon::offline(&[]).await;
    let mut client = Op::connect(&daemon).await;
    let text = "x".repeat(9_000_000);
    let answer = client.ask("r", "echo", &json!({"text": text})).await;
    assert_eq!(op::text(&answer).len(), text.len());
    still_served(&mut client).await;
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_nobody() {
    let daemon = Daemon::offline(&[("WRITE_QUEUE_BYTES", "65536")]).await;
    let mut other = Op::connect(&daemon).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(daemon.address).await.unwrap();
    let mut client = Op { wire: Wire::upgrade(stream, daemon.address, "/", &[]).await.unwrap() };
    client.hello(&json!({"op": "hello"})).await;
    // Small requests with large answers, more of them than every buffer on the way takes.
    for _ in 0..4000 {
        client.wire.say(r#"{"op":"list_tools"}"#).await;
    }
    // Each round trip lets the daemon do what it can for the silent one.
    for _ in 0..100 {
        still_served(&mut other).await;
    }
    drop(client);
    still_served(&mut other).await;
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_slow_reader_in_a_flight_slows_nobody_in_it() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut slow, mut quick) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    let prompt = "x".repeat(8 << 20);
    slow.question("r", "ask", &prompt).await;
    quick.question("r", "ask", &prompt).await;
    daemon.has_waiters(2).await;
    provider.go();
    assert!(op::text(&quick.answer("r").await).len() > 8 << 20);
    still_served(&mut quick).await;
    assert!(op::text(&slow.answer("r").await).len() > 8 << 20);
}

#[tokio::test]
async fn pings_are_answered_at_once_while_calls_run() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut by_op, mut by_mcp) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    for number in 0..20 {
        by_op.question(&format!("r{number}"), "ask", &format!("{number}")).await;
    }
    by_mcp.call(1, "ask", &json!({"prompt": "0"}), &json!({})).await;
    provider.started(6).await;
    by_op.wire.send(&json!({"op": "ping", "request_id": "p"})).await;
    let pong = by_op.wire.find(|frame| frame["op"] == "pong").await;
    assert_eq!(pong["request_id"], "p");
    assert!(pong["timestamp"].as_str().unwrap().ends_with('Z'));
    by_op.wire.send(&json!({"op": "stats", "request_id": "s"})).await;
    let stats = by_op.wire.find(|frame| frame["op"] == "stats_res").await;
    assert_eq!(stats["stats"]["active_executions"], 20);
    by_op.wire.send(&json!({"op": "list_tools", "request_id": "l"})).await;
    let tools = by_op.wire.find(|frame| frame["op"] == "list_tools_res").await;
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "ask"));
    by_mcp.ping().await;
    by_mcp.wire.message(Message::Ping("now".into())).await;
    let pong = within("a pong", by_mcp.wire.socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("now".into()));
    assert_eq!(provider.requests(), 6, "all of this while nothing was answered");
    provider.go();
    for number in 0..20 {
        op::text(&by_op.answer(&format!("r{number}")).await);
    }
    mcp::text(&by_mcp.answer(json!(1)).await);
}

#[tokio::test]
async fn a_request_id_in_use_is_refused_and_the_first_call_undisturbed() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut by_op, mut by_mcp) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    by_op.question("r", "ask", "op").await;
    by_mcp.call(1, "ask", &json!({"prompt": "mcp"}), &json!({})).await;
    provider.started(2).await;
    by_op.question("r", "ask", "another").await;
    assert_eq!(op::code(&by_op.answer("r").await), "INVALID_REQUEST");
    by_mcp.call(1, "ask", &json!({"prompt": "another"}), &json!({})).await;
    assert_eq!(by_mcp.answer(json!(1)).await["error"]["code"], -32600);
    provider.go();
    assert!(op::text(&by_op.answer("r").await).ends_with("to op"));
    assert!(mcp::text(&by_mcp.answer(json!(1)).await).ends_with("to mcp"));
    assert_eq!(provider.requests(), 2);
    // An id that is answered is free.
    op::text(&by_op.ask("r", "ask", &json!({"prompt": "again"})).await);
    daemon.at_rest().await;
}

#[tokio::test]
async fn the_older_form_of_a_call_works_as_the_newer() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let call =
        json!({"op": "tool_call", "request_id": 17, "tool": {"name": "ask"}, "arguments": {"prompt": "p"}});
    client.wire.send(&call).await;
    let ack = client.wire.find(|frame| frame["op"] == "call_tool_ack").await;
    assert_eq!(ack, json!({"op": "call_tool_ack", "request_id": 17, "accepted": true, "timeout_secs": 270}));
    let answer: Value = client.wire.find(|frame| frame["op"] == "call_tool_res").await;
    assert_eq!((op::text(&answer), &answer["request_id"]), ("answer 1 to p", &json!(17)));
    let metadata = &answer["metadata"];
    assert_eq!((&metadata["provider"], &metadata["executed"]), (&json!("kimi"), &json!(true)));
    assert_eq!((&metadata["model"], &metadata["usage"]["completion_tokens"]), (&json!("fake-1"), &json!(5)));
}
