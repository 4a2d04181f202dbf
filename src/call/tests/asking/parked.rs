//! Callers that are asked by the result of their call, and come back with the answer.

use serde_json::{Value, json};

use super::*;
use crate::call::{Answer, Call, CallError, Continues};

const LABEL: &str = r#"{"k":"same"}"#;

fn by_results() -> Options {
    can(Can::FORMS.and(Can::BY_RESULTS))
}

/// What a result asks: its state, and the names of its questions.
fn asks(answer: &Answer) -> (String, Vec<String>) {
    let reply = answer.outcome.as_ref().unwrap_or_else(|error| panic!("{error}"));
    assert!(reply.asks, "{}", reply.members());
    let asked: Value = serde_json::from_str(&format!("{{{}}}", reply.members())).unwrap();
    let questions = asked["inputRequests"].as_object().unwrap();
    assert!(questions.values().all(|question| question["method"] == "elicitation/create"));
    (asked["requestState"].as_str().unwrap().to_owned(), questions.keys().cloned().collect())
}

fn comes_back(rig: &Rig, caller: &Caller, tool: &str, state: &str, responses: &Value) -> Submitted {
    let responses = responses.to_string();
    let call = Call { id: None, tool, arguments: LABEL, extra: None, options: by_results() };
    let continues = Continues { state: Some(state), responses: Some(&responses) };
    rig.calls.resubmit(caller, call, Some(continues))
}

async fn answer(submitted: Submitted) -> Answer {
    match submitted {
        Submitted::Answered(answer) => answer,
        Submitted::Waiting(mut waiter) => end(&mut waiter).await,
    }
}

fn misfit(answer: &Answer) -> &str {
    match super::super::rig::error(answer) {
        CallError::Misfit(misfit) => &misfit.path,
        other => panic!("{other}"),
    }
}

/// One that is parked: its state and its question's name.
async fn parked(rig: &Rig, caller: &Caller, tool: &str) -> (String, String) {
    let (state, questions) = asks(&answer(rig.submit(caller, tool, LABEL, by_results())).await);
    settle().await;
    (state, questions[0].clone())
}

#[tokio::test(start_paused = true)]
async fn a_parked_run_keeps_its_place_its_clock_stands_still_and_its_caller_goes_on_with_it() {
    let rig = rig(&[("WORKFLOW_TOOL_TIMEOUT_SECS", "20")]);
    let caller = rig.caller(0, 1);
    let (state, question) = parked(&rig, &caller, "order").await;
    assert_eq!(rig.calls.watch().active(), 0, "nobody waits");
    assert_eq!((rig.calls.pools().0.in_use, rig.calls.leases().holders().len()), (0, 1));
    pass(secs(299)).await;
    let overdue = rig.calls.leases().overdue(tokio::time::Instant::now(), secs(0));
    assert!(overdue.is_empty());
    let mut back = answer(comes_back(&rig, &caller, "order", &state, &json!({question: {"n": 1}}))).await;
    assert_eq!(text(&back), "\"result\":{\"n\":1}");
    rig.assert_at_rest();
    // What it had left of its time is what it has: it asks twice, and takes its time once.
    let arguments = r#"{"k":"same","times":2}"#;
    let (state, questions) = asks(&answer(rig.submit(&caller, "order", arguments, by_results())).await);
    settle().await;
    pass(secs(200)).await;
    let responses = json!({&questions[0]: {"n": 1}}).to_string();
    let call = Call { id: None, tool: "order", arguments, extra: None, options: can(Can::FORMS) };
    let continues = Continues { state: Some(&state), responses: Some(&responses) };
    let Submitted::Waiting(mut waiter) = rig.calls.resubmit(&caller, call, Some(continues)) else {
        panic!("it asks again")
    };
    settle().await;
    assert!(asked(&mut waiter).is_some());
    pass(secs(19)).await;
    assert!(peek(&mut waiter).is_none());
    pass(secs(1)).await;
    back = end(&mut waiter).await;
    assert_eq!(code(&back), Some(Code::OutcomeUnknown));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_in_time_has_its_run_cancelled() {
    let rig = rig(&[]);
    let caller = rig.caller(0, 1);
    let (state, question) = parked(&rig, &caller, "order").await;
    pass(secs(299)).await;
    assert_eq!(rig.calls.flights().executions(), 1);
    pass(secs(1)).await;
    rig.assert_at_rest();
    let late = answer(comes_back(&rig, &caller, "order", &state, &json!({question: {}}))).await;
    assert_eq!(misfit(&late), "requestState");
}

#[tokio::test(start_paused = true)]
async fn a_state_is_good_once_for_its_own_principal_tool_and_arguments() {
    let rig = rig(&[]);
    let caller = rig.caller(0, 1);
    let (state, question) = parked(&rig, &caller, "order").await;
    let responses = json!({&question: {"n": 1}});
    for (caller, tool) in [(rig.caller(1, 2), "order"), (caller.clone(), "inquire")] {
        assert_eq!(
            misfit(&answer(comes_back(&rig, &caller, tool, &state, &responses)).await),
            "requestState"
        );
    }
    let call = Call { id: None, tool: "order", arguments: "{}", extra: None, options: by_results() };
    let other = Continues { state: Some(&state), responses: None };
    assert_eq!(misfit(&answer(rig.calls.resubmit(&caller, call, Some(other))).await), "requestState");
    for odd in [json!([]), json!({"x": 7}), json!(7)] {
        assert_eq!(misfit(&answer(comes_back(&rig, &caller, "order", &state, &odd)).await), "inputResponses");
    }
    for unknown in ["inflightd_", "inflightd_00000000000000000000000000000000"] {
        assert_eq!(
            misfit(&answer(comes_back(&rig, &caller, "order", unknown, &responses)).await),
            "requestState"
        );
    }
    // From another connection of its principal's, once.
    let elsewhere = rig.caller(0, 9);
    assert_eq!(
        text(&answer(comes_back(&rig, &elsewhere, "order", &state, &responses)).await),
        "\"result\":{\"n\":1}"
    );
    assert_eq!(misfit(&answer(comes_back(&rig, &caller, "order", &state, &responses)).await), "requestState");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_came_back_finds_its_call_again_when_its_connection_goes() {
    let rig = rig(&[]);
    let caller = rig.attached(0, 1);
    let (state, question) = parked(&rig, &caller, "order").await;
    let responses = json!({question: {"n": 1}}).to_string();
    let comes_back = |resume| {
        let options = Options { resume, ..by_results() };
        let call = Call { id: Some("2"), tool: "order", arguments: LABEL, extra: None, options };
        let continues = Continues { state: Some(&state), responses: Some(&responses) };
        rig.calls.resubmit(&caller, call, Some(continues))
    };
    let Submitted::Waiting(waiter) = comes_back(false) else { panic!("it goes on") };
    drop(waiter);
    settle().await;
    for _ in 0..2 {
        assert_eq!(text(&answer(comes_back(true)).await), "\"result\":{\"n\":1}");
    }
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_did_not_hear_what_it_is_asked_is_asked_again_when_it_is_back() {
    let rig = rig(&[]);
    let caller = rig.attached(0, 1);
    let calls = |resume| {
        let options = Options { resume, ..by_results() };
        rig.calls
            .submit(&caller, Call { id: Some("1"), tool: "order", arguments: LABEL, extra: None, options })
    };
    let (first, question) = asks(&answer(calls(false)).await);
    settle().await;
    let (second, same) = asks(&answer(calls(true)).await);
    assert_eq!(question, same);
    let responses = json!({&question[0]: {"n": 1}});
    assert_eq!(misfit(&answer(comes_back(&rig, &caller, "order", &first, &responses)).await), "requestState");
    let back = answer(comes_back(&rig, &caller, "order", &second, &responses)).await;
    assert_eq!(text(&back), "\"result\":{\"n\":1}");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn what_was_not_answered_is_asked_again_and_what_came_meanwhile_too() {
    let rig = rig(&[]);
    let caller = rig.caller(0, 1);
    let arguments = r#"{"k":"all at once","times":3}"#;
    let (state, questions) = asks(&answer(rig.submit(&caller, "inquire", arguments, by_results())).await);
    assert_eq!(questions.len(), 3);
    let go_on = |state: String, responses: Value| {
        let responses = responses.to_string();
        let call = Call { id: None, tool: "inquire", arguments, extra: None, options: by_results() };
        rig.calls.resubmit(
            &caller,
            call,
            Some(Continues { state: Some(&state), responses: Some(&responses) }),
        )
    };
    let (state, left) = asks(&answer(go_on(state, json!({&questions[0]: {"n": 0}}))).await);
    assert_eq!(left.len(), 2);
    let all = json!({&left[0]: {"n": 1}, &left[1]: {"n": 2}, "stranger": {}});
    let said = text(&answer(go_on(state, all)).await);
    assert!((0..3).all(|n| said.contains(&format!("{{\"n\":{n}}}"))), "{said}");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_principal_has_64_parked_runs_and_the_next_asks_somebody_else() {
    let rig = rig(&[("OFFLINE_MAX_INFLIGHT", "100"), ("SESSION_MAX_INFLIGHT", "100")]);
    let caller = rig.caller(0, 1);
    for _ in 0..64 {
        parked(&rig, &caller, "order").await;
    }
    let refused = answer(rig.submit(&caller, "order", LABEL, by_results())).await;
    assert_eq!(text(&refused), "nobody is there who could answer");
    parked(&rig, &rig.caller(1, 2), "order").await;
    pass(secs(300)).await;
    rig.assert_at_rest();
    parked(&rig, &caller, "order").await;
    pass(secs(300)).await;
}

#[tokio::test(start_paused = true)]
async fn who_makes_the_same_call_while_nobody_waits_has_a_run_of_its_own() {
    let rig = rig(&[]);
    let caller = rig.caller(0, 1);
    let (first, _) = parked(&rig, &caller, "inquire").await;
    let (second, question) = parked(&rig, &caller, "inquire").await;
    assert!(first != second && rig.calls.flights().executions() == 2);
    let back = answer(comes_back(&rig, &caller, "inquire", &second, &json!({question: {"n": 1}}))).await;
    assert_eq!(text(&back), "\"result\":{\"n\":1}");
    pass(secs(300)).await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn where_others_wait_they_are_asked_instead_of_one_who_does_not_come_back() {
    let rig = rig(&[]);
    let mut first = waits(&rig, &rig.caller(0, 1), by_results());
    let mut second = waits(&rig, &rig.caller(0, 2), Options { timeout: Some(secs(1000)), ..can(Can::FORMS) });
    settle().await;
    let (state, question) = asks(&end(&mut first).await);
    settle().await;
    assert_eq!(asked(&mut second), None);
    // The daemon itself waits 270 s for a call.
    pass(secs(260)).await;
    let mut third = waits(&rig, &rig.caller(0, 3), can(Can::FORMS));
    assert!(peek(&mut second).is_none() && asked(&mut third).is_none());
    pass(secs(40)).await;
    assert_eq!(code(&end(&mut second).await), Some(Code::Timeout));
    let id = asked(&mut third).unwrap();
    let late = comes_back(&rig, &rig.caller(0, 1), "inquire", &state, &json!({&question[0]: {"n": 1}}));
    assert_eq!(misfit(&answer(late).await), "requestState");
    third.said(id, accept(3));
    assert_eq!(text(&end(&mut third).await), "\"result\":{\"n\":3}");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_finds_too_many_waiting_may_come_back_once_more() {
    let rig = rig(&[("WAITERS_MAX", "2")]);
    let caller = rig.caller(0, 1);
    let mut first = waits(&rig, &caller, by_results());
    let _second = waits(&rig, &rig.caller(0, 2), can(Can::FORMS));
    settle().await;
    let (state, question) = asks(&end(&mut first).await);
    settle().await;
    let third = waits(&rig, &rig.caller(0, 3), can(Can::FORMS));
    let responses = json!({&question[0]: {"n": 1}});
    let full = answer(comes_back(&rig, &caller, "inquire", &state, &responses)).await;
    assert_eq!(code(&full), Some(Code::OverCapacity));
    drop(third);
    let back = answer(comes_back(&rig, &caller, "inquire", &state, &responses)).await;
    assert_eq!(text(&back), "\"result\":{\"n\":1}");
}

#[tokio::test(start_paused = true)]
async fn a_parked_run_ends_at_once_when_the_daemon_goes_down() {
    let rig = rig(&[]);
    let caller = rig.caller(0, 1);
    let (state, question) = parked(&rig, &caller, "order").await;
    rig.calls.start_draining();
    settle().await;
    rig.assert_at_rest();
    let back = answer(comes_back(&rig, &caller, "order", &state, &json!({question: {}}))).await;
    assert_eq!(code(&back), Some(Code::OutcomeUnknown), "what became of it is known");
}
