//! A waiter that leaves never disturbs another; what becomes of the work is the table of "the last waiter leaves".

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};
use crate::support::until;

/// How a waiter leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Cancel,
    Deadline,
    Disconnect,
}

/// The daemon's own ids of the calls under way.
async fn ids_under_way(client: &mut Op) -> Vec<Value> {
    let listed = client.tell("list_active_requests", &json!({})).await;
    listed["active_requests"].as_array().unwrap().iter().map(|each| each["request_id"].clone()).collect()
}

#[tokio::test]
async fn waiters_that_leave_do_not_disturb_those_who_stay() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let question = json!({"prompt": "p"});
    let (mut stays, mut stays_too) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    let (mut opener, mut cancels, mut impatient) =
        (Op::connect(&daemon).await, Op::connect(&daemon).await, Op::connect(&daemon).await);
    let mut cancels_too = Mcp::connect(&daemon).await;
    opener.call("r", "ask", &question).await;
    provider.started(1).await;
    stays.call("r", "ask", &question).await;
    stays_too.call(1, "ask", &question, &json!({})).await;
    cancels.call("r", "ask", &question).await;
    cancels_too.call(1, "ask", &question, &json!({})).await;
    daemon.has_waiters(5).await;
    impatient.call_with("r", "ask", &question, &json!({"timeout_secs": 0.05})).await;
    let answer = impatient.answer("r").await;
    assert_eq!(op::code(&answer), "TIMEOUT", "{answer}");
    assert_eq!(answer["error"]["details"]["still_running"], true);
    cancels.cancel("r").await;
    assert_eq!(op::code(&cancels.answer("r").await), "CANCELLED");
    cancels_too.cancel(1).await;
    drop(opener);
    daemon.has_waiters(2).await;
    provider.go();
    assert_eq!(op::text(&stays.answer("r").await), "answer 1 to p");
    assert_eq!(mcp::text(&stays_too.answer(json!(1)).await), "answer 1 to p");
    assert_eq!((provider.requests(), provider.hung_up()), (1, 0));
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_cancelled_op_call_is_acknowledged_and_then_answered() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    client.cancel("r").await;
    let ops: Vec<_> = [
        client.wire.find(|_| true).await,
        client.wire.find(|_| true).await,
        client.wire.find(|_| true).await,
    ]
    .map(|frame| frame["op"].as_str().unwrap().to_owned())
    .into();
    assert_eq!(ops, ["call_tool_ack", "cancelled", "call_tool_res"]);
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
    assert_eq!(daemon.stats()["calls"]["cancelled"], 1);
}

#[tokio::test]
async fn a_cancelled_mcp_request_gets_no_response() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Mcp::connect(&daemon).await;
    client.call(1, "ask", &json!({"prompt": "p"}), &json!({})).await;
    provider.started(1).await;
    client.cancel(1).await;
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
    assert_eq!(daemon.stats()["calls"]["cancelled"], 1);
    client.ping().await;
    assert!(client.wire.unasked().is_empty(), "{:?}", client.wire.unasked());
    // The id is free again.
    provider.go();
    client.call(1, "ask", &json!({"prompt": "p"}), &json!({})).await;
    assert_eq!(mcp::text(&client.answer(json!(1)).await), "answer 2 to p");
}

#[tokio::test]
async fn a_stream_that_is_left_half_way_is_closed_at_the_provider() {
    let provider = Provider::held().await;
    provider.plays(Play::Halves);
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    provider.let_pass(1);
    client.wire.find(|frame| frame["op"] == "progress").await;
    client.cancel("r").await;
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
}

/// The last waiter of `tool` leaves; afterwards the provider has seen it hang up.
async fn stops_the_work(tool: &str, how: Leaves) {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("REATTACH_SECS", "0.05")]).await;
    let mut client = Op::connect(&daemon).await;
    let more = if matches!(how, Leaves::Deadline) { json!({"timeout_secs": 0.2}) } else { json!({}) };
    client.call_with("r", tool, &json!({"prompt": "p"}), &more).await;
    provider.started(1).await;
    match how {
        Leaves::Cancel => {
            client.cancel("r").await;
            assert_eq!(op::code(&client.answer("r").await), "CANCELLED");
        }
        Leaves::Deadline => {
            let answer = client.answer("r").await;
            assert_eq!(op::code(&answer), "TIMEOUT");
            assert!(answer["error"].get("details").is_none(), "nothing is left to be collected: {answer}");
        }
        Leaves::Disconnect => drop(client),
    }
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_read_stops_when_its_last_waiter_cancels() {
    stops_the_work("ask", Leaves::Cancel).await;
}

#[tokio::test]
async fn a_read_stops_when_its_last_waiters_deadline_comes() {
    stops_the_work("ask", Leaves::Deadline).await;
}

#[tokio::test]
async fn a_read_whose_last_connection_went_lingers_and_then_stops() {
    stops_the_work("ask", Leaves::Disconnect).await;
}

#[tokio::test]
async fn an_idempotent_call_stops_when_its_last_waiter_cancels() {
    stops_the_work("put", Leaves::Cancel).await;
}

#[tokio::test]
async fn a_write_stops_when_its_last_waiter_cancels() {
    stops_the_work("post", Leaves::Cancel).await;
}

/// The last waiter of `tool` leaves; the work goes on and its outcome can be collected.
async fn goes_on(tool: &str, how: Leaves) {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("REATTACH_SECS", "0.05")]).await;
    let (mut client, mut collector) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    let more = if matches!(how, Leaves::Deadline) { json!({"timeout_secs": 0.2}) } else { json!({}) };
    client.call_with("r", tool, &json!({"prompt": "p"}), &more).await;
    provider.started(1).await;
    let listed = ids_under_way(&mut collector).await;
    let id = match how {
        Leaves::Deadline => {
            let answer = client.answer("r").await;
            assert_eq!(op::code(&answer), "TIMEOUT");
            assert_eq!(answer["error"]["details"]["still_running"], true, "{answer}");
            assert_eq!(answer["error"]["retryable"], false, "it would be done twice");
            assert!(answer["error"]["message"].as_str().unwrap().contains("get_request"), "{answer}");
            answer["metadata"]["request_id"].clone()
        }
        Leaves::Disconnect | Leaves::Cancel => {
            drop(client);
            listed[0].clone()
        }
    };
    assert_eq!(listed, std::slice::from_ref(&id));
    daemon.has_waiters(0).await;
    let found = collector.tell("get_request", &json!({"request_id": id})).await;
    assert_eq!(found["work"]["state"], "running", "{found}");
    assert_eq!((daemon.stat("/active_executions"), provider.hung_up()), (1, 0));
    provider.go();
    let (found, outputs) = collector.collected(&id).await;
    assert_eq!(found["work"]["state"], "completed", "{found}");
    assert_eq!(outputs, [json!({"type": "text", "text": "answer 1 to p"})]);
    assert_eq!((provider.requests(), provider.hung_up()), (1, 0));
    daemon.at_rest().await;
}

#[tokio::test]
async fn an_idempotent_call_goes_on_past_its_last_waiters_deadline() {
    goes_on("put", Leaves::Deadline).await;
}

#[tokio::test]
async fn a_write_goes_on_past_its_last_waiters_deadline() {
    goes_on("post", Leaves::Deadline).await;
}

#[tokio::test]
async fn an_idempotent_call_goes_on_when_its_last_connection_went() {
    goes_on("put", Leaves::Disconnect).await;
}

#[tokio::test]
async fn a_write_goes_on_when_its_last_connection_went() {
    goes_on("post", Leaves::Disconnect).await;
}

#[tokio::test]
async fn a_read_that_lingers_can_be_joined() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("REATTACH_SECS", "60")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    drop(client);
    daemon.has_waiters(0).await;
    let mut again = Op::connect(&daemon).await;
    again.question("r", "ask", "p").await;
    daemon.has_waiters(1).await;
    provider.go();
    let answer = again.answer("r").await;
    assert_eq!((op::text(&answer), &answer["metadata"]["role"]), ("answer 1 to p", &json!("follower")));
    daemon.at_rest().await;
}

#[tokio::test]
async fn who_comes_after_a_cancel_gets_a_run_of_its_own() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("a", "ask", "p").await;
    provider.started(1).await;
    // Both frames are read in one go: the first Run has been told to stop, and has not ended.
    client.cancel("a").await;
    client.question("b", "ask", "p").await;
    provider.started(2).await;
    provider.sees_hang_up(1).await;
    provider.go();
    assert_eq!(op::code(&client.answer("a").await), "CANCELLED");
    let answer = client.answer("b").await;
    assert_eq!((op::text(&answer), &answer["metadata"]["role"]), ("answer 2 to p", &json!("leader")));
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_queued_call_that_is_cancelled_never_reaches_the_provider() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "1")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("works", "ask", "works").await;
    provider.started(1).await;
    client.question("waits", "ask", "waits").await;
    client.question("next", "ask", "next").await;
    daemon.shows("/queue_size", 2).await;
    client.cancel("waits").await;
    assert_eq!(op::code(&client.answer("waits").await), "CANCELLED");
    daemon.shows("/queue_size", 1).await;
    provider.go();
    op::text(&client.answer("works").await);
    op::text(&client.answer("next").await);
    assert_eq!(provider.questions(), ["works", "next"]);
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_cancel_for_nobody_says_so_and_hits_nobody() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut client, mut other) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    for id in ["unknown", "r"] {
        other.cancel(id).await;
        let told = other.wire.find(|frame| frame["op"] == "cancelled" && frame["request_id"] == id).await;
        assert_eq!(op::code(&told), "INVALID_REQUEST", "{told}");
    }
    provider.go();
    assert_eq!(op::text(&client.answer("r").await), "answer 1 to p");
    assert_eq!(provider.hung_up(), 0);
    client.cancel("r").await;
    let told = client.wire.find(|frame| frame["op"] == "cancelled").await;
    assert_eq!(op::code(&told), "INVALID_REQUEST", "it was answered before");
}

#[tokio::test]
async fn an_id_is_the_same_id_however_it_is_spelt() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (mut by_op, mut by_mcp) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    by_op.question("x/y", "ask", "p").await;
    let params = json!({"name": "ask", "arguments": {"prompt": "p"}});
    by_mcp.request(json!("x/y"), "tools/call", &params).await;
    provider.started(1).await;
    daemon.has_waiters(2).await;
    by_op
        .wire
        .say(r#"{"op":"call_tool","request_id":"\u0078/y","name":"ask","arguments":{"prompt":"q"}}"#)
        .await;
    let again = by_op.wire.find(|frame| frame.get("error").is_some()).await;
    assert_eq!((op::code(&again), &again["request_id"]), ("INVALID_REQUEST", &json!("x/y")), "in use");
    by_op.wire.say(r#"{"op":"cancel","request_id":"x\/\u0079"}"#).await;
    let told = by_op.wire.find(|frame| frame["op"] == "cancelled").await;
    assert_eq!((&told["request_id"], told.get("error")), (&json!("x/y"), None));
    assert_eq!(op::code(&by_op.answer("x/y").await), "CANCELLED");
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0078\/y"}}"#;
    by_mcp.wire.say(cancel).await;
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[("REATTACH_SECS", "0.01")]).await;
    let mut client = Op::connect(&daemon).await;
    for round in 0..40 {
        let prompt = format!("question {}", round % 3);
        client.question("r", "ask", &prompt).await;
        let mut leaver = Op::connect(&daemon).await;
        for (id, tool) in ["ask", "put", "post"].iter().enumerate() {
            leaver.question(&id.to_string(), tool, &prompt).await;
        }
        leaver.cancel("1").await;
        drop(leaver);
        assert!(op::text(&client.answer("r").await).ends_with(&prompt));
    }
    until("all calls ended once", || {
        let stats = daemon.stats();
        let ended = ["completed", "error", "timeout", "cancelled", "rejected"];
        let sum: u64 = ended.iter().map(|end| stats["calls"][end].as_u64().unwrap()).sum();
        stats["calls"]["total"] == sum && stats["dedup"]["calls"] == sum
    })
    .await;
    daemon.at_rest().await;
    assert!(provider.most_at_once() <= 6);
}
