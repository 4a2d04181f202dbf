//! One call by HTTP, for scripts.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::http::{self, execute, request};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};

#[tokio::test]
async fn a_call_is_answered_as_over_a_socket() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let response = execute(
        daemon.address,
        r#"{"tool":"ask","arguments":{"prompt":"p"},"priority":"high","timeout_secs":9}"#,
    )
    .await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    let answer = response.json();
    assert_eq!(op::text(&answer), "answer 1 to p");
    let metadata = &answer["metadata"];
    assert_eq!((&metadata["role"], &metadata["provider"]), (&json!("leader"), &json!("kimi")));
    daemon.at_rest().await;
}

#[tokio::test]
async fn what_does_not_fit_is_400_and_names_what() {
    let daemon = Daemon::offline(&[]).await;
    for (body, code) in [
        ("", "INVALID_REQUEST"),
        ("garbage", "INVALID_REQUEST"),
        ("[]", "INVALID_REQUEST"),
        (r#"["echo",{"text":"t"}]"#, "INVALID_REQUEST"),
        ("{}", "INVALID_REQUEST"),
        (r#"{"tool":7}"#, "INVALID_REQUEST"),
        (r#"{"tool":"echo","arguments":[]}"#, "INVALID_REQUEST"),
        (r#"{"tool":"echo","arguments":{"text":"t"},"extra":1}"#, "INVALID_REQUEST"),
        (r#"{"tool":"echo","arguments":{"text":"t"},"priority":"now"}"#, "INVALID_REQUEST"),
        (r#"{"tool":"echo","arguments":{"text":"t"},"timeout_secs":0}"#, "INVALID_REQUEST"),
        (r#"{"tool":"echo"}"#, "VALIDATION_ERROR"),
        (r#"{"tool":"echo","arguments":{"text":7}}"#, "VALIDATION_ERROR"),
        (r#"{"tool":"echo","arguments":{"text":"a","text":"b"}}"#, "VALIDATION_ERROR"),
        (r#"{"tool":"ask","arguments":{"prompt":"p","provider":"nobody"}}"#, "VALIDATION_ERROR"),
    ] {
        let response = execute(daemon.address, body).await;
        let error = response.json()["error"].clone();
        assert_eq!((response.status, &error["code"]), (400, &json!(code)), "{body}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let response = execute(daemon.address, r#"{"tool":"echo","arguments":{"text":7}}"#).await;
    assert_eq!(response.json()["error"]["details"]["argument"], "text");
    daemon.at_rest().await;
}

#[tokio::test]
async fn what_is_not_there_is_404_with_near_names_and_405_says_what_is() {
    let daemon = Daemon::offline(&[]).await;
    let response = execute(daemon.address, r#"{"tool":"ecko"}"#).await;
    let error = response.json()["error"].clone();
    assert_eq!((response.status, &error["code"]), (404, &json!("TOOL_NOT_FOUND")));
    assert!(error["message"].as_str().unwrap().contains("echo"), "{error}");
    assert_eq!(request(daemon.address, "GET", "/nowhere", &[], "").await.status, 404);
    let response = request(daemon.address, "GET", "/api/v1/execute", &[], "").await;
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    let response = request(daemon.address, "POST", "/api/v1/stats", &[], "").await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let daemon = Daemon::offline(&[("MAX_FRAME_BYTES", "1000")]).await;
    let body = format!(r#"{{"tool":"echo","arguments":{{"text":"{}"}}}}"#, "x".repeat(1000));
    let response = execute(daemon.address, &body).await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (413, &json!("INVALID_REQUEST")));
    assert_eq!(execute(daemon.address, r#"{"tool":"echo","arguments":{"text":"t"}}"#).await.status, 200);
}

#[tokio::test]
async fn a_body_that_says_it_will_be_too_large_is_refused_before_it_comes() {
    let daemon = Daemon::offline(&[("MAX_FRAME_BYTES", "1000")]).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let head = "POST /api/v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n";
    stream.write_all(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let response = http::finish(&mut stream).await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (413, &json!("INVALID_REQUEST")));
    assert_eq!(execute(daemon.address, r#"{"tool":"echo","arguments":{"text":"t"}}"#).await.status, 200);
}

#[tokio::test]
async fn at_capacity_it_is_503_with_retry_after() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("EXECUTIONS_MAX", "1")]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    let response = execute(daemon.address, r#"{"tool":"echo","arguments":{"text":"t"}}"#).await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.json()["error"]["code"], "OVER_CAPACITY");
    provider.go();
    op::text(&client.answer("r").await);
}

#[tokio::test]
async fn a_deadline_that_comes_is_504_and_a_failed_provider_502() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let response =
        execute(daemon.address, r#"{"tool":"ask","arguments":{"prompt":"p"},"timeout_secs":0.05}"#).await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (504, &json!("TIMEOUT")));
    provider.plays(Play::Refuse(500));
    provider.go();
    for (tool, code) in [("ask", "PROVIDER_ERROR"), ("post", "OUTCOME_UNKNOWN")] {
        let body = json!({"tool": tool, "arguments": {"prompt": "q"}}).to_string();
        let response = execute(daemon.address, &body).await;
        assert_eq!((response.status, &response.json()["error"]["code"]), (502, &json!(code)));
    }
    daemon.at_rest().await;
}

#[tokio::test]
async fn closing_the_connection_is_leaving() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("REATTACH_SECS", "0.05")]).await;
    let body = r#"{"tool":"ask","arguments":{"prompt":"p"}}"#;
    let stream = http::start(daemon.address, "POST", "/api/v1/execute", &[], body).await;
    provider.started(1).await;
    drop(stream);
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
    assert_eq!(daemon.stat("/calls/cancelled"), 1);
}

#[tokio::test]
async fn a_call_by_http_shares_the_flight_of_one_by_socket() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let mut client = Op::connect(&daemon).await;
    client.question("r", "ask", "p").await;
    provider.started(1).await;
    let body = r#"{"tool":"ask","arguments":{"prompt":"p"}}"#;
    let mut stream = http::start(daemon.address, "POST", "/api/v1/execute", &[], body).await;
    daemon.has_waiters(2).await;
    provider.go();
    let answer = http::finish(&mut stream).await.json();
    assert_eq!((op::text(&answer), &answer["from_inflight"]), ("answer 1 to p", &json!(true)));
    assert_eq!(op::text(&client.answer("r").await), "answer 1 to p");
}
