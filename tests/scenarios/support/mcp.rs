//! A client of MCP over WebSocket.

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::wire::Wire;

/// What offers the subprotocol.
pub const OFFER: (&str, &str) = ("sec-websocket-protocol", "mcp");

pub struct Mcp {
    pub wire: Wire,
}

impl Mcp {
    /// A client that has initialized.
    pub async fn connect(daemon: &Daemon) -> Self {
        let mut client = Self { wire: Wire::open(daemon.address, "/", &[OFFER]).await.unwrap() };
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        client.request(json!("init"), "initialize", &params).await;
        let answer = client.answer(json!("init")).await;
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
        client.notify("notifications/initialized", &json!({})).await;
        client
    }

    pub async fn request(&mut self, id: Value, method: &str, params: &Value) {
        self.wire.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    }

    pub async fn notify(&mut self, method: &str, params: &Value) {
        self.wire.send(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Calls with this `_meta`, and waits for nothing.
    pub async fn call(&mut self, id: u64, tool: &str, arguments: &Value, meta: &Value) {
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.request(json!(id), "tools/call", &params).await;
    }

    pub async fn cancel(&mut self, id: u64) {
        self.notify("notifications/cancelled", &json!({"requestId": id})).await;
    }

    /// The response to a request.
    pub async fn answer(&mut self, id: Value) -> Value {
        self.wire.find(|message| message["id"] == id).await
    }

    /// The answer to a ping: whatever was sent before has been read by then.
    pub async fn ping(&mut self) {
        self.request(json!("ping"), "ping", &json!({})).await;
        self.answer(json!("ping")).await;
    }
}

/// The text of a result.
pub fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

/// The code of a failed call.
pub fn code(answer: &Value) -> &str {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    answer["result"]["_meta"]["inflightd/error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no code in {answer}"))
}

/// How the caller came to its answer.
pub fn role(answer: &Value) -> &str {
    answer["result"]["_meta"]["inflightd/role"].as_str().unwrap_or_else(|| panic!("no role in {answer}"))
}
