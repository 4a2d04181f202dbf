//! A client of the op protocol.

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::wire::Wire;

pub struct Op {
    pub wire: Wire,
}

impl Op {
    /// A client that has said hello.
    pub async fn connect(daemon: &Daemon) -> Self {
        let mut client = Self::silent(daemon).await;
        let ack = client.hello(&json!({"op": "hello"})).await;
        assert_eq!(ack["ok"], true, "{ack}");
        client
    }

    /// A client that has said nothing yet.
    pub async fn silent(daemon: &Daemon) -> Self {
        Self { wire: Wire::open(daemon.address, "/", &[]).await.unwrap() }
    }

    pub async fn hello(&mut self, hello: &Value) -> Value {
        self.wire.send(hello).await;
        self.wire.find(|frame| frame["op"] == "hello_ack").await
    }

    /// Calls, and waits for nothing.
    pub async fn call(&mut self, id: &str, tool: &str, arguments: &Value) {
        self.call_with(id, tool, arguments, &json!({})).await;
    }

    /// The same with more members in the frame.
    pub async fn call_with(&mut self, id: &str, tool: &str, arguments: &Value, more: &Value) {
        let mut frame = json!({"op": "call_tool", "request_id": id, "name": tool, "arguments": arguments});
        frame.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.wire.send(&frame).await;
    }

    /// Asks `ask`, `put` or `post` something, and waits for nothing.
    pub async fn question(&mut self, id: &str, tool: &str, prompt: &str) {
        self.call(id, tool, &json!({"prompt": prompt})).await;
    }

    /// The end of a call.
    pub async fn answer(&mut self, id: &str) -> Value {
        self.wire.find(|frame| frame["op"] == "call_tool_res" && frame["request_id"] == id).await
    }

    /// Calls and waits for the end.
    pub async fn ask(&mut self, id: &str, tool: &str, arguments: &Value) -> Value {
        self.call(id, tool, arguments).await;
        self.answer(id).await
    }

    pub async fn cancel(&mut self, id: &str) {
        self.wire.send(&json!({"op": "cancel", "request_id": id})).await;
    }

    /// What a built-in tool says, as an object.
    pub async fn tell(&mut self, tool: &str, arguments: &Value) -> Value {
        let answer = self.ask(&format!("tell-{tool}"), tool, arguments).await;
        assert!(answer.get("error").is_none(), "{answer}");
        serde_json::from_str(text(&answer)).unwrap()
    }

    /// Waits until the work of a request that was left has ended, and returns what is known of it, and its outputs.
    pub async fn collected(&mut self, request: &Value) -> (Value, Vec<Value>) {
        loop {
            let answer = self.ask("collect", "get_request", &json!({"request_id": request})).await;
            let found: Value = serde_json::from_str(text(&answer)).unwrap();
            if found["work"]["state"] != "running" {
                return (found, answer["outputs"].as_array().unwrap()[1..].to_vec());
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

/// The text of a successful answer.
pub fn text(answer: &Value) -> &str {
    answer["outputs"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

/// The code of a failed one.
pub fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error in {answer}"))
}
