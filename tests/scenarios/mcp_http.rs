//! MCP over HTTP, in both eras.

use std::net::SocketAddr;

use inflightd::config::principals::TokenHash;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::{code, role, text};
use crate::support::provider::{Play, Provider};
use crate::support::within;

const BOTH: &str = "application/json, text/event-stream";
const NEWER: &str = "2026-07-28";

/// A client over HTTP; in the older era with its session.
struct Client {
    address: SocketAddr,
    http: reqwest::Client,
    session: Option<String>,
    token: Option<&'static str>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    kind: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The messages of an event stream.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.kind, "text/event-stream", "{self:?}");
        let data = self.body.split("\n\n").filter_map(|event| event.split_once("data: "));
        data.map(|(_, data)| serde_json::from_str(&data.replace("\ndata: ", "\n")).unwrap()).collect()
    }
}

async fn answer(response: reqwest::Response) -> Answer {
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let (status, kind) = (response.status().as_u16(), kind.unwrap_or_default());
    Answer { status, kind, body: within("the whole answer", response.text()).await.unwrap() }
}

impl Client {
    fn new(daemon: &Daemon) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address: daemon.address, http, session: None, token: None }
    }

    /// One that has introduced itself in the older era.
    async fn older(daemon: &Daemon) -> Self {
        Self::older_as(daemon, None).await
    }

    async fn older_as(daemon: &Daemon, token: Option<&'static str>) -> Self {
        let mut client = Self { token, ..Self::new(daemon) };
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        let response = client.send(&request(0, "initialize", &params), &[]).await;
        let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let result = answer(response).await.json();
        assert_eq!(result["result"]["protocolVersion"], "2025-11-25");
        client.session = Some(session);
        let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(client.post(&told).await.status, 202);
        client
    }

    fn request(&self, method: reqwest::Method) -> reqwest::RequestBuilder {
        let mut request =
            self.http.request(method, format!("http://{}/mcp", self.address)).header("accept", BOTH);
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        }
        if let Some(token) = self.token {
            request = request.bearer_auth(token);
        }
        request
    }

    async fn send(&self, message: &Value, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.request(reqwest::Method::POST).json(message);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        within("an answer", request.send()).await.unwrap()
    }

    async fn post(&self, message: &Value) -> Answer {
        answer(self.send(message, &[]).await).await
    }

    /// A request of the newer era, with the headers that go with it.
    async fn newer(&self, id: u64, method: &str, params: Value) -> reqwest::Response {
        let name = params["name"].as_str().map(str::to_owned);
        let mut headers = vec![("mcp-protocol-version", NEWER), ("mcp-method", method)];
        headers.extend(name.as_deref().map(|name| ("mcp-name", name)));
        self.send(&stateless(id, method, params), &headers).await
    }
}

fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn stateless(id: u64, method: &str, mut params: Value) -> Value {
    let mut meta = params["_meta"].as_object().cloned().unwrap_or_default();
    meta.insert("io.modelcontextprotocol/protocolVersion".into(), NEWER.into());
    meta.insert("io.modelcontextprotocol/clientCapabilities".into(), json!({}));
    params["_meta"] = Value::Object(meta);
    request(id, method, &params)
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({"name": tool, "arguments": arguments})
}

fn with_progress(mut params: Value) -> Value {
    params["_meta"] = json!({"progressToken": "p"});
    params
}

#[tokio::test]
async fn the_older_era_has_a_session_from_initialize_to_delete() {
    let daemon = Daemon::offline(&[]).await;
    let client = Client::older(&daemon).await;
    let listed = client.post(&request(1, "tools/list", &json!({}))).await.json();
    assert!(listed["result"]["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "echo"));
    let echoed = client.post(&request(2, "tools/call", &call("echo", json!({"text": "grüße"})))).await;
    assert_eq!((echoed.status, &*echoed.kind), (200, "application/json"));
    assert_eq!(text(&echoed.json()), "grüße");
    let gone = |method| within("an answer", client.request(method).send());
    assert_eq!(gone(reqwest::Method::DELETE).await.unwrap().status(), 200);
    assert_eq!(gone(reqwest::Method::DELETE).await.unwrap().status(), 404);
    assert_eq!(client.post(&request(3, "ping", &json!({}))).await.status, 404);
    daemon.at_rest().await;
}

#[tokio::test]
async fn the_newer_era_needs_no_session_and_headers_that_say_the_same() {
    let daemon = Daemon::offline(&[]).await;
    let client = Client::new(&daemon);
    let found = client.newer(1, "server/discover", json!({})).await;
    assert!(found.headers().get("mcp-session-id").is_none());
    assert_eq!(answer(found).await.json()["result"]["supportedVersions"], json!([NEWER]));
    let echoed = answer(client.newer(2, "tools/call", call("echo", json!({"text": "t"}))).await).await;
    assert_eq!((echoed.status, text(&echoed.json())), (200, "t"));
    assert_eq!(echoed.json()["result"]["resultType"], "complete");

    let message = stateless(3, "tools/call", call("echo", json!({"text": "t"})));
    for headers in [
        &[][..],
        &[("mcp-protocol-version", NEWER), ("mcp-method", "tools/list"), ("mcp-name", "echo")],
        &[("mcp-protocol-version", NEWER), ("mcp-method", "tools/call"), ("mcp-name", "chat")],
        &[("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/call"), ("mcp-name", "echo")],
    ] {
        let refused = answer(client.send(&message, headers).await).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!(-32020)), "{headers:?}");
        assert_eq!(refused.json()["id"], 3);
    }
    let unknown = answer(client.newer(4, "tools/sing", json!({})).await).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!(-32601)));
    daemon.at_rest().await;
}

#[tokio::test]
async fn what_is_no_message_gets_a_status_and_a_typed_error() {
    let daemon = Daemon::offline(&[]).await;
    let client = Client::older(&daemon).await;
    let raw = |body: &'static str| client.request(reqwest::Method::POST).body(body).send();
    for (body, code) in [
        ("garbage", -32700),
        ("[]", -32600),
        ("{}", -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"x\"}", -32600),
    ] {
        let refused = answer(within("an answer", raw(body)).await.unwrap()).await;
        if code == -32600 && body == "{}" {
            assert_eq!(refused.status, 400, "{refused:?}");
            continue;
        }
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!(code)), "{body}");
    }
    let stranger = Client { session: Some("0".repeat(32)), ..Client::new(&daemon) };
    assert_eq!(stranger.post(&request(1, "ping", &json!({}))).await.status, 404);
    let early = Client::new(&daemon).post(&request(1, "tools/list", &json!({}))).await;
    assert_eq!((early.status, &early.json()["error"]["code"]), (400, &json!(-32600)));
    let put = within("an answer", client.request(reqwest::Method::PUT).send()).await.unwrap();
    assert_eq!((put.status().as_u16(), put.headers()["allow"].to_str().unwrap()), (405, "POST, GET, DELETE"));
    let picky =
        client.http.post(format!("http://{}/mcp", daemon.address)).header("accept", "text/html").body("{}");
    assert_eq!(within("an answer", picky.send()).await.unwrap().status(), 406);
    let listen =
        within("an answer", Client::new(&daemon).request(reqwest::Method::GET).send()).await.unwrap();
    assert_eq!(listen.status(), 404);
}

#[tokio::test]
async fn progress_comes_as_events_and_the_result_last() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let client = Client::older(&daemon).await;
    provider.hold();
    provider.plays(Play::Halves);
    let params = with_progress(call("ask", json!({"prompt": "p"})));
    let response = client.send(&request(7, "tools/call", &params), &[]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    provider.go();
    provider.go();
    let events = answer(response).await.events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["id"], text(last)), (&json!(7), "answer 1 to p"));
    assert!(!before.is_empty());
    let numbers: Vec<_> = before.iter().map(|event| event["params"]["progress"].as_f64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert!(before.iter().all(|event| event["params"]["progressToken"] == "p"));
    daemon.at_rest().await;
}

#[tokio::test]
async fn in_the_newer_era_closing_the_response_takes_the_call_back() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let client = Client::new(&daemon);
    let params = with_progress(call("ask", json!({"prompt": "p"})));
    let response = client.newer(1, "tools/call", params).await;
    provider.started(1).await;
    drop(response);
    // A read that only lost its connection would go on for a minute.
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
    daemon.shows("/calls/cancelled", 1).await;
}

#[tokio::test]
async fn in_the_older_era_a_lost_response_is_a_lost_connection() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let client = Client::older(&daemon).await;
    let params = with_progress(call("ask", json!({"prompt": "p"})));
    let response = client.send(&request(1, "tools/call", &params), &[]).await;
    provider.started(1).await;
    drop(response);
    daemon.has_waiters(0).await;
    let again = request(2, "tools/call", &call("ask", json!({"prompt": "p"})));
    let (again, ()) = tokio::join!(client.post(&again), async {
        daemon.has_waiters(1).await;
        provider.go();
    });
    assert_eq!((role(&again.json()), provider.requests()), ("follower", 1));
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_call_of_a_session_is_taken_back_by_its_id_and_gets_no_answer() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let client = Client::older(&daemon).await;
    let asked = request(5, "tools/call", &call("ask", json!({"prompt": "p"})));
    let (taken_back, cancel) = tokio::join!(client.post(&asked), async {
        provider.started(1).await;
        // Its id is in use: another call under it is refused, and the first one is not disturbed.
        let twice = client.post(&request(5, "tools/call", &call("ask", json!({"prompt": "q"})))).await;
        assert_eq!((twice.status, provider.requests()), (400, 1));
        let params = json!({"requestId": 5, "reason": "enough"});
        client.post(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await
    });
    assert_eq!((taken_back.status, &*taken_back.body, cancel.status), (202, "", 202));
    provider.sees_hang_up(1).await;
    daemon.at_rest().await;
}

#[tokio::test]
async fn two_clients_with_equal_ids_never_meet() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[]).await;
    let (one, other) = (Client::older(&daemon).await, Client::older(&daemon).await);
    let ask = |prompt: &str| request(1, "tools/call", &call("ask", json!({"prompt": prompt})));
    let (first, second) = (ask("first"), ask("second"));
    let (first, second, ()) = tokio::join!(one.post(&first), other.post(&second), async {
        provider.started(2).await;
        // A cancel of one is none of the other.
        let params = json!({"requestId": 1});
        one.post(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
        provider.sees_hang_up(1).await;
        provider.go();
    });
    assert_eq!(first.status, 202);
    assert!(text(&second.json()).ends_with("to second"), "{second:?}");
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_failed_tool_is_a_result() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[("RETRY_ATTEMPTS", "1")]).await;
    provider.plays(Play::Refuse(500));
    let client = Client::new(&daemon);
    let failed = answer(client.newer(1, "tools/call", call("ask", json!({"prompt": "p"}))).await).await;
    assert_eq!((failed.status, code(&failed.json())), (200, "PROVIDER_ERROR"));
    assert_eq!(failed.json()["result"]["isError"], true);
}

#[tokio::test]
async fn a_session_is_one_principals_and_nobody_comes_in_without_a_token() {
    let table =
        |name: &str| format!("[principals.{name}]\ntoken_hash = \"{}\"\n", TokenHash::of(name).text());
    let daemon = Daemon::with_toml(&[], &(table("anna") + &table("ben"))).await;
    let anna = Client::older_as(&daemon, Some("anna")).await;
    let ping = request(1, "ping", &json!({}));
    assert_eq!(anna.post(&ping).await.status, 200);
    let mut thief = Client { token: Some("ben"), ..Client::new(&daemon) };
    thief.session.clone_from(&anna.session);
    assert_eq!(thief.post(&ping).await.status, 404);
    let gone = within("an answer", thief.request(reqwest::Method::DELETE).send()).await.unwrap();
    assert_eq!(gone.status(), 404);
    thief.token = None;
    assert_eq!(thief.post(&ping).await.status, 401);
    assert_eq!(anna.post(&ping).await.status, 200);
}

#[tokio::test]
async fn the_stream_of_a_session_lives_until_the_daemon_ends() {
    let daemon = Daemon::offline(&[]).await;
    let client = Client::older(&daemon).await;
    let mut stream = within("a stream", client.request(reqwest::Method::GET).send()).await.unwrap();
    assert_eq!(
        (stream.status().as_u16(), stream.headers()["content-type"].to_str().unwrap()),
        (200, "text/event-stream")
    );
    assert_eq!(within("a sign of life", stream.chunk()).await.unwrap().unwrap(), ":\n\n");
    daemon.stop();
    assert!(daemon.ended().await.is_clean());
    assert_eq!(within("the stream's end", stream.chunk()).await.unwrap(), None);
}
