//! Calls through the daemon: what goes in and comes out.

use serde_json::json;

use crate::rig::{Client, Daemon, code, fake, fake_with, text};

/// Calls with this text as params, and returns the answer as it came.
async fn raw(client: &mut Client, params: &str) -> String {
    client
        .wire
        .say(&format!(r#"{{"jsonrpc":"2.0","id":"raw","method":"tools/call","params":{params}}}"#))
        .await;
    loop {
        let frame = client.raw().await;
        if frame.contains(r#""id":"raw""#) {
            return frame;
        }
    }
}

#[tokio::test]
async fn results_and_arguments_pass_as_they_were_written() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    let arguments = "{ \"n\":18446744073709551616, \"f\":[1.0, 1e0,1E+2,-0],\n\t\"s\":\"\\u0041\\n\",\"big\":9007199254740993 }";
    let answer = raw(&mut client, &format!(r#"{{"name":"fake__raw","arguments":{arguments}}}"#)).await;
    let sent = arguments.replace('\n', " ");
    assert!(answer.contains(&format!(r#""arguments":{sent},"#)), "{answer}");
    let own = r#""big":18446744073709551616,"odd":[1.50e+07,-0,1E2],"unknown":{"b":1,"a":2}"#;
    assert!(answer.contains(own), "{answer}");
    assert!(!answer.contains(r#""_meta":{"x":1}"#), "{answer}");
    // The deadline travels.
    assert!(answer.contains(r#""inflightd/timeout_ms":"#), "{answer}");
}

#[tokio::test]
async fn tools_are_listed_as_their_server_wrote_them_under_its_name() {
    let daemon = Daemon::of(fake(&["--tools=250"])).await;
    let mut client = daemon.client().await;
    let tools = client.tools().await;
    assert!(tools.len() > 260 && tools.iter().any(|name| name == "fake__extra_249"));
    let page = client.ask("tools/list", &json!({})).await;
    let echo =
        page["result"]["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "fake__echo").unwrap();
    assert_eq!((&echo["title"], &echo["x-unknown"]), (&json!("T"), &json!([1])));
    assert_eq!(echo["description"], "echo of a fake, 0");
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_before_the_server_hears_of_them() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    let answer = client.call("fake__echo", json!({"text": 7})).await;
    assert_eq!(code(&answer), "VALIDATION_ERROR");
    assert!(text(&answer).contains("`text`"), "{answer}");
}

#[tokio::test]
async fn a_failure_is_a_result_and_a_refusal_says_what_the_server_said() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    let failed = client.call("fake__fail", json!({})).await;
    assert_eq!((text(&failed), &failed["result"]["isError"]), ("it failed", &json!(true)));
    let refused = client.call("fake__refuse", json!({})).await;
    assert_eq!(code(&refused), "PROVIDER_ERROR");
    assert_eq!(text(&refused), "fake answered with error -32602: not like this");
}

#[tokio::test]
async fn both_eras_are_spoken() {
    for flags in [&[][..], &["--stateless"], &["--dies-at-probe"]] {
        let daemon = Daemon::of(fake(flags)).await;
        let mut client = daemon.client().await;
        assert_eq!(
            client.text("fake__echo", json!({"text": "Grüße \u{2028}"})).await,
            "Grüße \u{2028}",
            "{flags:?}"
        );
        let version = if flags == ["--stateless"] { "MCP 2026-07-28" } else { "MCP 2025-11-25" };
        let detail = daemon.server("fake")["instances"][0]["detail"].clone();
        assert!(detail.as_str().unwrap().ends_with(version), "{detail}");
    }
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_taken_back_at_its_server() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    let held = client.begin("fake__hold", json!({"key": "a"})).await;
    daemon.has_waiters(1).await;
    client.cancel(held).await;
    daemon.has_waiters(0).await;
    loop {
        let about = client.text("fake__about", json!({})).await;
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        if about["cancelled"].as_array().unwrap().len() == 1 {
            break;
        }
    }
    assert!(client.wire.unasked().is_empty(), "a cancelled request gets no response");
}

#[tokio::test]
async fn a_call_past_its_time_is_typed_and_taken_back_at_its_server() {
    let daemon = Daemon::of(fake_with(&[], &json!({"timeout_secs": 0.2}))).await;
    let mut client = daemon.client().await;
    let answer = client.call("fake__hold", json!({"key": "a"})).await;
    assert_eq!(code(&answer), "TIMEOUT");
    loop {
        let about = client.text("fake__about", json!({})).await;
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        if about["cancelled"].as_array().unwrap().len() == 1 {
            break;
        }
    }
}

#[tokio::test]
async fn a_server_gets_no_more_at_once_than_it_may_and_holds_up_nobody_else() {
    let ours = json!({"max_inflight": 2});
    let daemon = Daemon::with(json!({"small": fake_with(&[], &ours), "other": fake(&[])})).await;
    let mut client = daemon.client().await;
    let mut held = Vec::new();
    for n in 0..5 {
        held.push(client.begin("small__hold", json!({"key": "k", "n": n})).await);
    }
    daemon.has_waiters(5).await;
    assert_eq!(client.text("other__echo", json!({"text": "hi"})).await, "hi");
    let (_, pools) = daemon.hub.calls.pools();
    let small = pools.into_iter().find(|(name, _)| &**name == "server small").unwrap().1;
    assert_eq!((small.in_use, small.queued, small.limit), (2, 3, 2));
    for id in held {
        client.cancel(id).await;
    }
    daemon.has_waiters(0).await;
}
