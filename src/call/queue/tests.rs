//! Promises of one pool: permits are neither lost nor made, and nobody waits out of turn.

use futures_util::FutureExt;
use tokio::time::advance;

use super::*;

mod order;
mod random;

fn pool(limit: usize, queue: usize) -> Arc<Pool> {
    shared(limit, queue, Share::All)
}

fn shared(limit: usize, queue: usize, share: Share) -> Arc<Pool> {
    Arc::new(Pool::new(Arc::from("test"), limit, queue, share))
}

/// One who comes now, with a minute to wait.
fn claim(principal: u32, session: u64, class: Priority) -> Claim {
    Claim {
        principal: PrincipalId(principal),
        session: ClientSessionId(session),
        class,
        since: Instant::now(),
        until: Deadline::after(secs(60)),
        returns: false,
    }
}

fn of(class: Priority) -> Claim {
    claim(0, 0, class)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Its permit, if it has been chosen.
fn taken(waiting: &mut Waiting) -> Option<Permit> {
    waiting.now_or_never().map(Result::unwrap)
}

/// Which bound refused it, and when to come back.
fn refused(pool: &Arc<Pool>, claim: &Claim) -> (Full, Option<u64>) {
    let error = pool.queue(claim).unwrap_err();
    let after = error.retry_after_ms();
    let CallError::Full { full, .. } = error else { panic!("{error}") };
    (full, after)
}

/// As many observations as make an estimate.
fn observe(pool: &Pool, service: Duration) {
    (0..8).for_each(|_| pool.observe(service));
}

#[test]
fn a_permit_given_back_goes_to_the_first_in_line() {
    let pool = pool(1, 9);
    let held = pool.try_take().unwrap();
    let mut first = pool.queue(&of(Priority::Medium)).unwrap();
    let mut second = pool.queue(&of(Priority::Medium)).unwrap();
    let mut high = pool.queue(&of(Priority::High)).unwrap();
    assert!((&mut first).now_or_never().is_none());
    drop(held);
    assert!(pool.try_take().is_none(), "nobody overtakes");
    let held = taken(&mut high).unwrap();
    assert!(taken(&mut second).is_none());
    drop(held);
    let _held = taken(&mut first).unwrap();
    assert_eq!(pool.view(), PoolView { in_use: 1, limit: 1, queued: 1 });
}

#[test]
fn who_leaves_after_being_chosen_hands_the_permit_on() {
    let pool = pool(1, 9);
    let held = pool.try_take().unwrap();
    let first = pool.queue(&of(Priority::Medium)).unwrap();
    let mut second = pool.queue(&of(Priority::Medium)).unwrap();
    drop(held);
    drop(first);
    drop(taken(&mut second).unwrap());
    assert_eq!(pool.view(), PoolView { in_use: 0, limit: 1, queued: 0 });
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let pool = pool(1, 1);
    let _held = pool.try_take().unwrap();
    let _waits = pool.queue(&of(Priority::Medium)).unwrap();
    pool.observe(secs(4));
    let error = pool.queue(&of(Priority::Medium)).unwrap_err();
    assert_eq!(error.retry_after_ms(), Some(8000));
    assert_eq!(error.to_string(), "The queue of test is full (1 waiting)");
    let (_, after) = refused(&pool, &of(Priority::High));
    assert_eq!(after, Some(4000), "one who would be served next need not stay away for two turns");
}

#[test]
fn closing_answers_all_who_wait_and_takes_no_permit_away() {
    let pool = pool(1, 9);
    let held = pool.try_take().unwrap();
    let mut waits = pool.queue(&of(Priority::Low)).unwrap();
    pool.close();
    assert_eq!((&mut waits).now_or_never().unwrap().unwrap_err(), CallError::ShuttingDown);
    assert_eq!(pool.queue(&of(Priority::Low)).unwrap_err(), CallError::ShuttingDown);
    drop(held);
    assert_eq!(pool.view(), PoolView { in_use: 0, limit: 1, queued: 0 });
}

#[test]
fn who_was_chosen_before_closing_keeps_its_permit() {
    let pool = pool(1, 9);
    let held = pool.try_take().unwrap();
    let mut first = pool.queue(&of(Priority::Low)).unwrap();
    let second = pool.queue(&of(Priority::Low)).unwrap();
    drop(held);
    pool.close();
    let held = taken(&mut first).unwrap();
    drop(second);
    drop(held);
    assert_eq!(pool.view(), PoolView { in_use: 0, limit: 1, queued: 0 });
}

#[test]
fn of_several_principals_none_fills_more_than_half_a_queue() {
    let pool = shared(1, 5, Share::Half);
    let _held = pool.try_take().unwrap();
    let mine: Vec<_> = (0..3).map(|session| pool.queue(&claim(1, session, Priority::Low)).unwrap()).collect();
    pool.observe(secs(2));
    let error = pool.queue(&claim(1, 9, Priority::Low)).unwrap_err();
    assert_eq!(error.code(), crate::call::Code::OverCapacity);
    assert_eq!(error.retry_after_ms(), Some(8000), "behind its own three and the one at work");
    assert_eq!(
        error.to_string(),
        "Your share of the queue of test is full (3 waiting): while others use it too, one may fill half of its \
         5 places; send more when some of yours are served"
    );
    let _others = [2, 3].map(|principal| pool.queue(&claim(principal, 0, Priority::Low)).unwrap());
    assert!(matches!(refused(&pool, &claim(4, 0, Priority::Low)).0, Full::Queue { limit: 5, .. }));
    drop(mine);
    let _waits = pool.queue(&claim(1, 9, Priority::Low)).unwrap();
}

#[test]
fn a_single_principal_may_fill_the_queue_until_another_comes() {
    let pool = shared(1, 4, Share::HalfOnceSeveral);
    let _held = pool.try_take().unwrap();
    let mut mine: Vec<_> = (0..3).map(|_| pool.queue(&claim(1, 0, Priority::Low)).unwrap()).collect();
    drop(pool.queue(&claim(2, 0, Priority::Low)).unwrap());
    assert!(matches!(refused(&pool, &claim(1, 0, Priority::Low)).0, Full::Share { share: 2, .. }));
    mine.truncate(1);
    let _waits = pool.queue(&claim(1, 0, Priority::Low)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_would_surely_come_too_late_is_refused_at_once() {
    let pool = pool(2, 99);
    let _held = [pool.try_take().unwrap(), pool.try_take().unwrap()];
    let _waits: Vec<_> = (0..6).map(|_| pool.queue(&of(Priority::Medium)).unwrap()).collect();
    let patient = |wait| Claim { until: Deadline::after(secs(wait)), ..of(Priority::Medium) };
    (0..7).for_each(|_| pool.observe(secs(4)));
    drop(pool.queue(&patient(0)).expect("seven observations are a guess"));
    pool.observe(secs(4));
    drop(pool.queue(&patient(6)).expect("12 s are no more than twice what it has"));
    let error = pool.queue(&patient(5)).unwrap_err();
    assert_eq!((error.code(), error.retry_after_ms()), (crate::call::Code::OverCapacity, Some(16_000)));
    assert_eq!(
        error.to_string(),
        "Your turn for test would come after 6 others, in about 12s, and this call can wait for it only 5s"
    );
    let hasty = Claim { until: Deadline::after(Duration::from_millis(30)), ..of(Priority::Medium) };
    assert!(pool.queue(&hasty).unwrap_err().to_string().ends_with("only 30ms"));
    let next = |claim: Claim| drop(pool.queue(&claim).expect("few are served before it"));
    next(Claim { class: Priority::High, ..patient(0) });
    next(Claim { principal: PrincipalId(2), ..patient(1) });
}

#[tokio::test(start_paused = true)]
async fn when_to_come_back_is_between_100_ms_and_a_minute() {
    let pool = pool(1, 99);
    assert_eq!(pool.retry_after(&of(Priority::Low)), Duration::from_millis(100));
    let _held = pool.try_take().unwrap();
    let _waits: Vec<_> = (0..9).map(|_| pool.queue(&of(Priority::Medium)).unwrap()).collect();
    observe(&pool, secs(5));
    assert_eq!(pool.retry_after(&claim(1, 1, Priority::High)), secs(5));
    assert_eq!(
        pool.retry_after(&claim(1, 1, Priority::Medium)),
        secs(10),
        "one of the other principal goes first"
    );
    assert_eq!(pool.retry_after(&claim(0, 1, Priority::Medium)), secs(10), "and one of the other session");
    assert_eq!(pool.retry_after(&of(Priority::Medium)), secs(50));
    observe(&pool, secs(500));
    assert_eq!(pool.retry_after(&of(Priority::Medium)), secs(60));
}

#[test]
fn a_permit_tells_its_pool_how_long_it_was_held_for_work() {
    let pool = pool(1, 9);
    let mut held = pool.try_take().unwrap();
    held.worked(secs(3));
    drop(held);
    drop(pool.try_take());
    assert_eq!(pool.retry_after(&of(Priority::Low)), secs(3), "one that was not worked under says nothing");
}
