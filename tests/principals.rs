//! Several principals, each with its tokens and bounds, as their clients meet them: a daemon in this process, real
//! sockets, and tools that say when they have started and wait until they are told to go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests are tests"
)]

#[path = "principals/rig.rs"]
mod rig;

use std::sync::Arc;

use inflightd::call::{Call, Code, Options, Principal, Submitted};
use inflightd::config::PrincipalConfig;
use inflightd::config::principals::Expiry;
use inflightd::ids::PrincipalId;
use serde_json::json;

use rig::{Daemon, Door, hash, until};

/// Two principals without bounds.
const TWO: &str = "[principals.anna]\ntoken_hash = \"$anna\"\n[principals.ben]\ntoken_hash = \"$ben\"\n";

#[tokio::test]
async fn equal_calls_of_two_principals_never_share_an_execution() {
    let daemon = Daemon::start(TWO).await;
    let anna = daemon.execute("anna", json!({"tool": "gate"}));
    daemon.started(1).await;
    let ben = daemon.execute("ben", json!({"tool": "gate"}));
    // With the principal taken out of the key, this one joins, and never starts.
    daemon.started(2).await;
    let again = daemon.execute("anna", json!({"tool": "gate"}));
    until(|| daemon.totals().joined == 1).await;
    daemon.go(2);
    let [anna, ben, again] = [anna.await.unwrap(), ben.await.unwrap(), again.await.unwrap()];
    let session = |answer: &rig::Answer| answer.body["metadata"]["session_id"].clone();
    assert_ne!(session(&anna), session(&ben));
    assert_eq!(session(&anna), session(&again), "one principal shares with itself");
    assert_eq!(daemon.totals().executions, 2);
}

#[tokio::test]
async fn a_request_and_its_kept_outcome_are_its_principals_own() {
    let daemon = Daemon::start(TWO).await;
    let late = daemon.execute("anna", json!({"tool": "write_gate", "timeout_secs": 0.05})).await.unwrap();
    assert_eq!(late.body["error"]["details"]["still_running"], true, "{late:?}");
    let look =
        json!({"tool": "get_request", "arguments": {"request_id": late.body["metadata"]["request_id"]}});
    let unknown = json!({"tool": "get_request", "arguments": {"request_id": "req_0000000000000000_1"}});
    let refused = daemon.execute("ben", look.clone()).await.unwrap();
    let nothing = daemon.execute("ben", unknown).await.unwrap();
    assert_eq!(refused.body["error"], nothing.body["error"], "another's request looks like none");
    assert_eq!(refused.code(), "VALIDATION_ERROR");
    daemon.go(1);
    until(|| daemon.executions() == 0).await;
    let kept = daemon.execute("anna", look.clone()).await.unwrap();
    assert!(kept.text().contains("completed"), "{kept:?}");
    assert_eq!(daemon.execute("ben", look).await.unwrap().code(), "VALIDATION_ERROR");
}

#[tokio::test]
async fn a_cached_result_answers_its_own_principal_only() {
    let daemon = Daemon::start(&format!("tools_file = \"tests/principals/tools.toml\"\n{TWO}")).await;
    let mut roles = Vec::new();
    for name in ["anna", "ben", "anna", "ben"] {
        let answer =
            daemon.execute(name, json!({"tool": "cached", "arguments": {"text": "x"}})).await.unwrap();
        roles.push(answer.body["metadata"]["role"].as_str().unwrap().to_owned());
    }
    assert_eq!(roles, ["leader", "leader", "cache", "cache"]);
}

#[tokio::test]
async fn what_is_under_way_is_listed_to_its_own_principal_only() {
    let daemon = Daemon::start(TWO).await;
    let call = daemon.execute("anna", json!({"tool": "gate"}));
    daemon.started(1).await;
    let list = json!({"tool": "list_active_requests"});
    let listed = daemon.execute("anna", list.clone()).await.unwrap().text();
    assert!(!daemon.execute("ben", list).await.unwrap().text().contains("req_"));
    let id = &listed[listed.find("req_").expect("its own is listed")..];
    let id: String = id.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let look = json!({"tool": "get_request", "arguments": {"request_id": id}});
    assert_eq!(daemon.execute("ben", look.clone()).await.unwrap().code(), "VALIDATION_ERROR");
    assert!(daemon.execute("anna", look).await.unwrap().text().contains("active"));
    daemon.go(1);
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_wrong_or_expired_token_opens_no_door() {
    let expired = "[principals.old]\ntoken_hash = \"$old\"\nexpires = \"2000-01-01\"\n";
    let daemon = Daemon::start(&format!("{TWO}{expired}")).await;
    for token in [Some("nobody's"), Some("old"), Some(""), None] {
        let answer =
            daemon.execute_with(token, json!({"tool": "echo", "arguments": {"text": "x"}})).await.unwrap();
        assert_eq!((answer.status, answer.code()), (401, "UNAUTHORIZED".into()), "{token:?}");
        assert_eq!(daemon.get(token, "/api/v1/stats").await.status, 401, "{token:?}");
        assert_eq!(daemon.connect(Door::Mcp, token).await.unwrap_err(), 401, "{token:?}");
        let mut late = daemon.connect(Door::Op, None).await.unwrap();
        late.send(&json!({"op": "hello", "token": token}));
        assert_eq!(late.next().await, json!({"op": "hello_ack", "ok": false, "error": "unauthorized"}));
        assert_eq!(late.close_code().await, 4003);
    }
    for token in ["nobody's", "old"] {
        assert_eq!(daemon.connect(Door::Op, Some(token)).await.unwrap_err(), 401);
    }
    assert_eq!(daemon.get(None, "/healthz").await.status, 200);
}

#[tokio::test]
async fn both_tokens_of_a_rotation_are_one_principal() {
    let daemon = Daemon::start("[principals.anna]\ntoken_hashes = [\"$old\", \"$new\"]\n").await;
    let first = daemon.execute("old", json!({"tool": "gate"}));
    daemon.started(1).await;
    let second = daemon.execute("new", json!({"tool": "gate"}));
    until(|| daemon.totals().joined == 1).await;
    daemon.go(1);
    let [first, second] = [first.await.unwrap(), second.await.unwrap()];
    assert_eq!(first.body["metadata"]["session_id"], second.body["metadata"]["session_id"]);
    let out = Daemon::start("[principals.anna]\ntoken_hashes = [\"$new\"]\n").await;
    assert_eq!(out.execute("old", json!({"tool": "version"})).await.unwrap().status, 401);
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_token() {
    let daemon = Daemon::start(TWO).await;
    let expires = Expiry::parse("2000-01-01").ok();
    let config = PrincipalConfig { expires, ..PrincipalConfig::plain("anna") };
    let caller = daemon.hub.new_caller(Arc::new(Principal::new(PrincipalId(0), &config, 1)));
    let call = Call { id: None, tool: "version", arguments: "{}", extra: None, options: Options::default() };
    let Submitted::Answered(answer) = daemon.hub.calls.submit(&caller, call) else { panic!("it waits") };
    let error = answer.outcome.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unauthorized, false));
    assert_eq!(error.to_string(), "The token of anna has expired");
}

#[tokio::test]
async fn what_a_principal_asks_above_its_ceiling_is_lowered() {
    let low = "[principals.ben]\ntoken_hash = \"$ben\"\npriority_ceiling = \"low\"\n";
    let one = "offline_max_inflight = 1\n[principals.anna]\ntoken_hash = \"$anna\"\n";
    let daemon = Daemon::start(&format!("{one}{low}")).await;
    let gate = |name: &str, priority: &str| json!({"tool": "gate", "arguments": {"name": name}, "priority": priority});
    let first = daemon.execute("anna", gate("first", "medium"));
    daemon.started(1).await;
    let lowered = daemon.execute("ben", gate("lowered", "high"));
    until(|| daemon.queued() == 1).await;
    let medium = daemon.execute("anna", gate("medium", "medium"));
    until(|| daemon.queued() == 2).await;
    daemon.go(3);
    for call in [first, lowered, medium] {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(daemon.order(), ["first", "medium", "lowered"]);
}

const SOME_TOOLS: &str = "[principals.ben]\ntoken_hash = \"$ben\"\ntools = [\"ec*\", \"get_request\"]\n";

#[tokio::test]
async fn a_tool_that_is_not_allowed_looks_like_one_that_is_not_there_on_http() {
    let daemon = Daemon::start(SOME_TOOLS).await;
    let echo = json!({"tool": "echo", "arguments": {"text": "x"}});
    assert_eq!(daemon.execute("ben", echo).await.unwrap().status, 200);
    let hidden = daemon.execute("ben", json!({"tool": "gate"})).await.unwrap();
    let missing = daemon.execute("ben", json!({"tool": "gats"})).await.unwrap();
    assert_eq!((hidden.status, hidden.code()), (404, "TOOL_NOT_FOUND".into()));
    let text = |answer: &rig::Answer| answer.body["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(text(&hidden).replace("`gate`", "`gats`"), text(&missing), "nor is it among the near names");
    let near = daemon.execute("ben", json!({"tool": "ech"})).await.unwrap();
    assert!(text(&near).ends_with("near to it: echo"), "{near:?}");
    let stats = daemon.get(Some("ben"), "/api/v1/stats").await;
    assert_eq!((stats.status, stats.code()), (404, "TOOL_NOT_FOUND".into()));
}

#[tokio::test]
async fn a_session_key_of_a_hello_belongs_to_the_principal_that_the_hello_names() {
    let daemon = Daemon::start(TWO).await;
    daemon.go(1);
    let call = |resume| json!({"op": "call_tool", "request_id": 1, "name": "write_gate", "resume": resume});
    let mut answers = Vec::new();
    for (token, resume) in [("anna", false), ("ben", true), ("anna", true)] {
        let mut client = daemon.connect(Door::Op, None).await.unwrap();
        client
            .send(&json!({"op": "hello", "token": token, "session_key": "0123456789abcdef0123456789abcdef"}));
        assert_eq!(client.next().await["ok"], true);
        client.send(&call(resume));
        answers.push(client.answer("call_tool_res").await);
    }
    assert!(answers[0]["outputs"].is_array(), "{answers:?}");
    assert_eq!(answers[1]["error"]["code"], "OUTCOME_UNKNOWN", "another's call is none");
    assert_eq!(answers[2]["outputs"], answers[0]["outputs"]);
    assert_eq!(daemon.totals().executions, 1);
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_looks_like_one_that_is_not_there_on_op() {
    let daemon = Daemon::start(SOME_TOOLS).await;
    // The token of the hello says who it is, before any call.
    let mut late = daemon.connect(Door::Op, None).await.unwrap();
    late.send(&json!({"op": "hello", "token": "ben"}));
    let mut early = daemon.connect(Door::Op, Some("ben")).await.unwrap();
    early.send(&json!({"op": "hello"}));
    for mut client in [late, early] {
        assert_eq!(client.next().await["ok"], true);
        client.send(&json!({"op": "list_tools"}));
        let tools = client.next().await["tools"].clone();
        let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["echo", "get_request"]);
        client.send(&json!({"op": "call_tool", "request_id": "1", "name": "gate", "arguments": {}}));
        assert_eq!(client.answer("call_tool_res").await["error"]["code"], "TOOL_NOT_FOUND");
        client.send(&json!({"op": "stats"}));
        assert_eq!(client.answer("stats_res").await["error"]["code"], "TOOL_NOT_FOUND");
        client
            .send(&json!({"op": "call_tool", "request_id": "2", "name": "echo", "arguments": {"text": "x"}}));
        assert_eq!(client.answer("call_tool_res").await["outputs"][0]["text"], "x");
    }
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_looks_like_one_that_is_not_there_on_mcp() {
    let daemon = Daemon::start(SOME_TOOLS).await;
    let mut client = daemon.connect(Door::Mcp, Some("ben")).await.unwrap();
    let version = json!({"protocolVersion": "2025-11-25"});
    client.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": version}));
    assert!(client.next().await["result"].is_object());
    client.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    let list = client.next().await["result"]["tools"].clone();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["echo", "get_request"]);
    let mut refusals = Vec::new();
    for name in ["gate", "gats"] {
        let call = json!({"name": name, "arguments": {}});
        client.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}));
        let error = client.next().await["error"].clone();
        refusals.push(error.to_string().replace(name, "…"));
    }
    assert!(refusals[0].contains("-32602"), "{refusals:?}");
    assert_eq!(refusals[0], refusals[1]);
}

const ONE_PLACE: &str = "[principals.anna]\ntoken_hash = \"$anna\"\nmax_inflight = 1\nmax_queued = 1\n\
    [principals.ben]\ntoken_hash = \"$ben\"\n";

#[tokio::test]
async fn a_principals_places_are_shared_by_all_its_sessions_and_by_nobody_else() {
    let daemon = Daemon::start(ONE_PLACE).await;
    let mut sessions = Vec::new();
    for at in 0..3 {
        let mut client = daemon.connect(Door::Op, Some("anna")).await.unwrap();
        client.send(&json!({"op": "hello"}));
        client.next().await;
        client
            .send(&json!({"op": "call_tool", "request_id": "1", "name": "gate", "arguments": {"name": at}}));
        match at {
            0 => daemon.started(1).await,
            1 => until(|| daemon.own("anna").queued == 1).await,
            _ => {
                let error = client.answer("call_tool_res").await["error"].clone();
                assert_eq!(error["code"], "OVER_CAPACITY");
                assert_eq!(error["message"], "The queue of principal anna is full (1 waiting)");
                assert!(error["retry_after_ms"].is_number());
            }
        }
        sessions.push(client);
    }
    let ben = daemon.execute("ben", json!({"tool": "gate"}));
    daemon.started(2).await;
    daemon.go(3);
    for client in &mut sessions[..2] {
        assert!(client.answer("call_tool_res").await["outputs"].is_array());
    }
    assert_eq!(ben.await.unwrap().status, 200);
    until(|| daemon.own("anna").in_use == 0).await;
}

#[tokio::test]
async fn where_there_are_several_principals_each_has_half_a_queue() {
    let daemon = Daemon::start(&format!("queue_max = 4\noffline_max_inflight = 1\n{TWO}")).await;
    let gate = |token, name: u32| daemon.execute(token, json!({"tool": "gate", "arguments": {"name": name}}));
    let mut waiting = vec![gate("anna", 0)];
    daemon.started(1).await;
    for (token, name) in [("anna", 1), ("anna", 2)] {
        waiting.push(gate(token, name));
    }
    until(|| daemon.queued() == 2).await;
    let refused = gate("anna", 3).await.unwrap();
    assert_eq!(refused.code(), "OVER_CAPACITY");
    let message = refused.body["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("(2 waiting)") && message.contains("its 4 places"), "{message}");
    for name in 1..=2 {
        waiting.push(gate("ben", name));
    }
    until(|| daemon.queued() == 4).await;
    daemon.go(5);
    for call in waiting {
        assert_eq!(call.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn two_principals_at_one_address_have_a_session_each() {
    let daemon = Daemon::start(&format!("session_max_inflight = 1\n{TWO}")).await;
    let anna = daemon.execute("anna", json!({"tool": "gate"}));
    daemon.started(1).await;
    let ben = daemon.execute("ben", json!({"tool": "gate"}));
    daemon.started(2).await;
    daemon.go(2);
    assert_eq!((anna.await.unwrap().status, ben.await.unwrap().status), (200, 200));
}

#[tokio::test]
async fn who_leaves_while_waiting_for_its_principals_place_gives_it_up() {
    let daemon = Daemon::start(ONE_PLACE).await;
    let first = daemon.execute("anna", json!({"tool": "gate", "arguments": {"name": 1}}));
    daemon.started(1).await;
    let second =
        daemon.execute("anna", json!({"tool": "gate", "arguments": {"name": 2}, "timeout_secs": 0.05}));
    assert_eq!(second.await.unwrap().code(), "TIMEOUT");
    until(|| daemon.own("anna").queued == 0).await;
    daemon.go(1);
    assert_eq!(first.await.unwrap().status, 200);
    until(|| daemon.own("anna").in_use == 0).await;
}

#[tokio::test]
async fn a_drain_answers_those_who_wait_for_their_principals_place() {
    let daemon = Daemon::start(ONE_PLACE).await;
    let first = daemon.execute("anna", json!({"tool": "gate", "arguments": {"name": 1}}));
    daemon.started(1).await;
    let second = daemon.execute("anna", json!({"tool": "gate", "arguments": {"name": 2}}));
    until(|| daemon.own("anna").queued == 1).await;
    daemon.stop();
    assert_eq!(second.await.unwrap().code(), "SHUTTING_DOWN");
    daemon.go(1);
    assert_eq!(first.await.unwrap().status, 200);
}

#[test]
fn a_token_stands_in_the_configuration_as_its_hash_only() {
    let config = rig::config(TWO);
    let shown = format!("{config:?}");
    assert!(!shown.contains(&hash("anna")[7..]) && shown.contains("anna"), "{shown}");
}

#[tokio::test]
async fn a_principal_that_calls_too_often_is_told_when_to_come_back_at_every_door() {
    let toml = "[principals.anna]\ntoken_hash = \"$anna\"\nrate_per_minute = 1\n\
                [principals.ben]\ntoken_hash = \"$ben\"\n";
    let daemon = Daemon::start(toml).await;
    let echo = json!({"tool": "echo", "arguments": {"text": "t"}});
    assert_eq!(daemon.execute("anna", echo.clone()).await.unwrap().status, 200);
    let refused = daemon.execute("anna", echo.clone()).await.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (429, "RATE_LIMITED"));
    let wait = refused.body["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&wait), "{refused:?}");
    assert_eq!(refused.retry_after, Some(wait.div_ceil(1000)));
    let mut op = daemon.connect(Door::Op, Some("anna")).await.unwrap();
    op.send(&json!({"op": "hello"}));
    op.answer("hello_ack").await;
    op.send(&json!({"op": "call_tool", "request_id": "r", "name": "echo", "arguments": {"text": "t"}}));
    let error = op.answer("call_tool_res").await["error"].clone();
    assert_eq!((&error["code"], &error["retryable"]), (&json!("RATE_LIMITED"), &json!(true)));
    assert!(error["retry_after_ms"].as_u64().unwrap() <= wait);
    let mut mcp = daemon.connect(Door::Mcp, Some("anna")).await.unwrap();
    let version = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    mcp.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "t"}, "_meta": version}}));
    let result = mcp.next().await["result"].clone();
    assert_eq!(result["isError"], true, "a known tool's failure is a result: {result}");
    assert_eq!(result["_meta"]["inflightd/error"]["code"], "RATE_LIMITED");
    assert_eq!(daemon.execute("ben", echo).await.unwrap().status, 200, "another's rate is another's");
    let stats = daemon.get(Some("ben"), "/api/v1/stats").await.body;
    assert_eq!(stats["rate_limited"], json!({"anna": 3}));
    for stranger in 0..1000 {
        let unknown = format!("stranger-{stranger}");
        assert_eq!(daemon.get(Some(&unknown), "/api/v1/stats").await.status, 401);
    }
    let stats = daemon.get(Some("ben"), "/api/v1/stats").await.body;
    assert_eq!(stats["rate_limited"], json!({"anna": 3}), "nothing is kept of who does not come in");
}
