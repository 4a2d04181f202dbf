//! What makes two calls the same: every value of the arguments, and nothing of their spelling.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::Mcp;
use crate::support::op::{self, Op};
use crate::support::provider::Provider;

/// Calls `ask` once with each of these arguments, as they are spelt, while the provider is held. Returns how many
/// requests the provider saw when all of the calls waited.
async fn requests_for(spellings: &[&str], distinct: usize) -> usize {
    let provider = Provider::held().await;
    let daemon =
        Daemon::start(&provider, &[("KIMI_MAX_INFLIGHT", "20"), ("SESSION_MAX_INFLIGHT", "20")]).await;
    let mut client = Op::connect(&daemon).await;
    for (number, arguments) in spellings.iter().enumerate() {
        let call =
            format!(r#"{{"op":"call_tool","request_id":{number},"name":"ask","arguments":{arguments}}}"#);
        client.wire.say(&call).await;
    }
    daemon.has_waiters(spellings.len() as u64).await;
    provider.started(distinct).await;
    provider.go();
    for number in 0..spellings.len() {
        let answer =
            client.wire.find(|frame| frame["op"] == "call_tool_res" && frame["request_id"] == number).await;
        op::text(&answer);
    }
    provider.requests()
}

#[tokio::test]
async fn member_order_white_space_and_escapes_do_not_matter() {
    let spellings = [
        r#"{"prompt":"é/A","list":[1,{"x":null,"y":true}],"n":1}"#,
        "{ \"n\" : 1,\n\t\"list\": [ 1 , {\"y\":true, \"x\":null} ], \"prompt\":\"é/A\" }",
        r#"{"\u0070rompt":"\u00e9\/\u0041","list":[1,{"x":null,"y":true}],"n":1}"#,
    ];
    assert_eq!(requests_for(&spellings, 1).await, 1);
}

#[tokio::test]
async fn every_value_matters_to_its_last_digit() {
    let numbers = [
        "9007199254740992",
        "9007199254740993",
        "18446744073709551616",
        "18446744073709551617",
        "1",
        "1.0",
        "1e0",
        "\"1\"",
        "null",
        "[1]",
    ];
    let spellings: Vec<_> = numbers.iter().map(|n| format!(r#"{{"prompt":"p","n":{n}}}"#)).collect();
    let spellings: Vec<_> = spellings.iter().map(String::as_str).collect();
    assert_eq!(requests_for(&spellings, 10).await, 10);
}

#[tokio::test]
async fn what_is_absent_is_not_what_is_null() {
    let spellings = [r#"{"prompt":"p"}"#, r#"{"prompt":"p","n":null}"#, r#"{"prompt":"p","n":{}}"#];
    assert_eq!(requests_for(&spellings, 3).await, 3);
}

#[tokio::test]
async fn a_number_reaches_the_provider_as_it_was_written() {
    let spellings = [r#"{"prompt":"p","temperature":1}"#, r#"{"prompt":"p","temperature":1.0}"#];
    assert_eq!(requests_for(&spellings, 2).await, 2);
}

#[tokio::test]
async fn a_member_name_that_occurs_twice_is_refused() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    for arguments in [r#"{"prompt":"p","prompt":"p"}"#, r#"{"prompt":"p","deep":[{"a":1,"\u0061":2}]}"#] {
        let call = format!(r#"{{"op":"call_tool","request_id":"r","name":"ask","arguments":{arguments}}}"#);
        client.wire.say(&call).await;
        let answer = client.answer("r").await;
        assert_eq!(op::code(&answer), "VALIDATION_ERROR", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("twice"), "{answer}");
    }
    assert_eq!(provider.requests(), 0);
    daemon.at_rest().await;
}

#[tokio::test]
async fn unknown_meta_members_keep_calls_apart_and_inert_ones_do_not() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Mcp::connect(&daemon).await;
    let metas = [
        json!({}),
        json!({"progressToken": "a"}),
        json!({"progressToken": 2, "inflightd/priority": "high", "inflightd/timeout_ms": 60_000}),
        json!({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
        json!({"acme/tenant": 1}),
        json!({"acme/tenant": 2}),
        json!({"acme/tenant": 2, "progressToken": 3}),
    ];
    for (id, meta) in (0..).zip(&metas) {
        client.call(id, "ask", &json!({"prompt": "p"}), meta).await;
    }
    daemon.has_waiters(7).await;
    provider.started(3).await;
    assert_eq!((daemon.stat("/dedup/executions"), daemon.stat("/dedup/joined")), (3, 4));
    provider.go();
    let mut texts: Vec<Value> = Vec::new();
    for id in 0..7 {
        texts.push(client.answer(json!(id)).await["result"]["content"][0]["text"].clone());
    }
    assert!(texts[..4].iter().all(|text| *text == texts[0]));
    assert!(texts[4] != texts[0] && texts[5] != texts[4] && texts[5] != texts[0]);
    assert_eq!(texts[5], texts[6]);
    assert_eq!(provider.requests(), 3);
}

#[tokio::test]
async fn another_tool_provider_or_model_is_another_call() {
    let provider = Provider::held().await;
    let url = provider.url();
    let daemon = Daemon::start(&provider, &[("GLM_API_KEY", "k"), ("GLM_API_URL", &url)]).await;
    let mut client = Op::connect(&daemon).await;
    let calls = [
        ("ask", json!({"prompt": "p"})),
        ("put", json!({"prompt": "p"})),
        ("ask", json!({"prompt": "p", "provider": "glm"})),
        ("ask", json!({"prompt": "p", "model": "m"})),
    ];
    for (number, (tool, arguments)) in calls.iter().enumerate() {
        client.call(&number.to_string(), tool, arguments).await;
    }
    provider.started(4).await;
    provider.go();
    for number in 0..4 {
        assert_eq!(client.answer(&number.to_string()).await["metadata"]["role"], "leader");
    }
}
