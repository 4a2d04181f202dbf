//! A tool server over stdin and stdout, for the daemon to put its calls to: a line in, a line out, each written by
//! itself as servers do.

use std::io::{BufRead as _, Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(default)]
    params: Value,
}

/// Answers until its input ends.
pub fn serve() {
    let (mut lines, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        let asked: Asked<'_> = serde_json::from_str(&line).unwrap();
        if let Some(id) = asked.id {
            let result = answer(asked.method, &asked.params);
            let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{result}}}\n");
            out.write_all(answer.as_bytes()).unwrap();
            out.flush().unwrap();
        }
        line.clear();
    }
}

/// The member of an answer that says how it went.
fn answer(method: &str, params: &Value) -> String {
    let result = match method {
        "server/discover" => json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "bench", "version": "1"}},
        }),
        "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [{
            "name": "echo",
            "inputSchema": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
            "annotations": {"readOnlyHint": true},
        }]}),
        "tools/call" => {
            let text = &params["arguments"]["text"];
            json!({"resultType": "complete", "content": [{"type": "text", "text": text}]})
        }
        _ => return "\"error\":{\"code\":-32601,\"message\":\"no such method\"}".to_owned(),
    };
    format!("\"result\":{result}")
}
