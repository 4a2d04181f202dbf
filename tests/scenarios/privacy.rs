//! Neither prompts, arguments nor secrets are in any log line, in anybody's error, in any statistic.

use serde_json::json;

use crate::support::daemon::TOOLS;
use crate::support::http::{self, execute, request};
use crate::support::mcp::{Mcp, OFFER};
use crate::support::op::{self, Op};
use crate::support::program::Program;
use crate::support::provider::{Play, Provider};
use crate::support::wire::Wire;

const TOKEN: &str = "marker-token-0123456789";
const KEY: &str = "sk-marker-key";
const PROMPT: &str = "marker-prompt";
const VALUE: &str = "marker-value";

/// What must be found nowhere.
const MARKERS: [&str; 4] = [TOKEN, KEY, PROMPT, VALUE];

fn holds_no_marker(what: &str, text: &str) {
    for marker in MARKERS {
        if let Some(place) = text.find(marker) {
            let from = text[..place].rfind('\n').map_or(0, |newline| newline + 1);
            panic!("{marker} stands in {what}: {}", text[from..].lines().next().unwrap());
        }
    }
}

/// Calls of every kind and end, each with markers in all it says. The errors are looked at on the way.
async fn live_through_everything(program: &Program, provider: &Provider) {
    let address = program.address;
    let bearer = format!("Bearer {TOKEN}");
    let header = ("authorization", &*bearer);
    let mut client = Op { wire: Wire::open(address, "/", &[]).await.unwrap() };
    client.hello(&json!({"op": "hello", "token": TOKEN, "session_id": VALUE})).await;
    let query = format!("/?token={TOKEN}");
    let mut other = Mcp { wire: Wire::open(address, &query, &[OFFER]).await.unwrap() };
    let info = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": VALUE, "version": "1"}});
    other.request(json!(0), "initialize", &info).await;
    other.answer(json!(0)).await;
    let arguments = json!({"prompt": PROMPT, "data": VALUE});
    for (round, play) in [
        Play::Answer,
        Play::Quote(400),
        Play::Quote(401),
        Play::Quote(500),
        Play::Refuse(429),
        Play::Garbage,
        Play::CutStream,
        Play::HangUp,
    ]
    .into_iter()
    .enumerate()
    {
        provider.plays(play);
        for tool in ["ask", "put", "post"] {
            let answer = client.ask(VALUE, tool, &arguments).await;
            if play == Play::Answer {
                assert!(op::text(&answer).ends_with(PROMPT));
            } else {
                holds_no_marker(&format!("the error of {play:?}"), &answer["error"].to_string());
            }
            let id = 10 * round as u64 + tool.len() as u64;
            other
                .call(id, tool, &arguments, &json!({"acme/data": VALUE, "inflightd/timeout_ms": 5000}))
                .await;
            let answer = other.answer(json!(id)).await;
            if play != Play::Answer {
                holds_no_marker(&format!("the MCP error of {play:?}"), &answer.to_string());
            }
            let body = json!({"tool": tool, "arguments": arguments}).to_string();
            let response = request(address, "POST", "/api/v1/execute", &[header], &body).await;
            assert_eq!(response.status == 200, play == Play::Answer);
        }
    }
    // A call that is under way, one that is cancelled, one whose deadline comes, one whose connection goes.
    provider.plays(Play::Answer);
    provider.hold();
    let before = provider.requests();
    client.call("under way", "ask", &arguments).await;
    client.call("cancelled", "post", &arguments).await;
    provider.started(before + 2).await;
    client.cancel("cancelled").await;
    client.answer("cancelled").await;
    client.call_with("late", "put", &arguments, &json!({"timeout_secs": 0.05})).await;
    let late = client.answer("late").await;
    holds_no_marker("the error of a deadline", &late["error"].to_string());
    let body = json!({"tool": "post", "arguments": arguments}).to_string();
    drop(http::start(address, "POST", "/api/v1/execute", &[header], &body).await);
    for tool in ["get_server_stats", "list_active_requests", "health", "listmodels"] {
        holds_no_marker(tool, &client.tell(tool, &json!({})).await.to_string());
    }
    let request_id = &late["metadata"]["request_id"];
    let found = client.tell("get_request", &json!({"request_id": request_id})).await;
    holds_no_marker("get_request", &found.to_string());
    holds_no_marker("/api/v1/stats", &request(address, "GET", "/api/v1/stats", &[header], "").await.body);
    provider.go();
    client.answer("under way").await;
    // Refused ones: arguments that do not fit, unknown tools, garbage, wrong tokens, long heads, wrong origins.
    for arguments in [
        json!({"prompt": 7, "data": VALUE}),
        json!({"data": VALUE}),
        json!({"prompt": PROMPT, "provider": VALUE}),
    ] {
        let answer = client.ask("r", "ask", &arguments).await;
        holds_no_marker("a validation error", &answer["error"].to_string());
    }
    client.ask("r", VALUE, &arguments).await;
    client.wire.say(&format!("{{\"op\":\"call_tool\",\"{PROMPT}")).await;
    client.wire.say(&format!("{{\"op\":\"{VALUE}\",\"data\":\"{PROMPT}\"}}")).await;
    client
        .wire
        .say(&format!(
            "{{\"op\":\"call_tool\",\"name\":\"ask\",\"arguments\":{{\"{VALUE}\":1,\"{VALUE}\":2}}}}"
        ))
        .await;
    client
        .wire
        .say(&format!(
            "{{\"op\":\"call_tool\",\"name\":\"ask\",\"priority\":\"{VALUE}\",\"token\":\"{TOKEN}\"}}"
        ))
        .await;
    other
        .wire
        .say(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{VALUE}\",\"params\":\"{PROMPT}\"}}"))
        .await;
    execute(address, &body).await;
    execute(address, &format!("{{\"tool\":\"{VALUE}\",\"{PROMPT}")).await;
    let wrong = format!("Bearer {TOKEN}x");
    request(
        address,
        "GET",
        &format!("/{VALUE}?token={TOKEN}"),
        &[("authorization", &wrong), ("x", PROMPT)],
        "",
    )
    .await;
    request(address, "GET", &query, &[("origin", VALUE)], "").await;
    request(address, "GET", &query, &[("x-long", &VALUE.repeat(5000))], "").await;
    let mut wrong = Op { wire: Wire::open(address, "/", &[]).await.unwrap() };
    wrong.hello(&json!({"op": "hello", "token": format!("{TOKEN}x")})).await;
    let mut broken = Op { wire: Wire::open(address, &query, &[]).await.unwrap() };
    broken.hello(&json!({"op": "hello"})).await;
    broken.wire.bytes(&[b"\x81\x8d\0\0\0\0", PROMPT.as_bytes(), b"\xff"].concat()).await;
    // Others see nothing of all this either.
    let mut stranger = Op { wire: Wire::open(address, &query, &[]).await.unwrap() };
    stranger.hello(&json!({"op": "hello"})).await;
    provider.plays(Play::Quote(500));
    let answer = stranger.ask("r", "ask", &json!({"prompt": "another"})).await;
    holds_no_marker("the error of another", &answer.to_string());
}

async fn no_log_line_holds_a_marker(format: &str) {
    let provider = Provider::open().await;
    let url = provider.url();
    let keys = [
        ("LOG_LEVEL", "trace"),
        ("LOG_FORMAT", format),
        ("INFLIGHTD_TOKEN", TOKEN),
        ("KIMI_API_KEY", KEY),
        ("KIMI_API_URL", &url),
        ("TOOLS_FILE", TOOLS),
        ("HEALTH_INTERVAL_SECS", "0.05"),
        ("REATTACH_SECS", "0.05"),
    ];
    let program = Program::start(&keys).await;
    live_through_everything(&program, &provider).await;
    assert!(provider.keys().iter().all(|key| *key == format!("Bearer {KEY}")), "the provider got its key");
    #[cfg(unix)]
    {
        program.terminate();
        let ended = program.ended().await;
        assert!(ended.log.contains("Semaphore health: global="), "{}", ended.log);
        assert!(ended.log.matches("outcome").count() > 70, "a line for each call: {}", ended.log);
        holds_no_marker("the log", &ended.log);
    }
    #[cfg(not(unix))]
    holds_no_marker("the log", &program.log());
}

#[tokio::test]
async fn no_text_log_line_holds_a_prompt_an_argument_or_a_secret() {
    no_log_line_holds_a_marker("text").await;
}

#[tokio::test]
async fn no_json_log_line_holds_a_prompt_an_argument_or_a_secret() {
    no_log_line_holds_a_marker("json").await;
}
