//! Neither prompts, arguments nor secrets are in any log line, in anybody's error, in any statistic.

use std::net::SocketAddr;

use serde_json::{Value, json};

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

/// Two clients that have come in, with markers in all they say.
struct Clients {
    address: SocketAddr,
    bearer: String,
    by_op: Op,
    by_mcp: Mcp,
}

impl Clients {
    async fn connect(program: &Program) -> Self {
        let address = program.address;
        let mut by_op = Op { wire: Wire::open(address, "/", &[]).await.unwrap() };
        by_op.hello(&json!({"op": "hello", "token": TOKEN, "session_id": VALUE})).await;
        let mut by_mcp = Mcp { wire: Wire::open(address, &query(), &[OFFER]).await.unwrap() };
        let info = json!({"name": VALUE, "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
        by_mcp.request(json!(0), "initialize", &params).await;
        by_mcp.answer(json!(0)).await;
        Self { address, bearer: format!("Bearer {TOKEN}"), by_op, by_mcp }
    }

    async fn post(&self, tool: &str) -> http::Response {
        let body = json!({"tool": tool, "arguments": arguments()}).to_string();
        request(self.address, "POST", "/api/v1/execute", &[("authorization", &self.bearer)], &body).await
    }
}

fn query() -> String {
    format!("/?token={TOKEN}")
}

fn arguments() -> Value {
    json!({"prompt": PROMPT, "data": VALUE})
}

/// Answers and failures of every kind, through every door; the errors are looked at on the way.
async fn ask_in_every_way(clients: &mut Clients, provider: &Provider) {
    // The failures first: what has succeeded may be answered without being asked again.
    let plays = [
        Play::Quote(400),
        Play::Quote(401),
        Play::Quote(500),
        Play::Refuse(429),
        Play::Garbage,
        Play::CutStream,
        Play::HangUp,
        Play::Answer,
    ];
    for play in plays {
        provider.plays(play);
        for tool in ["ask", "put", "post"] {
            let answer = clients.by_op.ask(VALUE, tool, &arguments()).await;
            if play == Play::Answer {
                assert!(op::text(&answer).ends_with(PROMPT));
            } else {
                holds_no_marker(&format!("the error of {play:?}"), &answer["error"].to_string());
            }
            let meta = json!({"acme/data": VALUE, "inflightd/timeout_ms": 5000});
            clients.by_mcp.call(1, tool, &arguments(), &meta).await;
            let answer = clients.by_mcp.answer(json!(1)).await;
            if play != Play::Answer {
                holds_no_marker(&format!("the MCP error of {play:?}"), &answer.to_string());
            }
            let response = clients.post(tool).await;
            assert_eq!(response.status == 200, play == Play::Answer, "{tool} {play:?}");
        }
    }
}

/// A call that is under way, one that is cancelled, one whose deadline comes, one whose connection goes: and what
/// the statistics say of them.
async fn leave_in_every_way(clients: &mut Clients, provider: &Provider) {
    provider.plays(Play::Answer);
    provider.hold();
    let (before, client) = (provider.requests(), &mut clients.by_op);
    client.call("under way", "ask", &arguments()).await;
    client.call("cancelled", "post", &arguments()).await;
    provider.started(before + 2).await;
    client.cancel("cancelled").await;
    client.answer("cancelled").await;
    let impatient = json!({"timeout_secs": 0.05, "dedup": "off"});
    client.call_with("late", "put", &arguments(), &impatient).await;
    let late = client.answer("late").await;
    assert_eq!(op::code(&late), "TIMEOUT");
    holds_no_marker("the error of a deadline", &late["error"].to_string());
    let header = ("authorization", &*clients.bearer);
    let body = json!({"tool": "post", "arguments": arguments()}).to_string();
    drop(http::start(clients.address, "POST", "/api/v1/execute", &[header], &body).await);
    for tool in ["get_server_stats", "list_active_requests", "health", "listmodels"] {
        holds_no_marker(tool, &client.tell(tool, &json!({})).await.to_string());
    }
    let request_id = &late["metadata"]["request_id"];
    let found = client.tell("get_request", &json!({"request_id": request_id})).await;
    holds_no_marker("get_request", &found.to_string());
    let stats = request(clients.address, "GET", "/api/v1/stats", &[header], "").await;
    assert_eq!(stats.status, 200);
    holds_no_marker("/api/v1/stats", &stats.body);
    provider.go();
    client.answer("under way").await;
}

/// Arguments that do not fit, unknown tools, garbage, wrong tokens, long heads, wrong origins.
async fn be_refused_in_every_way(clients: &mut Clients) {
    let address = clients.address;
    for arguments in [
        json!({"prompt": 7, "data": VALUE}),
        json!({"data": VALUE}),
        json!({"prompt": PROMPT, "provider": VALUE}),
    ] {
        let answer = clients.by_op.ask("r", "ask", &arguments).await;
        holds_no_marker("a validation error", &answer["error"].to_string());
    }
    clients.by_op.ask("r", VALUE, &arguments()).await;
    for frame in [
        format!(r#"{{"op":"call_tool","{PROMPT}"#),
        format!(r#"{{"op":"{VALUE}","data":"{PROMPT}"}}"#),
        format!(r#"{{"op":"call_tool","name":"ask","arguments":{{"{VALUE}":1,"{VALUE}":2}}}}"#),
        format!(r#"{{"op":"call_tool","name":"ask","priority":"{VALUE}","token":"{TOKEN}"}}"#),
    ] {
        clients.by_op.wire.say(&frame).await;
    }
    let unknown = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{VALUE}","params":"{PROMPT}"}}"#);
    clients.by_mcp.wire.say(&unknown).await;
    execute(address, &format!(r#"{{"tool":"{VALUE}","{PROMPT}"#)).await;
    let wrong = format!("Bearer {TOKEN}x");
    let path = format!("/{VALUE}?token={TOKEN}");
    request(address, "GET", &path, &[("authorization", &wrong), ("x", PROMPT)], "").await;
    request(address, "GET", &query(), &[("origin", VALUE)], "").await;
    request(address, "GET", &query(), &[("x-long", &VALUE.repeat(5000))], "").await;
    let mut refused = Op { wire: Wire::open(address, "/", &[]).await.unwrap() };
    refused.hello(&json!({"op": "hello", "token": format!("{TOKEN}x")})).await;
    assert_eq!(refused.wire.closed().await, 4003);
    let mut broken = Op { wire: Wire::open(address, &query(), &[]).await.unwrap() };
    broken.hello(&json!({"op": "hello"})).await;
    broken.wire.bytes(&[b"\x81\x8e\0\0\0\0", PROMPT.as_bytes(), b"\xff"].concat()).await;
    assert_eq!(broken.wire.closed().await, 1007);
}

async fn others_see_nothing(clients: &Clients, provider: &Provider) {
    let mut stranger = Op { wire: Wire::open(clients.address, &query(), &[]).await.unwrap() };
    stranger.hello(&json!({"op": "hello"})).await;
    provider.plays(Play::Quote(500));
    let answer = stranger.ask("r", "ask", &json!({"prompt": "another"})).await;
    assert_eq!(op::code(&answer), "PROVIDER_ERROR");
    holds_no_marker("the error of another", &answer.to_string());
    let listed = stranger.tell("list_active_requests", &json!({})).await;
    holds_no_marker("what another can list", &listed.to_string());
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
        ("RETRY_BACKOFF_MS", "1"),
        ("BREAKER_MIN_CALLS", "1000"),
    ];
    let program = Program::start(&keys).await;
    let mut clients = Clients::connect(&program).await;
    ask_in_every_way(&mut clients, &provider).await;
    leave_in_every_way(&mut clients, &provider).await;
    be_refused_in_every_way(&mut clients).await;
    others_see_nothing(&clients, &provider).await;
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
