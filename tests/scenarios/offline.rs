//! Bad days that the built-in provider plays: to a client each looks as that of a real provider does.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::model::{Does, Model, Speaks};
use crate::support::op::{self, Op};

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

/// Each fault is told as it comes, within a time that a test has.
const KEYS: [(&str, &str); 4] = [
    ("TOOLS_FILE", BUILT_IN),
    ("RETRY_ATTEMPTS", "1"),
    ("WORKFLOW_TOOL_TIMEOUT_SECS", "0.2"),
    ("MAX_RESULT_BYTES", "20000"),
];

async fn daemon(more: &[(&str, &str)]) -> Daemon {
    Daemon::offline(&[&KEYS, more].concat()).await
}

/// An error without what differs between any two calls.
fn plain(answer: &Value) -> Value {
    let mut error = answer["error"].clone();
    assert!(error.is_object(), "{answer}");
    let text = error["message"].as_str().unwrap();
    let text = text.split(" (session: ").next().unwrap().replace("openai", "offline");
    error["message"] = json!(text.replace("on_purpose", "offline_fault"));
    error
}

#[tokio::test]
async fn each_fault_looks_to_a_client_as_that_of_a_real_provider() {
    for (fault, does) in [
        ("error", Does::Refuse(500, None)),
        ("rate_limit", Does::Refuse(429, Some(2))),
        ("hang", Does::Hang),
        ("drip", Does::Drip),
        ("reset", Does::Reset),
        ("garbage", Does::Garbage),
        ("endless", Does::EndlessStream),
    ] {
        let played = daemon(&[("OFFLINE_FAULT", fault)]).await;
        let played_error = plain(&Op::connect(&played).await.ask("r", "chat", &json!({"prompt": "p"})).await);
        played.at_rest().await;

        let model = Model::open(Speaks::OpenAi).await;
        model.does(does);
        let keys = model.keys();
        let keys: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let real = daemon(&keys).await;
        let mut client = Op::connect(&real).await;
        client.call("r", "chat", &json!({"prompt": "p"})).await;
        if does == Does::Reset {
            // A reset would overtake the text.
            client.wire.find(|frame| frame["op"] == "progress").await;
            model.go();
        }
        assert_eq!(played_error, plain(&client.answer("r").await), "{fault}");
    }
}

#[tokio::test]
async fn every_fault_is_typed_and_gives_its_permit_back_to_echo_too() {
    for (fault, code, text) in [
        ("error", "PROVIDER_ERROR", "offline refused the request with HTTP 500 (offline_fault)"),
        ("rate_limit", "PROVIDER_ERROR", "offline refused the request with HTTP 429 (offline_fault)"),
        ("hang", "TIMEOUT", "offline provider timeout after 0.2s"),
        ("drip", "TIMEOUT", "offline provider timeout after 0.2s"),
        ("reset", "PROVIDER_ERROR", "offline broke off its answer: the event stream was cut"),
        ("garbage", "PROVIDER_ERROR", "offline broke off its answer: the answer is not JSON"),
        ("endless", "OVER_CAPACITY", "offline answered with more than 20000 bytes"),
        ("tls", "PROVIDER_ERROR", "offline cannot be reached: the TLS handshake failed"),
    ] {
        let daemon = daemon(&[("OFFLINE_FAULT", fault)]).await;
        let mut client = Op::connect(&daemon).await;
        for (tool, arguments) in [("echo", json!({"text": "text"})), ("chat", json!({"prompt": "p"}))] {
            // A pause keeps the second call waiting: that is what it is for.
            if fault == "rate_limit" && tool == "chat" {
                continue;
            }
            let answer = client.ask("r", tool, &arguments).await;
            assert_eq!(op::code(&answer), code, "{fault} {tool}");
            assert!(
                answer["error"]["message"].as_str().unwrap().starts_with(text),
                "{fault} {tool}: {answer}"
            );
        }
        daemon.at_rest().await;
    }
}

#[tokio::test]
async fn a_fault_strikes_as_often_as_is_configured() {
    let daemon = daemon(&[("OFFLINE_FAULT", "error"), ("OFFLINE_FAULT_EVERY", "3")]).await;
    let mut client = Op::connect(&daemon).await;
    for number in 1..=7 {
        let answer = client.ask("r", "echo", &json!({"text": number.to_string()})).await;
        assert_eq!(answer.get("error").is_some(), number % 3 == 0, "{number}: {answer}");
    }
}

#[tokio::test]
async fn a_bad_day_passes_with_further_attempts_as_with_any_provider() {
    let keys = [("RETRY_ATTEMPTS", "2"), ("RETRY_BACKOFF_MS", "1"), ("WORKFLOW_TOOL_TIMEOUT_SECS", "60")];
    let bad = [("OFFLINE_FAULT", "reset"), ("OFFLINE_FAULT_EVERY", "2")];
    let daemon = daemon(&[&keys[..], &bad].concat()).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..3 {
        op::text(&client.ask("r", "chat", &json!({"prompt": number.to_string()})).await);
    }
    assert_eq!(daemon.stat("/resilience/offline/retries"), 2, "the second attempt, and the fourth");
}

#[tokio::test]
async fn text_that_drips_or_breaks_off_is_told_to_who_waits() {
    for (fault, first) in
        [("drip", "["), ("reset", "[offline] This is a stand-in"), ("endless", "and so on, ")]
    {
        let daemon = daemon(&[("OFFLINE_FAULT", fault)]).await;
        let mut client = Op::connect(&daemon).await;
        client.call("r", "chat", &json!({"prompt": "p"})).await;
        let told = client.wire.find(|frame| frame["op"] == "progress").await;
        assert!(told["message"].as_str().unwrap().starts_with(first), "{fault}: {told}");
        client.cancel("r").await;
        client.answer("r").await;
        daemon.at_rest().await;
    }
}
