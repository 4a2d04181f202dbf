//! What is offered at one time: the tools, and the queues and permits of their lanes. It changes as a whole, while calls
//! go on under what they began with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::call::desk::Desk;
use crate::call::queue::{Pool, Share};
use crate::config::Resilience;
use crate::tool::Registry;
use crate::tool::place::{Lane, LaneId};

/// Tools, and the pools of their lanes.
pub(super) struct Offer {
    pub(super) registry: Arc<Registry>,
    /// How many offers came before.
    pub(super) generation: u64,
    desks: Vec<Arc<Desk>>,
}

impl Offer {
    /// The desk of a lane, and how long its work may take there.
    pub(super) fn lane(&self, id: LaneId) -> (&Arc<Desk>, Option<Duration>) {
        let (desk, lane) = (self.desks.get(id.0), self.registry.lanes().get(id.0));
        let Some((desk, lane)) = desk.zip(lane) else {
            unreachable!("a lane's id comes from this offer's registry, and each of its lanes has a desk")
        };
        (desk, lane.timeout)
    }

    /// The desk of each lane.
    pub(super) fn desks(&self) -> &[Arc<Desk>] {
        &self.desks
    }
}

/// What every desk goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeskRules {
    /// How many may wait.
    pub(super) queue: usize,
    /// How many of them may be one principal's.
    pub(super) share: Share,
    /// What is done about a provider that fails.
    pub(super) resilience: Resilience,
}

/// The offer that holds, and how the next one is made.
pub(super) struct Offers {
    now: ArcSwap<Offer>,
    rules: DeskRules,
    closed: AtomicBool,
    /// The generation that holds, to be looked at often.
    generation: AtomicU64,
    /// The last one that everybody was told of.
    told: AtomicU64,
    changed: Arc<Notify>,
    /// Two changes at once would lose one.
    changing: Mutex<()>,
}

impl Offers {
    /// The first offer.
    pub(super) fn new(registry: Registry, rules: DeskRules) -> Self {
        let desks = desks(&registry, &rules, &[]);
        let offer = Offer { registry: Arc::new(registry), generation: 0, desks };
        let now = ArcSwap::from_pointee(offer);
        Self {
            now,
            rules,
            closed: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            told: AtomicU64::new(0),
            changed: Arc::default(),
            changing: Mutex::new(()),
        }
    }

    /// The offer that holds now.
    pub(super) fn now(&self) -> Guard<Arc<Offer>> {
        self.now.load()
    }

    /// Another one holds from here on.
    pub(super) fn offer_anew(&self, registry: Registry) {
        let _changing = self.changing.lock();
        let before = self.now.load();
        let desks = desks(&registry, &self.rules, &before.desks);
        let generation = before.generation + 1;
        self.now.store(Arc::new(Offer { registry: Arc::new(registry), generation, desks }));
        if self.closed.load(Ordering::Acquire) {
            self.now.load().desks.iter().for_each(|desk| desk.pool.close());
        }
        self.generation.store(generation, Ordering::SeqCst);
        self.changed.notify_waiters();
        self.told.store(generation, Ordering::SeqCst);
    }

    /// The generation that holds.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The last one that everybody who waits was told of.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// Resolves at the next change.
    pub(super) fn changes(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Who waits is answered, and nobody is let in any more, whatever is offered later.
    pub(super) fn close(&self) {
        let _changing = self.changing.lock();
        self.closed.store(true, Ordering::Release);
        self.now.load().desks.iter().for_each(|desk| desk.pool.close());
    }
}

/// A desk for each lane: the one that it had before, unless its bound is another.
fn desks(registry: &Registry, rules: &DeskRules, before: &[Arc<Desk>]) -> Vec<Arc<Desk>> {
    let desk = |lane: &Lane| {
        let same = |desk: &&Arc<Desk>| *desk.name() == lane.name && desk.pool.limit() == lane.max_inflight;
        before.iter().find(same).cloned().unwrap_or_else(|| {
            let pool = Pool::new(Arc::clone(&lane.name), lane.max_inflight, rules.queue, rules.share);
            let is_provider = registry.catalog().find(&lane.name).is_some();
            let desk = if is_provider {
                Desk::of_provider(pool.into(), &rules.resilience)
            } else {
                Desk::plain(pool.into())
            };
            Arc::new(desk)
        })
    };
    registry.lanes().iter().map(desk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};
    use crate::provider::catalog::Catalog;

    fn registry(lanes: &[(&str, usize)]) -> Registry {
        let config = config::resolve(Sources::default()).unwrap().config;
        let mut registry = Registry::new(Catalog::new(&config).unwrap(), &[], &config.ladder).unwrap();
        for (name, max_inflight) in lanes {
            registry.add_lane(Lane { name: Arc::from(*name), max_inflight: *max_inflight, timeout: None });
        }
        registry
    }

    fn offers(registry: Registry) -> Offers {
        let resilience = config::resolve(Sources::default()).unwrap().config.resilience;
        Offers::new(registry, DeskRules { queue: 10, share: Share::All, resilience })
    }

    fn pool(offers: &Offers, name: &str) -> Arc<Pool> {
        let offer = offers.now();
        Arc::clone(&offer.lane(offer.registry.lane(name).unwrap()).0.pool)
    }

    #[test]
    fn a_lane_keeps_its_permits_over_a_change_unless_its_bound_is_another() {
        let offers = offers(registry(&[("a", 1), ("b", 1), ("gone", 1)]));
        let [a, b] = ["a", "b"].map(|name| pool(&offers, name));
        let held = a.try_take().unwrap();
        offers.offer_anew(registry(&[("b", 2), ("a", 1)]));
        assert!(Arc::ptr_eq(&a, &pool(&offers, "a")) && pool(&offers, "a").try_take().is_none());
        assert!(!Arc::ptr_eq(&b, &pool(&offers, "b")));
        assert!(offers.now().registry.lane("gone").is_none());
        assert_eq!(offers.now().generation, 1);
        drop(held);
    }

    #[test]
    fn what_is_offered_once_it_is_closed_is_closed_too() {
        let offers = offers(registry(&[("a", 1)]));
        offers.close();
        offers.offer_anew(registry(&[("a", 1), ("new", 1)]));
        assert!(["a", "new", "offline"].iter().all(|name| pool(&offers, name).try_take().is_none()));
    }
}
