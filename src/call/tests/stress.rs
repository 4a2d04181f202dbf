//! Many callers on a real runtime of two threads: whatever the interleaving, the sums are right at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::call::tests::rig::{Rig, TOOLS, end, secs};
use crate::call::{Answer, CallError, Caller, Code, Options, Submitted};
use crate::deadline::Deadline;
use crate::ids::ExecutionId;
use crate::tasks::TaskKind;
use crate::tool::Dedup;

const CALLERS: u64 = 16;
const CALLS_EACH: u64 = 300;

/// What callers may do with a call under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Temper {
    /// They wait, or lose their connection: nothing stops while it works.
    Calm,
    /// They take calls back as well.
    Hasty,
}

/// Callers of one test, and what they were told.
struct Crowd {
    rig: Rig,
    temper: Temper,
    submitted: AtomicU64,
    told: Mutex<HashMap<ExecutionId, String>>,
}

impl Crowd {
    fn new(temper: Temper, seed: u64) -> Arc<Self> {
        let keys = [
            ("OFFLINE_MAX_INFLIGHT", "4"),
            ("GLOBAL_MAX_INFLIGHT", "3"),
            ("SESSION_MAX_INFLIGHT", "3"),
            ("EXECUTIONS_MAX", "12"),
            ("WAITERS_MAX", "6"),
            ("QUEUE_MAX", "5"),
        ];
        let rig = Rig::new(&keys);
        rig.stage.leave_to_chance(seed, true);
        Arc::new(Self { rig, temper, submitted: AtomicU64::new(0), told: Mutex::default() })
    }

    async fn calls(self: Arc<Self>, session: u64) {
        let mut chance = fastrand::Rng::with_seed(session);
        let principal = u32::try_from(session % 2).unwrap();
        let caller = self.rig.caller(principal, session);
        for _ in 0..CALLS_EACH {
            self.call(&caller, &mut chance).await;
        }
    }

    async fn call(&self, caller: &Caller, chance: &mut fastrand::Rng) {
        let (tool, effect, _) = TOOLS[chance.usize(..TOOLS.len())];
        let options = Options {
            dedup: [None, Some(effect.default_dedup()), Some(Dedup::Session)][chance.usize(..3)],
            ..Options::default()
        };
        // The label says who may share, so that two pieces of work of one label are two of one key.
        let share = match options.dedup.unwrap_or(effect.default_dedup()) {
            Dedup::Principal => format!("principal {}", caller.principal.id.0),
            Dedup::Session => format!("session {}", caller.session.id.0),
            Dedup::Off => "nobody".into(),
        };
        let arguments = format!(r#"{{"k":"{tool} {} {share}"}}"#, chance.u32(..3));
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let mut waiter = match self.rig.submit(caller, tool, &arguments, options) {
            Submitted::Answered(answer) => return self.was_told(&answer, false),
            Submitted::Waiting(waiter) => waiter,
        };
        for _ in 0..chance.u32(..4) {
            tokio::task::yield_now().await;
        }
        match chance.u32(..8) {
            0 => drop(waiter),
            1 if self.temper == Temper::Hasty => {
                waiter.cancel_handle().cancel();
                if chance.bool() {
                    self.was_told(&end(&mut waiter).await, true);
                }
            }
            _ => self.was_told(&end(&mut waiter).await, false),
        }
    }

    /// All of one Execution are told the same; and nothing that could not be.
    fn was_told(&self, answer: &Answer, cancelled: bool) {
        let says = match &answer.outcome {
            Ok(reply) => reply.content().to_owned(),
            Err(error) if cancelled && **error == CallError::Cancelled => return,
            Err(error) => {
                let expected =
                    [Code::ProviderError, Code::OutcomeUnknown, Code::InternalError, Code::OverCapacity];
                assert!(expected.contains(&error.code()), "{error}");
                error.to_string()
            }
        };
        if let Some(execution) = answer.execution {
            let mut told = self.told.lock();
            assert_eq!(told.entry(execution).or_insert_with(|| says.clone()), &says);
        }
    }
}

/// Runs a crowd to its end, and looks at the sums.
fn run(temper: Temper, seed: u64) -> Arc<Crowd> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let crowd = Crowd::new(temper, seed);
    runtime.block_on(async {
        let tasks = crowd.rig.tasks.clone();
        for session in 0..CALLERS {
            tasks.spawn(TaskKind::Session, Arc::clone(&crowd).calls(session));
        }
        for kind in [TaskKind::Session, TaskKind::Run] {
            tasks
                .drained(kind, Deadline::after(secs(60)))
                .await
                .unwrap_or_else(|_| panic!("{}", tasks.left()));
        }
    });
    crowd.rig.assert_at_rest();
    let totals = crowd.rig.calls.watch().lifecycle().totals();
    assert_eq!(crowd.submitted.load(Ordering::Relaxed), CALLERS * CALLS_EACH, "no caller died on the way");
    assert_eq!(totals.calls, CALLERS * CALLS_EACH, "every call ends exactly once");
    assert!(totals.joined > 0 && totals.completed > 0 && totals.error > 0, "{totals:?}");
    assert!(crowd.rig.stage.peak() <= 3, "{} at once", crowd.rig.stage.peak());
    crowd
}

#[test]
fn one_key_never_has_two_executions_at_once() {
    let crowd = run(Temper::Calm, 1);
    let doubled = crowd.rig.stage.doubled();
    let shared: Vec<_> = doubled.iter().filter(|label| !label.ends_with("nobody")).collect();
    assert!(shared.is_empty(), "{shared:?}");
}

#[test]
fn callers_that_take_calls_back_leave_nothing_behind() {
    run(Temper::Hasty, 2);
}
