//! Permits, slots, queues and leases: never above their limits, and given back when the work is gone.

use std::time::Duration;

use tokio::time::Instant;

use crate::call::queue::PoolView;
use crate::call::tests::rig::{Rig, code, end, error, pass, peek, secs, settle, text, within};
use crate::call::tests::stage::{Held, Order, Progress};
use crate::call::{Caller, Code, Options, Priority, Waiter};

/// Calls under these labels, each of a session of its own.
fn waits(rig: &Rig, tool: &str, labels: &[&str]) -> Vec<Waiter> {
    let session = |at: usize| u64::try_from(at).unwrap() + 100;
    labels.iter().enumerate().map(|(at, label)| rig.wait(&rig.caller(0, session(at)), tool, label)).collect()
}

fn offline(rig: &Rig) -> PoolView {
    let (_, providers) = rig.calls.pools();
    providers.iter().find(|(name, _)| &**name == "offline").unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_provider_never_gets_more_than_its_limit() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "2")]);
    let mut waiters = waits(&rig, "look", &["a", "b", "c", "d", "e"]);
    settle().await;
    assert_eq!(rig.stage.running(), ["a", "b"]);
    assert_eq!(offline(&rig), PoolView { in_use: 2, limit: 2, queued: 3 });
    assert_eq!(rig.calls.leases().holders().len(), 2);
    for label in ["a", "b", "c", "d", "e"] {
        rig.stage.order(rig.stage.find(label), Order::answer(label));
        settle().await;
    }
    let answers: Vec<_> = waiters.iter_mut().map(|waiter| text(&peek(waiter).unwrap())).collect();
    assert_eq!(answers, ["a", "b", "c", "d", "e"], "in the order in which they came");
    assert_eq!(rig.stage.peak(), 2);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn all_providers_together_never_get_more_than_the_global_limit() {
    let rig = Rig::new(&[("GLOBAL_MAX_INFLIGHT", "2")]);
    let mut waiters = waits(&rig, "look", &["a", "b"]);
    waiters.extend(waits(&rig, "consult", &["c", "d"]));
    settle().await;
    assert_eq!((rig.stage.running(), rig.calls.pools().0.queued), (vec!["a".into(), "b".into()], 2));
    rig.stage.order(rig.stage.find("b"), Order::answer("b"));
    settle().await;
    assert_eq!(rig.stage.running(), ["a", "c"]);
    drop(waiters);
}

#[tokio::test(start_paused = true)]
async fn at_the_global_limit_too_those_of_a_higher_class_go_first() {
    let rig = Rig::new(&[("GLOBAL_MAX_INFLIGHT", "1")]);
    let call = |session, tool, label, priority| {
        rig.wait_with(&rig.caller(0, session), tool, label, Options { priority, ..Options::default() })
    };
    let _at_work = call(1, "look", "a", Priority::Medium);
    settle().await;
    let _low = call(2, "look", "b", Priority::Low);
    settle().await;
    // At another provider: only there do the two meet.
    let _high = call(3, "consult", "c", Priority::High);
    settle().await;
    assert_eq!((rig.stage.running(), rig.calls.pools().0.queued), (vec!["a".into()], 2));
    rig.stage.order(rig.stage.find("a"), Order::answer("a"));
    settle().await;
    assert_eq!(rig.stage.running(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_provider_does_not_hold_up_another() {
    let rig = Rig::new(&[]);
    let full = waits(&rig, "consult", &["a", "b", "c", "d"]);
    let mut other = waits(&rig, "look", &["e"]);
    settle().await;
    assert_eq!(rig.stage.running(), ["a", "b", "e"]);
    rig.stage.order(rig.stage.find("e"), Order::answer("past them"));
    assert_eq!(text(&end(&mut other[0]).await), "past them");
    drop(full);
}

#[tokio::test(start_paused = true)]
async fn the_run_over_its_sessions_limit_waits_and_joiners_do_not() {
    let rig = Rig::new(&[("SESSION_MAX_INFLIGHT", "2")]);
    let (caller, other) = (rig.caller(0, 1), rig.caller(0, 2));
    let _at_work = ["a", "b"].map(|label| rig.wait(&caller, "look", label));
    let mut ninth = rig.wait(&caller, "look", "c");
    let mut joiner = rig.wait(&caller, "look", "a");
    let _others = rig.wait(&other, "look", "d");
    settle().await;
    assert_eq!(rig.stage.running(), ["a", "b", "d"]);
    assert_eq!(caller.session.slots.view(), PoolView { in_use: 2, limit: 2, queued: 1 });
    assert_eq!(offline(&rig).queued, 0, "who waits for a slot takes no place in the provider's queue");
    rig.stage.order(rig.stage.find("a"), Order::answer("a"));
    assert_eq!(text(&end(&mut joiner).await), "a");
    settle().await;
    assert_eq!(rig.stage.running(), ["b", "c", "d"]);
    rig.stage.order(rig.stage.find("c"), Order::answer("c"));
    assert_eq!(text(&end(&mut ninth).await), "c");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_refused_at_once() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1"), ("QUEUE_MAX", "2")]);
    let _waiters = waits(&rig, "look", &["a", "b", "c"]);
    let refused = rig.answered(&rig.caller(0, 9), "look", "d");
    assert_eq!(code(&refused), Some(Code::OverCapacity));
    assert_eq!(error(&refused).to_string(), "The queue of offline is full (2 waiting)");
    assert!(error(&refused).retryable());
    assert_eq!(error(&refused).retry_after_ms(), Some(100), "the least, while nothing is known");
    assert_eq!(rig.calls.flights().executions(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_back_from_what_work_took() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1"), ("QUEUE_MAX", "1")]);
    let (mut first, work) = rig.at_work("look", "a");
    pass(secs(7)).await;
    rig.stage.order(work, Order::answer("a"));
    end(&mut first).await;
    settle().await;
    let _waiters = waits(&rig, "look", &["b", "c"]);
    assert_eq!(error(&rig.answered(&rig.caller(0, 9), "look", "d")).retry_after_ms(), Some(14_000));
}

#[tokio::test(start_paused = true)]
async fn too_many_executions_are_refused_at_once() {
    let rig = Rig::new(&[("EXECUTIONS_MAX", "2")]);
    let waiters = waits(&rig, "look", &["a", "b"]);
    let refused = rig.answered(&rig.caller(0, 9), "look", "c");
    assert_eq!(code(&refused), Some(Code::OverCapacity));
    assert_eq!(error(&refused).to_string(), "Maximum concurrent sessions (2) reached. Active sessions: 2");
    let flights = rig.calls.flights();
    assert_eq!((flights.keys(), flights.executions()), (2, 2), "a refused call leaves nothing behind");
    drop(rig.wait(&rig.caller(0, 9), "look", "a"));
    drop(waiters);
}

#[tokio::test(start_paused = true)]
async fn a_built_in_tool_answers_under_full_load() {
    let rig =
        Rig::new(&[("EXECUTIONS_MAX", "1"), ("OFFLINE_MAX_INFLIGHT", "1"), ("GLOBAL_MAX_INFLIGHT", "1")]);
    let _waiters = waits(&rig, "look", &["a"]);
    let crate::call::Submitted::Answered(health) =
        rig.submit(&rig.caller(0, 9), "health", "{}", Options::default())
    else {
        panic!("it waits")
    };
    assert!(text(&health).contains(r#""inflight":1"#));
}

#[tokio::test(start_paused = true)]
async fn a_higher_class_is_served_first() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let caller = rig.caller(0, 1);
    let of =
        |priority, label| rig.wait_with(&caller, "look", label, Options { priority, ..Options::default() });
    let _waiters = [
        of(Priority::Medium, "first"),
        of(Priority::Low, "low"),
        of(Priority::Medium, "medium"),
        of(Priority::High, "high"),
    ];
    for label in ["first", "high", "medium", "low"] {
        settle().await;
        assert_eq!(rig.stage.running(), [label]);
        rig.stage.order(rig.stage.find(label), Order::answer(label));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_its_turn_is_told() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1"), ("QUEUE_TIMEOUT_SECS", "20")]);
    let (_first, _) = rig.at_work("look", "a");
    let mut second = rig.wait(&rig.caller(0, 2), "look", "b");
    let before = Instant::now();
    let answer = end(&mut second).await;
    assert_eq!((before.elapsed(), code(&answer)), (secs(20), Some(Code::QueueTimeout)));
    assert_eq!(error(&answer).to_string(), "Waited 20.0s for offline without getting a turn");
    assert!(error(&answer).retry_after_ms().is_some());
    assert_eq!(offline(&rig).queued, 0);
}

#[tokio::test(start_paused = true)]
async fn slot_and_queue_share_one_budget() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "2"), ("SESSION_MAX_INFLIGHT", "1")]);
    let (caller, other) = (rig.caller(0, 1), rig.caller(0, 2));
    let _first = rig.wait(&caller, "look", "a");
    let mut second = rig.wait(&caller, "look", "b");
    let _others = [rig.wait(&other, "look", "c"), rig.wait(&rig.caller(0, 3), "look", "d")];
    let before = Instant::now();
    pass(secs(40)).await;
    // The slot comes after 40 s; the provider's permit went to one who was in its line already.
    rig.stage.order(rig.stage.find("a"), Order::answer("a"));
    settle().await;
    assert_eq!((caller.session.slots.view().queued, offline(&rig).queued), (0, 1));
    let answer = end(&mut second).await;
    assert_eq!((before.elapsed(), code(&answer)), (secs(60), Some(Code::QueueTimeout)));
    settle().await;
    assert_eq!(caller.session.slots.view().in_use, 0, "its slot is free again");
}

#[tokio::test(start_paused = true)]
async fn waiting_never_eats_the_time_to_work() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let (_first, work) = rig.at_work("look", "a");
    let mut second = rig.wait(&rig.caller(0, 2), "look", "b");
    pass(Duration::from_millis(59_900)).await;
    rig.stage.order(work, Order::answer("a"));
    settle().await;
    let work = rig.stage.find("b");
    assert_eq!(rig.stage.deadline(work).unwrap().instant(), Instant::now() + secs(180));
    pass(Duration::from_millis(179_900)).await;
    rig.stage.order(work, Order::answer("the whole rung"));
    let answer = end(&mut second).await;
    assert_eq!(text(&answer), "the whole rung");
    assert_eq!(answer.spent.queue, Duration::from_millis(59_900));
    assert_eq!(answer.spent.provider, Duration::from_millis(179_900));
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_charged_only_for_the_time_since_it_came() {
    let rig = Rig::new(&[]);
    let (mut first, work) = rig.at_work("look", "a");
    pass(secs(30)).await;
    let mut second = rig.wait(&rig.caller(0, 2), "look", "a");
    pass(secs(5)).await;
    rig.stage.order(work, Order::answer("a"));
    let (first, second) = (end(&mut first).await, end(&mut second).await);
    assert_eq!((first.spent.total, first.spent.provider), (secs(35), secs(35)));
    assert_eq!((second.spent.total, second.spent.provider), (secs(5), secs(5)));
}

/// What was held at the moment when the work was dropped.
const EVERYTHING: Option<Held> = Some(Held { provider: 1, global: 1, leases: 1 });

/// Work that ends as `how` says; permits and slot are free right after.
async fn held_to_the_end(tool: &str, how: impl AsyncFnOnce(&Rig, Waiter, usize)) {
    let rig = Rig::new(&[]);
    let caller: Caller = rig.caller(0, 1);
    let waiter = rig.wait(&caller, tool, "a");
    let work = rig.stage.last();
    assert_eq!(caller.session.slots.view().in_use, 1);
    how(&rig, waiter, work).await;
    settle().await;
    assert_eq!(rig.stage.held(work), EVERYTHING);
    assert_eq!(caller.session.slots.view().in_use, 0);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_answered_work_is_gone() {
    held_to_the_end("look", async |rig, mut waiter, work| {
        rig.stage.order(work, Order::answer("a"));
        end(&mut waiter).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_cancelled_work_is_gone() {
    held_to_the_end("post", async |_, waiter, _| waiter.cancel_handle().cancel()).await;
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_abandoned_work_is_gone() {
    held_to_the_end("look", async |_, waiter, _| {
        drop(waiter);
        pass(secs(2)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_work_past_its_deadline_is_gone() {
    held_to_the_end("look", async |_, mut waiter, _| {
        end(&mut waiter).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_panicked_work_is_gone() {
    held_to_the_end("look", async |rig, mut waiter, work| {
        rig.stage.order(work, Order::Panic);
        end(&mut waiter).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_work_stopped_with_the_daemon_is_gone() {
    held_to_the_end("put", async |rig, _waiter, _| {
        rig.calls.start_draining();
        rig.calls.stop_all();
        settle().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_knows_its_holder() {
    let rig = Rig::new(&[]);
    let (_waiter, work) = rig.at_work("look", "a");
    let [holder] = &rig.calls.leases().holders()[..] else { panic!("one holds one") };
    assert_eq!(&*holder.flight.tool().name, "look");
    assert_eq!(
        (Some(holder.since), Some(holder.deadline)),
        (rig.stage.started(work), rig.stage.deadline(work))
    );
    let late = Instant::now() + secs(180 + 11);
    assert!(rig.calls.leases().overdue(late, secs(11)).is_empty());
    assert_eq!(rig.calls.leases().overdue(late, secs(10)).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_line_leaves_at_its_own_deadline() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let (_first, _) = rig.at_work("look", "a");
    let mut second = rig.wait_with(&rig.caller(0, 2), "look", "b", within(secs(3)));
    let work = rig.stage.last();
    assert_eq!(code(&end(&mut second).await), Some(Code::Timeout));
    settle().await;
    assert_eq!((rig.stage.progress(work), offline(&rig).queued), (Progress::CutOff, 0));
}
