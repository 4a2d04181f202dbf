//! Many callers of one daemon, through every stage of the path.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, RngCore, thread_rng};

use super::{Events, any, dawdle, in_every_interleaving};
use crate::call::tests::rig::{Rig, TOOLS};
use crate::call::{Answer, Caller, Code, News, Options, Priority, Submitted, Waiter};
use crate::ids::ExecutionId;
use crate::tasks::TaskKind;
use crate::tool::Dedup;

/// How labels of the tool with a TTL begin.
const KEPT: &str = "kept";
const CALLERS: u64 = 4;
const CALLS_EACH: u64 = 6;

/// What callers may do with a call under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// They wait, or lose their connection: nothing stops while it works.
    Calm,
    /// They take calls back, their patience ends, and the daemon goes down.
    Hasty,
}

struct Crowd {
    rig: Rig,
    temper: Temper,
    events: Events,
    submitted: AtomicU64,
    told: Mutex<HashMap<ExecutionId, String>>,
}

impl Crowd {
    fn new(temper: Temper, events: Events) -> Self {
        let up_to = |most: usize| thread_rng().gen_range(1..=most).to_string();
        let keys = [
            ("OFFLINE_MAX_INFLIGHT", up_to(3)),
            ("GLOBAL_MAX_INFLIGHT", up_to(3)),
            ("SESSION_MAX_INFLIGHT", up_to(3)),
            ("CONSENSUS_MAX_INFLIGHT", up_to(2)),
            ("EXECUTIONS_MAX", up_to(12)),
            ("WAITERS_MAX", up_to(4)),
            ("QUEUE_MAX", up_to(5)),
            // Time stands still here: who waited for its next attempt would wait for ever.
            ("RETRY_ATTEMPTS", "1".into()),
        ];
        let rig = Rig::new(&keys.each_ref().map(|(key, value)| (*key, &**value)));
        // A panic is not for this scheduler, which takes each for a failure: `stress` and `model` have them.
        rig.stage.leave_to_chance(thread_rng().next_u64(), false);
        Self { rig, temper, events, submitted: AtomicU64::new(0), told: Mutex::default() }
    }

    async fn calls(self: Arc<Self>, session: u64) {
        let caller = self.rig.caller(u32::try_from(session % 2).unwrap(), session);
        for _ in 0..CALLS_EACH {
            self.call(&caller).await;
            dawdle(1).await;
        }
        let slots = caller.session.slots.view();
        assert!(slots.in_use <= slots.limit);
    }

    /// A tool, its arguments, and how it is called.
    fn any_call(caller: &Caller) -> (&'static str, String, Options) {
        let priority = any(&[Priority::High, Priority::Medium, Priority::Low]);
        let number = thread_rng().gen_range(0..2);
        if thread_rng().gen_ratio(1, 6) {
            let models = if thread_rng().r#gen() { json!([{}, {}]) } else { json!([{}]) };
            let arguments =
                json!({"prompt": format!("p{number} of {}", caller.principal.id.0), "models": models});
            return ("consensus", arguments.to_string(), Options { priority, ..Options::default() });
        }
        if thread_rng().gen_ratio(1, 5) {
            let arguments = json!({"k": format!("{KEPT} {number} of {}", caller.principal.id.0)});
            return ("recite", arguments.to_string(), Options { priority, ..Options::default() });
        }
        let (tool, effect, _) = any(&TOOLS);
        let dedup = any(&[None, Some(effect.default_dedup()), Some(Dedup::Session)]);
        // The label says who may share, so that two pieces of work of one label are two of one key.
        let share = match dedup.unwrap_or(effect.default_dedup()) {
            Dedup::Principal => format!("principal {}", caller.principal.id.0),
            Dedup::Session => format!("session {}", caller.session.id.0),
            Dedup::Off => "nobody".into(),
        };
        let arguments = json!({"k": format!("{tool} {number} {share}")}).to_string();
        (tool, arguments, Options { priority, dedup, ..Options::default() })
    }

    async fn call(&self, caller: &Caller) {
        let (tool, arguments, options) = Self::any_call(caller);
        self.submitted.fetch_add(1, Ordering::Relaxed);
        self.events.happened();
        let mut waiter = match self.rig.submit(caller, tool, &arguments, options) {
            Submitted::Answered(answer) => return self.was_told(&answer, false),
            Submitted::Waiting(waiter) => waiter,
        };
        dawdle(3).await;
        match thread_rng().gen_range(0..8) {
            0 => {
                drop(waiter);
                self.events.happened();
            }
            1 if self.temper == Temper::Hasty => {
                let (handle, events) = (waiter.cancel_handle(), self.events.clone());
                let other = spawn(async move {
                    handle.cancel();
                    events.happened();
                });
                self.was_told(&answer(&mut waiter).await, true);
                other.await.unwrap();
            }
            2 if self.temper == Temper::Hasty => {
                let answer = waiter.give_up();
                self.was_told(&answer, true);
            }
            _ => self.was_told(&answer(&mut waiter).await, false),
        }
    }

    /// All of one Execution are told the same; and nothing that could not be.
    fn was_told(&self, answer: &Answer, may_leave: bool) {
        self.events.happened();
        let says = match &answer.outcome {
            Ok(reply) => reply.content().to_owned(),
            Err(error) => {
                let code = error.code();
                if may_leave && [Code::Cancelled, Code::Timeout].contains(&code) {
                    return;
                }
                let hasty = [Code::ShuttingDown];
                let always = [Code::ProviderError, Code::OutcomeUnknown, Code::OverCapacity];
                let may = always.contains(&code) || (self.temper == Temper::Hasty && hasty.contains(&code));
                assert!(may, "{error}");
                error.to_string()
            }
        };
        if let Some(execution) = answer.execution {
            assert_eq!(self.told.lock().entry(execution).or_insert_with(|| says.clone()), &says);
        }
    }

    /// Somebody who looks at everything meanwhile.
    async fn looks(self: Arc<Self>) {
        for _ in 0..6 {
            let (global, providers) = self.rig.calls.pools();
            for view in providers.into_iter().map(|(_, view)| view).chain([global]) {
                assert!(view.in_use <= view.limit, "{view:?}");
                assert!(view.queued == 0 || view.in_use == view.limit, "somebody waits beside a free permit");
            }
            self.rig.calls.leases().holders();
            self.rig.calls.flights().without_run();
            let _ = self.rig.calls.watch().list(crate::ids::PrincipalId(0));
            self.events.happened();
            dawdle(5).await;
        }
    }

    async fn goes_down(self: Arc<Self>) {
        dawdle(30).await;
        self.rig.calls.start_draining();
        self.events.happened();
        dawdle(5).await;
        if thread_rng().r#gen() {
            self.rig.calls.stop_all();
            self.events.happened();
        }
    }
}

async fn answer(waiter: &mut Waiter) -> Answer {
    loop {
        if let News::Answer(answer) = std::future::poll_fn(|cx| waiter.poll_news(cx)).await {
            return answer;
        }
    }
}

pub(super) fn run(temper: Temper, events: Events) {
    let crowd = Arc::new(Crowd::new(temper, events));
    let mut tasks: Vec<_> = (0..CALLERS).map(|session| spawn(Arc::clone(&crowd).calls(session))).collect();
    tasks.push(spawn(Arc::clone(&crowd).looks()));
    if temper == Temper::Hasty && thread_rng().gen_ratio(1, 4) {
        tasks.push(spawn(Arc::clone(&crowd).goes_down()));
    }
    block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
        while crowd.rig.tasks.live(TaskKind::Run) > 0 {
            shuttle::future::yield_now().await;
        }
    });
    crowd.rig.assert_at_rest();
    let totals = crowd.rig.calls.watch().lifecycle().totals();
    let ended = totals.completed + totals.timeout + totals.error + totals.cancelled + totals.rejected;
    assert_eq!(totals.calls, ended, "every call has one end");
    assert!(totals.calls >= crowd.submitted.load(Ordering::Relaxed), "every call has an end");
    if temper == Temper::Calm {
        let doubled = crowd.rig.stage.doubled();
        let shared: Vec<_> = doubled.iter().filter(|label| label.starts_with("look")).collect();
        assert!(shared.is_empty(), "{shared:?}");
        let again = crowd.rig.stage.answered_twice(KEPT);
        assert!(again.is_empty(), "worked on again while the result was kept: {again:?}");
    }
}

#[test]
fn in_every_interleaving_each_call_ends_once_and_nothing_is_left_held() {
    in_every_interleaving("hasty callers", |events| run(Temper::Hasty, events));
}

#[test]
fn in_every_interleaving_one_key_never_has_two_executions_at_once() {
    in_every_interleaving("calm callers", |events| run(Temper::Calm, events));
}
