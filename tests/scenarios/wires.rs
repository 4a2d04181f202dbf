//! Each wire: what reaches the service on the bytes, what comes back, and every kind of bad day.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::model::{Does, KEY, Model, Speaks, USAGE};
use crate::support::op::{self, Op};

/// The tools that come with the daemon.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

async fn daemon(models: &[&Model], more: &[(&str, &str)]) -> Daemon {
    let mut keys: Vec<_> = models.iter().flat_map(|model| model.keys()).collect();
    keys.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut all: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // Each fault is told as it comes.
    all.splice(0..0, [("TOOLS_FILE", BUILT_IN), ("RETRY_ATTEMPTS", "1")]);
    Daemon::offline(&all).await
}

/// Asks `chat` with arguments as they are written.
async fn chat(client: &mut Op, arguments: &str) -> Value {
    let call = format!(r#"{{"op":"call_tool","request_id":"r","name":"chat","arguments":{arguments}}}"#);
    client.wire.say(&call).await;
    client.answer("r").await
}

/// Everything that a caller can set.
const ALL: &str = r#"{
    "prompt": "look \"here\"\n\u00e9",
    "system": "be brief",
    "model": "Vendor/Model-4.5:free@2026",
    "temperature": 0.70,
    "max_tokens": 1e3,
    "parameters": {"top_p": 1.0, "seed": 18446744073709551617, "nested": {"a": [1.50]}},
    "files": [{"name": "a.rs", "text": "fn a() {}"}],
    "images": [{"mime_type": "image/png", "data": "iVBORw0KGgo="}, {"url": "https://example.com/b.jpg"}]
}"#;

const TEXT: &str = r#""look \"here\"\né\n\nFile: a.rs\n```\nfn a() {}\n```""#;

async fn sent(speaks: Speaks, arguments: &str) -> (String, String) {
    let model = Model::open(speaks).await;
    let daemon = daemon(&[&model], &[]).await;
    let answer = chat(&mut Op::connect(&daemon).await, arguments).await;
    assert_eq!(op::text(&answer), "answer 1 from here");
    let request = model.requests().remove(0);
    (request.head, request.body)
}

#[tokio::test]
async fn what_the_caller_set_reaches_openais_wire_byte_for_byte() {
    let (head, body) = sent(Speaks::OpenAi, ALL).await;
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("authorization: Bearer {KEY}\r\n")), "{head}");
    let expected = [
        r#"{"model":"Vendor/Model-4.5:free@2026","messages":[{"role":"system","content":"be brief"},"#,
        r#"{"role":"user","content":[{"type":"text","text":"#,
        TEXT,
        r#"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}},"#,
        r#"{"type":"image_url","image_url":{"url":"https://example.com/b.jpg"}}]}],"temperature":0.70,"#,
        r#""max_completion_tokens":1e3,"nested":{"a": [1.50]},"seed":18446744073709551617,"top_p":1.0,"#,
        r#""stream":true,"stream_options":{"include_usage":true}}"#,
    ];
    assert_eq!(body, expected.concat());
}

#[tokio::test]
async fn what_the_caller_set_reaches_anthropics_wire_byte_for_byte() {
    let (head, body) = sent(Speaks::Anthropic, ALL).await;
    assert!(head.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("x-api-key: {KEY}\r\n")), "{head}");
    assert!(head.contains("anthropic-version: 2023-06-01\r\n") && !head.contains("authorization"), "{head}");
    let expected = [
        r#"{"model":"Vendor/Model-4.5:free@2026","system":[{"type":"text","text":"be brief"}],"messages":["#,
        r#"{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","#,
        r#""data":"iVBORw0KGgo="}},{"type":"image","source":{"type":"url","url":"https://example.com/b.jpg"}},"#,
        r#"{"type":"text","text":"#,
        TEXT,
        r#"}]}],"max_tokens":1e3,"temperature":0.70,"nested":{"a": [1.50]},"seed":18446744073709551617,"#,
        r#""top_p":1.0,"stream":true}"#,
    ];
    assert_eq!(body, expected.concat());
}

#[tokio::test]
async fn what_the_caller_set_reaches_geminis_wire_byte_for_byte_and_the_key_no_url() {
    let (head, body) = sent(Speaks::Gemini, ALL).await;
    // A model's name with a slash says itself where it is.
    let line = "POST /v1/Vendor/Model-4.5%3Afree%402026:streamGenerateContent?alt=sse HTTP/1.1";
    assert_eq!(head.lines().next(), Some(line));
    assert!(head.contains(&format!("x-goog-api-key: {KEY}\r\n")), "{head}");
    let expected = [
        r#"{"contents":[{"role":"user","parts":[{"text":"#,
        TEXT,
        r#"},{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}},"#,
        r#"{"fileData":{"fileUri":"https://example.com/b.jpg"}}]}],"#,
        r#""systemInstruction":{"parts":[{"text":"be brief"}]},"generationConfig":{"temperature":0.70,"#,
        r#""maxOutputTokens":1e3,"nested":{"a": [1.50]},"seed":18446744073709551617,"top_p":1.0}}"#,
    ];
    assert_eq!(body, expected.concat());
    let (head, body) = sent(Speaks::Gemini, r#"{"prompt": "p"}"#).await;
    let line = "POST /v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1";
    assert_eq!(head.lines().next(), Some(line));
    assert_eq!(body, r#"{"contents":[{"role":"user","parts":[{"text":"p"}]}]}"#);
}

#[tokio::test]
async fn a_setting_that_is_the_daemons_own_is_refused_and_nothing_is_sent() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&[&model], &[]).await;
    let arguments = r#"{"prompt": "p", "parameters": {"stream": false}}"#;
    let answer = chat(&mut Op::connect(&daemon).await, arguments).await;
    assert_eq!(op::code(&answer), "VALIDATION_ERROR");
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn an_answer_is_understood_streamed_and_whole_with_its_model_and_its_tokens() {
    for speaks in Speaks::ALL {
        for does in [Does::Answer, Does::Whole] {
            let model = Model::open(speaks).await;
            model.does(does);
            let daemon = daemon(&[&model], &[]).await;
            let answer = chat(&mut Op::connect(&daemon).await, r#"{"prompt": "p"}"#).await;
            assert_eq!(op::text(&answer), "answer 1 from here", "{speaks:?}");
            let metadata = &answer["metadata"];
            assert_eq!(
                (&metadata["model"], &metadata["provider"]),
                (&json!("fake-1"), &json!(speaks.provider()))
            );
            let counted = [&metadata["usage"]["prompt_tokens"], &metadata["usage"]["completion_tokens"]];
            assert_eq!(counted, [&json!(USAGE.0), &json!(USAGE.1)], "{speaks:?}");
            daemon.at_rest().await;
        }
    }
}

#[tokio::test]
async fn text_in_the_making_reaches_everybody_who_waits_over_every_wire() {
    for speaks in Speaks::ALL {
        let model = Model::open(speaks).await;
        model.does(Does::Halves);
        let daemon = daemon(&[&model], &[]).await;
        let mut early = Op::connect(&daemon).await;
        let mut late = Mcp::connect(&daemon).await;
        let wants = json!({});
        early.call_with("r", "chat", &json!({"prompt": "p"}), &wants).await;
        model.started(1).await;
        late.call(1, "chat", &json!({"prompt": "p"}), &json!({"progressToken": "t"})).await;
        let piece = early.wire.find(|frame| frame["op"] == "progress").await;
        assert_eq!(piece["message"], "answer 1 ", "{speaks:?}");
        let piece = late.wire.find(|message| message["method"] == "notifications/progress").await;
        assert_eq!(piece["params"]["message"], "answer 1 ", "{speaks:?}");
        model.go();
        assert_eq!(op::text(&early.answer("r").await), "answer 1 from here");
        assert_eq!(mcp::text(&late.answer(json!(1)).await), "answer 1 from here");
        assert_eq!(model.requests().len(), 1);
    }
}

/// A call on a bad day ends with this; then the day is over, and the next call is answered.
async fn bad_day(speaks: Speaks, does: Does, keys: &[(&str, &str)]) -> Value {
    let model = Model::open(speaks).await;
    model.does(does);
    let daemon = daemon(&[&model], keys).await;
    let mut client = Op::connect(&daemon).await;
    if does == Does::Reset {
        // After the first half has been read: a reset would overtake it.
        client.call_with("r", "chat", &json!({"prompt": "p"}), &json!({})).await;
        client.wire.find(|frame| frame["op"] == "progress").await;
        model.go();
    } else {
        client.call("r", "chat", &json!({"prompt": "p"})).await;
    }
    let answer = client.answer("r").await;
    daemon.at_rest().await;
    assert!(!answer.to_string().contains("marker") && !answer.to_string().contains("hush"), "{answer}");
    model.does(Does::Answer);
    let next = chat(&mut client, r#"{"prompt": "p"}"#).await;
    assert_eq!(op::text(&next), "answer 2 from here", "{speaks:?} after {does:?}");
    answer["error"].clone()
}

#[tokio::test]
async fn a_bad_day_of_any_kind_is_a_typed_error_over_every_wire() {
    for speaks in Speaks::ALL {
        let who = speaks.provider();
        for (does, retryable, text) in [
            (Does::Refuse(429, Some(1)), true, "refused the request with HTTP 429 (on_purpose)"),
            (Does::Refuse(500, None), true, "refused the request with HTTP 500 (on_purpose)"),
            (Does::Refuse(400, None), false, "refused the request with HTTP 400 (on_purpose)"),
            (Does::Reset, true, "broke off its answer: the event stream was cut"),
            (Does::Cut, true, "broke off its answer: the stream ended early"),
            (Does::Garbage, true, "broke off its answer: the answer is not JSON"),
            (Does::GarbageStream, true, "broke off its answer: an event is not JSON"),
            (Does::Error, true, "broke off its answer: it reported an error in the middle of its answer"),
        ] {
            let error = bad_day(speaks, does, &[]).await;
            assert_eq!(error["code"], "PROVIDER_ERROR", "{speaks:?} {does:?}: {error}");
            assert_eq!(error["message"], format!("{who} {text}"), "{speaks:?} {does:?}");
            assert_eq!(error["retryable"], retryable, "{speaks:?} {does:?}");
            let after = if does == Does::Refuse(429, Some(1)) { json!(1000) } else { Value::Null };
            assert_eq!(error["retry_after_ms"], after, "{speaks:?} {does:?}");
        }
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_over_every_wire() {
    for speaks in Speaks::ALL {
        for does in [Does::Endless, Does::EndlessEvent, Does::EndlessStream] {
            let error = bad_day(speaks, does, &[("MAX_RESULT_BYTES", "20000")]).await;
            assert_eq!(error["code"], "OVER_CAPACITY", "{speaks:?} {does:?}: {error}");
            let text = format!("{} answered with more than 20000 bytes", speaks.provider());
            assert_eq!(error["message"], text, "{does:?}");
        }
    }
}

#[tokio::test]
async fn silence_and_a_byte_a_second_end_with_the_providers_rung_over_every_wire() {
    for speaks in Speaks::ALL {
        for does in [Does::Hang, Does::HangMidStream, Does::Drip] {
            let rung = format!("{}_TIMEOUT_SECS", speaks.prefix());
            let error = bad_day(speaks, does, &[(&rung, "0.2")]).await;
            assert_eq!(error["code"], "TIMEOUT", "{speaks:?} {does:?}: {error}");
            let text = format!("{} provider timeout after 0.2s", speaks.provider());
            assert!(error["message"].as_str().unwrap().starts_with(&text), "{does:?}: {error}");
        }
    }
}

#[tokio::test]
async fn the_last_waiter_to_leave_closes_the_connection_over_every_wire() {
    for speaks in Speaks::ALL {
        for does in [Does::Hang, Does::HangMidStream] {
            let model = Model::open(speaks).await;
            model.does(does);
            let daemon = daemon(&[&model], &[]).await;
            let mut client = Op::connect(&daemon).await;
            client.call("r", "chat", &json!({"prompt": "p"})).await;
            model.started(1).await;
            daemon.shows(&format!("/providers/{}/connections/active", speaks.provider()), 1).await;
            client.cancel("r").await;
            model.sees_hang_up(1).await;
            assert_eq!(op::code(&client.answer("r").await), "CANCELLED", "{speaks:?} {does:?}");
            daemon.at_rest().await;
            for of in ["active", "idle"] {
                daemon.shows(&format!("/providers/{}/connections/{of}", speaks.provider()), 0).await;
            }
        }
    }
}

#[tokio::test]
async fn a_tls_handshake_that_fails_is_a_typed_error_over_every_wire() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 no TLS here\r\n\r\n").await;
        }
    });
    for speaks in Speaks::ALL {
        let (key, at) = (format!("{}_API_KEY", speaks.prefix()), format!("{}_API_URL", speaks.prefix()));
        let daemon =
            Daemon::offline(&[("TOOLS_FILE", BUILT_IN), ("RETRY_ATTEMPTS", "1"), (&key, KEY), (&at, &url)])
                .await;
        let answer = chat(&mut Op::connect(&daemon).await, r#"{"prompt": "p"}"#).await;
        assert_eq!(op::code(&answer), "PROVIDER_ERROR");
        let text = format!("{} cannot be reached: the TLS handshake failed", speaks.provider());
        assert_eq!(
            (&answer["error"]["message"], &answer["error"]["retryable"]),
            (&json!(text), &json!(true))
        );
        daemon.shows(&format!("/providers/{}/connections/failed", speaks.provider()), 1).await;
        daemon.at_rest().await;
    }
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_ends_with_the_time_for_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let keys = [
        ("TOOLS_FILE", BUILT_IN),
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_API_URL", &url),
        ("CONNECT_TIMEOUT_SECS", "0.2"),
        ("RETRY_ATTEMPTS", "1"),
    ];
    let daemon = Daemon::offline(&keys).await;
    let answer = chat(&mut Op::connect(&daemon).await, r#"{"prompt": "p"}"#).await;
    assert_eq!(answer["error"]["message"], "openai cannot be reached: connecting took too long");
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other_and_is_counted() {
    for speaks in Speaks::ALL {
        let model = Model::open(speaks).await;
        let daemon = daemon(&[&model], &[]).await;
        let shows = |of: &str| format!("/providers/{}/connections/{of}", speaks.provider());
        let mut client = Op::connect(&daemon).await;
        for (at, does) in
            [Does::Answer, Does::Whole, Does::Refuse(500, None), Does::Answer].into_iter().enumerate()
        {
            model.does(does);
            chat(&mut client, &format!(r#"{{"prompt": "p{at}"}}"#)).await;
        }
        assert_eq!(model.connections(), 1, "{speaks:?}");
        daemon.shows(&shows("idle"), 1).await;
        assert_eq!((daemon.stat(&shows("active")), daemon.stat(&shows("failed"))), (0, 0));
        model.close_idle();
        daemon.shows(&shows("idle"), 0).await;
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_than_are_configured() {
    let model = Model::open(Speaks::OpenAi).await;
    model.does(Does::Halves);
    let daemon = daemon(&[&model], &[("PROVIDER_IDLE_CONNECTIONS", "2")]).await;
    let mut client = Op::connect(&daemon).await;
    for id in 0..6 {
        client.call(&id.to_string(), "chat", &json!({"prompt": id.to_string()})).await;
    }
    model.started(6).await;
    daemon.shows("/providers/openai/connections/active", 6).await;
    (0..6).for_each(|_| model.go());
    for id in 0..6 {
        client.answer(&id.to_string()).await;
    }
    daemon.shows("/providers/openai/connections/idle", 2).await;
    assert_eq!(model.connections(), 6);
}

#[tokio::test]
async fn no_secret_is_in_statistics_doctor_or_errors() {
    for speaks in Speaks::ALL {
        let model = Model::open(speaks).await;
        model.does(Does::Refuse(401, None));
        let daemon = daemon(&[&model], &[]).await;
        let mut client = Op::connect(&daemon).await;
        let answer = chat(&mut client, r#"{"prompt": "p"}"#).await;
        let shown = [answer.to_string(), daemon.stats().to_string(), daemon.hub.doctor().to_string()];
        assert!(shown.iter().all(|text| !text.contains("hush")), "{shown:?}");
        assert!(model.requests()[0].head.contains(KEY));
    }
}
