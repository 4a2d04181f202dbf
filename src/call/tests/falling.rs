//! Where a provider fails by its own fault, another is asked.

use std::sync::Arc;

use crate::call::tests::rig::{Rig, code, end, error, pass, peek, secs, settle, text};
use crate::call::tests::stage::Order;
use crate::call::{Answer, Code, Options, Submitted, Waiter};
use crate::config::Cost;
use crate::lifecycle::spend::Exhausted;
use crate::provider::{Fault, NotAsked};
use crate::tool::Insight;

fn begin(rig: &Rig, tool: &str, label: &str) -> Waiter {
    rig.wait(&rig.caller(0, 1), tool, label)
}

async fn ends(rig: &Rig, label: &str, order: Order) {
    rig.stage.order(rig.stage.find(label), order);
    settle().await;
}

fn figure(rig: &Rig, provider: &str, name: &str) -> serde_json::Value {
    rig.calls.server_stats()["resilience"][provider][name].clone()
}

/// Who answered, by answer and by record.
fn answerers(rig: &Rig, answer: &Answer) -> [String; 2] {
    let record = rig.calls.request(crate::ids::PrincipalId(0), answer.request).unwrap().about;
    [answer.provider.as_deref().unwrap().to_owned(), record["provider"].as_str().unwrap().to_owned()]
}

#[tokio::test(start_paused = true)]
async fn where_a_provider_fails_another_is_asked_and_named() {
    for order in
        [Order::broken(), Order::status(500, None), Order::status(503, None), Order::status(429, None)]
    {
        let rig = Rig::falling_back(&[]);
        let mut waiter = begin(&rig, "consult", "a");
        settle().await;
        ends(&rig, "a", order.clone()).await;
        assert_eq!(rig.stage.running(), ["third a"], "{order:?}");
        let pools = rig.calls.pools().1;
        let held = |name: &str| pools.iter().find(|(each, _)| &**each == name).unwrap().1.in_use;
        assert_eq!((held("second"), held("third"), rig.calls.leases().holders().len()), (0, 1, 1));
        ends(&rig, "third a", Order::answer("the third's")).await;
        let answer = end(&mut waiter).await;
        assert_eq!(text(&answer), "the third's");
        assert_eq!(answerers(&rig, &answer), ["third", "third"]);
        assert_eq!(
            (figure(&rig, "second", "fallbacks"), figure(&rig, "third", "fallbacks")),
            (1.into(), 0.into())
        );
        rig.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_come_first_and_another_only_when_they_are_used_up() {
    let rig = Rig::falling_back(&[("RETRY_ATTEMPTS", "2"), ("RETRY_BACKOFF_MS", "100")]);
    let mut waiter = begin(&rig, "consult", "a");
    settle().await;
    ends(&rig, "a", Order::broken()).await;
    pass(secs(1)).await;
    assert_eq!(rig.stage.running(), ["a"]);
    ends(&rig, "a", Order::broken()).await;
    assert_eq!(rig.stage.running(), ["third a"]);
    ends(&rig, "third a", Order::answer("done")).await;
    assert_eq!(text(&end(&mut waiter).await), "done");
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_is_not_the_providers_is_told_and_nobody_else_is_asked() {
    let exhausted = Exhausted { limit: Cost::default(), retry_after: secs(1) };
    let spent = Order::Fail(Fault::NotAsked(NotAsked::Spent(exhausted)));
    let too_large = Order::Fail(Fault::TooLarge { provider: Arc::from("stage"), limit: 1 });
    for order in [Order::refused(), Order::status(401, None), Order::status(404, None), too_large, spent] {
        let rig = Rig::falling_back(&[]);
        let mut waiter = begin(&rig, "consult", "a");
        settle().await;
        ends(&rig, "a", order.clone()).await;
        assert!(peek(&mut waiter).unwrap().outcome.is_err(), "{order:?}");
        assert_eq!((rig.stage.begun(), figure(&rig, "second", "fallbacks")), (1, 0.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_can_do_it_the_first_ones_fault_is_told() {
    let rig = Rig::falling_back(&[]);
    let mut waiter = begin(&rig, "consult", "a");
    settle().await;
    ends(&rig, "a", Order::status(502, None)).await;
    ends(&rig, "third a", Order::refused()).await;
    let answer = end(&mut waiter).await;
    assert_eq!(error(&answer).to_string(), "stage refused the request with HTTP 502");
    assert_eq!(answerers(&rig, &answer), ["second", "second"]);
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_takes_its_own_time_and_all_share_one_deadline() {
    let rig = Rig::falling_back(&[("WORKFLOW_TOOL_TIMEOUT_SECS", "50")]);
    let mut waiter = begin(&rig, "consult", "a");
    settle().await;
    pass(secs(30)).await;
    assert_eq!(rig.stage.running(), ["third a"]);
    ends(&rig, "third a", Order::answer("in time")).await;
    assert_eq!(text(&end(&mut waiter).await), "in time");
    let began = tokio::time::Instant::now();
    let mut waiter = begin(&rig, "consult", "b");
    let answer = end(&mut waiter).await;
    assert_eq!((code(&answer), began.elapsed()), (Some(Code::Timeout), secs(50)));
    assert!(
        error(&answer).to_string().starts_with("second provider timeout after 30s"),
        "{}",
        error(&answer)
    );
    settle().await;
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_sends_its_calls_to_another_at_once() {
    let rig = Rig::falling_back(&[("BREAKER_MIN_CALLS", "1")]);
    let _first = begin(&rig, "consult", "a");
    settle().await;
    ends(&rig, "a", Order::broken()).await;
    let begun = rig.stage.begun();
    let mut waiter = begin(&rig, "consult", "b");
    settle().await;
    assert_eq!(
        (rig.stage.begun(), rig.stage.running()),
        (begun + 1, vec!["third a".into(), "third b".into()])
    );
    ends(&rig, "third b", Order::answer("done")).await;
    assert_eq!(text(&end(&mut waiter).await), "done");
    assert_eq!(figure(&rig, "second", "fallbacks"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_to_another_only_where_it_surely_was_not_begun() {
    for order in [Order::broken(), Order::status(500, None)] {
        let rig = Rig::falling_back(&[]);
        let mut waiter = begin(&rig, "publish", "a");
        settle().await;
        ends(&rig, "a", order).await;
        assert_eq!(code(&peek(&mut waiter).unwrap()), Some(Code::OutcomeUnknown));
        assert_eq!(rig.stage.begun(), 1);
    }
    let rig = Rig::falling_back(&[]);
    let mut hangs = begin(&rig, "publish", "h");
    settle().await;
    pass(secs(30)).await;
    assert_eq!((code(&end(&mut hangs).await), rig.stage.begun()), (Some(Code::OutcomeUnknown), 1));
    for (order, expected) in [
        (Order::answer("done"), None),
        (Order::broken(), Some(Code::OutcomeUnknown)),
        (Order::refused(), Some(Code::ProviderError)),
    ] {
        let mut waiter = begin(&rig, "publish", "a");
        settle().await;
        ends(&rig, "a", Order::status(503, None)).await;
        ends(&rig, "third a", order).await;
        assert_eq!(code(&end(&mut waiter).await), expected);
    }
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_names_a_provider_or_a_model_gets_that_or_an_error() {
    for (who, falls_back) in [
        ("", true),
        (r#","model":"fast""#, true),
        (r#","model":"m""#, false),
        (r#","provider":"second""#, false),
        (r#","provider":"second","model":"fast""#, false),
        (r#","provider":"third""#, false),
    ] {
        let rig = Rig::falling_back(&[]);
        let arguments = format!(r#"{{"prompt":"q"{who}}}"#);
        let Submitted::Waiting(mut waiter) =
            rig.submit(&rig.caller(0, 1), "chat", &arguments, Options::default())
        else {
            panic!("{who}")
        };
        settle().await;
        let first = rig.stage.running().remove(0);
        ends(&rig, &first, Order::broken()).await;
        assert_eq!(peek(&mut waiter).is_none(), falls_back, "{who}");
        assert_eq!(rig.stage.begun(), if falls_back { 2 } else { 1 }, "{who}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_another_is_asked_stops_that_one() {
    let rig = Rig::falling_back(&[]);
    let mut waiter = begin(&rig, "consult", "a");
    settle().await;
    ends(&rig, "a", Order::broken()).await;
    waiter.cancel_handle().cancel();
    settle().await;
    assert_eq!(code(&end(&mut waiter).await), Some(Code::Cancelled));
    assert!(rig.stage.running().is_empty());
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_consensus_shows_an_answer_under_the_name_of_who_gave_it() {
    let rig = Rig::falling_back(&[]);
    let arguments = r#"{"prompt":"q","models":[{"model":"fast"},{"provider":"third"}]}"#;
    let Submitted::Waiting(mut waiter) =
        rig.submit(&rig.caller(0, 1), "consensus", arguments, Options::default())
    else {
        panic!("it asks two")
    };
    settle().await;
    ends(&rig, "q", Order::broken()).await;
    for _ in 0..2 {
        ends(&rig, "third q", Order::answer("from the third")).await;
    }
    let shown = text(&end(&mut waiter).await);
    assert_eq!(shown.matches("## third: ").count(), 2, "{shown}");
}
