//! A Run that asks whoever waits for it: while somebody thinks, it gives its global permit back, and has it again before
//! the answer goes on to its server.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::call::attempts::Attempts;
use crate::call::budget::Budget;
use crate::call::flight::Flight;
use crate::call::outcome::CallError;
use crate::call::parked::PARKED_FOR;
use crate::call::permits::Lease;
use crate::call::queue::Permit;
use crate::deadline::Deadline;
use crate::ids::QuestionId;
use crate::lifecycle::Lifecycle;
use crate::provider::asking::{Ask, Can, Nobody, Question, Said};
use crate::provider::{Context, Fault, Job, Reply};
use crate::sync::Mutex;

/// Why work that may ask was ended.
pub(super) enum CutShort {
    /// Its deadline came.
    Late,
    /// There is no way on.
    Error(CallError),
}

/// Asks those who wait for one Run.
struct Asker {
    flight: Arc<Flight>,
    rest: Arc<Rest>,
    lifecycle: Arc<Lifecycle>,
}

/// Whether a Run works, or waits for somebody's answer.
#[derive(Debug, Default)]
pub(super) struct Rest {
    state: Mutex<State>,
    /// For the Run.
    moved: Notify,
    /// For those whose answers wait for the permit.
    has_permit: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Questions that somebody thinks about.
    asked: usize,
    /// Answers that wait for the permit.
    answered: usize,
    gave_back: bool,
    /// Questions whose caller was asked by a result, and has not come back.
    parked: usize,
}

/// What a Run should do about its permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Should {
    /// Nothing.
    Go,
    /// Give it back.
    GiveBack,
    /// Have it again.
    Return,
}

impl State {
    fn waits(&self) -> bool {
        self.asked > 0 && self.answered == 0
    }
}

impl Rest {
    fn should(&self) -> Should {
        let state = self.state.lock();
        match (state.gave_back, state.waits()) {
            (false, true) => Should::GiveBack,
            (true, false) => Should::Return,
            (true, true) | (false, false) => Should::Go,
        }
    }

    fn turn(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.moved.notify_one();
    }

    /// It is given back, unless an answer has come by now.
    fn gives_back(&self) -> bool {
        let mut state = self.state.lock();
        state.gave_back |= state.waits();
        state.gave_back
    }

    fn returned(&self) {
        self.state.lock().gave_back = false;
        self.has_permit.notify_waiters();
    }

    /// Cancel safe.
    async fn permit(&self) {
        loop {
            let mut returned = std::pin::pin!(self.has_permit.notified());
            returned.as_mut().enable();
            if !self.state.lock().gave_back {
                return;
            }
            returned.await;
        }
    }
}

/// A question whose caller was asked by a result: as long as there is one, the clock stands still.
#[derive(Debug)]
pub(super) struct Parking(Arc<Rest>);

impl Parking {
    pub(super) fn new(rest: &Arc<Rest>) -> Self {
        rest.turn(|state| state.parked += 1);
        Self(Arc::clone(rest))
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        self.0.turn(|state| state.parked -= 1);
    }
}

/// A Run that may ask. Once it is over, nobody waits for its permit any more.
struct Running<'a>(&'a Rest);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.returned();
    }
}

/// A question that somebody thinks about, or whose answer waits for the permit.
struct UnderWay {
    flight: Arc<Flight>,
    rest: Arc<Rest>,
    id: QuestionId,
    answered: bool,
}

impl UnderWay {
    fn is_answered(&mut self) {
        self.answered = true;
        self.rest.turn(|state| {
            state.asked -= 1;
            state.answered += 1;
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let answered = self.answered;
        self.rest.turn(|state| {
            let count = if answered { &mut state.answered } else { &mut state.asked };
            *count -= 1;
        });
        if !answered {
            self.flight.withdraw(self.id);
        }
    }
}

impl Ask for Asker {
    fn can(&self) -> Can {
        self.flight.can()
    }

    fn all_by_results(&self, needs: Can) -> bool {
        self.flight.all_can(needs.and(Can::BY_RESULTS))
    }

    fn is_there(&self) -> bool {
        self.flight.has_waiters()
    }

    fn ask(&self, question: Arc<Question>) -> BoxFuture<'static, Result<Said, Nobody>> {
        let (flight, rest) = (Arc::clone(&self.flight), Arc::clone(&self.rest));
        let lifecycle = Arc::clone(&self.lifecycle);
        async move {
            let id = QuestionId::mint();
            let answer = flight.ask(id, question, &rest).ok_or(Nobody)?;
            lifecycle.asked();
            rest.turn(|state| state.asked += 1);
            let mut under_way = UnderWay { flight, rest: Arc::clone(&rest), id, answered: false };
            let said = answer.await;
            if said.is_ok() {
                lifecycle.answered();
            }
            under_way.is_answered();
            rest.permit().await;
            said.map_err(|_| Nobody)
        }
        .boxed()
    }
}

impl Attempts<'_> {
    /// The work of a Run that may ask on its way, until its deadline.
    pub(super) async fn work_and_ask(
        &self,
        job: Box<dyn Job>,
        context: Context,
        lease: &mut Lease,
    ) -> Result<Result<Reply, Fault>, CutShort> {
        let deadline = context.deadline;
        let rest = Arc::<Rest>::default();
        let (flight, lifecycle) = (Arc::clone(self.flight), Arc::clone(&self.path.lifecycle));
        let asker = Asker { flight, rest: Arc::clone(&rest), lifecycle };
        let context = Context { ask: Some(Arc::new(asker)), ..context };
        let _running = Running(&rest);
        let work = job.run(context);
        let turns = self.turns(&rest, lease, Clock { deadline, stands: None });
        tokio::select! {
            biased;
            worked = work => Ok(worked),
            why = turns => Err(why),
        }
    }

    /// Gives the global permit back and takes it again, for as long as the work goes on; says why it cannot.
    async fn turns(&self, rest: &Rest, lease: &mut Lease, mut clock: Clock) -> CutShort {
        loop {
            if clock.turn(rest.state.lock().parked > 0, Instant::now()) {
                lease.due(clock.rings());
            }
            let rings = clock.rings();
            let should = rest.should();
            if should == Should::GiveBack {
                self.flight.stages().mark_asked();
                if rest.gives_back() {
                    lease.rest(Instant::now());
                }
                continue;
            }
            let moved = async {
                match should {
                    Should::Return => self.another(rings).await.map(Some),
                    Should::Go | Should::GiveBack => {
                        let is_out = rest.state.lock().gave_back;
                        tokio::select! {
                            () = rest.moved.notified() => Ok(None),
                            // Who waits for a person is answered as who waits for its turn.
                            () = self.path.closing.cancelled(), if is_out => Err(CallError::ShuttingDown),
                        }
                    }
                }
            };
            match rings.limit(moved).await {
                Ok(Ok(Some(permit))) => {
                    lease.goes_on(permit, Instant::now());
                    rest.returned();
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return CutShort::Error(error),
                Err(_) if clock.stands.is_none() => return CutShort::Late,
                // Whoever was asked by a result has not come back: the next one is asked, if there is one.
                Err(_) if self.flight.ask_instead_of_parked() => {}
                Err(_) => return CutShort::Error(CallError::Cancelled),
            }
        }
    }

    /// Another global permit, before those who never had one.
    async fn another(&self, until: Deadline) -> Result<Permit, CallError> {
        let (now, closing) = (Instant::now(), &self.path.closing);
        let Self { flight, caller, .. } = *self;
        let budget = Budget { flight, caller, since: now, until, closing, returns: true };
        budget.turn(&self.path.global, now).await.map(|(permit, _)| permit)
    }
}

/// The clock of a Run that may be parked.
struct Clock {
    deadline: Deadline,
    /// Since when it stands still.
    stands: Option<Instant>,
}

impl Clock {
    /// It stands still, or goes; says whether that is new.
    fn turn(&mut self, stands: bool, now: Instant) -> bool {
        match self.stands {
            None if stands => self.stands = Some(now),
            Some(since) if !stands => {
                self.deadline =
                    Deadline::since(self.deadline.instant(), now.saturating_duration_since(since));
                self.stands = None;
            }
            Some(_) | None => return false,
        }
        true
    }

    /// When the wait must be over.
    fn rings(&self) -> Deadline {
        self.stands.map_or(self.deadline, |since| Deadline::since(since, PARKED_FOR))
    }
}
