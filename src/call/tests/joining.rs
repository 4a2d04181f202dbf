//! Who joins whom, and who never does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::cache::OutcomeCache;
use crate::call::flight::{About, Boarding, FlightRules, Leaving, SeatNo};
use crate::call::flights::{Aboard, Flights, RunGuard};
use crate::call::key::{CallKey, Form};
use crate::call::queue::Priority;
use crate::call::tests::rig::{Rig, code, end, error, peek, settle, sharing, text};
use crate::call::tests::stage::{Order, Progress};
use crate::call::{Code, Options, Submitted, Waiter};
use crate::deadline::Deadline;
use crate::ids::{ClientSessionId, PrincipalId};
use crate::lifecycle::Role;
use crate::provider::Reply;
use crate::tool::Dedup;

#[tokio::test(start_paused = true)]
async fn equal_calls_of_one_principal_run_once() {
    let rig = Rig::new(&[]);
    let mut waiters: Vec<_> = (1..=50).map(|session| rig.wait(&rig.caller(0, session), "ask", "a")).collect();
    assert_eq!((rig.stage.begun(), rig.calls.watch().active()), (1, 50));
    rig.stage.order(rig.stage.find("a"), Order::answer("once"));
    settle().await;
    let answers: Vec<_> = waiters.iter_mut().map(|waiter| peek(waiter).unwrap()).collect();
    assert!(answers.iter().all(|answer| text(answer) == "once" && answer.execution == answers[0].execution));
    let leaders = answers.iter().filter(|answer| answer.role == Some(Role::Leader)).count();
    let totals = rig.calls.watch().lifecycle().totals();
    assert_eq!((leaders, totals.executions, totals.joined, totals.completed), (1, 1, 49, 50));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn equal_calls_meet_though_other_tools_are_offered_by_now_and_those_of_another_tool_never() {
    let rig = Rig::new(&[]);
    let (caller, offer) = (rig.caller(0, 1), rig.offers());
    offer(&["send"]);
    let call = |tool| rig.wait_with(&caller, tool, "a", sharing(Dedup::Session));
    let first = call("send");
    settle().await;
    offer(&["store", "send"]);
    let _another = call("store");
    let mut twin = call("send");
    settle().await;
    assert_eq!(rig.stage.begun(), 2);
    rig.stage.order(rig.stage.find("a"), Order::answer("sent"));
    let answer = end(&mut twin).await;
    assert_eq!((text(&answer).as_str(), answer.role), ("sent", Some(Role::Follower)));
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn spelling_does_not_part_equal_arguments() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    for spelling in [r#"{"k":"a","n":1}"#, r#" { "n" : 1, "\u006b" : "\u0061" } "#] {
        let Submitted::Waiting(waiter) = rig.submit(&caller, "look", spelling, Options::default()) else {
            panic!("under way")
        };
        std::mem::forget(waiter);
    }
    assert_eq!(rig.stage.begun(), 1);
}

/// Two calls that must not meet: each has work of its own, and an answer of its own.
async fn never_meet(rig: &Rig, mut one: Waiter, mut other: Waiter) {
    settle().await;
    assert_eq!(rig.stage.running(), ["a", "a"]);
    rig.stage.order(rig.stage.find("a"), Order::answer("one's"));
    assert_eq!(text(&end(&mut one).await), "one's");
    assert!(peek(&mut other).is_none());
    rig.stage.order(rig.stage.find("a"), Order::answer("the other's"));
    let answer = end(&mut other).await;
    assert_eq!((text(&answer).as_str(), answer.role), ("the other's", Some(Role::Leader)));
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn two_principals_never_meet() {
    let rig = Rig::new(&[]);
    let one = rig.wait(&rig.caller(0, 1), "ask", "a");
    let other = rig.wait(&rig.caller(1, 1), "ask", "a");
    never_meet(&rig, one, other).await;
}

#[tokio::test(start_paused = true)]
async fn under_guard_two_sessions_never_meet() {
    for tool in ["put", "post"] {
        let rig = Rig::new(&[]);
        let one = rig.wait_with(&rig.caller(0, 1), tool, "a", sharing(Dedup::Session));
        let other = rig.wait_with(&rig.caller(0, 2), tool, "a", sharing(Dedup::Session));
        never_meet(&rig, one, other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn under_guard_a_session_that_dispatches_twice_runs_once() {
    for (tool, options) in [("put", Options::default()), ("post", sharing(Dedup::Session))] {
        let rig = Rig::new(&[]);
        let caller = rig.caller(0, 1);
        let mut twins =
            [rig.wait_with(&caller, tool, "a", options), rig.wait_with(&caller, tool, "a", options)];
        rig.stage.order(rig.stage.find("a"), Order::answer("once"));
        for twin in &mut twins {
            assert_eq!(text(&end(twin).await), "once", "{tool}");
        }
        assert_eq!(rig.stage.begun(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_never_silently_dropped() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let (one, other) = (rig.wait(&caller, "post", "a"), rig.wait(&caller, "post", "a"));
    assert_eq!(rig.calls.flights().keys(), 0, "it is not in the map");
    never_meet(&rig, one, other).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_it_joins_nobody() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let one = rig.wait(&caller, "look", "a");
    let other = rig.wait_with(&caller, "look", "a", sharing(Dedup::Off));
    never_meet(&rig, one, other).await;
}

#[tokio::test(start_paused = true)]
async fn two_tools_never_meet() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let (one, other) = (rig.wait(&caller, "look", "a"), rig.wait(&caller, "ask", "a"));
    never_meet(&rig, one, other).await;
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_has_landed_is_not_joined() {
    let rig = Rig::new(&[]);
    let (mut first, old) = rig.at_work("look", "a");
    rig.stage.order(old, Order::answer("old"));
    settle().await;
    let mut newcomer = rig.wait(&rig.caller(0, 2), "look", "a");
    rig.stage.order(rig.stage.last(), Order::answer("new"));
    assert_eq!([text(&end(&mut first).await), text(&end(&mut newcomer).await)], ["old", "new"]);
}

#[tokio::test(start_paused = true)]
async fn too_many_waiters_on_one_flight_are_refused() {
    let rig = Rig::new(&[("WAITERS_MAX", "2")]);
    let caller = rig.caller(0, 1);
    let first = rig.wait(&caller, "look", "a");
    let _second = rig.wait(&caller, "look", "a");
    let refused = rig.answered(&caller, "look", "a");
    assert_eq!(code(&refused), Some(Code::OverCapacity));
    assert_eq!(error(&refused).to_string(), "Too many callers wait for this same call (2)");
    assert_eq!(error(&refused).retry_after_ms(), Some(1000));
    drop(first);
    drop(rig.wait(&caller, "look", "a"));
}

/// A key, and what is needed to board under it.
struct Counter {
    rig: Rig,
    flights: Arc<Flights>,
    key: CallKey,
}

impl Counter {
    fn new() -> Self {
        let rig = Rig::new(&[]);
        let tool = rig.calls.registry().find("look").unwrap().id;
        let key =
            CallKey { principal: PrincipalId(0), session: None, tool, definition: 1, ordinal: 0, digest: 1 };
        Self { rig, flights: Arc::new(Flights::new(9, OutcomeCache::new(0, Duration::ZERO))), key }
    }

    fn board(&self, key: CallKey, arguments: &str) -> Aboard {
        let boarding = Boarding {
            key: Some(key),
            arguments: Form::from(arguments),
            tool: Arc::clone(self.rig.calls.registry().find("look").unwrap()),
            provider: Arc::from("offline"),
            rules: FlightRules { max_waiters: 9, reattach: Duration::ZERO },
            keep: None,
            about: About::default(),
            at: Instant::now(),
            priority: Priority::Medium,
            can: crate::provider::asking::Can::NOTHING,
            until: Deadline::after(Duration::from_secs(60)),
        };
        self.flights.board(boarding).unwrap()
    }

    fn open(&self, key: CallKey, arguments: &str) -> (RunGuard, SeatNo) {
        match self.board(key, arguments) {
            Aboard::Opened(guard, seat) => (guard, seat),
            Aboard::Joined(..) => panic!("it joined"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_definition_or_session_opens_its_own_flight() {
    let counter = Counter::new();
    let (_first, _) = counter.open(counter.key, "a");
    assert!(matches!(counter.board(counter.key, "a"), Aboard::Joined(..)));
    let (_second, _) = counter.open(CallKey { definition: 2, ..counter.key }, "a");
    let (_third, _) = counter.open(CallKey { session: Some(ClientSessionId(1)), ..counter.key }, "a");
    assert_eq!((counter.flights.keys(), counter.flights.executions()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn equal_digests_of_other_arguments_do_not_meet() {
    let counter = Counter::new();
    let (first, _) = counter.open(counter.key, "a");
    let (second, _) = counter.open(counter.key, "b");
    assert_eq!(second.flight().key(), None, "the second is not in the map");
    drop(second);
    assert!(matches!(counter.board(counter.key, "a"), Aboard::Joined(..)), "and takes nothing out of it");
    drop(first);
    assert_eq!((counter.flights.keys(), counter.flights.executions()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_landing_of_an_old_generation_is_dropped() {
    let counter = Counter::new();
    let (mut old, seat) = counter.open(counter.key, "a");
    old.flight().cancel(seat);
    let (new, _) = counter.open(counter.key, "a");
    assert_ne!(old.flight().generation(), new.flight().generation());
    old.land(Ok(Arc::new(Reply::text("late"))));
    assert!(new.flight().outcome().is_none());
    assert!(matches!(counter.board(counter.key, "a"), Aboard::Joined(..)), "the new one is still listed");
    drop(old);
    assert_eq!((counter.flights.keys(), counter.flights.executions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_second_landing_is_dropped() {
    let counter = Counter::new();
    let (mut guard, _) = counter.open(counter.key, "a");
    let flight = Arc::clone(guard.flight());
    guard.land(Ok(Arc::new(Reply::text("first"))));
    guard.land(Ok(Arc::new(Reply::text("second"))));
    drop(guard);
    assert!(flight.outcome().unwrap().as_ref().unwrap().content().contains("first"));
}

#[tokio::test(start_paused = true)]
async fn a_late_cancel_cannot_hit_whoever_came_after() {
    let rig = Rig::new(&[]);
    let (mut first, work) = rig.at_work("look", "a");
    let handle = first.cancel_handle();
    handle.cancel();
    handle.cancel();
    end(&mut first).await;
    let (mut second, new) = rig.at_work("look", "a");
    handle.cancel();
    settle().await;
    assert_eq!((rig.stage.progress(work), rig.stage.progress(new)), (Progress::CutOff, Progress::Running));
    assert!(peek(&mut second).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_is_being_cancelled_is_not_joined() {
    let rig = Rig::new(&[]);
    let (mut first, old) = rig.at_work("ask", "a");
    first.cancel_handle().cancel();
    // Nothing has run since: the old Run has not even noticed.
    assert_eq!(rig.stage.progress(old), Progress::Running);
    let mut newcomer = rig.wait(&rig.caller(0, 2), "ask", "a");
    let new = rig.stage.last();
    assert_eq!(rig.stage.progress(new), Progress::Running);
    rig.stage.order(old, Order::answer("late"));
    settle().await;
    assert_eq!(code(&peek(&mut first).unwrap()), Some(Code::Cancelled));
    assert!(peek(&mut newcomer).is_none(), "the old generation answers nobody of the new one");
    assert_eq!(rig.calls.flights().keys(), 1, "and takes only its own key away");
    rig.stage.order(new, Order::answer("fresh"));
    let answer = end(&mut newcomer).await;
    assert_eq!((text(&answer).as_str(), answer.role), ("fresh", Some(Role::Leader)));
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_the_flight_lands_can_collect_its_outcome() {
    for why in [Leaving::DeadlineCame, Leaving::ConnectionGone] {
        let counter = Counter::new();
        let (mut guard, seat) = counter.open(counter.key, "a");
        let flight = Arc::clone(guard.flight());
        flight.close_doors();
        assert!(flight.leave(seat, why), "its outcome is about to be published");
        guard.land(Err(Arc::new(crate::call::CallError::Lost)));
    }
}

/// A guard window that no test outlives.
const GUARDED: (&str, &str) = ("GUARD_WINDOW_MS", "3600000");

#[tokio::test(start_paused = true)]
async fn within_the_guard_window_a_twin_is_answered_without_running() {
    for (tool, order) in [("put", Order::answer("once")), ("post", Order::broken())] {
        let rig = Rig::new(&[GUARDED]);
        let caller = rig.caller(0, 1);
        let mut first = rig.wait_with(&caller, tool, "a", sharing(Dedup::Session));
        rig.stage.order(rig.stage.last(), order);
        let first = end(&mut first).await;
        let arguments = r#"{"k":"a"}"#;
        let Submitted::Answered(twin) = rig.submit(&caller, tool, arguments, sharing(Dedup::Session)) else {
            panic!("{tool} is under way again")
        };
        assert_eq!((twin.role, twin.execution), (Some(Role::Cache), None));
        assert_eq!(format!("{:?}", twin.outcome), format!("{:?}", first.outcome));
        drop(rig.wait_with(&rig.caller(0, 2), tool, "a", sharing(Dedup::Session)));
        drop(rig.wait_with(&caller, tool, "a", sharing(Dedup::Off)));
        assert_eq!((rig.stage.begun(), rig.calls.watch().lifecycle().totals().cache_hits), (3, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_trying_again_could_mend_answers_no_twin() {
    for order in [Order::broken(), Order::refused(), Order::Panic] {
        let rig = Rig::new(&[GUARDED]);
        let caller = rig.caller(0, 1);
        let mut first = rig.wait(&caller, "put", "a");
        rig.stage.order(rig.stage.last(), order);
        assert!(end(&mut first).await.outcome.is_err());
        drop(rig.wait(&caller, "put", "a"));
        assert_eq!(rig.stage.begun(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_was_cancelled_answers_no_twin() {
    for (tool, order) in
        [("put", Some(Order::answer("late"))), ("post", Some(Order::broken())), ("post", None)]
    {
        let rig = Rig::new(&[GUARDED]);
        let caller = rig.caller(0, 1);
        let mut first = rig.wait_with(&caller, tool, "a", sharing(Dedup::Session));
        first.cancel_handle().cancel();
        if let Some(order) = order {
            rig.stage.order(rig.stage.last(), order);
        }
        assert_eq!(code(&end(&mut first).await), Some(Code::Cancelled));
        settle().await;
        drop(rig.wait_with(&caller, tool, "a", sharing(Dedup::Session)));
        assert_eq!(rig.stage.begun(), 2, "{tool}");
    }
}
