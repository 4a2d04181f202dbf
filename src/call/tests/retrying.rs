//! Attempts after one that failed: which calls have them, how many, and what is held meanwhile.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::call::queue::PoolView;
use crate::call::tests::rig::{Rig, code, end, error, pass, peek, secs, settle, text};
use crate::call::tests::stage::Order;
use crate::call::{Code, Waiter};
use crate::tool::Insight;

/// Backoffs between one and two tenths of a second, then twice that.
const QUICK: (&str, &str) = ("RETRY_BACKOFF_MS", "200");

/// Longer than the first two of those.
const PAST_BACKOFF: Duration = Duration::from_millis(500);

fn second(rig: &Rig) -> PoolView {
    rig.calls.pools().1.iter().find(|(name, _)| &**name == "second").unwrap().1
}

fn figure(rig: &Rig, name: &str) -> u64 {
    rig.calls.server_stats()["resilience"]["second"][name].as_u64().unwrap()
}

/// Begins a call, which works at once.
async fn begin(rig: &Rig, tool: &str, label: &str) -> Waiter {
    let waiter = rig.wait(&rig.caller(0, 1), tool, label);
    settle().await;
    assert!(rig.stage.running().contains(&label.to_owned()), "{label} is at work");
    waiter
}

/// Ends the work of this label so.
async fn ends(rig: &Rig, label: &str, order: Order) {
    rig.stage.order(rig.stage.find(label), order);
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_be_done_twice_is_attempted_again_and_the_permit_is_kept_for_a_moment() {
    for tool in ["consult", "renew"] {
        let rig = Rig::new(&[QUICK]);
        let mut waiter = begin(&rig, tool, "a").await;
        ends(&rig, "a", Order::broken()).await;
        assert!(peek(&mut waiter).is_none() && rig.stage.running().is_empty());
        assert_eq!((second(&rig).in_use, rig.calls.leases().holders().len()), (1, 1));
        pass(Duration::from_millis(99)).await;
        assert_eq!(rig.stage.begun(), 1, "at least half of the backoff");
        pass(Duration::from_millis(101)).await;
        ends(&rig, "a", Order::answer("at last")).await;
        let answer = end(&mut waiter).await;
        assert_eq!(text(&answer), "at last");
        assert_eq!((figure(&rig, "retries"), rig.stage.begun()), (1, 2));
        let found = rig.calls.request(crate::ids::PrincipalId(0), answer.request).unwrap().about;
        let retried = found["notes_ms"]["retried"].as_f64().unwrap();
        assert!((100.0..=200.0).contains(&retried), "{found}");
        rig.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_begun_is_never_attempted_again() {
    for order in
        [Order::broken(), Order::status(500, None), Order::status(504, None), Order::status(502, Some(1))]
    {
        let rig = Rig::new(&[QUICK]);
        let mut waiter = begin(&rig, "publish", "a").await;
        ends(&rig, "a", order).await;
        assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::OutcomeUnknown));
        pass(secs(60)).await;
        assert_eq!((rig.stage.begun(), figure(&rig, "retries")), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_surely_was_not_begun_is_attempted_again() {
    for order in [Order::status(503, None), Order::status(429, None), Order::status(503, Some(3))] {
        let rig = Rig::new(&[QUICK]);
        let mut waiter = begin(&rig, "publish", "a").await;
        ends(&rig, "a", order).await;
        pass(secs(3)).await;
        ends(&rig, "a", Order::answer("done once")).await;
        assert_eq!(text(&end(&mut waiter).await), "done once");
        assert_eq!(rig.stage.begun(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_another_attempt_can_be_taken_back_for_good() {
    let rig = Rig::new(&[("RETRY_BACKOFF_MS", "20000")]);
    let mut waiter = begin(&rig, "publish", "a").await;
    ends(&rig, "a", Order::status(503, None)).await;
    let flight = rig.calls.watch().list(crate::ids::PrincipalId(0));
    waiter.cancel_handle().cancel();
    let answer = end(&mut waiter).await;
    assert_eq!(code(&answer), Some(Code::Cancelled));
    settle().await;
    let sessions = &rig.calls.server_stats()["sessions"];
    assert_eq!(
        (&sessions["cancelled_sessions"], &sessions["error_sessions"]),
        (&1.into(), &0.into()),
        "{flight}"
    );
    pass(secs(60)).await;
    assert_eq!(rig.stage.begun(), 1);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_fault_is_not_tried_twice() {
    let rig = Rig::new(&[QUICK]);
    let mut waiter = begin(&rig, "consult", "a").await;
    ends(&rig, "a", Order::refused()).await;
    assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::ProviderError));
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_attempts_as_configured_and_the_last_fault_is_told() {
    for (attempts, begun) in [("1", 1), ("3", 3)] {
        let rig = Rig::new(&[QUICK, ("RETRY_ATTEMPTS", attempts)]);
        let mut waiter = begin(&rig, "consult", "a").await;
        for number in 1..=begun {
            ends(&rig, "a", Order::status(500 + number, None)).await;
            pass(PAST_BACKOFF).await;
        }
        let answer = peek(&mut waiter).unwrap();
        assert_eq!(
            error(&answer).to_string(),
            format!("stage refused the request with HTTP {}", 500 + begun)
        );
        assert_eq!(rig.stage.begun(), usize::from(begun));
        rig.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_no_attempt_that_would_begin_after_the_deadline() {
    let rig = Rig::new(&[("RETRY_BACKOFF_MS", "30000"), ("WORKFLOW_TOOL_TIMEOUT_SECS", "10")]);
    let began = Instant::now();
    let mut waiter = begin(&rig, "consult", "a").await;
    ends(&rig, "a", Order::broken()).await;
    assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::ProviderError), "15 s are not left");
    let mut waiter = begin(&rig, "consult", "b").await;
    ends(&rig, "b", Order::status(429, Some(9))).await;
    pass(secs(9)).await;
    assert_eq!(rig.stage.running(), ["b"]);
    assert_eq!(code(&end(&mut waiter).await), Some(Code::Timeout), "all attempts share one deadline");
    assert_eq!(began.elapsed(), secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_provider_gets_ten_more_attempts_and_one_for_five_calls() {
    let rig = Rig::new(&[QUICK, ("RETRY_ATTEMPTS", "2"), ("SESSION_MAX_INFLIGHT", "99")]);
    for round in 0..14 {
        let mut waiter = begin(&rig, "consult", &round.to_string()).await;
        ends(&rig, &round.to_string(), Order::broken()).await;
        pass(Duration::from_millis(200)).await;
        let tried_again = round < 12;
        if tried_again {
            ends(&rig, &round.to_string(), Order::broken()).await;
        }
        assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::ProviderError), "{round}");
    }
    // Of 11 and more calls 20 % are 2.
    assert_eq!((figure(&rig, "retries"), figure(&rig, "retries_denied")), (12, 2));
    let other = begin(&rig, "look", "x").await;
    drop(other);
    pass(secs(11)).await;
    let _waiter = begin(&rig, "consult", "later").await;
    ends(&rig, "later", Order::broken()).await;
    pass(Duration::from_millis(200)).await;
    assert_eq!(rig.stage.running(), ["later"], "the budget is full again");
}

#[tokio::test(start_paused = true)]
async fn who_waits_long_before_its_next_attempt_gives_its_permits_back_and_then_goes_first() {
    let rig = Rig::new(&[("RETRY_BACKOFF_MS", "4000"), ("QUEUE_MAX", "2")]);
    let mut first = begin(&rig, "consult", "a").await;
    let _second = begin(&rig, "consult", "b").await;
    let session = |number, label: &str| rig.wait(&rig.caller(0, number), "consult", label);
    let waiting = [session(2, "c"), session(3, "d")];
    settle().await;
    ends(&rig, "a", Order::broken()).await;
    assert_eq!(rig.stage.running(), ["b", "c"], "its permit went to the next");
    let last = session(4, "e");
    settle().await;
    assert_eq!(second(&rig).queued, 2, "the queue is full");
    pass(secs(4)).await;
    assert_eq!(second(&rig).queued, 3, "which does not keep out who comes again");
    ends(&rig, "b", Order::answer("b")).await;
    assert_eq!(rig.stage.running(), ["c", "a"], "before those that had no turn yet");
    ends(&rig, "a", Order::answer("a")).await;
    assert_eq!(text(&end(&mut first).await), "a");
    drop((waiting, last));
    pass(secs(2)).await;
    rig.stage.order(rig.stage.find("c"), Order::answer("c"));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_next_attempt_when_the_daemon_goes_down_is_told_what_failed() {
    let rig = Rig::new(&[("RETRY_BACKOFF_MS", "20000")]);
    let mut waiter = begin(&rig, "consult", "a").await;
    ends(&rig, "a", Order::broken()).await;
    rig.calls.start_draining();
    settle().await;
    assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::ProviderError));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn followers_share_the_attempts() {
    let rig = Rig::new(&[QUICK]);
    let mut leader = begin(&rig, "consult", "a").await;
    ends(&rig, "a", Order::broken()).await;
    let mut follower = rig.wait(&rig.caller(0, 2), "consult", "a");
    pass(PAST_BACKOFF).await;
    ends(&rig, "a", Order::answer("for both")).await;
    assert_eq!([text(&end(&mut leader).await), text(&end(&mut follower).await)], ["for both"; 2]);
    let stats: Value = rig.calls.server_stats();
    assert_eq!((&stats["dedup"]["executions"], rig.stage.begun()), (&1.into(), 2));
}
