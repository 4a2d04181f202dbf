//! A daemon that runs flows, the folder they are in, and a client.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::model::Model;
use crate::support::daemon::Daemon;
use crate::support::mcp::{Mcp, OFFER};
use crate::support::program::Folder;
use crate::support::until;
use crate::support::wire::Wire;

pub struct Rig {
    pub daemon: Daemon,
    pub folder: Folder,
}

impl Rig {
    /// A daemon whose only provider is `offline`.
    pub async fn offline(keys: &[(&str, &str)]) -> Self {
        Self::start(None, keys).await
    }

    /// A daemon whose only other provider is this one, which `OpenRouterNode`s and those of no provider ask.
    pub async fn asking(model: &Model, keys: &[(&str, &str)]) -> Self {
        Self::start(Some(model), keys).await
    }

    async fn start(model: Option<&Model>, keys: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("flows")).unwrap();
        let mut all: Vec<(String, String)> = vec![
            ("FLOWS_DIRS".into(), folder.path("flows")),
            ("FLOWS_WORK_DIR".into(), folder.path("work")),
            ("FLOWS_PER_MINUTE".into(), "1000".into()),
            ("RETRY_ATTEMPTS".into(), "1".into()),
        ];
        if let Some(model) = model {
            all.push(("OPENROUTER_API_KEY".into(), "sk-configured".into()));
            all.push(("OPENROUTER_API_URL".into(), model.url()));
        }
        for (key, value) in keys {
            all.retain(|(name, _)| name != key);
            all.push(((*key).into(), (*value).into()));
        }
        Self { daemon: Daemon::with_toml(&all, "").await, folder }
    }

    /// Puts a flow into the flows folder.
    pub fn flow(&self, name: &str, flow: &Value) {
        self.folder.write(&format!("flows/{name}"), &flow.to_string());
    }

    pub async fn client(&self) -> Mcp {
        Mcp::connect(&self.daemon).await
    }

    /// Runs a flow, and waits for its result.
    pub async fn run(&self, path: &str, context: &str) -> Value {
        let mut client = self.client().await;
        call(&mut client, 1, path, context).await;
        client.answer(json!(1)).await
    }

    /// The folders of runs that are there.
    pub fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path("work")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Nothing is left of any run: no folder, no permit, no key.
    pub async fn at_rest(&self) {
        self.daemon.at_rest().await;
        until("no folder of a run", || self.folders().is_empty()).await;
    }
}

/// A client of a daemon that is a process of its own.
pub async fn connect(address: SocketAddr) -> Mcp {
    let mut client = Mcp { wire: Wire::open(address, "/", &[OFFER]).await.unwrap() };
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    client.request(json!("init"), "initialize", &params).await;
    client.answer(json!("init")).await;
    client.notify("notifications/initialized", &json!({})).await;
    client
}

/// Sends a call, with a token for its progress.
pub async fn call(client: &mut Mcp, id: u64, path: &str, context: &str) {
    let arguments = json!({"graph_path": path, "context_text": context});
    client.call(id, "execute_flow", &arguments, &json!({"progressToken": id})).await;
}

/// A node of a type, with its properties.
pub fn node(type_: &str, custom: &Value) -> Value {
    json!({"type_": format!("aicp.flow.{type_}"), "name": type_, "disabled": false, "custom": custom})
}

/// A flow of nodes by their ids, and of connections `from.port -> to.port`.
pub fn graph(nodes: &[(&str, Value)], connections: &[&str]) -> Value {
    let nodes: Map<String, Value> = nodes.iter().map(|(id, node)| ((*id).to_owned(), node.clone())).collect();
    let end = |text: &str| {
        let (node, port) = text.trim().split_once('.').unwrap();
        json!([node, port])
    };
    let connection = |text: &&str| {
        let (from, to) = text.split_once("->").unwrap();
        json!({"out": end(from), "in": end(to)})
    };
    json!({"graph": {}, "nodes": nodes, "connections": connections.iter().map(connection).collect::<Vec<_>>()})
}

/// A context, one question about it, and the answer as output.
pub fn single(custom: &Value) -> Value {
    graph(
        &[
            ("ctx", node("ContextOutputNode", &json!({}))),
            ("ask", node("OpenRouterNode", custom)),
            ("out", node("OutputDisplayNode", &json!({}))),
        ],
        &["ctx.text -> ask.text", "ask.text -> out.text"],
    )
}

/// What a result tells of a node.
pub fn told<'a>(answer: &'a Value, id: &str) -> &'a Value {
    let nodes = answer["result"]["structuredContent"]["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["id"] == id).unwrap_or_else(|| panic!("no node {id} in {answer}"))
}
