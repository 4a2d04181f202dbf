//! Identical calls in flight run once; different ones never meet.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};
use crate::support::within;

/// Asks the same on so many connections of each door, lets the provider go when all wait, and returns texts and
/// roles.
async fn crowd(daemon: &Daemon, provider: &Provider, ops: usize, mcps: usize) -> Vec<(String, String)> {
    let question = json!({"prompt": "the same"});
    let (mut by_op, mut by_mcp) = (Vec::new(), Vec::new());
    for _ in 0..ops {
        by_op.push(Op::connect(daemon).await);
    }
    for _ in 0..mcps {
        by_mcp.push(Mcp::connect(daemon).await);
    }
    for client in &mut by_op {
        client.call("r", "ask", &question).await;
    }
    for client in &mut by_mcp {
        client.call(7, "ask", &question, &json!({})).await;
    }
    daemon.has_waiters(50).await;
    provider.started(1).await;
    provider.go();
    let mut answers = Vec::new();
    for client in &mut by_op {
        let answer = client.answer("r").await;
        let role = answer["metadata"]["role"].as_str().unwrap();
        assert_eq!(answer.get("from_inflight").is_some(), role == "follower", "{answer}");
        answers.push((op::text(&answer).to_owned(), role.to_owned()));
    }
    for client in &mut by_mcp {
        let answer = client.answer(json!(7)).await;
        answers.push((mcp::text(&answer).to_owned(), mcp::role(&answer).to_owned()));
    }
    answers
}

async fn fifty_identical_calls_run_once(ops: usize, mcps: usize) {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let answers = crowd(&daemon, &provider, ops, mcps).await;
    assert_eq!(provider.requests(), 1);
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|(text, _)| text == "answer 1 to the same"), "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, role)| role == "leader").count(), 1);
    assert_eq!(answers.iter().filter(|(_, role)| role == "follower").count(), 49);
    let stats = daemon.stats();
    for (pointer, number) in [("calls", 50), ("executions", 1), ("joined", 49), ("executions_saved", 49)] {
        assert_eq!(stats["dedup"][pointer], number, "{stats}");
    }
    assert_eq!(stats["calls"]["completed"], 50);
    daemon.at_rest().await;
}

#[tokio::test]
async fn an_mcp_client_says_who_may_share() {
    for (policy, requests, roles) in [
        ("off", 3, ["leader", "leader", "leader"]),
        ("guard", 2, ["leader", "follower", "leader"]),
        ("read", 1, ["leader", "follower", "follower"]),
    ] {
        let provider = Provider::held().await;
        let daemon = Daemon::start(&provider, &[]).await;
        let (mut client, mut other) = (Mcp::connect(&daemon).await, Mcp::connect(&daemon).await);
        let (question, meta) = (json!({"prompt": "the same"}), json!({"inflightd/dedup": policy}));
        client.call(1, "ask", &question, &meta).await;
        provider.started(1).await;
        client.call(2, "ask", &question, &meta).await;
        client.ping().await;
        other.call(3, "ask", &question, &meta).await;
        daemon.has_waiters(3).await;
        provider.started(requests).await;
        provider.go();
        let answers =
            [client.answer(json!(1)).await, client.answer(json!(2)).await, other.answer(json!(3)).await];
        assert_eq!(answers.each_ref().map(|answer| mcp::role(answer).to_owned()), roles, "{policy}");
        assert_eq!(provider.requests(), requests, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_identical_calls_over_op_run_once() {
    fifty_identical_calls_run_once(50, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_identical_calls_over_mcp_run_once() {
    fifty_identical_calls_run_once(0, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_identical_calls_over_both_doors_run_once() {
    fifty_identical_calls_run_once(25, 25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_different_calls_run_each_and_never_more_at_once_than_the_limit() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "6")]).await;
    let mut clients = Vec::new();
    for number in 0..50 {
        let mut client = Op::connect(&daemon).await;
        client.question("r", "ask", &format!("question {number}")).await;
        clients.push(client);
    }
    daemon.has_waiters(50).await;
    provider.started(6).await;
    daemon.shows("/queue_size", 44).await;
    assert_eq!(daemon.stat("/permits/kimi/in_use"), 6);
    provider.go();
    let mut texts = BTreeSet::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer("r").await;
        assert!(op::text(&answer).ends_with(&format!("to question {number}")), "{answer}");
        assert_eq!(answer["metadata"]["role"], "leader");
        texts.insert(op::text(&answer).to_owned());
    }
    assert_eq!((texts.len(), provider.requests(), provider.most_at_once()), (50, 50, 6));
    daemon.at_rest().await;
}

#[tokio::test]
async fn five_questions_without_request_ids_get_five_answers() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..5 {
        let arguments = json!({"prompt": format!("question {number}")});
        client.wire.send(&json!({"op": "call_tool", "name": "ask", "arguments": arguments})).await;
    }
    provider.started(5).await;
    provider.go();
    let mut asked = BTreeSet::new();
    for _ in 0..5 {
        let answer = client.wire.find(|frame| frame["op"] == "call_tool_res").await;
        assert!(answer.get("request_id").is_none());
        asked.insert(op::text(&answer).split_once(" to ").unwrap().1.to_owned());
    }
    assert_eq!(asked, (0..5).map(|number| format!("question {number}")).collect());
    daemon.at_rest().await;
}

#[tokio::test]
async fn two_clients_with_equal_request_ids_never_meet() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut one, mut other) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    let mut third = Mcp::connect(&daemon).await;
    one.question("1", "ask", "mine").await;
    other.question("1", "ask", "yours").await;
    third.call(1, "ask", &json!({"prompt": "theirs"}), &json!({})).await;
    provider.started(3).await;
    // A cancel under the same id takes back the own call only.
    third.cancel(1).await;
    provider.sees_hang_up(1).await;
    provider.go();
    assert!(op::text(&one.answer("1").await).ends_with("to mine"));
    assert!(op::text(&other.answer("1").await).ends_with("to yours"));
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_call_may_ask_to_run_alone() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    for id in ["a", "b"] {
        client.call_with(id, "ask", &json!({"prompt": "p"}), &json!({"dedup": "off"})).await;
    }
    provider.started(2).await;
    provider.go();
    for id in ["a", "b"] {
        assert_eq!(client.answer(id).await["metadata"]["role"], "leader");
    }
}

#[tokio::test]
async fn a_write_is_never_dropped_and_an_idempotent_call_joins_its_own_session_only() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut one, mut other) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    one.question("w1", "post", "w").await;
    one.question("w2", "post", "w").await;
    one.question("i1", "put", "i").await;
    one.question("i2", "put", "i").await;
    other.question("i3", "put", "i").await;
    daemon.has_waiters(5).await;
    provider.started(4).await;
    provider.go();
    let mut roles = Vec::new();
    for id in ["w1", "w2", "i1", "i2"] {
        roles.push(one.answer(id).await["metadata"]["role"].clone());
    }
    roles.push(other.answer("i3").await["metadata"]["role"].clone());
    assert_eq!(roles, ["leader", "leader", "leader", "follower", "leader"]);
    assert_eq!(provider.requests(), 4);
}

#[tokio::test]
async fn a_call_that_has_ended_is_asked_afresh() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    for number in 1..=3 {
        let answer = client.ask("r", "ask", &json!({"prompt": "again"})).await;
        assert_eq!(op::text(&answer), format!("answer {number} to again"));
    }
}

#[tokio::test]
async fn text_in_progress_reaches_those_who_join_late_and_results_come_whole() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    provider.plays(Play::Halves);
    let (mut early, mut late) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    early.question("r", "ask", "p").await;
    provider.started(1).await;
    provider.let_pass(1);
    let progress = early.wire.find(|frame| frame["op"] == "progress").await;
    assert_eq!((&progress["message"], &progress["request_id"]), (&json!("answer 1 "), &json!("r")));
    late.call(1, "ask", &json!({"prompt": "p"}), &json!({"progressToken": "t"})).await;
    let progress = late.wire.find(|message| message["method"] == "notifications/progress").await;
    assert_eq!(progress["params"]["message"], "answer 1 ");
    assert_eq!(progress["params"]["progressToken"], "t");
    provider.let_pass(1);
    assert_eq!(op::text(&early.answer("r").await), "answer 1 to p");
    assert_eq!(mcp::text(&late.answer(json!(1)).await), "answer 1 to p");
    assert_eq!(provider.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_at_once_all_finish_while_statistics_are_read() {
    let provider = Provider::open().await;
    let keys = [("SESSION_MAX_INFLIGHT", "100"), ("QUEUE_MAX", "200")];
    let daemon = Daemon::start(&provider, &keys).await;
    let (mut client, mut reader) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    for number in 0..100 {
        client.question(&format!("r{number}"), "ask", &format!("question {number}")).await;
    }
    let answers = async {
        for number in 0..100 {
            let answer = client.answer(&format!("r{number}")).await;
            assert!(op::text(&answer).ends_with(&format!("to question {number}")));
        }
    };
    let statistics = async {
        loop {
            let stats: Value = reader.tell("get_server_stats", &json!({})).await;
            reader.tell("list_active_requests", &json!({})).await;
            if stats["calls"]["completed"].as_u64().unwrap() >= 100 {
                return;
            }
        }
    };
    within("a hundred answers", async { tokio::join!(answers, statistics) }).await;
    assert!(provider.most_at_once() <= 6);
    daemon.at_rest().await;
}
