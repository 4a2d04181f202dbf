//! One caller that waits: it leaves at its own deadline, when it takes its call back, or when it is dropped
//! because its connection went. Whichever way, it ends exactly once.

use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::Submitted;
use crate::call::flight::{Flight, Leaving, SeatNo, Sight};
use crate::call::outcome::{self, CallError, Outcome};
use crate::call::parked;
use crate::call::queue::Priority;
use crate::call::reattach::Attached;
use crate::call::shown::Active;
use crate::call::told::{New, Seen as Told};
use crate::call::watch::Watch;
use crate::deadline::Deadline;
use crate::ids::{ContinuationId, ExecutionId, PrincipalId, QuestionId, RequestId};
use crate::lifecycle::{Record, Role, Seen, Spent};
use crate::phase::{Phase, Terminal};
use crate::provider::asking::{Can, Question, Said};
use crate::provider::{Fault, Level, Logged, Reply, Step};
use crate::tool::{Effect, Tool};

/// What a caller is told at the end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The daemon's own id of the call.
    pub request: RequestId,
    /// In which Execution it was worked on.
    pub execution: Option<ExecutionId>,
    /// How the caller came to it.
    pub role: Option<Role>,
    /// Who worked.
    pub provider: Option<Arc<str>>,
    /// Where its time went.
    pub spent: Spent,
    /// The reply, or why there is none.
    pub outcome: Outcome,
}

impl Answer {
    /// Whether the work was done for another call.
    fn is_shared(&self) -> bool {
        matches!(self.role, Some(Role::Follower | Role::Cache))
    }

    /// Who shared the reply that opened a conversation goes on with one of its own.
    pub(super) fn of_sharer(mut self) -> Self {
        let own = self.outcome.as_ref().ok().filter(|_| self.is_shared());
        if let Some(reply) = own.and_then(|reply| reply.for_sharer(self.request)) {
            self.outcome = Ok(Arc::new(reply));
        }
        self
    }

    /// The conversation that this caller may go on with.
    pub fn continuation(&self) -> Option<ContinuationId> {
        self.outcome.as_ref().ok()?.continuation(self.is_shared(), self.request)
    }

    /// An answer that needed no Execution.
    pub(super) fn at_once(
        request: RequestId,
        received: Instant,
        role: Role,
        provider: Option<Arc<str>>,
        outcome: Outcome,
    ) -> Self {
        let spent = Spent { total: received.elapsed(), ..Spent::default() };
        let provider = answered_by(&outcome).or(provider);
        Self { request, execution: None, role: Some(role), provider, spent, outcome }
    }
}

/// Who answered, where that is not whom the call was for.
fn answered_by(outcome: &Outcome) -> Option<Arc<str>> {
    outcome.as_ref().ok()?.provider.clone()
}

/// What a caller's connection cannot take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Its client gives up soon after: the call is answered then with where to collect its outcome, and goes on.
    pub answer_within: Option<Duration>,
    /// A reply with more bytes cannot be delivered whole: it is kept to be collected.
    pub reply_bytes: Option<usize>,
}

impl Bounds {
    /// Whether this outcome cannot be delivered whole.
    pub(super) fn are_passed_by(&self, outcome: &Outcome) -> bool {
        is_longer(outcome, self.reply_bytes)
    }
}

fn is_longer(outcome: &Outcome, limit: Option<usize>) -> bool {
    limit.is_some_and(|limit| outcome.as_ref().is_ok_and(|reply| reply.bytes() > limit))
}

/// What a waiter is told.
#[derive(Debug)]
pub enum News {
    /// More of the text that is being made.
    Text(String),
    /// The work has come further.
    Step(Step),
    /// A message of its log.
    Logged(Arc<Logged>),
    /// It is asked something.
    Question(QuestionId, Arc<Question>),
    /// What it was asked needs no answer any more.
    Withdrawn(QuestionId),
    /// The end.
    Answer(Answer),
}

/// One caller of one flight.
///
/// Dropping it before its answer is leaving because the connection went.
#[must_use = "a waiter that is dropped has left"]
pub struct Waiter {
    watch: Arc<Watch>,
    flight: Arc<Flight>,
    seat: SeatNo,
    request: RequestId,
    principal: PrincipalId,
    role: Role,
    received: Instant,
    patience: Duration,
    /// Why it leaves when its patience ends.
    then: Leaving,
    /// A larger reply is kept to be collected.
    keep_above: Option<usize>,
    seen: Option<Told>,
    /// What it can be asked for.
    can: Can,
    seated: bool,
    /// Where it is listed among the calls under way.
    place: Option<usize>,
    done: bool,
    /// Where it is found again when its connection goes.
    attached: Option<Attached>,
}

/// What makes a waiter.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// Its id.
    pub request: RequestId,
    /// For whom.
    pub principal: PrincipalId,
    /// When it was received.
    pub received: Instant,
    /// How long it waits at most.
    pub patience: Duration,
    /// Its class in every queue.
    pub priority: Priority,
    /// What its connection cannot take.
    pub bounds: Bounds,
    /// Whether it wants the text as it is made.
    pub wants_text: bool,
    /// From which level on it wants to read the log of the work.
    pub log: Option<Level>,
    /// What it can be asked for.
    pub can: Can,
}

impl Arrival {
    /// When its patience ends.
    pub(super) fn until(&self) -> Deadline {
        Deadline::since(self.received, self.patience)
    }
}

/// Takes a waiting call back from afar.
#[derive(Clone)]
pub struct CancelHandle {
    flight: Arc<Flight>,
    seat: SeatNo,
}

impl CancelHandle {
    /// Takes it back. Its waiter then answers that it was cancelled, unless it has landed by now.
    pub fn cancel(&self) {
        self.flight.cancel(self.seat);
    }
}

impl Waiter {
    pub(super) fn new(
        watch: Arc<Watch>,
        flight: Arc<Flight>,
        seat: SeatNo,
        role: Role,
        arrival: Arrival,
    ) -> Self {
        if let Some(level) = arrival.log {
            flight.wants_log(level);
        }
        let (patience, then) = match arrival.bounds.answer_within {
            Some(within) if within < arrival.patience => (within, Leaving::AnsweredEarly),
            Some(_) | None => (arrival.patience, Leaving::DeadlineCame),
        };
        Self {
            watch,
            flight,
            seat,
            request: arrival.request,
            principal: arrival.principal,
            role,
            received: arrival.received,
            patience,
            then,
            keep_above: arrival.bounds.reply_bytes,
            seen: (arrival.wants_text || arrival.log.is_some()).then(|| Told::nothing(arrival.log)),
            can: arrival.can,
            seated: true,
            place: None,
            done: false,
            attached: None,
        }
    }

    /// Can be found again when its connection goes.
    pub(super) fn attached(mut self, attached: Option<Attached>) -> Self {
        if let Some(attached) = &attached {
            attached.begin(self.request, self.seat, &self.flight);
        }
        self.attached = attached;
        self
    }

    /// Lists it among the calls under way.
    fn register(&mut self) {
        let (request, principal, role, received) = (self.request, self.principal, self.role, self.received);
        let active = Active { request, principal, role, received, flight: Arc::clone(&self.flight) };
        self.place = Some(self.watch.began(active));
    }

    /// Whether its work numbers its own progress.
    pub fn counts_steps(&self) -> bool {
        self.flight.tool().counts_steps
    }

    /// Its id.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Where it sits.
    pub(super) fn seat(&self) -> (&Arc<Flight>, SeatNo) {
        (&self.flight, self.seat)
    }

    /// What takes it back from afar.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { flight: Arc::clone(&self.flight), seat: self.seat }
    }

    /// What becomes of its call: one that has landed already needs no place among those under way, no timer and no
    /// waker.
    pub(super) fn submitted(mut self) -> Submitted {
        if let Some(outcome) = self.flight.outcome().cloned() {
            return Submitted::Answered(self.landed(outcome));
        }
        self.register();
        Submitted::Waiting(self)
    }

    /// The next thing it is told.
    ///
    /// Cancel safe: nothing is lost between two polls.
    pub fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        loop {
            return match ready!(self.flight.look(self.seat, self.seen.as_mut(), cx)) {
                Sight::New(New::Text(text)) => Poll::Ready(News::Text(text)),
                Sight::New(New::Step(step)) => Poll::Ready(News::Step(step)),
                Sight::New(New::Logged(logged)) => Poll::Ready(News::Logged(logged)),
                Sight::Asked(id, question) if self.can.covers(Can::BY_RESULTS) => {
                    match self.park(id, question) {
                        Some(answer) => Poll::Ready(News::Answer(answer)),
                        // Somebody else is asked, or it is over.
                        None => continue,
                    }
                }
                Sight::Asked(id, question) => Poll::Ready(News::Question(id, question)),
                Sight::Withdrawn(id) => Poll::Ready(News::Withdrawn(id)),
                Sight::Landed(outcome) => Poll::Ready(News::Answer(self.landed(outcome))),
                Sight::Cancelled => Poll::Ready(News::Answer(self.end(Err(Arc::new(CallError::Cancelled))))),
            };
        }
    }

    /// It is asked by a result: with that its call ends, and another one goes on with the same Run.
    fn park(&mut self, id: QuestionId, question: Arc<Question>) -> Option<Answer> {
        let mut asked = vec![(id, question)];
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.flight.look(self.seat, None, &mut cx) {
                Poll::Ready(Sight::Asked(id, question)) => asked.push((id, question)),
                Poll::Ready(Sight::Withdrawn(id)) => asked.retain(|(asked, _)| *asked != id),
                Poll::Ready(Sight::New(_)) | Poll::Pending => break,
                Poll::Ready(Sight::Landed(_) | Sight::Cancelled) => return None,
            }
        }
        if asked.is_empty() {
            return None;
        }
        let ids = asked.iter().map(|(id, _)| *id).collect();
        let parked = self.watch.parked();
        let Some(state) = parked.park(self.principal, &self.flight, self.seat, ids) else {
            self.flight.ask_behind(self.seat);
            return None;
        };
        if !self.flight.park(self.seat) {
            parked.forget(state);
            return None;
        }
        self.seated = false;
        self.leave_behind();
        Some(self.end(Ok(Arc::new(Reply::asking(parked::members(&asked, state))))))
    }

    /// It was asked this, and says so. Whether anybody still wants to know.
    pub fn said(&self, id: QuestionId, said: Said) -> bool {
        self.flight.said(self.seat, id, said)
    }

    /// The answer, within its own deadline; text on the way is passed over.
    ///
    /// Cancel safe.
    pub async fn answer(&mut self) -> Answer {
        let answered = Deadline::since(self.received, self.patience)
            .limit(async {
                loop {
                    if let News::Answer(answer) = std::future::poll_fn(|cx| self.poll_news(cx)).await {
                        return answer;
                    }
                }
            })
            .await;
        answered.unwrap_or_else(|_| self.give_up())
    }

    /// When it was received.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// When its own deadline comes. Whoever polls it watches the clock: one timer serves all calls of a connection.
    pub fn until(&self) -> Instant {
        Deadline::since(self.received, self.patience).instant()
    }

    /// Its wait is over: it leaves with an answer that says so.
    pub fn give_up(&mut self) -> Answer {
        // It may have landed, or been taken back, since this waiter last looked.
        match self.flight.look(self.seat, None, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Sight::Landed(outcome)) => return self.landed(outcome),
            Poll::Ready(Sight::Cancelled) => return self.end(Err(Arc::new(CallError::Cancelled))),
            Poll::Ready(Sight::New(_) | Sight::Asked(..) | Sight::Withdrawn(_)) | Poll::Pending => {}
        }
        let still_running = self.leave(self.then);
        self.leave_behind();
        if still_running {
            self.watch.keep(self.request, self.principal, Terminal::Timeout, &self.flight);
        }
        let (request, after) = (self.request, self.patience);
        let error = if still_running && self.then == Leaving::AnsweredEarly {
            CallError::AnsweredEarly { request, after }
        } else {
            CallError::WaiterTimeout { request, after, still_running }
        };
        self.end(Err(Arc::new(error)))
    }

    fn leave(&mut self, why: Leaving) -> bool {
        std::mem::take(&mut self.seated) && self.flight.leave(self.seat, why)
    }

    /// The work may go on, and its outcome be asked for.
    fn leave_behind(&mut self) {
        if let Some(attached) = self.attached.take() {
            attached.leave(self.request);
        }
    }

    /// Its flight has landed, and knows of its seat no more.
    fn landed(&mut self, outcome: Outcome) -> Answer {
        self.seated = false;
        let outcome = match outcome {
            Ok(reply) if reply.asks && !self.can.covers(Can::BY_RESULTS) => Err(self.cannot_be_asked()),
            outcome => outcome,
        };
        self.end(outcome)
    }

    /// It came when its server had decided to ask by the result.
    fn cannot_be_asked(&self) -> Arc<CallError> {
        let reason = "it asks something, and your client did not say that it can be asked";
        let provider = Arc::clone(self.flight.provider());
        Arc::new(CallError::Provider(Fault::Broken { provider, reason }))
    }

    fn end(&mut self, outcome: Outcome) -> Answer {
        self.done = true;
        if let Some(attached) = self.attached.take() {
            let taken_back = matches!(&outcome, Err(error) if **error == CallError::Cancelled);
            if taken_back { attached.forget(self.request) } else { attached.keep(self.request) }
        }
        // After the call was taken back, this only clears the seat.
        self.leave(Leaving::Cancelled);
        if is_longer(&outcome, self.keep_above) {
            self.watch.keep(self.request, self.principal, Terminal::Completed, &self.flight);
        }
        self.watch.shared(Some(self.role), &outcome);
        let answer = Answer {
            request: self.request,
            execution: Some(self.flight.execution()),
            role: Some(self.role),
            provider: answered_by(&outcome).or_else(|| Some(Arc::clone(self.flight.provider()))),
            spent: self.spent(Instant::now()),
            outcome,
        }
        .of_sharer();
        let mut record = record(self.principal, Arc::clone(&self.flight.tool().name), &answer);
        record.seen = Some(Seen::of(&self.flight, self.received));
        if record.model.is_none() {
            record.model.clone_from(&self.flight.about().model);
        }
        self.watch.ended(record, self.place.take());
        answer
    }

    /// Stages of the Execution count from when this waiter came: a follower did not wait before.
    fn spent(&self, now: Instant) -> Spent {
        let stages = self.flight.stages();
        let late = self.received.saturating_duration_since(stages.start());
        let since = |phase| stages.at(phase).map(|at| at.saturating_sub(late));
        let total = now.saturating_duration_since(self.received);
        let between = |from, to| match (since(from), since(to)) {
            (Some(from), Some(to)) => to.saturating_sub(from),
            (Some(from), None) => total.saturating_sub(from),
            _ => Duration::ZERO,
        };
        Spent {
            total,
            queue: between(Phase::Queued, Phase::Dequeued),
            permit: between(Phase::Dequeued, Phase::SessionAllocated),
            provider: between(Phase::ProviderCallStart, Phase::ProviderCallEnd),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let collectable = self.leave(Leaving::ConnectionGone);
        self.leave_behind();
        if collectable && self.flight.tool().effect != Effect::Read {
            self.watch.keep(self.request, self.principal, Terminal::Cancelled, &self.flight);
        }
        // Nobody is there to be answered; the call's record still ends once.
        self.end(Err(Arc::new(CallError::Cancelled)));
    }
}

/// The record of a finished call.
pub(super) fn record(principal: PrincipalId, tool: Arc<str>, answer: &Answer) -> Record {
    let error = answer.outcome.as_ref().err();
    Record {
        request: answer.request,
        execution: answer.execution,
        principal,
        tool,
        provider: answer.provider.clone(),
        model: answer.outcome.as_ref().ok().and_then(|reply| reply.model.clone()),
        role: answer.role,
        terminal: outcome::terminal(&answer.outcome),
        code: error.map(|error| error.code().label()),
        refusal: error.and_then(|error| error.refusal()),
        spent: answer.spent,
        seen: None,
    }
}

/// The name under which a tool is recorded.
pub(super) fn recorded_name(tool: Option<&Arc<Tool>>) -> Arc<str> {
    tool.map_or_else(|| Arc::from("unknown"), |tool| Arc::clone(&tool.name))
}
