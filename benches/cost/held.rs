//! A tool whose calls are held until all that are to join have come.

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use inflightd::config::Ladder;
use inflightd::door::Hub;
use inflightd::provider::{Context, Fault, Job, Reply};
use inflightd::tool::registry::RegistryError;
use inflightd::tool::{Effect, PlainWork, Registry, Worth};
use serde_json::Value;
use tokio::sync::Notify;

use crate::wire::Tool;

/// The tool.
pub const HELD: Tool = Tool { name: "held", argument: "text" };

/// What lets its calls go.
#[derive(Debug, Default)]
pub struct Held {
    gate: Arc<Notify>,
    hub: OnceLock<Watched>,
}

struct Watched(Arc<Hub>);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a daemon")
    }
}

impl Held {
    /// Adds the tool.
    pub fn register(&self, registry: &mut Registry, ladder: &Ladder) -> Result<(), RegistryError> {
        let work = Box::new(Work { gate: Arc::clone(&self.gate) });
        registry.add_custom("held", Effect::Read, Worth::Cheap, work, ladder)
    }

    /// Where its calls are counted.
    pub fn watches(&self, hub: &Arc<Hub>) {
        let _ = self.hub.set(Watched(Arc::clone(hub)));
    }

    /// Waits until so many wait, then lets their work end.
    pub async fn let_go_once(&self, waiting: usize) {
        let Watched(hub) = self.hub.get().unwrap();
        while hub.calls.watch().active() < waiting {
            tokio::task::yield_now().await;
        }
        self.gate.notify_one();
    }
}

#[derive(Debug)]
struct Work {
    gate: Arc<Notify>,
}

impl PlainWork for Work {
    fn job(&self, arguments: &Value) -> Box<dyn Job> {
        let text = arguments["text"].as_str().unwrap_or_default().to_owned();
        Box::new(Once { gate: Arc::clone(&self.gate), text })
    }
}

struct Once {
    gate: Arc<Notify>,
    text: String,
}

impl Job for Once {
    fn run(self: Box<Self>, _context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            self.gate.notified().await;
            Ok(Reply::text(&self.text))
        }
        .boxed()
    }
}
