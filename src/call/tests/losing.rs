//! A Run that fails, panics or is lost: its key is free, everybody is answered once, and nothing of it stays.

use crate::call::tests::rig::{Rig, code, end, error, peek, settle, text};
use crate::call::tests::stage::{Order, Progress};
use crate::call::{CallError, Code, Options, Submitted};
use crate::provider::Fault;

/// The next call of that name runs afresh and is answered.
async fn runs_afresh(rig: &Rig, tool: &str) {
    let begun = rig.stage.begun();
    let (mut waiter, work) = rig.at_work(tool, "a");
    assert_eq!(rig.stage.begun(), begun + 1, "nothing was kept of what failed");
    rig.stage.order(work, Order::answer("afresh"));
    assert_eq!(text(&end(&mut waiter).await), "afresh");
    settle().await;
    rig.assert_at_rest();
}

/// Three wait for one Run, which ends as ordered: each is told once.
async fn ends_for_all(tool: &str, order: Order) -> CallError {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let options = Options { dedup: Some(crate::tool::Dedup::Session), ..Options::default() };
    let first = rig.wait_with(&caller, tool, "a", options);
    let work = rig.stage.last();
    let follower = || rig.wait_with(&caller, tool, "a", options);
    let mut waiters = [first, follower(), follower()];
    rig.stage.order(work, order);
    settle().await;
    let answers = waiters.each_mut().map(|waiter| peek(waiter).unwrap());
    assert!(answers.iter().all(|answer| error(answer) == error(&answers[0])));
    let totals = rig.calls.watch().lifecycle().totals();
    assert_eq!((totals.calls, totals.error, totals.executions, totals.joined), (3, 3, 1, 2));
    drop(waiters);
    assert_eq!(rig.calls.watch().lifecycle().totals().calls, 3, "no second record of any of them");
    let held = rig.stage.held(work).unwrap();
    assert_eq!(
        (held.provider, held.global, held.leases),
        (1, 1, 1),
        "permits are held until the work is gone"
    );
    rig.assert_at_rest();
    runs_afresh(&rig, tool).await;
    error(&answers[0]).clone()
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_the_first_poll_frees_the_key() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let arguments = r#"{"k":"a","act":"panic"}"#;
    for before in 0..2 {
        let Submitted::Answered(answer) = rig.submit(&caller, "look", arguments, Options::default()) else {
            panic!("it is under way")
        };
        assert_eq!((error(&answer), code(&answer)), (&CallError::Lost, Some(Code::InternalError)));
        assert_eq!((rig.stage.begun(), rig.stage.progress(rig.stage.last())), (before + 1, Progress::Ended));
        assert_eq!(rig.stage.held(rig.stage.last()).unwrap().leases, 1);
        rig.assert_at_rest();
    }
    assert_eq!(rig.calls.watch().lifecycle().totals().error, 2);
    runs_afresh(&rig, "look").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_work_began_is_answered_and_goes_no_further() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let arguments = r#"{"k":"a","act":"panic early"}"#;
    for _ in 0..2 {
        let Submitted::Answered(answer) = rig.submit(&caller, "look", arguments, Options::default()) else {
            panic!("it is under way")
        };
        assert_eq!((error(&answer), code(&answer)), (&CallError::Lost, Some(Code::InternalError)));
        rig.assert_at_rest();
    }
    assert_eq!((rig.calls.watch().lifecycle().totals().error, rig.stage.begun()), (2, 0));
    runs_afresh(&rig, "look").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_work_in_progress_answers_everybody_once() {
    assert_eq!(ends_for_all("look", Order::Panic).await, CallError::Lost);
    assert_eq!(ends_for_all("put", Order::Panic).await, CallError::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_provider_answers_everybody_once() {
    let error = ends_for_all("ask", Order::broken()).await;
    assert_eq!(error.code(), Code::ProviderError);
    assert!(matches!(error, CallError::Provider(Fault::Broken { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_surely_was_not_done_says_why() {
    assert_eq!(ends_for_all("post", Order::refused()).await.code(), Code::ProviderError);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_been_done_says_so() {
    let error = ends_for_all("post", Order::broken()).await;
    assert_eq!((error.code(), error.retryable()), (Code::OutcomeUnknown, false));
    assert_eq!(
        error.to_string(),
        "post began and then its provider broke off: it may or may not have been done"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_over_the_limit_is_refused_and_not_kept() {
    let rig = Rig::new(&[("MAX_RESULT_BYTES", "100")]);
    let (mut waiter, work) = rig.at_work("look", "a");
    rig.stage.order(work, Order::Answer("x".repeat(200)));
    let answer = end(&mut waiter).await;
    assert_eq!((code(&answer), error(&answer).retryable()), (Some(Code::OverCapacity), false));
    runs_afresh(&rig, "look").await;
}

/// A runtime whose end aborts what it runs.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn an_aborted_run_frees_the_key_and_answers_everybody() {
    let rig = Rig::new(&[]);
    let doomed = runtime();
    let (mut first, mut second, work) = doomed.block_on(async {
        let (first, work) = rig.at_work("look", "a");
        let second = rig.wait(&rig.caller(0, 2), "look", "a");
        settle().await;
        (first, second, work)
    });
    drop(doomed);
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    assert_eq!(rig.stage.held(work).unwrap().leases, 1);
    runtime().block_on(async {
        for waiter in [&mut first, &mut second] {
            assert_eq!(error(&peek(waiter).unwrap()), &CallError::Lost);
        }
    });
    rig.assert_at_rest();
    runtime().block_on(runs_afresh(&rig, "look"));
}

#[test]
fn an_aborted_run_that_still_waits_gives_up_its_place_in_line() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let doomed = runtime();
    let (mut first, mut second) = doomed.block_on(async {
        let first = rig.wait(&rig.caller(0, 1), "look", "a");
        let second = rig.wait(&rig.caller(0, 2), "look", "b");
        settle().await;
        (first, second)
    });
    drop(doomed);
    runtime().block_on(async {
        for waiter in [&mut first, &mut second] {
            assert_eq!(error(&peek(waiter).unwrap()), &CallError::Lost);
        }
    });
    assert_eq!(rig.stage.begun(), 1);
    rig.assert_at_rest();
    runtime().block_on(runs_afresh(&rig, "look"));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panicked_is_not_offered_for_retry() {
    let error = ends_for_all("post", Order::Panic).await;
    assert_eq!((error.code(), error.retryable()), (Code::OutcomeUnknown, false));
}
