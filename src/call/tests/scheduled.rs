//! The path of a call under a scheduler that picks, at every lock, atomic and wake-up, who goes on.
//!
//! Whoever is forgotten is found: when nobody can go on and somebody still waits, the scheduler says so. A failure
//! prints the seed of its interleaving; with `SHUTTLE_RANDOM_SEED=…` in the environment that one runs again, alone.
//!
//! What it does not see: what a weaker ordering of an atomic would allow, what happens inside DashMap (one lock stands
//! in for it), and panics, which it takes for failures. Those are `model`'s and `stress`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::rand::{Rng, RngCore, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};

use crate::config::env;

mod boarding;
mod crowd;
mod lines;

/// Where nothing else is said: enough to see that it works, in seconds.
const EVENTS: u64 = 20_000;

/// How many interleavings go by between two looks at the count.
const AT_ONCE: usize = 20;

/// What happened in all interleavings of one test.
#[derive(Debug, Clone, Default)]
struct Events(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    count: AtomicU64,
    /// Over who did what in which order: two interleavings that differ hardly ever have the same.
    order: AtomicU64,
}

impl Events {
    /// One more.
    fn happened(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let who = u64::try_from(usize::from(shuttle::current::me())).unwrap();
        let before = self.0.order.load(Ordering::Relaxed);
        self.0.order.store(before.rotate_left(5).wrapping_mul(31) ^ who, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }
}

/// Runs a test in one interleaving after the other, until `SHUTTLE_EVENTS` have happened.
fn in_every_interleaving(name: &str, test: impl Fn(Events) + Send + Sync + 'static) {
    let wanted = env::get("SHUTTLE_EVENTS").map_or(EVENTS, |count| count.parse().unwrap());
    let again = env::get("SHUTTLE_RANDOM_SEED").is_some();
    let (events, test, mut runs) = (Events::default(), Arc::new(test), 0);
    while runs == 0 || (events.count() < wanted && !again) {
        let scheduler = RandomScheduler::new(if again { 1 } else { AT_ONCE });
        let (test, events) = (Arc::clone(&test), events.clone());
        runs += run(scheduler, move || test(events.clone()));
    }
    eprintln!("{name}: {} events in {runs} interleavings", events.count());
}

fn run(scheduler: RandomScheduler, test: impl Fn() + Send + Sync + 'static) -> usize {
    // Time stands still: nothing here ends because it took too long.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = shuttle::FailurePersistence::None;
    // It warns that it takes every ordering of an atomic for the strictest, once a process: the page says so above.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || {
        // Ids are random, and say in which order a map lists what is in it.
        fastrand::seed(thread_rng().next_u64());
        test();
    })
}

/// One of them.
fn any<T: Copy>(of: &[T]) -> T {
    of[thread_rng().gen_range(0..of.len())]
}

/// Lets others go on, up to so many times.
async fn dawdle(most: u32) {
    for _ in 0..thread_rng().gen_range(0..=most) {
        shuttle::future::yield_now().await;
    }
}

#[test]
fn a_seed_makes_the_same_interleaving_again() {
    let order = |seed| {
        let events = Events::default();
        let theirs = events.clone();
        run(RandomScheduler::new_from_seed(seed, 3), move || {
            crowd::run(crowd::Temper::Hasty, theirs.clone());
        });
        (events.count(), events.0.order.load(Ordering::Relaxed))
    };
    assert_eq!((order(1), order(2)), (order(1), order(2)));
    if env::get("SHUTTLE_RANDOM_SEED").is_none() {
        assert_ne!(order(1), order(2));
    }
}
