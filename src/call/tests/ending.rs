//! Ends that the daemon sets: a Run's deadline, and the daemon's own end.

use tokio::time::Instant;

use crate::call::tests::rig::{Rig, code, end, error, pass, peek, secs, settle, text};
use crate::call::tests::stage::{Order, Progress};
use crate::call::{CallError, Code};

#[tokio::test(start_paused = true)]
async fn a_read_past_its_rung_is_a_timeout_of_its_provider() {
    let rig = Rig::new(&[]);
    let (mut waiter, work) = rig.at_work("look", "a");
    let before = Instant::now();
    let answer = end(&mut waiter).await;
    assert_eq!(before.elapsed(), secs(180));
    let execution = answer.execution.unwrap();
    assert_eq!(
        error(&answer).to_string(),
        format!("offline provider timeout after 180s (session: {execution})")
    );
    assert_eq!((code(&answer), error(&answer).retryable()), (Some(Code::Timeout), true));
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_call_past_its_rung_is_a_timeout_of_its_provider() {
    let rig = Rig::new(&[("WORKFLOW_TOOL_TIMEOUT_SECS", "2.5"), ("QUEUE_TIMEOUT_SECS", "1")]);
    let (mut waiter, _) = rig.at_work("put", "a");
    let answer = end(&mut waiter).await;
    let execution = answer.execution.unwrap();
    assert_eq!(
        error(&answer).to_string(),
        format!("offline provider timeout after 2.5s (session: {execution})")
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_past_its_rung_has_an_unknown_outcome() {
    let rig = Rig::new(&[]);
    let (mut waiter, _) = rig.at_work("post", "a");
    let answer = end(&mut waiter).await;
    assert_eq!((code(&answer), error(&answer).retryable()), (Some(Code::OutcomeUnknown), false));
    let text = "post began and then ran into its time limit: it may or may not have been done";
    assert_eq!(error(&answer).to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_draining_daemon_takes_no_new_call_and_still_tells_of_itself() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    rig.calls.start_draining();
    let refused = rig.answered(&caller, "look", "a");
    assert_eq!(code(&refused), Some(Code::ShuttingDown));
    assert_eq!(error(&refused).to_string(), "Session manager is shutting down, cannot create new sessions");
    assert_eq!(rig.calls.watch().lifecycle().totals().rejected, 1);
    let health = rig.submit(&caller, "health", "{}", crate::call::Options::default());
    let crate::call::Submitted::Answered(health) = health else { panic!("it waits") };
    assert!(text(&health).contains(r#""status":"draining""#));
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_at_once_who_waits_for_a_provider() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let (_working, _) = rig.at_work("look", "a");
    let mut queued = rig.wait(&rig.caller(0, 2), "look", "b");
    rig.calls.start_draining();
    settle().await;
    assert_eq!(code(&peek(&mut queued).unwrap()), Some(Code::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_at_once_who_waits_for_the_global_permit() {
    let rig = Rig::new(&[("GLOBAL_MAX_INFLIGHT", "1")]);
    let (_working, _) = rig.at_work("look", "a");
    let mut queued = rig.wait(&rig.caller(0, 2), "look", "b");
    rig.calls.start_draining();
    settle().await;
    assert_eq!(code(&peek(&mut queued).unwrap()), Some(Code::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_finish_what_works() {
    let rig = Rig::new(&[]);
    let (mut read, first) = rig.at_work("look", "a");
    let (mut write, second) = rig.at_work("post", "b");
    rig.calls.start_draining();
    pass(secs(20)).await;
    rig.stage.order(first, Order::answer("read"));
    rig.stage.order(second, Order::answer("written"));
    assert_eq!([text(&end(&mut read).await), text(&end(&mut write).await)], ["read", "written"]);
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn after_the_drain_a_read_is_told_that_the_daemon_goes() {
    for tool in ["look", "ask", "put"] {
        let rig = Rig::new(&[]);
        let (mut waiter, work) = rig.at_work(tool, "a");
        rig.calls.start_draining();
        rig.calls.stop_all();
        assert_eq!(error(&end(&mut waiter).await), &CallError::CutOff, "{tool}");
        assert_eq!(rig.stage.progress(work), Progress::CutOff);
        settle().await;
        rig.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_drain_a_write_that_began_has_an_unknown_outcome() {
    let rig = Rig::new(&[]);
    let (mut waiter, _) = rig.at_work("post", "a");
    rig.calls.start_draining();
    rig.calls.stop_all();
    let answer = end(&mut waiter).await;
    assert_eq!((code(&answer), error(&answer).retryable()), (Some(Code::OutcomeUnknown), false));
    let text =
        "post began and then was cut off because the daemon went down: it may or may not have been done";
    assert_eq!(error(&answer).to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_had_not_begun_is_told_that_the_daemon_goes() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let (_working, _) = rig.at_work("look", "a");
    let mut queued = rig.wait(&rig.caller(0, 2), "post", "b");
    rig.calls.start_draining();
    rig.calls.stop_all();
    assert_eq!(error(&end(&mut queued).await), &CallError::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_at_once_who_waits_for_its_sessions_slot() {
    let rig = Rig::new(&[("SESSION_MAX_INFLIGHT", "1")]);
    let caller = rig.caller(0, 1);
    let mut working = rig.wait(&caller, "look", "a");
    let mut queued = rig.wait(&caller, "look", "b");
    rig.calls.start_draining();
    settle().await;
    assert_eq!(code(&peek(&mut queued).unwrap()), Some(Code::ShuttingDown));
    rig.stage.order(rig.stage.find("a"), Order::answer("a"));
    assert_eq!(text(&end(&mut working).await), "a");
    settle().await;
    assert_eq!((rig.stage.begun(), caller.session.slots.view().in_use), (1, 0));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_takes_its_call_back_while_the_daemon_drains_is_told_so() {
    for tool in ["look", "post"] {
        let rig = Rig::new(&[]);
        let (mut waiter, _) = rig.at_work(tool, "a");
        rig.calls.start_draining();
        waiter.cancel_handle().cancel();
        // The Run has ended before the waiter looks.
        settle().await;
        assert_eq!(error(&end(&mut waiter).await), &CallError::Cancelled, "{tool}");
    }
}
