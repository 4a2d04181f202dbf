//! Work that a test holds in its hands: it sees each piece begin and end, and says how.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as TaskContext, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::call::Calls;
use crate::deadline::Deadline;
use crate::provider::chat::{ChatProvider, ChatRequest};
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::PlainWork;

/// What a piece of work is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Answers with this text.
    Answer(String),
    /// Fails.
    Fail(Fault),
    /// Panics at its next poll.
    Panic,
}

impl Order {
    pub(crate) fn answer(text: &str) -> Self {
        Self::Answer(text.into())
    }

    /// A fault after which nobody knows whether the work was done.
    pub(crate) fn broken() -> Self {
        Self::Fail(Fault::Broken { provider: Arc::from("stage"), reason: "on purpose" })
    }

    /// A fault after which the work was surely not done.
    pub(crate) fn refused() -> Self {
        Self::status(400, None)
    }

    /// A refusal with this status, perhaps with when to come back, in seconds.
    pub(crate) fn status(status: u16, retry_after: Option<u64>) -> Self {
        let retry_after = retry_after.map(std::time::Duration::from_secs);
        Self::Fail(Fault::Refused { provider: Arc::from("stage"), status, code: None, retry_after })
    }
}

/// How far a piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Made ready, and not begun.
    Ready,
    /// At work.
    Running,
    /// It did as it was told.
    Ended,
    /// It was dropped before it had ended.
    CutOff,
}

/// What was held when a piece of work that had begun was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) provider: usize,
    pub(crate) global: usize,
    pub(crate) leases: usize,
}

#[derive(Debug)]
struct Piece {
    label: String,
    progress: Progress,
    order: Option<Order>,
    /// Polls that pass before the order is followed; each wakes itself.
    delay: u32,
    waker: Option<Waker>,
    started: Option<Instant>,
    deadline: Option<Deadline>,
    held: Option<Held>,
}

#[derive(Debug, Default)]
struct State {
    pieces: Vec<Piece>,
    running: usize,
    peak: usize,
    /// Labels of which two pieces were at work at once.
    doubled: Vec<String>,
    /// Where nobody gives orders: chosen at random as each piece begins.
    chance: Option<(fastrand::Rng, bool)>,
}

/// All work of a test.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    state: Mutex<State>,
    calls: OnceLock<Weak<Calls>>,
}

impl Stage {
    /// Whose permits are looked at when work is dropped.
    pub(super) fn watch(&self, calls: &Arc<Calls>) {
        let _ = self.calls.set(Arc::downgrade(calls));
    }

    /// From here on each piece does something at random, after a few polls; one in twelve panics, if it may.
    pub(crate) fn leave_to_chance(&self, seed: u64, may_panic: bool) {
        self.state.lock().chance = Some((fastrand::Rng::with_seed(seed), may_panic));
    }

    /// The piece that was made ready last: each call that is read makes one, whether it is used or not.
    pub(crate) fn last(&self) -> usize {
        self.state.lock().pieces.len() - 1
    }

    pub(crate) fn progress(&self, piece: usize) -> Progress {
        self.state.lock().pieces[piece].progress
    }

    pub(crate) fn started(&self, piece: usize) -> Option<Instant> {
        self.state.lock().pieces[piece].started
    }

    pub(crate) fn deadline(&self, piece: usize) -> Option<Deadline> {
        self.state.lock().pieces[piece].deadline
    }

    /// What was held when it was dropped.
    pub(crate) fn held(&self, piece: usize) -> Option<Held> {
        self.state.lock().pieces[piece].held
    }

    /// Labels of those at work, in the order in which they were made ready.
    pub(crate) fn running(&self) -> Vec<String> {
        let state = self.state.lock();
        let running = state.pieces.iter().filter(|piece| piece.progress == Progress::Running);
        running.map(|piece| piece.label.clone()).collect()
    }

    /// How many have begun, whatever became of them.
    pub(crate) fn begun(&self) -> usize {
        self.state.lock().pieces.iter().filter(|piece| piece.started.is_some()).count()
    }

    /// The most that were at work at once.
    pub(crate) fn peak(&self) -> usize {
        self.state.lock().peak
    }

    /// Labels of which two pieces were at work at once.
    pub(crate) fn doubled(&self) -> Vec<String> {
        self.state.lock().doubled.clone()
    }

    /// Labels that begin so and of which more than one piece was answered.
    #[cfg(feature = "shuttle")]
    pub(crate) fn answered_twice(&self, begin: &str) -> Vec<String> {
        let state = self.state.lock();
        let answered = |piece: &&Piece| {
            let is_answer = matches!(piece.order, Some(Order::Answer(_)));
            piece.label.starts_with(begin) && is_answer && piece.progress == Progress::Ended
        };
        let mut labels: Vec<_> = state.pieces.iter().filter(answered).map(|each| &each.label).collect();
        labels.sort();
        labels.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect()
    }

    /// The piece of this label that is at work.
    pub(crate) fn find(&self, label: &str) -> usize {
        let state = self.state.lock();
        let at_work = |piece: &Piece| piece.label == label && piece.progress == Progress::Running;
        state.pieces.iter().position(at_work).unwrap_or_else(|| panic!("{label} is not at work"))
    }

    /// Opens the gate of one piece.
    pub(crate) fn order(&self, piece: usize, order: Order) {
        let waker = {
            let mut state = self.state.lock();
            let piece = &mut state.pieces[piece];
            piece.order = Some(order);
            piece.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn make(self: &Arc<Self>, label: String, order: Option<Order>) -> Staged {
        let piece = Piece {
            label,
            progress: Progress::Ready,
            order,
            delay: 0,
            waker: None,
            started: None,
            deadline: None,
            held: None,
        };
        let mut state = self.state.lock();
        state.pieces.push(piece);
        Staged { stage: Arc::clone(self), piece: state.pieces.len() - 1 }
    }

    fn begin(&self, at: usize, deadline: Deadline) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let label = state.pieces[at].label.clone();
        if state.pieces.iter().any(|piece| piece.progress == Progress::Running && piece.label == label) {
            state.doubled.push(label.clone());
        }
        state.running += 1;
        state.peak = state.peak.max(state.running);
        let piece = &mut state.pieces[at];
        piece.progress = Progress::Running;
        piece.started = Some(Instant::now());
        piece.deadline = Some(deadline);
        if let Some((chance, may_panic)) = &mut state.chance {
            piece.delay = chance.u32(0..6);
            piece.order = Some(match chance.u32(0..12) {
                0 if *may_panic => Order::Panic,
                0 | 1 => Order::broken(),
                2 => Order::refused(),
                _ => Order::Answer(format!("{label} {at}")),
            });
        }
    }

    fn poll(&self, at: usize, cx: &TaskContext<'_>) -> Poll<Result<Reply, Fault>> {
        let order = {
            let mut state = self.state.lock();
            let piece = &mut state.pieces[at];
            if piece.delay > 0 {
                piece.delay -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(order) = piece.order.clone() else {
                piece.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            piece.progress = Progress::Ended;
            order
        };
        match order {
            Order::Answer(text) => Poll::Ready(Ok(Reply::text(&text))),
            Order::Fail(fault) => Poll::Ready(Err(fault)),
            Order::Panic => panic!("on purpose"),
        }
    }

    fn dropped(&self, at: usize) {
        let held = self.calls.get().and_then(Weak::upgrade).map(|calls| {
            let (global, providers) = calls.pools();
            let provider = providers.iter().map(|(_, view)| view.in_use).sum();
            Held { provider, global: global.in_use, leases: calls.leases().holders().len() }
        });
        let mut state = self.state.lock();
        let state = &mut *state;
        let piece = &mut state.pieces[at];
        if piece.started.is_some() {
            state.running -= 1;
            piece.held = held;
        }
        if piece.progress != Progress::Ended {
            piece.progress = Progress::CutOff;
        }
    }
}

/// One piece of work: ready, then at work, then gone.
struct Staged {
    stage: Arc<Stage>,
    piece: usize,
}

impl Future for Staged {
    type Output = Result<Reply, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.stage.poll(self.piece, cx)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.stage.dropped(self.piece);
    }
}

impl Job for Staged {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        self.stage.begin(self.piece, context.deadline);
        (*self).boxed()
    }
}

/// A tool that works on the stage. Its argument `k` is its label; `act` is an order it has from the start, or has it fail
/// before that.
pub(super) struct Act(pub(super) Arc<Stage>);

/// The same at any time, as that of other work: it is a part of what an equal call is.
impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Act")
    }
}

impl PlainWork for Act {
    fn job(&self, arguments: &Value) -> Box<dyn Job> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let order = match text("act") {
            Some("panic early") => panic!("on purpose"),
            Some("panic") => Some(Order::Panic),
            Some(text) => Some(Order::answer(text)),
            None => None,
        };
        Box::new(self.0.make(text("k").unwrap_or_default().to_owned(), order))
    }
}

/// A provider that works on the stage: the question, behind this, is the label.
#[derive(Debug)]
pub(super) struct Model(pub(super) Arc<Stage>, pub(super) &'static str);

impl ChatProvider for Model {
    fn chat(&self, request: ChatRequest, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let question = request.messages.last().map(|message| message.text.clone()).unwrap_or_default();
        let staged = Box::new(self.0.make(format!("{}{question}", self.1), None));
        staged.run(context)
    }
}
