//! Servers over Streamable HTTP that ask on the stream of a call: the question is for whoever waits for that call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

/// A server of revision 2025-11-25: its sessions, and what was said to it.
#[derive(Default)]
struct Far {
    sessions: AtomicUsize,
    declared: Mutex<Vec<Value>>,
    /// Who waits for the answer to a question, by session: all questions have the id 1.
    asked: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    /// Answers to what it asked on the stream that belongs to no call.
    strangers: Mutex<Vec<Value>>,
}

struct Request {
    method: String,
    session: String,
    body: Value,
}

impl Far {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let far = Arc::<Self>::default();
        let server = Arc::clone(&far);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&server).serve(stream));
            }
        });
        (far, address)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let Some(request) = read(&mut stream).await else { return };
        let out = stream.get_mut();
        match &*request.method {
            "GET" => {
                head(out, "200 OK", "text/event-stream", "").await;
                event(out, &json!({"jsonrpc": "2.0", "id": 2, "method": "roots/list"})).await;
                std::future::pending::<()>().await;
            }
            "POST" => self.post(out, request).await,
            _ => head(out, "200 OK", "text/plain", "").await,
        }
    }

    async fn post(&self, out: &mut TcpStream, request: Request) {
        let Request { session, body, .. } = request;
        let id = &body["id"];
        let result = match body["method"].as_str() {
            Some("initialize") => {
                self.declared.lock().push(body["params"]["capabilities"].clone());
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "far", "version": "1"}})
            }
            Some("tools/list") => {
                json!({"tools": [{"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}}]})
            }
            Some("tools/call") => return self.call(out, id, &session).await,
            Some(_) if !id.is_null() => {
                let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}});
                head(out, "200 OK", "application/json", "").await;
                return out.write_all(error.to_string().as_bytes()).await.unwrap();
            }
            Some(_) => return head(out, "202 Accepted", "text/plain", "").await,
            None => {
                let wants = if *id == json!(1) { self.asked.lock().remove(&session) } else { None };
                match wants {
                    Some(wants) => drop(wants.send(body)),
                    None => self.strangers.lock().push(body),
                }
                return head(out, "202 Accepted", "text/plain", "").await;
            }
        };
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let own = if session.is_empty() { format!("mcp-session-id: s{number}\r\n") } else { String::new() };
        head(out, "200 OK", "application/json", &own).await;
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
        out.write_all(answer.to_string().as_bytes()).await.unwrap();
    }

    /// Asks, and answers with what it hears.
    async fn call(&self, out: &mut TcpStream, id: &Value, session: &str) {
        let (send, said) = oneshot::channel();
        self.asked.lock().insert(session.to_owned(), send);
        head(out, "200 OK", "text/event-stream", "").await;
        let params = json!({"message": session, "requestedSchema": {"type": "object"}});
        event(out, &json!({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": params}))
            .await;
        let Ok(said) = said.await else { return };
        let content = json!([{"type": "text", "text": said.to_string()}]);
        event(out, &json!({"jsonrpc": "2.0", "id": id, "result": {"content": content}})).await;
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let (mut line, mut session, mut length) = (String::new(), String::new(), 0);
    stream.read_line(&mut line).await.ok()?;
    let method = line.split(' ').next()?.to_owned();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.parse().ok()?,
            "mcp-session-id" => value.clone_into(&mut session),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, session, body: serde_json::from_slice(&body).unwrap_or_default() })
}

/// What it says ends with its connection.
async fn head(out: &mut TcpStream, status: &str, kind: &str, more: &str) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n{more}\r\n");
    let _ = out.write_all(head.as_bytes()).await;
}

async fn event(out: &mut TcpStream, message: &Value) {
    let _ = out.write_all(format!("event: message\ndata: {message}\n\n").as_bytes()).await;
    let _ = out.flush().await;
}

async fn far() -> (Arc<Far>, Value) {
    let (far, address) = Far::start().await;
    (far, json!({"far": {"url": format!("http://{address}/mcp")}}))
}

#[tokio::test]
async fn what_is_asked_on_the_stream_of_a_call_is_for_who_waits_for_it() {
    let (far, servers) = far().await;
    let daemon = Daemon::with(servers).await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("far__look", json!({})).await;
    let question = client.question().await;
    assert_eq!(question["params"]["requestedSchema"], json!({"type": "object"}));
    client.says(&question, json!({"action": "accept", "content": {"n": 7}})).await;
    let heard = heard(&client.answer(id).await);
    assert_eq!((&heard["id"], &heard["result"]["content"]["n"]), (&json!(1), &json!(7)));
    let declared = far.declared.lock().clone();
    assert!(declared.iter().all(|declared| declared["elicitation"]["form"].is_object()), "{declared:?}");
    // What it asks on the stream that belongs to no call is for nobody.
    until("the answer to its other question", || !far.strangers.lock().is_empty()).await;
    assert_eq!(far.strangers.lock()[0]["error"]["code"], -32601);
}

#[tokio::test]
async fn a_newer_client_is_asked_through_a_parked_run_over_http_too() {
    let (_far, servers) = far().await;
    let daemon = Daemon::with(servers).await;
    let mut client = daemon.client().await;
    let asked = client.newer("far__look", json!({}), json!({})).await;
    let (name, _) = newer::only_question(&asked);
    let said = json!({"action": "accept", "content": {"n": 7}});
    let more = json!({"requestState": asked["result"]["requestState"], "inputResponses": {name: said}});
    let answer = client.newer("far__look", json!({}), more).await;
    assert_eq!(heard(&answer)["result"], said);
}

#[tokio::test]
async fn of_several_who_wait_the_earliest_who_can_is_asked_and_then_the_next() {
    let (_far, servers) = far().await;
    let daemon = Daemon::with(servers).await;
    let mut cannot = daemon.client().await;
    let mut able =
        [daemon.client_that(None, &everything()).await, daemon.client_that(None, &everything()).await];
    let first = able[0].begin("far__look", json!({})).await;
    let question = able[0].question().await;
    let plain = cannot.begin("far__look", json!({})).await;
    let second = able[1].begin("far__look", json!({})).await;
    daemon.has_waiters(3).await;
    assert_eq!(daemon.hub.calls.flights().executions(), 1);
    able[0].cancel(first).await;
    let again = able[1].question().await;
    assert_eq!(again["params"], question["params"]);
    // Who was asked before answers late: nothing comes of it.
    able[0].says(&question, json!({"action": "accept", "content": {"n": 1}})).await;
    able[1].says(&again, json!({"action": "accept", "content": {"n": 2}})).await;
    for (client, id) in [(&mut cannot, plain), (&mut able[1], second)] {
        assert_eq!(heard(&client.answer(id).await)["result"]["content"]["n"], 2);
    }
}

#[tokio::test]
async fn two_principals_never_share_a_question() {
    let (_far, servers) = far().await;
    let daemon = Daemon::start(servers, crate::sharing::two_principals()).await.unwrap();
    let mut clients = [
        daemon.client_that(Some(crate::sharing::TOKENS[0]), &everything()).await,
        daemon.client_that(Some(crate::sharing::TOKENS[1]), &everything()).await,
    ];
    let mut asked = Vec::new();
    for client in &mut clients {
        let id = client.begin("far__look", json!({})).await;
        asked.push((id, client.question().await));
    }
    assert_eq!(daemon.hub.calls.flights().executions(), 2, "equal calls of two principals are two");
    assert_ne!(
        asked[0].1["params"]["message"], asked[1].1["params"]["message"],
        "each has a session of its own"
    );
    for (n, client) in clients.iter_mut().enumerate() {
        client.says(&asked[1 - n].1, json!({"action": "accept", "content": {"n": "a stranger's"}})).await;
        client.says(&asked[n].1, json!({"action": "accept", "content": {"n": n}})).await;
        assert_eq!(heard(&client.answer(asked[n].0).await)["result"]["content"]["n"], n);
        assert!(client.wire.unasked().is_empty(), "one question each");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_takes_its_question_back() {
    let (far, servers) = far().await;
    let daemon = Daemon::with(servers).await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("far__look", json!({})).await;
    let question = client.question().await;
    far.asked.lock().clear();
    assert_eq!(code(&client.answer(id).await), "PROVIDER_ERROR");
    let taken_back = client.wire.find(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(taken_back["params"]["requestId"], question["id"]);
}
