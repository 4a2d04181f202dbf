//! Whatever callers, work and time do, calls go as a reference model says.
//!
//! The model knows flights, seats and the table of "the last waiter leaves". It does not know queues: when a piece
//! of work begins is seen on the stage, and held against limits and budgets.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::call::tests::rig::Rig;
use crate::call::tests::stage::Order;
use crate::config::env;
use crate::tool::Dedup;

mod world;

use world::World;

/// What may happen. Places are taken modulo what is there.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Caller, tool, label, policy, and own deadline in whole seconds and a half.
    Call { who: usize, tool: usize, label: usize, dedup: Option<Dedup>, patience: Option<u64> },
    /// A waiting caller takes its call back.
    Cancel(usize),
    /// A waiting caller's connection goes.
    Disconnect(usize),
    /// A piece of work is told how to end.
    Gate(usize, Order),
    /// Everything runs that can.
    Settle,
    /// A second goes by.
    Second,
    /// The daemon is told to go.
    Drain,
}

fn any_order() -> impl Strategy<Value = Order> {
    prop_oneof![
        4 => Just(Order::answer("done")),
        1 => Just(Order::broken()),
        1 => Just(Order::refused()),
        1 => Just(Order::Panic),
    ]
}

fn any_call() -> impl Strategy<Value = Event> {
    let dedup = prop_oneof![
        5 => Just(None),
        1 => Just(Some(Dedup::Principal)),
        2 => Just(Some(Dedup::Session)),
        1 => Just(Some(Dedup::Off)),
    ];
    let patience = prop::option::weighted(0.4, 0..6u64);
    (0..4usize, 0..4usize, 0..2usize, dedup, patience)
        .prop_map(|(who, tool, label, dedup, patience)| Event::Call { who, tool, label, dedup, patience })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        400 => any_call(),
        80 => any::<usize>().prop_map(Event::Cancel),
        80 => any::<usize>().prop_map(Event::Disconnect),
        150 => (any::<usize>(), any_order()).prop_map(|(at, order)| Event::Gate(at, order)),
        150 => Just(Event::Settle),
        200 => Just(Event::Second),
        1 => Just(Event::Drain),
    ]
}

/// Bounds of one daemon.
#[derive(Debug, Clone)]
struct Bounds {
    provider: usize,
    global: usize,
    session: usize,
    queue: usize,
    executions: usize,
    waiters: usize,
    /// Whether guarded outcomes answer later twins, for as long as the test takes.
    guard: bool,
}

fn any_bounds() -> impl Strategy<Value = Bounds> {
    (1..4usize, 1..4usize, 1..4usize, 1..4usize, 2..9usize, 1..4usize, any::<bool>()).prop_map(
        |(provider, global, session, queue, executions, waiters, guard)| Bounds {
            provider,
            global,
            session,
            queue,
            executions,
            waiters,
            guard,
        },
    )
}

impl Bounds {
    /// Work may take 4 s and waiting 3 s; a caller waits 7.5 s, so that its deadline and the daemon's never fall
    /// on one instant.
    fn rig(&self) -> Rig {
        Rig::new(&[
            ("OFFLINE_MAX_INFLIGHT", &self.provider.to_string()),
            ("GLOBAL_MAX_INFLIGHT", &self.global.to_string()),
            ("SESSION_MAX_INFLIGHT", &self.session.to_string()),
            ("QUEUE_MAX", &self.queue.to_string()),
            ("EXECUTIONS_MAX", &self.executions.to_string()),
            ("WAITERS_MAX", &self.waiters.to_string()),
            ("WORKFLOW_TOOL_TIMEOUT_SECS", "4"),
            ("EXPERT_ANALYSIS_TIMEOUT_SECS", "4"),
            ("QUEUE_TIMEOUT_SECS", "3"),
            ("DAEMON_TIMEOUT_SECS", "7.5"),
            ("REATTACH_SECS", "5"),
            ("GUARD_WINDOW_MS", if self.guard { "3600000" } else { "0" }),
        ])
    }
}

/// Cases where `PROPTEST_CASES` says nothing.
const CASES: u32 = 300;

/// A case that fails is made small, printed and kept in `proptest-regressions/`, to run first from then on;
/// `PROPTEST_RNG_SEED` makes all cases the same again.
#[test]
fn calls_go_as_the_model_says() {
    let cases = env::get("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let name = concat!(module_path!(), "::calls_go_as_the_model_says");
    let of_this =
        ProptestConfig { source_file: Some(file!()), test_name: Some(name), ..ProptestConfig::default() };
    let config = ProptestConfig { cases, ..of_this };
    let (mut runner, happened) = (TestRunner::new(config), Cell::new(0));
    let whole = (any_bounds(), prop::collection::vec(any_event(), 0..200));
    let end = runner.run(&whole, |(bounds, events)| {
        happened.set(happened.get() + events.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut world = World::new(bounds.rig());
            for event in events {
                world.happens(event).await;
            }
            world.ends().await;
        });
        Ok(())
    });
    eprintln!("model: {} events in {cases} cases", happened.get());
    end.unwrap_or_else(|error| panic!("{error}\n{runner}"));
}
