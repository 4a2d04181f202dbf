//! A provider on its bad days: it asks to be left alone, fails until its breaker opens, breaks off and is asked again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{API_KEY, Daemon};
use crate::support::http;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};

/// Further attempts come quickly.
const QUICK: (&str, &str) = ("RETRY_BACKOFF_MS", "1");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_calls_wait_while_the_provider_wants_to_be_left_alone_and_all_finish() {
    let provider = Provider::held().await;
    let daemon =
        Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "6"), ("SESSION_MAX_INFLIGHT", "30")]).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..30 {
        client.question(&number.to_string(), "ask", &format!("question {number}")).await;
    }
    provider.started(6).await;
    provider.plays(Play::LaterBy(429, 2));
    let refused_after = Instant::now();
    provider.let_pass(1);
    daemon.shows("/resilience/kimi/pauses", 1).await;
    provider.plays(Play::Answer);
    provider.let_pass(5);
    daemon.shows("/calls/completed", 5).await;
    let permits = (daemon.stat("/permits/kimi/in_use"), daemon.stat("/permits/kimi/queued"));
    let seen = (provider.requests(), permits);
    // On a machine so busy that the pause is over by now, this has seen nothing; what comes next still holds.
    if refused_after.elapsed() < Duration::from_secs(2) {
        assert_eq!(seen, (6, (0, 25)), "five places are free, and nobody is sent");
    }
    provider.started(7).await;
    assert!(refused_after.elapsed() >= Duration::from_secs(2), "{:?}", refused_after.elapsed());
    provider.go();
    for number in 0..30 {
        let answer = client.answer(&number.to_string()).await;
        assert!(op::text(&answer).ends_with(&format!("to question {number}")), "{answer}");
    }
    assert_eq!((provider.requests(), provider.most_at_once()), (31, 6));
    assert_eq!(daemon.stat("/resilience/kimi/retries"), 1);
    daemon.at_rest().await;
}

#[tokio::test]
async fn an_open_breaker_answers_at_once_at_every_door_and_says_nothing_secret() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[("RETRY_ATTEMPTS", "1"), ("BREAKER_MIN_CALLS", "2")]).await;
    provider.plays(Play::Quote(500));
    let (mut client, mut other) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    for number in 0..2 {
        let answer = client.ask("r", "ask", &json!({"prompt": format!("my secret {number}")})).await;
        assert_eq!(op::code(&answer), "PROVIDER_ERROR");
    }
    let refused = client.ask("r", "ask", &json!({"prompt": "my secret"})).await;
    assert_eq!((op::code(&refused), &refused["error"]["retryable"]), ("PROVIDER_UNAVAILABLE", &json!(true)));
    let wait = refused["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=15_000).contains(&wait), "{refused}");
    other.call(1, "ask", &json!({"prompt": "my secret"}), &json!({})).await;
    let answer = other.answer(json!(1)).await;
    assert_eq!((mcp::code(&answer), &answer["result"]["isError"]), ("PROVIDER_UNAVAILABLE", &json!(true)));
    let body = json!({"tool": "ask", "arguments": {"prompt": "my secret"}}).to_string();
    let response = http::request(daemon.address, "POST", "/api/v1/execute", &[], &body).await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (503, &json!("PROVIDER_UNAVAILABLE")));
    let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=15).contains(&seconds));
    assert_eq!(provider.requests(), 2);
    assert_eq!(op::text(&client.ask("r", "echo", &json!({"text": "t"})).await), "t", "others are asked");
    let doctor = http::request(daemon.address, "GET", "/api/v1/doctor", &[], "").await.json();
    let problem = doctor["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.starts_with("most of the last calls to kimi failed"), "{doctor}");
    assert_eq!(daemon.stats()["resilience"]["kimi"]["breaker"], "open");
    for told in [doctor, daemon.stats(), refused, answer, response.json()] {
        assert!(!told.to_string().contains(API_KEY) && !told.to_string().contains("my secret"), "{told}");
    }
    daemon.at_rest().await;
}

/// The messages of progress up to the end of a call, and its end.
async fn followed(client: &mut Op, id: &str) -> (Vec<String>, Value) {
    let mut messages = Vec::new();
    loop {
        let mine = |frame: &Value| {
            frame["request_id"] == id && (frame["op"] == "progress" || frame["op"] == "call_tool_res")
        };
        let frame = client.wire.find(mine).await;
        if frame["op"] == "call_tool_res" {
            return (messages, frame);
        }
        messages.extend(frame["message"].as_str().map(str::to_owned));
    }
}

#[tokio::test]
async fn the_text_of_an_attempt_that_failed_is_not_mixed_into_the_next_ones() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[QUICK]).await;
    let (mut early, mut late) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    provider.plays(Play::CutStream);
    early.question("r", "ask", "p").await;
    provider.started(1).await;
    provider.let_pass(1);
    provider.started(2).await;
    provider.plays(Play::Answer);
    late.question("r", "ask", "p").await;
    daemon.has_waiters(2).await;
    provider.go();
    let (messages, answer) = followed(&mut early, "r").await;
    assert_eq!(op::text(&answer), "answer 2 to p");
    let void = "[kimi failed: it is asked again, and what it said so far is void]";
    assert_eq!(messages.first().map(String::as_str), Some("answer 1 "));
    assert_eq!(messages.get(1).map(String::as_str), Some(void));
    assert!("answer 2 to p".starts_with(&messages[2..].concat()), "{messages:?}");
    let (messages, answer) = followed(&mut late, "r").await;
    assert_eq!(op::text(&answer), "answer 2 to p");
    assert!("answer 2 to p".starts_with(&messages.concat()), "{messages:?}");
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_read_is_asked_again_and_a_write_that_may_have_begun_is_not() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[QUICK, ("BREAKER_MIN_CALLS", "99")]).await;
    let mut client = Op::connect(&daemon).await;
    let plays = [Play::Refuse(500), Play::HangUp, Play::Garbage, Play::CutStream, Play::Refuse(503)];
    for (number, play) in plays.into_iter().enumerate() {
        let before = provider.requests();
        provider.plays(play);
        client.question("read", "ask", &format!("read {number}")).await;
        provider.started(before + 1).await;
        provider.let_pass(1);
        provider.started(before + 2).await;
        provider.plays(Play::Answer);
        provider.let_pass(1);
        let answer = client.answer("read").await;
        assert!(op::text(&answer).ends_with(&format!("to read {number}")), "{play:?}: {answer}");
    }
    for play in [Play::Refuse(500), Play::HangUp, Play::Garbage, Play::CutStream] {
        let before = provider.requests();
        provider.plays(play);
        client.question("write", "post", "p").await;
        provider.started(before + 1).await;
        provider.let_pass(1);
        assert_eq!(op::code(&client.answer("write").await), "OUTCOME_UNKNOWN", "{play:?}");
        assert_eq!(provider.requests(), before + 1, "{play:?}");
    }
    daemon.at_rest().await;
}
