use futures_util::FutureExt;

use super::*;
use crate::call::Waiter;
use crate::call::tests::rig::{Rig, pass, secs, settle};
use crate::call::tests::stage::{Order, Progress};
use crate::telemetry::heard::Lines;

fn line(rig: &Rig) -> String {
    Look::at(&rig.calls).line()
}

fn many(rig: &Rig, tool: &str, labels: std::ops::Range<u32>) -> Vec<Waiter> {
    labels.map(|label| rig.wait(&rig.caller(0, u64::from(label)), tool, &label.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_line_tells_permits_queues_calls_and_the_oldest_work() {
    let rig = Rig::new(&[]);
    assert_eq!(
        line(&rig),
        "global=0/24 second=0/2 offline=0/8 consensus=0/8 queued=0 inflight=0 waiters=0 oldest_ms=0"
    );
    let mut waiters = many(&rig, "consult", 0..3);
    pass(Duration::from_millis(8_123)).await;
    waiters.extend(many(&rig, "look", 5..7));
    waiters.extend(many(&rig, "look", 5..7));
    assert_eq!(
        line(&rig),
        "global=4/24 second=2/2 offline=2/8 consensus=0/8 queued=1 inflight=5 waiters=7 oldest_ms=8123"
    );
}

#[tokio::test(start_paused = true)]
async fn the_line_is_logged_at_each_look() {
    let rig = Rig::new(&[]);
    let (lines, _listening) = Lines::listen();
    let health = Health::default();
    let _waiters = many(&rig, "look", 0..2);
    health.look(&rig.calls).await;
    let logged = lines.take();
    assert_eq!(logged.len(), 1, "{logged:?}");
    let text = "Semaphore health: global=2/24 second=0/2 offline=2/8 consensus=0/8 queued=0 inflight=2 waiters=2 oldest_ms=0";
    assert!(logged[0].starts_with("INFO") && logged[0].contains(text), "{logged:?}");
    let fields = "global_in_use=2 global_limit=24 queued=0 inflight=2 waiters=2 oldest_ms=0 permits=\"second=0/2 offline=2/8 consensus=0/8\"";
    assert!(logged[0].ends_with(fields), "{logged:?}");
    assert!(!health.broken());
}

#[tokio::test(start_paused = true)]
async fn it_looks_at_its_interval_until_told_to_stop() {
    let rig = Rig::new(&[]);
    let (lines, _listening) = Lines::listen();
    let stop = CancellationToken::new();
    let mut watch =
        Box::pin(Arc::new(Health::default()).watch(Arc::clone(&rig.calls), secs(30), stop.clone()));
    for (wait, looks) in [(0, 0), (29, 0), (1, 1), (29, 0), (1, 1)] {
        tokio::time::advance(secs(wait)).await;
        assert!((&mut watch).now_or_never().is_none());
        assert_eq!(lines.take().len(), looks);
    }
    stop.cancel();
    watch.await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_above_80_percent_is_warned_of() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "5")]);
    let (lines, _listening) = Lines::listen();
    let health = Health::default();
    let mut waiters = many(&rig, "look", 0..4);
    health.look(&rig.calls).await;
    assert_eq!(lines.take().len(), 1, "80 % is not above");
    waiters.extend(many(&rig, "look", 4..6));
    health.look(&rig.calls).await;
    let logged = lines.take();
    assert!(logged[1].starts_with("WARN"), "{logged:?}");
    assert!(logged[1].contains("offline is busy: 5 of 5 permits in use, 1 calls wait"), "{logged:?}");
    assert!(!health.broken(), "busy is not broken");
}

#[tokio::test(start_paused = true)]
async fn a_lease_past_its_deadline_is_an_error_and_its_work_is_stopped() {
    let rig = Rig::new(&[]);
    let (lines, _listening) = Lines::listen();
    let health = Health::default();
    let (waiter, work) = rig.at_work("look", "a");
    // The clock moves, and nothing else gets to run: the Run is as stuck as one that blocks its thread.
    assert!(tokio::time::advance(secs(190)).now_or_never().is_none());
    health.look(&rig.calls).now_or_never().unwrap();
    assert!(!health.broken(), "10 s are granted");
    assert!(tokio::time::advance(secs(1)).now_or_never().is_none());
    lines.take();
    health.look(&rig.calls).now_or_never().unwrap();
    assert!(health.broken());
    let logged = lines.take();
    let error = logged.iter().find(|line| line.starts_with("ERROR")).unwrap_or_else(|| panic!("{logged:?}"));
    for part in ["a lease is past its deadline", "session=session_", "look", "offline", "held_ms=191000"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    settle().await;
    assert_eq!(rig.stage.progress(work), Progress::CutOff);
    health.look(&rig.calls).await;
    assert!(!health.broken(), "it is over");
    drop(waiter);
}

#[tokio::test(start_paused = true)]
async fn a_flight_without_a_run_is_an_error() {
    let rig = Rig::new(&[]);
    let (lines, _listening) = Lines::listen();
    let health = Health::default();
    let lost = rig.lost_flight();
    health.look(&rig.calls).await;
    assert!(health.broken());
    assert!(
        lines.take().iter().any(|line| line.starts_with("ERROR") && line.contains("a flight has no Run"))
    );
    drop(lost);
    health.look(&rig.calls).await;
    assert!(!health.broken());
}

#[tokio::test(start_paused = true)]
async fn sums_that_are_wrong_twice_are_an_error() {
    let rig = Rig::new(&[]);
    let (lines, _listening) = Lines::listen();
    let health = Health::default();
    let (_waiter, _) = rig.at_work("look", "a");
    let stray = rig.stray_lease();
    let before = Instant::now();
    health.look(&rig.calls).await;
    assert_eq!(before.elapsed(), SECOND_LOOK);
    assert!(health.broken());
    let logged = lines.take();
    assert!(
        logged.iter().any(|line| line.contains("permits do not add up, twice in a row: global=1/24")),
        "{logged:?}"
    );
    drop(stray);
    health.look(&rig.calls).await;
    assert!(!health.broken());
}

#[tokio::test(start_paused = true)]
async fn sums_that_are_wrong_once_are_nothing() {
    let rig = Rig::new(&[]);
    let health = Health::default();
    let (_waiter, _) = rig.at_work("look", "a");
    let stray = rig.stray_lease();
    let mut look = Box::pin(health.look(&rig.calls));
    assert!((&mut look).now_or_never().is_none(), "it looks again");
    drop(stray);
    look.await;
    assert!(!health.broken());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_broken_while_calls_come_and_go() {
    let rig = Rig::new(&[("OFFLINE_MAX_INFLIGHT", "1")]);
    let health = Health::default();
    let (waiter, work) = rig.at_work("look", "a");
    let queued = rig.wait(&rig.caller(0, 2), "post", "b");
    health.look(&rig.calls).await;
    assert!(!health.broken());
    rig.stage.order(work, Order::Panic);
    settle().await;
    health.look(&rig.calls).await;
    assert!(!health.broken());
    drop((waiter, queued));
    pass(secs(180)).await;
    health.look(&rig.calls).await;
    assert!(!health.broken());
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn statistics_count_what_deduplication_saved() {
    let rig = Rig::new(&[]);
    let (waiter, work) = rig.at_work("look", "a");
    let others = [2, 3].map(|session| rig.wait(&rig.caller(0, session), "look", "a"));
    rig.stage.order(work, Order::answer("a"));
    settle().await;
    drop((waiter, others));
    let stats = rig.calls.server_stats();
    assert_eq!(
        stats["dedup"],
        json!({"calls": 3, "executions": 1, "joined": 2, "cache_hits": 0, "executions_saved": 2})
    );
    assert_eq!((&stats["successful"], &stats["active_executions"]), (&json!(1), &json!(0)));
}
