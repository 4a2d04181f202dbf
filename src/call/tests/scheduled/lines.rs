//! Pools, their queues and leases, without the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};
use tokio::time::Instant;

use super::{Events, any, dawdle, in_every_interleaving};
use crate::call::queue::{Claim, Pool, Priority, Share};
use crate::deadline::Deadline;
use crate::ids::{ClientSessionId, PrincipalId};

const CLASSES: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

/// A pool, and how many hold one of its permits.
struct Counted {
    pool: Arc<Pool>,
    holding: AtomicUsize,
    events: Events,
}

impl Counted {
    /// What holds at every instant at which somebody looks.
    fn look(&self) {
        let view = self.pool.view();
        assert!(view.in_use <= view.limit, "more permits than there are: {view:?}");
        assert!(
            view.queued == 0 || view.in_use == view.limit,
            "somebody waits beside a free permit: {view:?}"
        );
        self.events.happened();
    }

    async fn holds(&self) {
        let holding = self.holding.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(holding <= self.pool.view().limit, "{holding} hold a permit");
        self.events.happened();
        dawdle(2).await;
        self.holding.fetch_sub(1, Ordering::Relaxed);
    }

    /// Comes, waits or not, and goes.
    async fn visits(&self, principal: u32, session: u64) {
        let claim = Claim {
            principal: PrincipalId(principal),
            session: ClientSessionId(session),
            class: any(&CLASSES),
            since: Instant::now(),
            until: Deadline::after(std::time::Duration::from_secs(60)),
            returns: thread_rng().gen_ratio(1, 8),
        };
        self.events.happened();
        if thread_rng().gen_ratio(1, 4) {
            if let Some(_permit) = self.pool.try_take() {
                self.holds().await;
            }
            return;
        }
        let Ok(waiting) = self.pool.queue(&claim) else { return };
        let place = waiting.place().unwrap();
        match thread_rng().gen_range(0..4) {
            // It goes before it has looked, or after others had time to choose it.
            0 => {
                dawdle(3).await;
                drop(waiting);
            }
            1 => {
                let (events, class) = (self.events.clone(), any(&CLASSES));
                let other = spawn(async move {
                    place.reclass(class);
                    events.happened();
                });
                let permit = waiting.await;
                if permit.is_ok() {
                    self.holds().await;
                }
                // Long after its wait: its place may be another's by now.
                other.await.unwrap();
            }
            _ => {
                if let Ok(_permit) = waiting.await {
                    self.holds().await;
                }
            }
        }
        self.events.happened();
    }
}

fn visits(events: Events) {
    let (limit, queue) = (thread_rng().gen_range(1..4), thread_rng().gen_range(1..5));
    let share = any(&[Share::All, Share::HalfOnceSeveral, Share::Half]);
    let pool = Arc::new(Pool::new(Arc::from("pool"), limit, queue, share));
    let counted = Arc::new(Counted { pool, holding: AtomicUsize::new(0), events });
    let mut tasks = Vec::new();
    for session in 0..5 {
        let counted = Arc::clone(&counted);
        tasks.push(spawn(async move {
            for _ in 0..6 {
                counted.visits(u32::try_from(session % 2).unwrap(), session).await;
                counted.look();
            }
        }));
    }
    if thread_rng().gen_ratio(1, 5) {
        let counted = Arc::clone(&counted);
        tasks.push(spawn(async move {
            dawdle(20).await;
            counted.pool.close();
            counted.events.happened();
        }));
    }
    block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    let view = counted.pool.view();
    assert_eq!((view.in_use, view.queued, counted.holding.load(Ordering::Relaxed)), (0, 0, 0));
}

#[test]
fn in_every_interleaving_no_permit_is_lost_or_made_and_nobody_waits_beside_a_free_one() {
    in_every_interleaving("permits", visits);
}
