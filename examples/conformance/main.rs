//! The server that the conformance suite wants to find: its tools, prompts and resources, over stdio, in both eras of MCP.
//! `--older` knows only the era of `initialize`. Not shipped.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "it ends at the first surprise, which is what its tests are to see"
)]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

mod asking;
mod prompts;
mod resources;
mod tools;

pub(crate) const NEWER: &str = "2026-07-28";
const OLDER: &str = "2025-11-25";
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Why there is no result.
pub(crate) enum No {
    /// An error of JSON-RPC: code, message, data.
    Error(i64, String, Option<Value>),
    /// The newer era's way to ask.
    Ask(Value),
}

impl No {
    pub(crate) fn params(message: &str) -> Self {
        Self::Error(-32602, message.to_owned(), None)
    }
}

/// One process.
#[derive(Default)]
pub(crate) struct Server {
    is_older: bool,
    last_id: AtomicU64,
    asked: Mutex<HashMap<u64, Sender<Value>>>,
    capabilities: Mutex<Value>,
    /// The level of the older era, by its place among all.
    level: AtomicU8,
    /// Streams of the newer era, and what each wants to hear of.
    listening: Mutex<HashMap<String, Value>>,
    subscribed: Mutex<HashSet<String>>,
    has_more_tools: AtomicBool,
    has_more_prompts: AtomicBool,
}

/// One request.
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    pub(crate) params: Value,
    pub(crate) is_newer: bool,
}

fn main() {
    let server = Arc::new(Server {
        is_older: std::env::args().any(|argument| argument == "--older"),
        // In the older era nothing is logged before somebody asks for it.
        level: AtomicU8::new(u8::MAX),
        ..Server::default()
    });
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let message: Value = serde_json::from_str(&line).unwrap();
        match (message["method"].as_str(), message.get("id")) {
            (Some(method), Some(id)) => {
                let (method, id) = (method.to_owned(), id.clone());
                let params = message.get("params").cloned().unwrap_or_else(|| json!({}));
                let is_newer = params["_meta"].get(VERSION).is_some();
                let call = Call { server: Arc::clone(&server), params, is_newer };
                std::thread::spawn(move || call.serve(&method, &id));
            }
            (Some("notifications/cancelled"), None) => {
                let id = message["params"]["requestId"].to_string();
                server.listening.lock().unwrap().remove(&id);
            }
            (Some(_), None) => {}
            (None, id) => {
                let waits = id.and_then(|id| server.asked.lock().unwrap().remove(&id.as_u64()?));
                waits.unwrap().send(message).unwrap();
            }
        }
    }
}

impl Server {
    fn say(message: &Value) {
        let mut out = std::io::stdout().lock();
        // Whoever listened may have gone.
        let _ = writeln!(out, "{message}").and_then(|()| out.flush());
    }

    pub(crate) fn notify(method: &str, params: &Value) {
        Self::say(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Asks the client of the older era, and waits for its answer: the result, or why there is none.
    fn ask(&self, method: &str, params: &Value) -> Result<Value, No> {
        let (send, answer) = channel();
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        self.asked.lock().unwrap().insert(id, send);
        Self::say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let answer = answer.recv().unwrap();
        answer.get("result").cloned().ok_or_else(|| {
            let text = answer["error"]["message"].as_str().unwrap_or_default();
            No::Error(-32603, format!("{method}: {text}"), None)
        })
    }

    /// A list has changed: of `tools`, `prompts` or `resources`.
    pub(crate) fn changed(&self, list: &str) {
        let method = format!("notifications/{list}/list_changed");
        self.tell(&format!("{list}ListChanged"), &method, &json!({}));
        if self.is_older {
            Self::notify(&method, &json!({}));
        }
    }

    fn tell(&self, wanted: &str, method: &str, params: &Value) {
        for (id, wants) in &*self.listening.lock().unwrap() {
            if wants[wanted] == true {
                let mut params = params.clone();
                let id: Value = serde_json::from_str(id).unwrap();
                params["_meta"] = json!({ SUBSCRIPTION: id });
                Self::notify(method, &params);
            }
        }
    }

    fn describes() -> Value {
        json!({
            "tools": {"listChanged": true}, "prompts": {"listChanged": true},
            "resources": {"listChanged": true, "subscribe": true}, "completions": {}, "logging": {},
        })
    }
}

impl Call {
    fn serve(&self, method: &str, id: &Value) {
        let answer = match self.answer(method, id) {
            Ok(None) => return,
            Ok(Some(result)) => json!({"jsonrpc": "2.0", "id": id, "result": self.complete(result)}),
            Err(No::Ask(result)) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(No::Error(code, message, data)) => {
                let mut error = json!({"code": code, "message": message});
                if let Some(data) = data {
                    error["data"] = data;
                }
                json!({"jsonrpc": "2.0", "id": id, "error": error})
            }
        };
        Server::say(&answer);
    }

    fn complete(&self, mut result: Value) -> Value {
        if self.is_newer {
            result["resultType"] = json!("complete");
        }
        result
    }

    /// `None`: it stays open.
    fn answer(&self, method: &str, id: &Value) -> Result<Option<Value>, No> {
        let server = &self.server;
        let info = json!({"name": "conformance", "version": "1.0.0"});
        let result = match (method, self.is_newer && !server.is_older) {
            ("server/discover", true) => self.keeps(json!({
                "supportedVersions": [NEWER], "capabilities": Server::describes(),
                "_meta": {"io.modelcontextprotocol/serverInfo": info},
            })),
            ("subscriptions/listen", true) => {
                let mut listening = server.listening.lock().unwrap();
                listening.insert(id.to_string(), self.params["notifications"].clone());
                let params =
                    json!({"_meta": {SUBSCRIPTION: id}, "notifications": self.params["notifications"]});
                Server::notify("notifications/subscriptions/acknowledged", &params);
                return Ok(None);
            }
            ("initialize", false) => {
                *server.capabilities.lock().unwrap() = self.params["capabilities"].clone();
                json!({"protocolVersion": OLDER, "capabilities": Server::describes(), "serverInfo": info})
            }
            ("ping", false) => json!({}),
            ("logging/setLevel", false) => {
                server.level.store(place(&self.params["level"])?, Ordering::Relaxed);
                json!({})
            }
            ("resources/subscribe", false) => {
                server.subscribed.lock().unwrap().insert(self.text("uri")?.to_owned());
                json!({})
            }
            ("resources/unsubscribe", false) => {
                server.subscribed.lock().unwrap().remove(self.text("uri")?);
                json!({})
            }
            ("tools/list", _) => {
                self.keeps(json!({"tools": tools::list(server.has_more_tools.load(Ordering::Relaxed))}))
            }
            ("tools/call", _) => tools::call(self, self.text("name")?)?,
            ("prompts/list", _) => {
                self.keeps(json!({"prompts": prompts::list(server.has_more_prompts.load(Ordering::Relaxed))}))
            }
            ("prompts/get", _) => prompts::get(self, self.text("name")?)?,
            ("completion/complete", _) => prompts::complete(self)?,
            ("resources/list", _) => self.keeps(json!({"resources": resources::list()})),
            ("resources/templates/list", _) => {
                self.keeps(json!({"resourceTemplates": resources::templates()}))
            }
            ("resources/read", _) => self.keeps(resources::read(self, self.text("uri")?)?),
            _ => return Err(No::Error(-32601, format!("no method {method}"), None)),
        };
        Ok(Some(result))
    }

    /// What a client of the newer era may keep.
    fn keeps(&self, mut result: Value) -> Value {
        if self.is_newer {
            result["ttlMs"] = json!(0);
            result["cacheScope"] = json!("private");
        }
        result
    }

    fn text(&self, name: &str) -> Result<&str, No> {
        self.params[name].as_str().ok_or_else(|| No::params(&format!("{name} is missing")))
    }

    /// An argument of a tool or a prompt, as text.
    pub(crate) fn argument(&self, name: &str) -> &str {
        self.params["arguments"][name].as_str().unwrap_or_default()
    }

    /// Logs, if whoever calls wants to read it.
    pub(crate) fn log(&self, level: &str, text: &str) {
        let wanted = if self.is_newer {
            self.params["_meta"].get(LOG_LEVEL).and_then(|level| place(level).ok())
        } else {
            Some(self.server.level.load(Ordering::Relaxed))
        };
        if wanted.is_some_and(|wanted| place(&json!(level)).is_ok_and(|level| level >= wanted)) {
            let params = json!({"level": level, "logger": "conformance", "data": text});
            Server::notify("notifications/message", &params);
        }
    }

    pub(crate) fn progress(&self, progress: u64) {
        if let Some(token) = self.params["_meta"].get("progressToken") {
            let params = json!({"progressToken": token, "progress": progress, "total": 100});
            Server::notify("notifications/progress", &params);
        }
    }

    /// Whether the client declared this.
    pub(crate) fn can(&self, capability: &str) -> bool {
        if self.is_newer {
            return self.params["_meta"][CAPABILITIES].get(capability).is_some();
        }
        self.server.capabilities.lock().unwrap().get(capability).is_some()
    }

    pub(crate) fn changes_tools(&self) {
        self.server.has_more_tools.fetch_xor(true, Ordering::Relaxed);
        self.server.changed("tools");
    }

    pub(crate) fn changes_prompts(&self) {
        self.server.has_more_prompts.fetch_xor(true, Ordering::Relaxed);
        self.server.changed("prompts");
    }

    /// What was said to questions of an earlier round.
    pub(crate) fn responses(&self) -> Option<&Map<String, Value>> {
        self.params.get("inputResponses")?.as_object()
    }
}

/// Where a level stands among all.
fn place(level: &Value) -> Result<u8, No> {
    let place = LEVELS.iter().position(|known| level == known);
    let place = place.ok_or_else(|| No::params("that is no level"))?;
    Ok(u8::try_from(place).unwrap())
}
