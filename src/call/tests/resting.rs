//! A provider that wants to be left alone, and one that fails until its breaker opens.

use std::time::Duration;

use serde_json::json;

use crate::call::tests::rig::{Rig, code, end, error, pass, peek, secs, settle, text, within};
use crate::call::tests::stage::Order;
use crate::call::{Answer, Code, Options, Submitted, Waiter};
use crate::config::Cost;
use crate::lifecycle::spend::Exhausted;
use crate::provider::{Fault, NotAsked};
use crate::tool::Insight;

/// Begins a call of a session of its own.
fn consult(rig: &Rig, number: u64, options: Options) -> Waiter {
    rig.wait_with(&rig.caller(0, number), "consult", &number.to_string(), options)
}

/// What a call is answered with at once, if it is.
fn at_once(rig: &Rig, label: &str, options: Options) -> Option<Answer> {
    match rig.submit(&rig.caller(0, 999), "consult", &format!(r#"{{"k":"{label}"}}"#), options) {
        Submitted::Answered(answer) => Some(answer),
        Submitted::Waiting(_) => None,
    }
}

/// Ends all that is at work so, in the order in which it began.
async fn all_end(rig: &Rig, order: &Order) {
    for label in rig.stage.running() {
        rig.stage.order(rig.stage.find(&label), order.clone());
    }
    settle().await;
}

fn figure(rig: &Rig, name: &str) -> serde_json::Value {
    rig.calls.server_stats()["resilience"]["second"][name].clone()
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_for_it_is_left_alone_by_everybody_and_then_all_finish() {
    let rig = Rig::new(&[]);
    let mut waiters: Vec<_> = (0..30).map(|number| consult(&rig, number, Options::default())).collect();
    settle().await;
    assert_eq!(rig.stage.running(), ["0", "1"]);
    rig.stage.order(rig.stage.find("0"), Order::status(429, Some(2)));
    settle().await;
    assert_eq!((rig.stage.begun(), rig.stage.running()), (2, vec!["1".to_owned()]), "nobody took its place");
    assert_eq!(figure(&rig, "paused_ms"), 2000);
    assert_eq!(
        rig.calls.health()["unavailable"],
        json!({"second": {"why": "asked to be left alone", "retry_after_ms": 2000}})
    );
    pass(Duration::from_millis(500)).await;
    rig.stage.order(rig.stage.find("1"), Order::status(503, Some(2)));
    settle().await;
    let mut newcomer = consult(&rig, 30, Options::default());
    pass(Duration::from_millis(1999)).await;
    assert_eq!(
        (rig.stage.begun(), figure(&rig, "pauses")),
        (2, 1.into()),
        "the longer of the two pauses holds"
    );
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.stage.running(), ["0", "1"], "those that had their turn go first");
    while !rig.stage.running().is_empty() {
        all_end(&rig, &Order::answer("done")).await;
    }
    for waiter in waiters.iter_mut().chain([&mut newcomer]) {
        assert_eq!(text(&end(waiter).await), "done");
    }
    assert_eq!((rig.stage.begun(), rig.stage.peak()), (33, 2));
    assert_eq!((figure(&rig, "retries"), figure(&rig, "paused_ms")), (2.into(), 0.into()));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_for_the_end_of_a_pause_is_told_so_at_once() {
    let rig = Rig::new(&[]);
    let _works = [consult(&rig, 0, Options::default()), consult(&rig, 1, Options::default())];
    let mut hasty = consult(&rig, 2, within(secs(20)));
    let mut patient = consult(&rig, 3, within(secs(40)));
    settle().await;
    rig.stage.order(rig.stage.find("0"), Order::status(429, Some(30)));
    settle().await;
    let answer = peek(&mut hasty).expect("it waits in vain");
    assert_eq!(
        (code(&answer), error(&answer).retry_after_ms()),
        (Some(Code::ProviderUnavailable), Some(30_000))
    );
    assert_eq!(
        error(&answer).to_string(),
        "second is not asked for the next 30.0s: it asked to be left alone, for longer than this call can wait"
    );
    assert!(peek(&mut patient).is_none() && error(&answer).retryable());
    let refused = at_once(&rig, "4", within(secs(10))).expect("so does one that comes now");
    assert_eq!(code(&refused), Some(Code::ProviderUnavailable));
    assert!(at_once(&rig, "5", within(secs(35))).is_none());
    let rejected = rig.calls.server_stats()["sessions"]["rejected"]["provider_unavailable"].clone();
    assert_eq!(rejected, 2);
    pass(secs(30)).await;
    assert!(rig.stage.running().contains(&"0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_in_a_pause_who_waited_for_another_permit_when_it_began() {
    let rig = Rig::new(&[("GLOBAL_MAX_INFLIGHT", "1")]);
    let mut waiters = [0, 1].map(|number| consult(&rig, number, Options::default()));
    settle().await;
    assert_eq!((rig.stage.running(), rig.calls.pools().0.queued), (vec!["0".to_owned()], 1));
    rig.stage.order(rig.stage.find("0"), Order::status(429, Some(2)));
    settle().await;
    pass(Duration::from_millis(1999)).await;
    assert_eq!((rig.stage.begun(), rig.calls.pools().0.in_use), (1, 0), "and it holds up nobody meanwhile");
    pass(Duration::from_millis(1)).await;
    for _ in 0..2 {
        all_end(&rig, &Order::answer("done")).await;
    }
    for waiter in &mut waiters {
        assert_eq!(text(&end(waiter).await), "done");
    }
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_one_providers_and_longer_than_a_call_has_left_it_is_told_the_call() {
    let rig = Rig::new(&[]);
    let mut waiter = consult(&rig, 0, Options::default());
    settle().await;
    all_end(&rig, &Order::status(503, Some(3000))).await;
    let answer = peek(&mut waiter).expect("3000 s are not left");
    assert_eq!(
        (code(&answer), error(&answer).retry_after_ms()),
        (Some(Code::ProviderError), Some(3_000_000))
    );
    let (mut other, work) = rig.at_work("look", "another's");
    rig.stage.order(work, Order::answer("is sent"));
    assert_eq!(text(&end(&mut other).await), "is sent");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_of_a_pause_is_answered_when_the_daemon_goes_down() {
    let rig = Rig::new(&[]);
    let mut waiters = [0, 1, 2].map(|number| consult(&rig, number, Options::default()));
    settle().await;
    all_end(&rig, &Order::status(503, Some(30))).await;
    rig.calls.start_draining();
    settle().await;
    let codes = waiters.each_mut().map(|waiter| code(&peek(waiter).unwrap()));
    assert_eq!(codes, [Code::ProviderError, Code::ProviderError, Code::ShuttingDown].map(Some));
    assert_eq!(rig.tasks.live(crate::tasks::TaskKind::Pause), 0);
    rig.assert_at_rest();
}

/// A rig whose breaker opens after two failures, with attempts made once.
fn brittle() -> Rig {
    Rig::new(&[("RETRY_ATTEMPTS", "1"), ("BREAKER_MIN_CALLS", "2"), ("BREAKER_OPEN_SECS", "15")])
}

/// Two calls fail: it is open.
async fn break_it(rig: &Rig) {
    for number in 0..2 {
        let mut waiter = consult(rig, number, Options::default());
        settle().await;
        all_end(rig, &Order::broken()).await;
        assert_eq!(code(&end(&mut waiter).await), Some(Code::ProviderError));
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_answers_at_once_and_asks_nobody() {
    let rig = brittle();
    break_it(&rig).await;
    pass(secs(5)).await;
    let answer = at_once(&rig, "9", Options::default()).expect("it is open");
    assert_eq!(
        (code(&answer), error(&answer).retry_after_ms()),
        (Some(Code::ProviderUnavailable), Some(10_000))
    );
    assert_eq!(
        error(&answer).to_string(),
        "second is not asked for the next 10.0s: most of its last calls failed"
    );
    assert_eq!((rig.stage.begun(), figure(&rig, "breaker")), (2, "open".into()));
    assert_eq!((figure(&rig, "breaker_openings"), figure(&rig, "breaker_refused")), (1.into(), 1.into()));
    assert_eq!(rig.calls.health()["unavailable"]["second"]["why"], "failing");
    let (mut other, work) = rig.at_work("look", "another's");
    rig.stage.order(work, Order::answer("is well"));
    assert_eq!(text(&end(&mut other).await), "is well");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn half_open_sends_exactly_one_probe_whose_answer_closes_it() {
    let rig = brittle();
    break_it(&rig).await;
    pass(secs(15)).await;
    assert_eq!(figure(&rig, "breaker"), "half_open");
    let mut probe = consult(&rig, 10, Options::default());
    let mut others: Vec<_> =
        (11..30).map(|number| at_once(&rig, &number.to_string(), Options::default())).collect();
    assert!(others.iter_mut().all(|other| code(&other.take().unwrap()) == Some(Code::ProviderUnavailable)));
    assert_eq!(rig.stage.running(), ["10"]);
    all_end(&rig, &Order::answer("well again")).await;
    assert_eq!(text(&end(&mut probe).await), "well again");
    assert_eq!(figure(&rig, "breaker"), "closed");
    let _all = [consult(&rig, 31, Options::default()), consult(&rig, 32, Options::default())];
    settle().await;
    assert_eq!(rig.stage.running().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_or_hangs_opens_it_again() {
    for hangs in [false, true] {
        let rig = brittle();
        break_it(&rig).await;
        pass(secs(15)).await;
        let mut probe = consult(&rig, 10, Options::default());
        settle().await;
        if hangs {
            pass(secs(180)).await;
            assert_eq!(code(&end(&mut probe).await), Some(Code::Timeout));
        } else {
            all_end(&rig, &Order::status(500, None)).await;
            assert_eq!(code(&end(&mut probe).await), Some(Code::ProviderError));
        }
        assert_eq!((figure(&rig, "breaker"), figure(&rig, "breaker_openings")), ("open".into(), 2.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_its_caller_takes_back_or_cannot_wait_for_wedges_nothing() {
    for cancels in [false, true] {
        let rig = brittle();
        break_it(&rig).await;
        pass(secs(15)).await;
        let mut probe = consult(&rig, 10, within(secs(3)));
        settle().await;
        assert_eq!(rig.stage.running(), ["10"]);
        if cancels {
            probe.cancel_handle().cancel();
        }
        pass(secs(3)).await;
        let expected = if cancels { Code::Cancelled } else { Code::Timeout };
        assert_eq!(code(&end(&mut probe).await), Some(expected));
        settle().await;
        let mut next = consult(&rig, 11, Options::default());
        settle().await;
        all_end(&rig, &Order::answer("the next probe")).await;
        assert_eq!(text(&end(&mut next).await), "the next probe");
        assert_eq!(figure(&rig, "breaker"), "closed");
        rig.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_never_sent_says_nothing_of_the_provider() {
    let rig = brittle();
    break_it(&rig).await;
    pass(secs(15)).await;
    let exhausted = Exhausted { limit: Cost::default(), retry_after: secs(1) };
    let mut spent = consult(&rig, 10, Options::default());
    settle().await;
    all_end(&rig, &Order::Fail(Fault::NotAsked(NotAsked::Spent(exhausted)))).await;
    assert_eq!(code(&end(&mut spent).await), Some(Code::RateLimited));
    assert_eq!(figure(&rig, "breaker"), "half_open");
    let _next = consult(&rig, 11, Options::default());
    settle().await;
    assert_eq!(rig.stage.running(), ["11"]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_queue_when_it_opens_is_answered_without_asking() {
    let rig =
        Rig::new(&[("RETRY_ATTEMPTS", "1"), ("BREAKER_MIN_CALLS", "2"), ("SESSION_MAX_INFLIGHT", "99")]);
    let mut waiters: Vec<_> = (0..9).map(|number| consult(&rig, number, Options::default())).collect();
    settle().await;
    all_end(&rig, &Order::broken()).await;
    for (number, waiter) in waiters.iter_mut().enumerate() {
        let expected = if number < 2 { Code::ProviderError } else { Code::ProviderUnavailable };
        assert_eq!(code(&peek(waiter).unwrap()), Some(expected), "{number}");
    }
    assert!(rig.stage.begun() <= 3, "one may have been sent before the second failure was known");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn faults_that_are_not_the_providers_open_nothing() {
    let rig = brittle();
    for number in 0..20 {
        let _waiter = consult(&rig, number, Options::default());
        settle().await;
        let order =
            [Order::refused(), Order::status(429, None), Order::status(401, None), Order::status(404, None)];
        all_end(&rig, &order[usize::try_from(number).unwrap() % 4]).await;
    }
    assert_eq!(figure(&rig, "breaker"), "closed");
}

#[tokio::test(start_paused = true)]
async fn a_call_finds_its_breaker_open_between_two_attempts_and_is_told_what_failed() {
    let rig = Rig::new(&[("RETRY_BACKOFF_MS", "200"), ("BREAKER_MIN_CALLS", "2")]);
    let mut waiter = consult(&rig, 0, Options::default());
    settle().await;
    all_end(&rig, &Order::status(500, None)).await;
    pass(Duration::from_millis(200)).await;
    all_end(&rig, &Order::status(502, None)).await;
    pass(Duration::from_millis(400)).await;
    let answer = peek(&mut waiter).unwrap();
    assert_eq!(error(&answer).to_string(), "stage refused the request with HTTP 502");
    assert_eq!(rig.stage.begun(), 2);
    rig.assert_at_rest();
}
