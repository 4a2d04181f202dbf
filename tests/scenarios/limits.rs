//! Providers never get more than they can take, and waiting has bounds that say when to come back.

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};

#[tokio::test]
async fn the_ninth_run_of_a_session_waits_and_joiners_do_not() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "20")]).await;
    let (mut client, mut other) = (Op::connect(&daemon).await, Op::connect(&daemon).await);
    for number in 1..=9 {
        client.question(&number.to_string(), "ask", &format!("mine {number}")).await;
    }
    provider.started(8).await;
    // Joiners of what is at work, and of what waits.
    client.question("joins", "ask", "mine 1").await;
    other.question("joins", "ask", "mine 9").await;
    daemon.has_waiters(11).await;
    assert_eq!((daemon.stat("/dedup/executions"), daemon.stat("/dedup/joined")), (9, 2));
    // Another session's Run, which came later, is at work before the ninth.
    other.question("r", "ask", "yours").await;
    provider.started(9).await;
    assert!(provider.questions().contains(&"yours".to_owned()));
    assert!(!provider.questions().contains(&"mine 9".to_owned()));
    provider.go();
    for number in 1..=9 {
        assert!(op::text(&client.answer(&number.to_string()).await).ends_with(&format!("to mine {number}")));
    }
    assert!(op::text(&client.answer("joins").await).ends_with("to mine 1"));
    assert!(op::text(&other.answer("joins").await).ends_with("to mine 9"));
    op::text(&other.answer("r").await);
    assert_eq!(provider.requests(), 10);
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_full_provider_does_not_hold_up_another() {
    let (full, free) = (Provider::held().await, Provider::open().await);
    let keys = [("KIMI_MAX_INFLIGHT", "1"), ("GLM_API_KEY", "k"), ("GLM_API_URL", &free.url())];
    let daemon = Daemon::start(&full, &keys).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..4 {
        client.question(&number.to_string(), "ask", &format!("slow {number}")).await;
    }
    full.started(1).await;
    daemon.shows("/permits/kimi/queued", 3).await;
    for number in 0..10 {
        let arguments = json!({"prompt": format!("quick {number}"), "provider": "glm"});
        let answer = client.ask("quick", "ask", &arguments).await;
        assert_eq!((op::text(&answer).is_empty(), &answer["metadata"]["provider"]), (false, &json!("glm")));
    }
    assert_eq!((full.requests(), daemon.stat("/permits/kimi/queued")), (1, 3));
    full.go();
    for number in 0..4 {
        op::text(&client.answer(&number.to_string()).await);
    }
    assert_eq!(full.most_at_once(), 1);
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "1"), ("QUEUE_MAX", "2")]).await;
    let (mut client, mut other) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    for id in ["works", "waits 1", "waits 2"] {
        client.question(id, "ask", id).await;
    }
    provider.started(1).await;
    daemon.shows("/queue_size", 2).await;
    let answer = client.ask("late", "ask", &json!({"prompt": "late"})).await;
    assert_eq!((op::code(&answer), &answer["error"]["retryable"]), ("OVER_CAPACITY", &json!(true)));
    assert!(answer["error"]["retry_after_ms"].as_u64().unwrap() > 0, "{answer}");
    other.call(1, "ask", &json!({"prompt": "late"}), &json!({})).await;
    let answer = other.answer(json!(1)).await;
    assert_eq!(mcp::code(&answer), "OVER_CAPACITY");
    assert!(answer["result"]["_meta"]["inflightd/error"]["retry_after_ms"].as_u64().unwrap() > 0, "{answer}");
    // Joining what waits needs no place in the queue.
    other.call(2, "ask", &json!({"prompt": "waits 1"}), &json!({})).await;
    daemon.has_waiters(4).await;
    assert_eq!(provider.requests(), 1, "all of this while nothing was given back");
    provider.go();
    for id in ["works", "waits 1", "waits 2"] {
        op::text(&client.answer(id).await);
    }
    mcp::text(&other.answer(json!(2)).await);
    daemon.at_rest().await;
}

#[tokio::test]
async fn of_eleven_calls_where_ten_may_be_exactly_one_is_refused() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("EXECUTIONS_MAX", "10")]).await;
    let mut clients = Vec::new();
    for number in 0..11 {
        let mut client = Op::connect(&daemon).await;
        client.question("r", "ask", &format!("question {number}")).await;
        clients.push(client);
    }
    daemon.shows("/calls/rejected", 1).await;
    daemon.has_waiters(10).await;
    provider.go();
    let mut refused = Vec::new();
    for client in &mut clients {
        let answer = client.answer("r").await;
        if answer.get("error").is_some() {
            refused.push(answer["error"].clone());
        }
    }
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["code"], "OVER_CAPACITY");
    assert_eq!(refused[0]["message"], "Maximum concurrent sessions (10) reached. Active sessions: 10");
    assert_eq!(provider.requests(), 10);
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_free_as_soon_as_its_answer_is_there() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[("EXECUTIONS_MAX", "1"), ("QUEUE_MAX", "1")]).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..200 {
        op::text(&client.ask("r", "ask", &json!({"prompt": format!("question {number}")})).await);
    }
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_is_told_so_and_leaves_the_queue() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "1"), ("QUEUE_TIMEOUT_SECS", "0.2")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("works", "ask", "works").await;
    provider.started(1).await;
    for tool in ["ask", "post"] {
        let answer = client.ask("waits", tool, &json!({"prompt": "waits"})).await;
        assert_eq!(op::code(&answer), "QUEUE_TIMEOUT", "a {tool} that had no turn was surely not done");
        assert_eq!(answer["error"]["message"], "Waited 0.2s for kimi without getting a turn");
        assert!(answer["error"]["retry_after_ms"].as_u64().unwrap() > 0);
        assert!(answer["metadata"]["latency"]["queue_ms"].as_f64().unwrap() >= 200.0, "{answer}");
    }
    assert_eq!(daemon.stat("/queue_size"), 0);
    provider.go();
    op::text(&client.answer("works").await);
    op::text(&client.ask("waits", "ask", &json!({"prompt": "waits"})).await);
    assert_eq!(provider.questions(), ["works", "waits"]);
    daemon.at_rest().await;
}

#[tokio::test]
async fn health_and_statistics_pass_under_full_load() {
    let provider = Provider::held().await;
    let keys = [
        ("KIMI_MAX_INFLIGHT", "2"),
        ("GLOBAL_MAX_INFLIGHT", "2"),
        ("SESSION_MAX_INFLIGHT", "3"),
        ("EXECUTIONS_MAX", "6"),
    ];
    let daemon = Daemon::start(&provider, &keys).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..6 {
        client.question(&number.to_string(), "ask", &format!("question {number}")).await;
    }
    provider.started(2).await;
    assert_eq!(op::code(&client.ask("more", "echo", &json!({"text": "t"})).await), "OVER_CAPACITY");
    let health = client.tell("health", &json!({})).await;
    assert_eq!((&health["status"], &health["permits"]["global"]["in_use"]), (&json!("ok"), &json!(2)));
    assert_eq!(client.tell("get_server_stats", &json!({})).await["active_executions"], 6);
    assert_eq!(client.tell("version", &json!({})).await["name"], "inflightd");
    let listed = client.tell("list_active_requests", &json!({})).await;
    assert_eq!(listed["active_requests"].as_array().unwrap().len(), 6);
    provider.go();
    for number in 0..6 {
        op::text(&client.answer(&number.to_string()).await);
    }
    daemon.at_rest().await;
}

#[tokio::test]
async fn time_in_the_queue_does_not_eat_time_to_work() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "1"), ("KIMI_TIMEOUT_SECS", "0.5")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("first", "ask", "first").await;
    provider.started(1).await;
    client.question("second", "ask", "second").await;
    assert_eq!(op::code(&client.answer("first").await), "TIMEOUT");
    let answer = client.answer("second").await;
    assert_eq!(op::code(&answer), "TIMEOUT");
    let latency = &answer["metadata"]["latency"];
    // It waited while the first worked, and then had as long as that one.
    assert!(latency["queue_ms"].as_f64().unwrap() >= 250.0, "{latency}");
    assert!(latency["provider_ms"].as_f64().unwrap() >= 500.0, "{latency}");
    assert_eq!(provider.requests(), 2);
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_is_ever_exceeded_while_calls_end_in_every_way() {
    let provider = Provider::open().await;
    let url = provider.url();
    // Both providers are one server, so that it sees what the limit over all lets through.
    let keys = [
        ("KIMI_MAX_INFLIGHT", "2"),
        ("GLM_MAX_INFLIGHT", "2"),
        ("GLOBAL_MAX_INFLIGHT", "3"),
        ("GLM_API_KEY", "k"),
        ("GLM_API_URL", &url),
        ("REATTACH_SECS", "0.01"),
        // Whether enough of them fail in a row is a matter of luck.
        ("BREAKER_MIN_CALLS", "1000000"),
    ];
    let daemon = Daemon::start(&provider, &keys).await;
    let plays = [Play::Answer, Play::Refuse(500), Play::CutStream, Play::HangUp, Play::Answer];
    let mut clients = Vec::new();
    for number in 0..60 {
        provider.plays(plays[number % plays.len()]);
        let mut client = Op::connect(&daemon).await;
        for (place, tool) in ["ask", "put", "post"].iter().enumerate() {
            let name = ["kimi", "glm"][(number + place) % 2];
            let arguments = json!({"prompt": format!("{number} {place}"), "provider": name});
            client.call(&place.to_string(), tool, &arguments).await;
        }
        if number % 3 == 0 {
            client.cancel("0").await;
        }
        if number % 4 != 0 {
            clients.push(client);
        }
    }
    for client in &mut clients {
        for place in 0..3 {
            client.answer(&place.to_string()).await;
        }
    }
    daemon.at_rest().await;
    assert!(provider.most_at_once() <= 3, "{} at once", provider.most_at_once());
    assert!(provider.requests() > 50);
}

#[tokio::test]
async fn those_of_a_higher_class_go_first() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "1")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("works", "ask", "works").await;
    provider.started(1).await;
    for class in ["low", "medium", "high"] {
        client.call_with(class, "ask", &json!({"prompt": class}), &json!({"priority": class})).await;
    }
    daemon.shows("/queue_size", 3).await;
    provider.go();
    for class in ["low", "medium", "high"] {
        op::text(&client.answer(class).await);
    }
    assert_eq!(provider.questions(), ["works", "high", "medium", "low"]);
}

#[tokio::test]
async fn a_flight_takes_so_many_waiters_and_no_more() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("WAITERS_MAX", "3")]).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..4 {
        client.question(&number.to_string(), "ask", "p").await;
    }
    assert_eq!(op::code(&client.answer("3").await), "OVER_CAPACITY");
    provider.go();
    for number in 0..3 {
        assert_eq!(op::text(&client.answer(&number.to_string()).await), "answer 1 to p");
    }
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_result_larger_than_may_be_is_refused_with_its_bound() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[("MAX_RESULT_BYTES", "1000")]).await;
    let mut client = Op::connect(&daemon).await;
    let answer = client.ask("r", "ask", &json!({"prompt": "x".repeat(2000)})).await;
    assert_eq!((op::code(&answer), &answer["error"]["retryable"]), ("OVER_CAPACITY", &json!(false)));
    assert!(answer["error"]["message"].as_str().unwrap().contains("1000"), "{answer}");
    daemon.at_rest().await;
}
