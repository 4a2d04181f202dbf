//! Who is served when: classes, ageing, turns and raising.

use super::*;

/// Serves one after another, each for `service`, and says in which order.
async fn served(pool: &Arc<Pool>, mut held: Permit, mut line: Vec<Waiting>, service: Duration) -> Vec<usize> {
    let mut order = Vec::new();
    let mut names: Vec<_> = (0..line.len()).collect();
    while !line.is_empty() {
        advance(service).await;
        drop(held);
        let (at, permit) =
            line.iter_mut().enumerate().find_map(|(at, waiting)| Some((at, taken(waiting)?))).unwrap();
        held = permit;
        order.push(names.remove(at));
        drop(line.remove(at));
    }
    drop(held);
    assert_eq!(pool.view().in_use, 0);
    order
}

fn line(pool: &Arc<Pool>, claims: &[Claim]) -> Vec<Waiting> {
    claims.iter().map(|claim| pool.queue(claim).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_high_priority_does_not_starve_low() {
    let pool = pool(1, 99);
    let mut held = pool.try_take().unwrap();
    let mut low = pool.queue(&claim(0, 0, Priority::Low)).unwrap();
    let began = Instant::now();
    // More of the high come than are served, from the same session as the low one and from others.
    let mut flood = Vec::new();
    loop {
        for session in 0..2 {
            flood.extend(pool.queue(&claim(0, session, Priority::High)).ok());
        }
        advance(secs(1)).await;
        assert!(began.elapsed() <= secs(22), "its turn did not come");
        drop(held);
        if let Some(permit) = taken(&mut low) {
            held = permit;
            break;
        }
        let chosen = flood.iter_mut().enumerate().find_map(|(at, waiting)| Some((at, taken(waiting)?)));
        let (at, permit) = chosen.unwrap();
        held = permit;
        drop(flood.remove(at));
    }
    assert!(began.elapsed() >= secs(20), "it has no right to overtake before");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn ten_seconds_in_line_raise_by_one_class() {
    let pool = pool(1, 99);
    let held = pool.try_take().unwrap();
    let mut waiting = line(&pool, &[claim(1, 1, Priority::Low)]);
    advance(Duration::from_millis(9_999)).await;
    waiting.extend(line(&pool, &[claim(2, 2, Priority::Medium)]));
    waiting.extend(line(&pool, &[claim(3, 3, Priority::Medium)]));
    // When the first is served the low one has risen, behind those of its new class; then it is its turn.
    let order = served(&pool, held, waiting, Duration::from_millis(1)).await;
    assert_eq!(order, [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_waited_in_an_earlier_queue_counts() {
    let pool = pool(1, 99);
    let held = pool.try_take().unwrap();
    let since = Instant::now();
    advance(secs(11)).await;
    let waiting = line(&pool, &[of(Priority::Medium), Claim { since, ..of(Priority::Medium) }]);
    assert_eq!(served(&pool, held, waiting, secs(1)).await, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_queued_calls_delay_another_principal_by_at_most_their_own_turn() {
    let pool = pool(1, 2000);
    let held = pool.try_take().unwrap();
    let mut waiting: Vec<_> =
        (0..1000).map(|_| pool.queue(&claim(1, 1, Priority::Medium)).unwrap()).collect();
    waiting.extend(line(&pool, &[claim(2, 2, Priority::Medium), claim(2, 2, Priority::Medium)]));
    let order = served(&pool, held, waiting, Duration::from_millis(1)).await;
    assert_eq!(order[..5], [0, 1000, 1, 1001, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_principals_sessions_share_its_turns() {
    let pool = pool(1, 99);
    let held = pool.try_take().unwrap();
    let from = [(1, 1), (1, 1), (1, 1), (1, 2), (2, 3), (2, 3), (2, 3)];
    let claims = from.map(|(principal, session)| claim(principal, session, Priority::Medium));
    let waiting = line(&pool, &claims);
    assert_eq!(served(&pool, held, waiting, secs(0)).await, [0, 4, 3, 5, 1, 6, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_raised_is_served_in_its_new_class() {
    let pool = pool(1, 99);
    let held = pool.try_take().unwrap();
    let waiting = line(&pool, &[of(Priority::Medium), of(Priority::Low), of(Priority::Medium)]);
    waiting[1].place().unwrap().reclass(Priority::High);
    waiting[0].place().unwrap().reclass(Priority::Low);
    assert_eq!(served(&pool, held, waiting, secs(1)).await, [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn raising_a_place_that_is_over_changes_nothing() {
    let pool = pool(1, 99);
    let held = pool.try_take().unwrap();
    let mut first = pool.queue(&of(Priority::Low)).unwrap();
    let gone = first.place().unwrap();
    drop(held);
    gone.reclass(Priority::High);
    let held = taken(&mut first).unwrap();
    assert!(first.place().is_none());
    // The next gets the place that is free again.
    let waiting = line(&pool, &[of(Priority::Low), of(Priority::Medium)]);
    gone.reclass(Priority::High);
    assert_eq!(served(&pool, held, waiting, secs(1)).await, [1, 0]);
    gone.reclass(Priority::High);
}
