//! The table of "the last waiter leaves", cell by cell.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::call::tests::rig::{Rig, code, end, error, pass, secs, settle, text, within};
use crate::call::tests::stage::{Order, Progress};
use crate::call::{Answer, Call, CallError, Code, Options, Submitted, Waiter};
use crate::ids::{PrincipalId, RequestId};
use crate::lifecycle::Role;
use crate::phase::Terminal;
use crate::tool::{Dedup, Found};

/// What is known of a request of principal 0.
fn found(rig: &Rig, request: RequestId) -> Value {
    kept(rig, request).about
}

fn kept(rig: &Rig, request: RequestId) -> Found {
    rig.calls.watch().find(PrincipalId(0), request).unwrap_or_else(|| panic!("{request} is not known"))
}

/// The text that a request left behind.
fn collected(rig: &Rig, request: RequestId) -> Value {
    let reply = kept(rig, request).reply.unwrap_or_else(|| panic!("{request} left nothing"));
    let content: Value = serde_json::from_str(reply.content()).unwrap();
    content[0]["text"].clone()
}

async fn cancelled(waiter: &mut Waiter) -> Answer {
    waiter.cancel_handle().cancel();
    let before = Instant::now();
    let answer = end(waiter).await;
    settle().await;
    assert_eq!(Instant::now(), before, "at once");
    answer
}

#[tokio::test(start_paused = true)]
async fn cancelled_last_a_read_stops_at_once() {
    for tool in ["look", "ask"] {
        let rig = Rig::new(&[]);
        let (mut waiter, work) = rig.at_work(tool, "a");
        assert_eq!(code(&cancelled(&mut waiter).await), Some(Code::Cancelled));
        assert_eq!(rig.stage.progress(work), Progress::CutOff, "{tool}");
        rig.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_last_an_idempotent_call_stops_at_once() {
    let rig = Rig::new(&[]);
    let (mut waiter, work) = rig.at_work("put", "a");
    assert_eq!(code(&cancelled(&mut waiter).await), Some(Code::Cancelled));
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn cancelled_last_a_write_stops_at_once() {
    let rig = Rig::new(&[]);
    let (mut waiter, work) = rig.at_work("post", "a");
    assert_eq!(code(&cancelled(&mut waiter).await), Some(Code::Cancelled));
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_that_was_dropped_at_once_stops_as_well() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("post", "a");
    waiter.cancel_handle().cancel();
    drop(waiter);
    settle().await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn cancelled_with_others_waiting_disturbs_nobody() {
    let rig = Rig::new(&[]);
    let (mut first, work) = rig.at_work("ask", "a");
    let mut second = rig.wait(&rig.caller(0, 2), "ask", "a");
    assert_eq!(code(&cancelled(&mut first).await), Some(Code::Cancelled));
    pass(secs(100)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    rig.stage.order(work, Order::answer("for the second"));
    assert_eq!(text(&end(&mut second).await), "for the second");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_landing_changes_nothing() {
    let rig = Rig::new(&[]);
    let (mut waiter, work) = rig.at_work("post", "a");
    rig.stage.order(work, Order::answer("done"));
    settle().await;
    waiter.cancel_handle().cancel();
    assert_eq!(text(&end(&mut waiter).await), "done");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_landing_stands_for_who_looks_after_it() {
    let rig = Rig::new(&[]);
    let (mut first, work) = rig.at_work("post", "a");
    let (mut other, read) = rig.at_work("look", "b");
    let mut joined = rig.wait(&rig.caller(0, 2), "look", "b");
    first.cancel_handle().cancel();
    other.cancel_handle().cancel();
    rig.stage.order(work, Order::answer("done all the same"));
    rig.stage.order(read, Order::answer("for who joined"));
    settle().await;
    assert_eq!(code(&end(&mut first).await), Some(Code::Cancelled));
    assert_eq!(code(&end(&mut other).await), Some(Code::Cancelled));
    assert_eq!(text(&end(&mut joined).await), "for who joined");
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn the_calls_under_way_are_those_that_have_not_ended_the_oldest_first() {
    let rig = Rig::new(&[]);
    let listed = || -> Vec<String> {
        let list = rig.calls.watch().list(PrincipalId(0));
        let list = list["active_requests"].as_array().unwrap();
        list.iter().map(|one| one["request_id"].as_str().unwrap().to_owned()).collect()
    };
    let (mut first, work) = rig.at_work("look", "a");
    pass(secs(1)).await;
    let (second, _) = rig.at_work("look", "b");
    rig.stage.order(work, Order::answer("done"));
    end(&mut first).await;
    pass(secs(1)).await;
    let (third, _) = rig.at_work("look", "c");
    assert_eq!(listed(), [second.request().to_string(), third.request().to_string()]);
    assert_eq!(found(&rig, second.request())["state"], "active");
    drop(second);
    assert_eq!(listed(), [third.request().to_string()]);
}

/// Its own deadline of 5 s comes, and the answer says what becomes of the work.
async fn gave_up(rig: &Rig, tool: &str) -> (Answer, usize) {
    let mut waiter = rig.wait_with(&rig.caller(0, 1), tool, "a", within(secs(5)));
    let before = Instant::now();
    let answer = end(&mut waiter).await;
    assert_eq!(before.elapsed(), secs(5));
    settle().await;
    (answer, rig.stage.last())
}

#[tokio::test(start_paused = true)]
async fn past_the_last_deadline_a_read_stops() {
    for tool in ["look", "ask"] {
        let rig = Rig::new(&[]);
        let (answer, work) = gave_up(&rig, tool).await;
        let text = format!("No answer within 5s (request: {})", answer.request);
        assert_eq!(error(&answer).to_string(), text);
        assert_eq!((code(&answer), error(&answer).still_running()), (Some(Code::Timeout), false));
        assert_eq!(rig.stage.progress(work), Progress::CutOff);
        assert!(found(&rig, answer.request).get("work").is_none(), "nothing to collect");
        rig.assert_at_rest();
    }
}

async fn goes_on_and_can_be_collected(tool: &str) {
    let rig = Rig::new(&[]);
    let (answer, work) = gave_up(&rig, tool).await;
    assert_eq!((code(&answer), error(&answer).still_running()), (Some(Code::Timeout), true));
    assert!(error(&answer).to_string().ends_with("call get_request with this id to collect its outcome"));
    assert!(!error(&answer).retryable(), "to send it again would do it again");
    pass(secs(100)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    assert_eq!(found(&rig, answer.request)["work"]["state"], "running");
    rig.stage.order(work, Order::answer("late"));
    settle().await;
    assert_eq!(collected(&rig, answer.request), "late");
    assert!(rig.calls.watch().find(PrincipalId(1), answer.request).is_none(), "it is nobody else's");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn past_the_last_deadline_an_idempotent_call_goes_on_and_can_be_collected() {
    goes_on_and_can_be_collected("put").await;
}

#[tokio::test(start_paused = true)]
async fn past_the_last_deadline_a_write_goes_on_and_can_be_collected() {
    goes_on_and_can_be_collected("post").await;
}

#[tokio::test(start_paused = true)]
async fn work_that_went_on_ends_at_the_runs_deadline() {
    let rig = Rig::new(&[]);
    let (answer, work) = gave_up(&rig, "post").await;
    pass(secs(175)).await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    assert_eq!(found(&rig, answer.request)["work"]["code"], "OUTCOME_UNKNOWN");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn get_request_collects_what_a_caller_could_not_wait_for() {
    let rig = Rig::new(&[]);
    let (answer, work) = gave_up(&rig, "put").await;
    rig.stage.order(work, Order::answer("late"));
    settle().await;
    let asked = format!(r#"{{"request_id":"{}"}}"#, answer.request);
    let content = match rig.submit(&rig.caller(0, 9), "get_request", &asked, Options::default()) {
        crate::call::Submitted::Answered(told) => told.outcome.unwrap().content().to_owned(),
        crate::call::Submitted::Waiting(_) => panic!("a built-in tool answers at once"),
    };
    let content: Value = serde_json::from_str(&content).unwrap();
    let told: Value = serde_json::from_str(content[0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&told["state"], &told["code"]), (&"timeout".into(), &"TIMEOUT".into()));
    assert_eq!(content[1]["text"], "late");
}

#[tokio::test(start_paused = true)]
async fn a_kept_outcome_goes_after_an_hour() {
    let rig = Rig::new(&[]);
    let (answer, work) = gave_up(&rig, "put").await;
    rig.stage.order(work, Order::answer("late"));
    pass(secs(3601)).await;
    rig.calls.watch().sweep();
    assert!(found(&rig, answer.request).get("work").is_none());
}

#[tokio::test(start_paused = true)]
async fn of_kept_outcomes_the_oldest_go_where_they_are_too_many_or_too_large() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("put", "a");
    let flight = Arc::clone(waiter.seat().0);
    let watch = rig.calls.watch();
    let keep = || {
        let request = RequestId::mint();
        watch.keep(request, PrincipalId(0), Terminal::Timeout, &flight);
        request
    };
    let is_kept = |request| watch.find(PrincipalId(0), request).is_some();
    let first = keep();
    let second = keep();
    for _ in 2..1024 {
        keep();
    }
    assert!(is_kept(first), "1,024 are kept");
    keep();
    assert!(!is_kept(first) && is_kept(second));
    // Each is as large as the reply that all of them are of: 64 MiB is 32 of 2 MiB.
    rig.stage.order(work, Order::answer(&*"x".repeat(2 << 20).leak()));
    settle().await;
    let last: Vec<_> = (0..32).map(|_| keep()).collect();
    assert!(!is_kept(second) && !is_kept(last[0]) && is_kept(last[1]), "a reply is more than its text");
    drop(waiter);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_takes_of_the_room_for_kept_outcomes_too() {
    let rig = Rig::new(&[]);
    let large = "x".repeat(2 << 20);
    let waiter = rig.wait(&rig.caller(0, 1), "put", &large);
    settle().await;
    let watch = rig.calls.watch();
    let keep = |_| {
        let request = RequestId::mint();
        watch.keep(request, PrincipalId(0), Terminal::Timeout, waiter.seat().0);
        request
    };
    let all: Vec<_> = (0..32).map(keep).collect();
    let is_kept = |request| watch.find(PrincipalId(0), request).is_some();
    assert!(!is_kept(all[0]) && is_kept(all[1]), "64 MiB is 31 of 2 MiB and a little");
}

#[tokio::test(start_paused = true)]
async fn without_its_connection_a_cheap_read_lingers_two_seconds() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("look", "a");
    drop(waiter);
    pass(Duration::from_millis(1999)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn without_its_connection_a_paid_read_lingers_as_long_as_configured() {
    let rig = Rig::new(&[("REATTACH_SECS", "90")]);
    let (waiter, work) = rig.at_work("ask", "a");
    drop(waiter);
    pass(Duration::from_millis(89_999)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_keeps_a_lingering_read_in_the_air() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("look", "a");
    drop(waiter);
    pass(Duration::from_millis(1999)).await;
    let mut newcomer = rig.wait(&rig.caller(0, 2), "look", "a");
    pass(secs(100)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    rig.stage.order(work, Order::answer("still here"));
    let answer = end(&mut newcomer).await;
    assert_eq!((text(&answer).as_str(), answer.role), ("still here", Some(Role::Follower)));
    assert_eq!(rig.stage.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_goes_as_well_starts_the_linger_anew() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("look", "a");
    drop(waiter);
    pass(secs(1)).await;
    drop(rig.wait(&rig.caller(0, 2), "look", "a"));
    pass(Duration::from_millis(1999)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_cancels_ends_the_linger() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("ask", "a");
    drop(waiter);
    pass(secs(1)).await;
    cancelled(&mut rig.wait(&rig.caller(0, 2), "ask", "a")).await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    rig.assert_at_rest();
}

async fn goes_on_without_its_connection(tool: &str) {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work(tool, "a");
    let request = waiter.request();
    drop(waiter);
    pass(secs(100)).await;
    assert_eq!(rig.stage.progress(work), Progress::Running);
    rig.stage.order(work, Order::answer("for nobody"));
    settle().await;
    assert_eq!(collected(&rig, request), "for nobody");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn without_its_connection_an_idempotent_call_goes_on_and_its_outcome_is_kept() {
    goes_on_without_its_connection("put").await;
}

#[tokio::test(start_paused = true)]
async fn without_its_connection_a_write_goes_on_and_its_outcome_is_kept() {
    goes_on_without_its_connection("post").await;
}

#[tokio::test(start_paused = true)]
async fn a_queued_call_that_is_taken_back_leaves_the_queue() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let (_first, _) = rig.at_work("look", "a");
    let mut second = rig.wait(&rig.caller(0, 2), "look", "b");
    let work = rig.stage.last();
    assert_eq!(rig.calls.pools().1[1].1.queued, 1);
    assert_eq!(error(&cancelled(&mut second).await), &CallError::Cancelled);
    assert_eq!((rig.stage.progress(work), rig.stage.started(work)), (Progress::CutOff, None));
    assert_eq!(rig.calls.pools().1[1].1.queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_one_gave_up_and_another_took_back_has_an_unknown_outcome() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let shared = Options { timeout: Some(secs(5)), dedup: Some(Dedup::Session), ..Options::default() };
    let mut first = rig.wait_with(&caller, "post", "a", shared);
    let mut second = rig.wait_with(&caller, "post", "a", Options { timeout: None, ..shared });
    let gave_up = end(&mut first).await;
    assert!(error(&gave_up).still_running());
    assert_eq!(code(&cancelled(&mut second).await), Some(Code::Cancelled));
    assert_eq!(found(&rig, gave_up.request)["work"]["code"], "OUTCOME_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_nobody_came_to_read_is_kept() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("post", "a");
    let request = waiter.request();
    rig.stage.order(work, Order::answer("done"));
    settle().await;
    drop(waiter);
    assert_eq!(collected(&rig, request), "done");
}

#[tokio::test(start_paused = true)]
async fn a_kept_outcome_outlives_the_records_of_busy_days() {
    let rig = Rig::new(&[]);
    let (answer, work) = gave_up(&rig, "put").await;
    rig.stage.order(work, Order::answer("late"));
    settle().await;
    let caller = rig.caller(0, 2);
    for _ in 0..crate::lifecycle::KEPT_RECORDS {
        rig.answered(&caller, "no such tool", "a");
    }
    assert_eq!(found(&rig, answer.request)["state"], "timeout");
    assert_eq!(collected(&rig, answer.request), "late");
}

#[tokio::test(start_paused = true)]
async fn who_is_back_finds_its_call_though_other_tools_are_offered_by_now() {
    let rig = Rig::new(&[]);
    let caller = rig.attached(0, 1);
    let offer = rig.offers();
    let call = |tool, resume| {
        let options = Options { resume, ..Options::default() };
        rig.calls
            .submit(&caller, Call { id: Some("1"), tool, arguments: r#"{"k":"a"}"#, extra: None, options })
    };
    offer(&["send"]);
    drop(call("send", false));
    settle().await;
    offer(&["store", "send"]);
    let Submitted::Answered(other) = call("store", true) else { panic!("it is another call") };
    assert_eq!(code(&other), Some(Code::OutcomeUnknown));
    let Submitted::Waiting(mut waiter) = call("send", true) else { panic!("it runs") };
    rig.stage.order(rig.stage.find("a"), Order::answer("sent"));
    assert_eq!(text(&end(&mut waiter).await), "sent");
}
