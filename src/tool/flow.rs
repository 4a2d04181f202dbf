//! `execute_flow`: a graph of nodes that an editor saved is run, headless, in a folder of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, Ladder};
use crate::ids::{FlowId, PrincipalId};
use crate::provider::flow::file::{self, ReadError};
use crate::provider::flow::folder::{NoGraph, Site};
use crate::provider::flow::{engine, format, output};
use crate::provider::{Context, Fault, Job, Reply};
use crate::rate::Window;
use crate::tool::place::{Composite, Place};
use crate::tool::prompt::TimeoutClass;
use crate::tool::registry::{Prepared, Registration, RegistryError};
use crate::tool::{Asked, CustomWork, Effect, Registry, Unprepared, Work, Worth};

mod chat;

/// Its name, and that of its slots.
pub const NAME: &str = "execute_flow";

/// What a model chooses it by.
const DESCRIPTION: &str = "Run a flow: a graph of nodes, saved by the AICodePrep flow editor, that asks language models, \
    compares their answers and writes files. `graph_path` names its file in one of the daemon's flows folders, \
    `context_text` is the text that its context nodes give. The answer is the flow's output; files that it writes come \
    back as artifacts.";

const RATE_LIMITED: &str = "Error: Rate limit exceeded. Please try again later.";
const AT_CAPACITY: &str = "Error: Server is at capacity. Please try again later.";

/// Over which calls are counted.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// The longest path that is looked at.
const MOST_PATH_CHARS: usize = 4096;

/// Offers it, where a flows folder is configured.
///
/// # Errors
/// Another tool has its name.
pub fn offer(
    registry: &mut Registry,
    config: &Config,
    site: Site,
    ladder: &Ladder,
) -> Result<(), RegistryError> {
    chat::offer(registry, config, ladder)?;
    let rate = Window::new(config.flows.per_minute, RATE_WINDOW);
    let flows = Flows { site: Arc::new(site), rate };
    // Where it may write outside the folder that goes with it, something of it stays.
    let effect = if config.flows.writes.is_empty() { Effect::Read } else { Effect::Idempotent };
    let registration = Registration {
        name: NAME.into(),
        description: DESCRIPTION.into(),
        effect,
        worth: Worth::Paid,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        input_schema: input_schema(),
        counts_steps: true,
        work: Work::Custom(Box::new(flows)),
    };
    registry.register(registration, ladder)
}

fn input_schema() -> Map<String, Value> {
    let schema = json!({
        "type": "object",
        "required": ["graph_path", "context_text"],
        "additionalProperties": false,
        "properties": {
            "graph_path": {
                "type": "string", "minLength": 1, "maxLength": MOST_PATH_CHARS,
                "description": "The flow's file: relative to a flows folder of the daemon, or absolute and in one.",
            },
            "context_text": {
                "type": "string",
                "description": "The text that every context node of the flow gives: code, a question, both.",
            },
        },
    });
    schema.as_object().cloned().unwrap_or_default()
}

/// The flows that may be run.
struct Flows {
    site: Arc<Site>,
    rate: Window<PrincipalId>,
}

/// Whatever is part of a call's key, beside the file.
impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flows")
    }
}

impl CustomWork for Flows {
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared> {
        if self.rate.take(&asked.principal, Instant::now()).is_err() {
            return Err(answered(RATE_LIMITED));
        }
        if asked.slots.are_full(Composite::Flow) {
            return Err(answered(AT_CAPACITY));
        }
        let text = |name: &str| asked.arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        let path = text("graph_path");
        let file = self.site.graph(path).map_err(|error| match error {
            NoGraph::NotFound => answered(&format!("Error: Graph file not found at '{path}'")),
            NoGraph::Outside => answered(&format!("Error: '{path}' lies in no flows folder")),
            NoGraph::Io(error) => answered(&format!("Error: '{path}' cannot be opened: {}", error.kind())),
        })?;
        // It is read here, not later: what stands in it is part of the call's key.
        let graph = file::read(file).map_err(|error| match error {
            ReadError::Problem(problem) => answered(&not_loaded(path, &[problem])),
            ReadError::Io(error) => answered(&format!("Error: '{path}' cannot be read: {}", error.kind())),
        })?;
        let definition = xxh3_64(&graph);
        let run = Run {
            site: Arc::clone(&self.site),
            path: path.to_owned(),
            graph,
            context: Arc::from(text("context_text")),
        };
        let place = Place::Composite(Composite::Flow);
        Ok(Prepared { place, definition, is_settled: false, model: None, limit: None, job: Box::new(run) })
    }
}

fn failed(text: &str) -> Reply {
    let mut reply = Reply::text(text);
    reply.is_error = true;
    reply
}

fn answered(text: &str) -> Unprepared {
    Unprepared::Answered(Box::new(failed(text)))
}

fn not_loaded(path: &str, problems: &[crate::provider::flow::Problem]) -> String {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    format!("Error: Failed to load graph session: {path}: {}", problems.join("; "))
}

/// One run, ready to begin.
struct Run {
    site: Arc<Site>,
    /// As its caller named it.
    path: String,
    graph: Vec<u8>,
    context: Arc<str>,
}

impl Job for Run {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        (*self).go(context).boxed()
    }

    fn when_full(&self) -> Option<Reply> {
        Some(failed(AT_CAPACITY))
    }
}

impl Run {
    async fn go(self, given: Context) -> Result<Reply, Fault> {
        let Self { site, path, graph, context } = self;
        let Some(children) = given.children else {
            unreachable!("the path gives every composite a way to call, and this is one")
        };
        // Whoever called has its connection to look after: the first steps are not taken in its task.
        tokio::task::yield_now().await;
        let flow = match format::parse(&graph) {
            Ok(flow) => flow,
            Err(problems) => return Ok(failed(&not_loaded(&path, &problems))),
        };
        let id = FlowId::mint();
        let mut folder = match site.folder(id, &graph, &context) {
            Ok(folder) => folder,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(execution_id = %id, "a flow has no folder: {error}: {cause}");
                return Ok(failed("Error: The flow has no folder to work in; the daemon's log says why"));
            }
        };
        drop(graph);
        let nodes = flow.nodes().len();
        let log = Log::began(id, nodes);
        let ran = engine::run(&flow, &context, &mut folder, &children, &given.tell).await;
        drop(folder);
        log.ended(&ran);
        output::reply(id, &flow, &ran, &Arc::from(NAME), given.max_reply_bytes)
    }
}

/// Tells of a run's end, also of one that was stopped.
struct Log {
    id: FlowId,
    since: Instant,
    nodes: usize,
    has_ended: bool,
}

impl Log {
    fn began(id: FlowId, nodes: usize) -> Self {
        tracing::info!(execution_id = %id, nodes, "a flow begins");
        Self { id, since: Instant::now(), nodes, has_ended: false }
    }

    fn ended(mut self, ran: &engine::Ran) {
        self.has_ended = true;
        let (id, nodes) = (self.id, self.nodes);
        let is_failed = |ended: &&engine::Ended| matches!(ended.end, engine::End::Failed(_));
        let failed = ran.nodes.iter().filter(is_failed).count();
        let secs = self.since.elapsed().as_secs_f64();
        tracing::info!(execution_id = %id, nodes, failed, secs, "a flow has ended");
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.has_ended {
            let secs = self.since.elapsed().as_secs_f64();
            tracing::info!(execution_id = %self.id, nodes = self.nodes, secs, "a flow was stopped");
        }
    }
}
