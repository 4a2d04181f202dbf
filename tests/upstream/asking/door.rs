//! The same through `/mcp`: an older client is asked on the stream of its call and answers by another request, a newer one
//! by the result.

use futures_util::StreamExt;
use reqwest::header::CONTENT_TYPE;

use super::*;

pub struct Http {
    client: reqwest::Client,
    url: String,
    session: Option<String>,
    accepts: &'static str,
}

/// An answer as it comes.
pub struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    buffer: String,
}

impl Events {
    fn of(response: reqwest::Response) -> Self {
        assert!(response.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/event-stream"));
        Self { bytes: Box::pin(response.bytes_stream()), buffer: String::new() }
    }

    /// Whether it ends without another message.
    pub async fn ends(&mut self) -> bool {
        while let Some(Ok(piece)) = within("its end", self.bytes.next()).await {
            self.buffer.push_str(std::str::from_utf8(&piece).unwrap());
        }
        !self.buffer.contains("data: ")
    }

    /// The next message.
    pub async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event: String = self.buffer.drain(..end + 2).collect();
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                if !data.is_empty() {
                    return serde_json::from_str(&data).unwrap();
                }
                continue;
            }
            let piece = within("an event", self.bytes.next()).await.expect("the stream has ended").unwrap();
            self.buffer.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The first message of which this holds.
    pub async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if wanted(&message) {
                return message;
            }
        }
    }
}

impl Http {
    pub fn new(daemon: &Daemon) -> Self {
        Self {
            client: reqwest::Client::new(),
            url: format!("http://{}/mcp", daemon.address),
            session: None,
            accepts: "application/json, text/event-stream",
        }
    }

    /// A client of the older era that can be asked for everything.
    pub async fn initialized(daemon: &Daemon) -> Self {
        let mut client = Self::new(daemon);
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": everything(), "clientInfo": {"name": "t", "version": "1"}});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
        let response = client.post(&request).await;
        client.session = Some(response.headers()["mcp-session-id"].to_str().unwrap().to_owned());
        client
    }

    pub async fn post(&self, message: &Value) -> reqwest::Response {
        let mut request = self.client.post(&self.url).header("accept", self.accepts);
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(message.to_string());
        within("an answer", request.send()).await.unwrap()
    }

    /// A call of the older era, answered by events.
    async fn call(&self, id: u64, tool: &str, arguments: Value) -> Events {
        let params = json!({"name": tool, "arguments": arguments});
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        Events::of(self.post(&request).await)
    }

    /// What a session is told without having called.
    pub async fn stream(&self) -> Events {
        let request = self.client.get(&self.url).header("accept", "text/event-stream");
        let request = request.header("mcp-session-id", self.session.as_deref().unwrap());
        Events::of(within("a stream", request.send()).await.unwrap())
    }

    /// What a subscription of the newer era tells.
    pub async fn listen(&self, notifications: &Value) -> Events {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        let params = json!({"notifications": notifications, "_meta": meta});
        let body =
            json!({"jsonrpc": "2.0", "id": "a \"name\"", "method": "subscriptions/listen", "params": params});
        let request = self.client.post(&self.url).header("accept", self.accepts);
        let request =
            request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        Events::of(within("a stream", request.send()).await.unwrap())
    }

    /// One request of a session, and its answer.
    pub async fn ask(&self, id: u64, method: &str, params: &Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let text = within("an answer", self.post(&request).await.text()).await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }

    async fn says(&self, question: &Value, result: &Value) {
        let response = self.post(&json!({"jsonrpc": "2.0", "id": question["id"], "result": result})).await;
        assert_eq!(response.status(), 202);
    }

    /// A call of the newer era.
    async fn newer(&self, tool: &str, arguments: &Value, more: &Value) -> Value {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": everything()});
        let mut params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let sent = self
            .client
            .post(&self.url)
            .header("accept", self.accepts)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .header(CONTENT_TYPE, "application/json")
            .body(request.to_string());
        let text = within("an answer", within("an answer", sent.send()).await.unwrap().text()).await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }
}

fn is_question(message: &Value) -> bool {
    message.get("method").is_some() && message.get("id").is_some()
}

#[tokio::test]
async fn an_older_client_is_asked_on_the_stream_of_its_call_and_answers_by_another_request() {
    let daemon = daemon().await;
    let (client, stranger) = (Http::initialized(&daemon).await, Http::initialized(&daemon).await);
    let mut stream = client.call(7, "fake__inquire", form("how old?")).await;
    let question = stream.find(is_question).await;
    assert_eq!(question["params"], form("how old?")["params"]);
    // Somebody else's answer, and one to what was not asked, go nowhere.
    stranger.says(&question, &json!({"action": "accept", "content": {"who": "a stranger"}})).await;
    client.says(&json!({"id": "q_0123456789abcdef"}), &json!({"action": "accept"})).await;
    client.says(&question, &json!({"action": "accept", "content": {"age": 7}})).await;
    client.says(&question, &json!({"action": "cancel"})).await;
    let answer = stream.find(|message| message["id"] == 7).await;
    assert_eq!(heard(&answer)["result"], json!({"action": "accept", "content": {"age": 7}}));
}

#[tokio::test]
async fn a_question_that_is_open_when_its_call_ends_is_withdrawn_first() {
    let daemon = daemon().await;
    let client = Http::initialized(&daemon).await;
    let params =
        json!({"name": "fake__inquire", "arguments": form("x"), "_meta": {"inflightd/timeout_ms": 300}});
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let mut stream = Events::of(client.post(&request).await);
    let question = stream.find(is_question).await;
    let withdrawn = stream.next().await;
    assert_eq!(withdrawn["method"], "notifications/cancelled");
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    assert_eq!(code(&stream.next().await), "TIMEOUT");
}

#[tokio::test]
async fn a_client_that_takes_no_events_is_not_asked() {
    let daemon = daemon().await;
    let client = Http { accepts: "application/json", ..Http::initialized(&daemon).await };
    let params = json!({"name": "fake__inquire", "arguments": form("x")});
    let response =
        client.post(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})).await;
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(heard(&answer)["result"]["action"], "decline");
}

#[tokio::test]
async fn a_newer_client_comes_back_over_http_to_servers_of_both_eras() {
    let stateless = fake_with(&["--stateless"], &json!({}));
    let daemon = Daemon::with(json!({"old": alone(), "new": stateless})).await;
    let client = Http::new(&daemon);
    let said = json!({"action": "accept", "content": {"age": 7}});
    for tool in ["old__inquire", "new__inquire"] {
        let asked = client.newer(tool, &form("x"), &json!({})).await;
        let (name, question) = newer::only_question(&asked);
        assert_eq!(question, form("x"), "{tool}");
        let more = json!({"requestState": asked["result"]["requestState"], "inputResponses": {name: said}});
        let answer = client.newer(tool, &form("x"), &more).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        assert!(text(&answer).contains("\"age\":7"), "{answer}");
    }
}
