//! One run: each node starts as soon as those that it waits for have ended, and a few ask at once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::provider::flow::folder::{Folder, NoWrite, Target};
use crate::provider::flow::graph::{Flow, Node};
use crate::provider::flow::kind::{CONTEXT_PATH, NodeKind, Port};
use crate::provider::flow::problem::Shown;
use crate::provider::flow::question::{ASKS, NoQuestion, Question, judge};
use crate::provider::submit::{Child, ChildFailed, Submit};
use crate::provider::{Reply, Step, Tell, content};

/// Nodes of a run that are at work at once.
pub const AT_ONCE: usize = 5;
/// What the models may answer to the nodes of one run together: it is held in memory.
pub const MOST_TEXT_BYTES: usize = 256 << 20;
/// The longest question that is asked: as much as one frame brings, by default.
const MOST_QUESTION_BYTES: usize = 32 << 20;
/// Nodes that end at once are so many before others get a turn.
const IN_A_ROW: usize = 64;

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It did what it does.
    Succeeded,
    /// It is disabled, or got nothing to work on.
    Skipped,
    /// It did not, and made no output.
    Failed(String),
}

impl End {
    /// Its name in the result.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed(_) => "failed",
        }
    }
}

/// What became of a node.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub end: End,
    /// How long it took.
    pub took: Duration,
    /// What it made, or kept: the text of a node whose text is the flow's output, too.
    pub text: Option<Arc<str>>,
}

/// Something that a run leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// What it is called.
    pub name: String,
    /// What is in it.
    pub text: Arc<str>,
    /// Whether it is a file outside the run's own folder.
    pub stays: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// What became of each node, in the order of the file.
    pub nodes: Vec<Ended>,
    /// What it leaves, in the order in which it was written.
    pub artifacts: Vec<Artifact>,
}

/// Why a node failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Write(#[from] NoWrite),
    #[error(transparent)]
    Question(#[from] NoQuestion),
    #[error("{}: {}", .0.code, .0.message)]
    Child(ChildFailed),
    #[error("{0}")]
    Said(String),
    #[error("What it would ask is longer than {MOST_QUESTION_BYTES} bytes.")]
    TooLong,
    #[error("The models have answered more than {MOST_TEXT_BYTES} bytes in this run.")]
    TooMuch,
}

/// What a node that was begun does.
enum Begun {
    Ended(End, Option<Arc<str>>),
    Asks(Child),
}

/// A child under way: whose it is, and since when.
type Asking = BoxFuture<'static, (usize, Instant, Result<Arc<Reply>, ChildFailed>)>;

/// Runs a flow. Whoever drops this takes its children back.
pub async fn run(
    flow: &Flow,
    context: &Arc<str>,
    folder: &mut Folder,
    children: &Arc<dyn Submit>,
    tell: &Arc<dyn Tell>,
) -> Ran {
    let mut engine = Engine::new(flow, Arc::clone(context), folder, tell);
    let mut asking: FuturesUnordered<Asking> = FuturesUnordered::new();
    let mut in_a_row = 0;
    loop {
        while asking.len() < AT_ONCE
            && let Some(place) = engine.ready.pop_front()
        {
            let begun = Instant::now();
            match engine.begin(place) {
                Ok(Begun::Asks(child)) => {
                    let end = children.submit(child);
                    asking.push(Box::pin(async move { (place, begun, end.await) }));
                    continue;
                }
                Ok(Begun::Ended(end, text)) => engine.ended(place, begun, end, text),
                Err(failure) => engine.failed(place, begun, &failure),
            }
            in_a_row += 1;
            if in_a_row % IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
        let Some((place, begun, answer)) = asking.next().await else { break };
        match engine.answered(place, answer) {
            Ok(text) => engine.ended(place, begun, End::Succeeded, Some(text)),
            Err(failure) => engine.failed(place, begun, &failure),
        }
    }
    engine.ran()
}

struct Engine<'a> {
    flow: &'a Flow,
    context: Arc<str>,
    folder: &'a mut Folder,
    tell: &'a Arc<dyn Tell>,
    /// Those that nothing keeps from starting.
    ready: VecDeque<usize>,
    /// How many connections each still waits for.
    waits: Vec<usize>,
    /// Whom each keeps waiting, once for each connection.
    followers: Vec<Vec<usize>>,
    nodes: Vec<Option<Ended>>,
    done: usize,
    failed: usize,
    /// How many equal children there were.
    asked: HashMap<String, u32>,
    answered_bytes: usize,
    artifacts: Vec<Artifact>,
    /// Where among them each file stands, by its name.
    written: HashMap<String, usize>,
}

impl<'a> Engine<'a> {
    fn new(flow: &'a Flow, context: Arc<str>, folder: &'a mut Folder, tell: &'a Arc<dyn Tell>) -> Self {
        let count = flow.nodes().len();
        let (mut waits, mut followers) = (vec![0_usize; count], vec![Vec::new(); count]);
        for link in flow.links() {
            if let (Some(waits), Some(followers)) = (waits.get_mut(link.to), followers.get_mut(link.from)) {
                *waits += 1;
                followers.push(link.to);
            }
        }
        let ready = waits.iter().enumerate().filter(|(_, waits)| **waits == 0).map(|(place, _)| place);
        let ready = ready.collect();
        Self {
            flow,
            context,
            folder,
            tell,
            ready,
            waits,
            followers,
            nodes: vec![None; count],
            done: 0,
            failed: 0,
            asked: HashMap::new(),
            answered_bytes: 0,
            artifacts: Vec::new(),
            written: HashMap::new(),
        }
    }

    /// What comes into a port.
    fn input(&self, place: usize, port: Port) -> Option<Arc<str>> {
        let (_, from) = self.flow.inputs(place).iter().find(|(each, _)| *each == port)?;
        let ended = self.nodes.get(*from)?.as_ref()?;
        ended.text.clone()
    }

    fn begin(&mut self, place: usize) -> Result<Begun, Failure> {
        let Some(node) = self.flow.nodes().get(place) else { unreachable!("only places of nodes are ready") };
        if node.disabled {
            return Ok(Begun::Ended(End::Skipped, None));
        }
        let text = || self.input(place, Port::Text).filter(|text| !text.is_empty());
        let nothing = Ok(Begun::Ended(End::Skipped, None));
        match node.kind {
            NodeKind::ContextOutput => Ok(Begun::Ended(End::Succeeded, Some(Arc::clone(&self.context)))),
            NodeKind::OutputDisplay => Ok(text().map_or(Begun::Ended(End::Skipped, None), kept)),
            NodeKind::Clipboard => {
                let Some(text) = text() else { return nothing };
                let name = "clipboard".to_owned();
                self.artifacts.push(Artifact { name, text: Arc::clone(&text), stays: false });
                Ok(kept(text))
            }
            NodeKind::FileWrite => {
                let Some(text) = text() else { return nothing };
                let target = self.folder.target(node.custom.path.as_deref().unwrap_or(CONTEXT_PATH))?;
                self.write(&target, &text)?;
                Ok(kept(text))
            }
            NodeKind::OpenRouter
            | NodeKind::OpenAi
            | NodeKind::Gemini
            | NodeKind::OpenAiCompatible
            | NodeKind::BestOfN => self.ask(place, node),
        }
    }

    /// A child, where there is something to ask.
    fn ask(&mut self, place: usize, node: &Node) -> Result<Begun, Failure> {
        let nothing = Ok(Begun::Ended(End::Skipped, None));
        let (system, text) = if node.kind == NodeKind::BestOfN {
            let Some(context) = self.input(place, Port::Context) else { return nothing };
            let mut inputs: Vec<_> = self.flow.inputs(place).iter().map(|(port, _)| *port).collect();
            inputs.sort_unstable();
            let candidates = inputs.into_iter().filter(|port| matches!(port, Port::Candidate(_)));
            let candidates: Vec<_> = candidates.filter_map(|port| self.input(place, port)).collect();
            if candidates.iter().map(|text| text.len()).sum::<usize>() > MOST_QUESTION_BYTES {
                return Err(Failure::TooLong);
            }
            let judged = judge(node.custom.extra_prompt.as_deref(), &context, &candidates);
            let Some(text) = judged else { return nothing };
            (None, Arc::from(text))
        } else {
            let text = self.input(place, Port::Text).filter(|text| !text.trim().is_empty());
            let Some(text) = text else { return nothing };
            (self.input(place, Port::System), text)
        };
        if text.len() + system.as_ref().map_or(0, |system| system.len()) > MOST_QUESTION_BYTES {
            return Err(Failure::TooLong);
        }
        // A path that leads nowhere is found before anything is paid for.
        if let Some(path) = &node.custom.output_file {
            self.folder.target(path)?;
        }
        let arguments = Question::of(node, system.as_deref(), &text)?.arguments();
        let equal = self.asked.entry(digest(&arguments)).or_default();
        let ordinal = *equal;
        *equal += 1;
        Ok(Begun::Asks(Child { tool: Arc::from(ASKS), arguments, ordinal }))
    }

    /// The text that was answered, written where the node wants it, too.
    fn answered(
        &mut self,
        place: usize,
        answer: Result<Arc<Reply>, ChildFailed>,
    ) -> Result<Arc<str>, Failure> {
        let reply = answer.map_err(Failure::Child)?;
        let text: Arc<str> = content::text(reply.content()).into();
        if reply.is_error {
            return Err(Failure::Said(Shown::new(&text).to_string()));
        }
        self.answered_bytes += text.len();
        if self.answered_bytes > MOST_TEXT_BYTES {
            return Err(Failure::TooMuch);
        }
        let node = self.flow.nodes().get(place);
        if let Some(path) = node.and_then(|node| node.custom.output_file.as_deref())
            && !text.is_empty()
        {
            let target = self.folder.target(path)?;
            self.write(&target, &text)?;
        }
        Ok(text)
    }

    fn write(&mut self, target: &Target, text: &Arc<str>) -> Result<(), Failure> {
        self.folder.write(target, text)?;
        let artifact = Artifact { name: target.name(), text: Arc::clone(text), stays: target.stays() };
        // Of a file that was written twice, the last is left.
        match self.written.entry(artifact.name.clone()) {
            Entry::Occupied(place) => {
                if let Some(before) = self.artifacts.get_mut(*place.get()) {
                    *before = artifact;
                }
            }
            Entry::Vacant(place) => {
                place.insert(self.artifacts.len());
                self.artifacts.push(artifact);
            }
        }
        Ok(())
    }

    fn failed(&mut self, place: usize, begun: Instant, failure: &Failure) {
        self.failed += 1;
        self.ended(place, begun, End::Failed(failure.to_string()), None);
    }

    fn ended(&mut self, place: usize, begun: Instant, end: End, text: Option<Arc<str>>) {
        if let Some(node) = self.nodes.get_mut(place) {
            *node = Some(Ended { end, took: begun.elapsed(), text });
        }
        self.done += 1;
        for follower in self.followers.get(place).into_iter().flatten() {
            if let Some(waits) = self.waits.get_mut(*follower) {
                *waits -= 1;
                if *waits == 0 {
                    self.ready.push_back(*follower);
                }
            }
        }
        let total = self.nodes.len();
        let failures = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let message = format!("{} of {total} nodes done{failures}", self.done);
        self.tell.step(Step { progress: count(self.done), total: Some(count(total)), message });
    }

    fn ran(self) -> Ran {
        let nodes = self.nodes.into_iter().map(|ended| {
            ended.unwrap_or_else(|| unreachable!("a flow has no circle, so that every node becomes ready"))
        });
        Ran { nodes: nodes.collect(), artifacts: self.artifacts }
    }
}

fn kept(text: Arc<str>) -> Begun {
    Begun::Ended(End::Succeeded, Some(text))
}

/// Stands for arguments: they are not to be held once more.
fn digest(arguments: &str) -> String {
    blake3::hash(arguments.as_bytes()).to_hex().to_string()
}

/// There are at most so many as a flow has nodes.
fn count(nodes: usize) -> f64 {
    u32::try_from(nodes).map_or(f64::MAX, f64::from)
}
