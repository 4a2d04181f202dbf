//! Servers that do everything wrong: what comes of it is typed, bounded and seen.

use serde_json::json;

use crate::rig::{Daemon, Setup, code, fake, fake_with, text};
use crate::support::until;

#[tokio::test]
async fn one_that_never_answers_initialize_delays_the_start_and_then_nobody() {
    let setup = Setup { keys: vec![("MCP_SERVERS_WAIT_SECS", "0.3".into())], ..Setup::default() };
    let mute = fake_with(&["--mute"], &json!({"start_timeout_secs": 0.5}));
    let daemon = Daemon::start(json!({"mute": mute, "good": fake(&[])}), setup).await.unwrap();
    let mut client = daemon.client().await;
    until("the good one", || daemon.server("good")["tools"].is_number()).await;
    assert_eq!(client.text("good__echo", json!({"text": "x"})).await, "x");
    until("what doctor says", || {
        daemon.hub.doctor()["problems"].to_string().contains("it did not answer initialize within 0.5 s")
    })
    .await;
    daemon.ended().await;
}

#[tokio::test]
async fn floods_garbage_strangers_and_doubles_do_no_harm() {
    let flags = ["--flood-stderr", "--garbage", "--strangers", "--twice"];
    let daemon = Daemon::of(fake(&flags)).await;
    let mut client = daemon.client().await;
    for n in 0..50 {
        let word = format!("word {n}");
        assert_eq!(client.text("fake__echo", json!({"text": word})).await, word);
    }
    let instance = daemon.server("fake")["instances"][0].clone();
    assert_eq!(instance["state"], "ready");
    for figure in ["not_messages", "answers_to_nothing"] {
        assert!(instance[figure].as_u64().unwrap() >= 50, "{instance}");
    }
    let words = instance["last_words"].as_array().unwrap();
    assert!(!words.is_empty() && words.iter().all(|line| line.as_str().unwrap().len() <= 2048), "{instance}");
    let problems = daemon.hub.doctor()["problems"].to_string();
    assert!(problems.contains("lines to its stdout that are no messages"), "{problems}");
}

#[tokio::test]
async fn one_that_does_not_read_is_typed_at_its_time_and_holds_up_nobody_else() {
    let deaf = fake_with(&["--does-not-read"], &json!({"timeout_secs": 0.3}));
    let daemon = Daemon::with(json!({"deaf": deaf, "good": fake(&[])})).await;
    let mut client = daemon.client().await;
    let long = "x".repeat(300_000);
    let ids = [
        client.begin("deaf__echo", json!({"text": long})).await,
        client.begin("deaf__echo", json!({"text": "b"})).await,
    ];
    assert_eq!(client.text("good__echo", json!({"text": "x"})).await, "x");
    for id in ids {
        assert_eq!(code(&client.answer(id).await), "TIMEOUT");
    }
}

#[tokio::test]
async fn ten_thousand_tools_are_cut_and_told_of() {
    let daemon = Daemon::of(fake(&["--tools=10000"])).await;
    let mut client = daemon.client().await;
    let tools = client.tools().await;
    let theirs = tools.iter().filter(|name| name.starts_with("fake__")).count();
    assert_eq!(theirs, 1000);
    let problems = daemon.hub.doctor()["problems"].to_string();
    assert!(problems.contains("it lists more than 1000 tools: the others are not offered"), "{problems}");
}

#[tokio::test]
async fn questions_of_a_shared_server_are_answered_with_no() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    assert_eq!(client.text("fake__ask", json!({})).await, "asked");
    let about = client.text("fake__about", json!({})).await;
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    let answers = about["answers"].to_string();
    assert_eq!(about["answers"].as_array().unwrap().len(), 3, "{answers}");
    assert!(answers.contains(r#"\"id\":\"p\",\"result\":{}"#) && answers.contains("-32601"), "{answers}");
}

#[tokio::test]
async fn a_result_that_is_too_large_is_typed_and_the_next_one_comes() {
    let setup = Setup { keys: vec![("MAX_RESULT_BYTES", "100000".into())], ..Setup::default() };
    let daemon = Daemon::start(json!({"fake": fake(&[])}), setup).await.unwrap();
    let mut client = daemon.client().await;
    for bytes in [120_000, 3_000_000] {
        let answer = client.call("fake__big", json!({"bytes": bytes})).await;
        assert_eq!(code(&answer), "OVER_CAPACITY", "{}", text(&answer));
    }
    assert_eq!(client.text("fake__echo", json!({"text": "x"})).await, "x");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_of() {
    let setup = Setup { keys: vec![("MCP_SERVERS_WAIT_SECS", "0.1".into())], ..Setup::default() };
    let daemon = Daemon::start(json!({"none": {"command": "/no/such/program"}}), setup).await.unwrap();
    until("what doctor says", || {
        daemon.hub.doctor()["problems"].to_string().contains("it cannot be started")
    })
    .await;
}
