//! Composites: what they hold, how their children meet, and how both end.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::tests::rig::{Rig, code, end, error, pass, peek, secs, settle, text, within};
use crate::call::tests::stage::{Order, Progress};
use crate::call::{Answer, Call, Caller, Code, Options, Origin, Principal, Priority, Submitted, Waiter};
use crate::config::PrincipalConfig;
use crate::config::principals::{OwnLimits, ToolPatterns};
use crate::ids::PrincipalId;
use crate::tool::Insight;

/// A consensus that asks this of these, under way.
fn ask(rig: &Rig, caller: &Caller, prompt: &str, models: &Value) -> Waiter {
    ask_with(rig, caller, prompt, models, Options::default())
}

fn ask_with(rig: &Rig, caller: &Caller, prompt: &str, models: &Value, options: Options) -> Waiter {
    let arguments = json!({"prompt": prompt, "models": models}).to_string();
    match rig.submit(caller, "consensus", &arguments, options) {
        Submitted::Waiting(waiter) => waiter,
        Submitted::Answered(answer) => panic!("answered at once: {:?}", answer.outcome),
    }
}

/// A caller of a principal that is configured so.
fn caller_as(rig: &Rig, config: &PrincipalConfig) -> Caller {
    let principal = Arc::new(Principal::new(PrincipalId(7), config, 8));
    Caller { principal, ..rig.caller(7, 1) }
}

fn chat(rig: &Rig, caller: &Caller, prompt: &str) -> Waiter {
    match rig.submit(caller, "chat", &json!({"prompt": prompt}).to_string(), Options::default()) {
        Submitted::Waiting(waiter) => waiter,
        Submitted::Answered(answer) => panic!("answered at once: {:?}", answer.outcome),
    }
}

fn structure(answer: &Answer) -> Value {
    let reply = answer.outcome.as_ref().unwrap_or_else(|error| panic!("{error}"));
    let members: Value = serde_json::from_str(&format!("{{{}}}", reply.members())).unwrap();
    members["structuredContent"].clone()
}

fn answers(answer: &Answer) -> Value {
    structure(answer)["answers"].clone()
}

#[tokio::test(start_paused = true)]
async fn with_all_limits_at_1_eight_at_once_all_finish() {
    let rig = Rig::new(&[
        ("GLOBAL_MAX_INFLIGHT", "1"),
        ("SESSION_MAX_INFLIGHT", "1"),
        ("OFFLINE_MAX_INFLIGHT", "1"),
        ("CONSENSUS_MAX_INFLIGHT", "1"),
        ("OFFLINE_LATENCY_MS", "10"),
    ]);
    let caller = rig.caller(0, 1);
    let models =
        &json!([{"provider": "offline"}, {"provider": "offline", "model": "m"}, {"provider": "offline"}]);
    let mut waiters: Vec<_> = (0..8).map(|n| ask(&rig, &caller, &n.to_string(), models)).collect();
    for waiter in &mut waiters {
        let answer = end(waiter).await;
        let answers = answers(&answer);
        assert!(answers.as_array().unwrap().iter().all(|each| each["text"].is_string()), "{answers}");
    }
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_composite_holds_nothing_but_a_slot_of_its_own_kind() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let mut waiter = ask(&rig, &caller, "q", &json!([{}, {}, {}]));
    settle().await;
    let (global, providers) = rig.calls.pools();
    let composites = rig.calls.composites();
    assert_eq!((composites[0].1.in_use, caller.session.slots.view().in_use), (1, 0));
    assert_eq!((global.in_use, providers[0].1.in_use, providers[0].1.queued), (2, 2, 1));
    assert_eq!((rig.calls.leases().holders().len(), rig.calls.flights().executions()), (2, 4));
    for piece in 0..3 {
        rig.stage.order(piece, Order::answer("a"));
        settle().await;
    }
    assert_eq!(answers(&end(&mut waiter).await).as_array().unwrap().len(), 3);
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn best_of_three_with_one_model_is_three_calls_of_its_provider() {
    let rig = Rig::new(&[]);
    let mut waiter = ask(&rig, &rig.caller(0, 1), "q", &json!([{}, {}, {}]));
    for (piece, answer) in ["one", "two", "three"].into_iter().enumerate() {
        settle().await;
        rig.stage.order(piece, Order::answer(answer));
    }
    let answer = end(&mut waiter).await;
    assert_eq!(rig.stage.begun(), 3);
    assert_eq!(text(&answer), "## second: m\n\none\n\n## second: m\n\ntwo\n\n## second: m\n\nthree");
    let one = |text: &str| json!({"provider": "second", "model": "m", "text": text});
    assert_eq!(answers(&answer), json!([one("one"), one("two"), one("three")]));
}

#[tokio::test(start_paused = true)]
async fn two_equal_composites_at_once_are_one() {
    let rig = Rig::new(&[]);
    let mut first = ask(&rig, &rig.caller(0, 1), "q", &json!([{}, {}]));
    let mut second = ask(&rig, &rig.caller(0, 2), "q", &json!([{}, {}]));
    settle().await;
    let totals = rig.calls.watch().lifecycle().totals();
    assert_eq!((totals.executions, totals.joined, rig.stage.begun()), (3, 1, 2));
    rig.stage.order(0, Order::answer("a"));
    rig.stage.order(1, Order::answer("b"));
    assert_eq!(text(&end(&mut first).await), text(&end(&mut second).await));
}

#[tokio::test(start_paused = true)]
async fn different_composites_and_plain_calls_share_an_equal_child() {
    let rig = Rig::new(&[]);
    let alone = json!([{}]);
    let and_offline = json!([{}, {"provider": "offline"}]);
    let mut direct = chat(&rig, &rig.caller(0, 1), "q");
    let mut first = ask(&rig, &rig.caller(0, 2), "q", &alone);
    let mut second = ask(&rig, &rig.caller(0, 3), "q", &and_offline);
    let mut stranger = ask(&rig, &rig.caller(1, 4), "q", &alone);
    settle().await;
    assert_eq!(rig.stage.begun(), 2, "one for each principal");
    rig.stage.order(0, Order::answer("shared"));
    rig.stage.order(1, Order::answer("another's"));
    assert_eq!(text(&end(&mut direct).await), "shared");
    assert_eq!(answers(&end(&mut first).await)[0]["text"], "shared");
    assert_eq!(answers(&end(&mut second).await)[0]["text"], "shared");
    assert_eq!(answers(&end(&mut stranger).await)[0]["text"], "another's");
}

#[tokio::test(start_paused = true)]
async fn a_composite_that_is_taken_back_takes_its_paid_children_back_at_once() {
    let rig = Rig::new(&[]);
    let mut waiter = ask(&rig, &rig.caller(0, 1), "q", &json!([{}, {}, {}]));
    settle().await;
    waiter.cancel_handle().cancel();
    settle().await;
    assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::Cancelled));
    assert_eq!((rig.stage.progress(0), rig.stage.progress(1)), (Progress::CutOff, Progress::CutOff));
    assert_eq!(rig.stage.begun(), 2, "the one that waited never began");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_others_share_goes_on_without_its_composite() {
    let rig = Rig::new(&[]);
    let composite = ask(&rig, &rig.caller(0, 1), "q", &json!([{}]));
    settle().await;
    let mut direct = chat(&rig, &rig.caller(0, 2), "q");
    composite.cancel_handle().cancel();
    settle().await;
    rig.stage.order(0, Order::answer("a"));
    assert_eq!(text(&end(&mut direct).await), "a");
}

#[tokio::test(start_paused = true)]
async fn a_composite_whose_caller_is_gone_lingers_with_its_children() {
    let rig = Rig::new(&[]);
    drop(ask(&rig, &rig.caller(0, 1), "q", &json!([{}])));
    pass(rig.config.reattach.saturating_sub(secs(1))).await;
    assert_eq!(rig.stage.progress(0), Progress::Running);
    pass(secs(2)).await;
    assert_eq!(rig.stage.progress(0), Progress::CutOff);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_composite_cannot_be_called_by_one() {
    let rig = Rig::new(&[]);
    let call = Call {
        id: None,
        tool: "consensus",
        arguments: r#"{"prompt":"q"}"#,
        extra: None,
        options: Options::default(),
    };
    let Submitted::Answered(answer) =
        rig.calls.submit_from(&rig.caller(0, 1), call, Origin::Composite { ordinal: 0 })
    else {
        panic!("it is under way")
    };
    assert_eq!(code(&answer), Some(Code::ValidationError));
    assert_eq!(
        error(&answer).to_string(),
        "`consensus` calls tools itself, so it cannot be called by one that does"
    );
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_in_the_class_of_its_composite() {
    let rig = Rig::new(&[]);
    let busy = ["x", "y"].map(|label| chat(&rig, &rig.caller(0, 1), label));
    let medium = chat(&rig, &rig.caller(0, 2), "medium");
    let high = Options { priority: Priority::High, ..Options::default() };
    let composite = ask_with(&rig, &rig.caller(0, 3), "high", &json!([{}]), high);
    settle().await;
    rig.stage.order(0, Order::answer("done"));
    settle().await;
    assert_eq!(rig.stage.running(), ["y", "high"]);
    drop((busy, medium, composite));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_costs_nobody_the_other_answers() {
    let rig = Rig::new(&[]);
    let mut waiter = ask_with(&rig, &rig.caller(0, 1), "q", &json!([{}, {}]), within(secs(600)));
    settle().await;
    rig.stage.order(1, Order::answer("b"));
    let answer = end(&mut waiter).await;
    let answers = answers(&answer);
    assert_eq!((&answers[0]["error"]["code"], &answers[1]["text"]), (&"TIMEOUT".into(), &"b".into()));
    let told = "Partial: 1 of 2 answered.\n\n## second: m\n\nNo answer: TIMEOUT: ";
    assert!(text(&answer).starts_with(told), "{}", text(&answer));
    assert!(!answer.outcome.unwrap().is_error);
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn it_is_partial_where_some_have_failed_and_failed_only_where_all_have() {
    let rig = Rig::new(&[]);
    for (first, last, answered) in [
        (Order::answer("a"), Order::answer("b"), 2),
        (Order::refused(), Order::answer("b"), 1),
        (Order::refused(), Order::Panic, 0),
    ] {
        let begun = rig.stage.begun();
        let mut waiter = ask(&rig, &rig.caller(0, 1), "q", &json!([{}, {}]));
        settle().await;
        rig.stage.order(begun, first);
        rig.stage.order(begun + 1, last);
        let answer = end(&mut waiter).await;
        let (failed, partial) = (answered == 0, answered == 1);
        let reply = answer.outcome.as_ref().unwrap();
        assert_eq!((reply.is_error, reply.is_partial), (failed, partial));
        let told = structure(&answer);
        let counts = (&told["asked"], &told["answered"], &told["partial"]);
        assert_eq!(counts, (&json!(2), &json!(answered), &json!(partial)));
        assert_eq!(text(&answer).starts_with("Partial: 1 of 2 answered.\n\n"), partial);
        let found = rig.calls.request(PrincipalId(0), answer.request).unwrap().about;
        let state = if failed { "error" } else { "completed" };
        assert_eq!((&found["state"], &found["session"]["state"]), (&json!(state), &json!(state)));
        assert_eq!(found["notes_ms"].get("partial").is_some(), partial, "{found}");
    }
    let stats = rig.calls.server_stats();
    let sessions = &stats["sessions"];
    // Three composites, and their children: three that answered, two refused, one that panicked.
    assert_eq!((&sessions["completed_sessions"], &sessions["error_sessions"]), (&json!(5), &json!(4)));
    assert_eq!(sessions["partial_sessions"], 1);
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_there_is_refused_before_anybody_is_paid() {
    let rig = Rig::new(&[]);
    let arguments = r#"{"prompt":"q","models":[{},{"provider":"nobody"}]}"#;
    let Submitted::Answered(answer) =
        rig.submit(&rig.caller(0, 1), "consensus", arguments, Options::default())
    else {
        panic!("it is under way")
    };
    assert_eq!((error(&answer).argument(), rig.stage.begun()), (Some("models/1/provider"), 0));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_composites_that_wait_and_lets_those_at_work_end() {
    let rig = Rig::new(&[("CONSENSUS_MAX_INFLIGHT", "1")]);
    let mut at_work = ask(&rig, &rig.caller(0, 1), "a", &json!([{}]));
    let mut waits = ask(&rig, &rig.caller(0, 1), "b", &json!([{}]));
    settle().await;
    rig.calls.start_draining();
    assert_eq!(code(&end(&mut waits).await), Some(Code::ShuttingDown));
    rig.stage.order(0, Order::answer("done"));
    assert_eq!(answers(&end(&mut at_work).await)[0]["text"], "done");
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_composite_and_its_children_are_tools_that_its_principal_may_call() {
    let rig = Rig::new(&[]);
    let tools = |patterns: &[&str]| PrincipalConfig {
        tools: Some(ToolPatterns::parse(patterns).unwrap()),
        ..PrincipalConfig::plain("ci")
    };
    let without = caller_as(&rig, &tools(&["chat"]));
    let Submitted::Answered(answer) =
        rig.submit(&without, "consensus", r#"{"prompt":"q"}"#, Options::default())
    else {
        panic!("it is under way")
    };
    assert_eq!(code(&answer), Some(Code::ToolNotFound));
    let alone = caller_as(&rig, &tools(&["consensus"]));
    let arguments = r#"{"prompt":"q","models":[{}]}"#;
    let answer = match rig.submit(&alone, "consensus", arguments, Options::default()) {
        Submitted::Answered(answer) => answer,
        Submitted::Waiting(mut waiter) => end(&mut waiter).await,
    };
    assert_eq!(answers(&answer)[0]["error"]["code"], "TOOL_NOT_FOUND");
    assert_eq!(rig.stage.begun(), 0);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn children_have_places_of_their_principal_and_the_composite_has_none() {
    let rig = Rig::new(&[]);
    let limits = Some(OwnLimits { max_inflight: 1, max_queued: None });
    let caller = caller_as(&rig, &PrincipalConfig { limits, ..PrincipalConfig::plain("ci") });
    let mut waiter = ask(&rig, &caller, "q", &json!([{}, {}]));
    for piece in 0..2 {
        settle().await;
        let own = caller.principal.slots.as_ref().unwrap().view();
        assert_eq!((own.in_use, own.queued, rig.stage.begun()), (1, 1 - piece, piece + 1));
        rig.stage.order(piece, Order::answer("a"));
    }
    assert_eq!(answers(&end(&mut waiter).await)[1]["text"], "a");
    settle().await;
    rig.assert_at_rest();
}
