//! What others may look at while calls go on.

use std::sync::Arc;

use crate::call::Calls;
use crate::call::desk::CareView;
use crate::call::flights::Flights;
use crate::call::permits::Leases;
use crate::call::queue::PoolView;
use crate::call::watch::Watch;
use crate::tool::Registry;

impl Calls {
    /// The tools and providers as they are now.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.offers.now().registry)
    }

    /// The tools, and how often they have changed.
    pub fn offered(&self) -> (Arc<Registry>, u64) {
        let offer = self.offers.now();
        (Arc::clone(&offer.registry), offer.generation)
    }

    /// How often the tools have changed.
    pub fn generation(&self) -> u64 {
        self.offers.generation()
    }

    /// Offers other tools and lanes from here on. What runs ends as it began; lanes of the same name and bound keep their
    /// permits and queues.
    pub fn offer_anew(&self, registry: Registry) {
        self.offers.offer_anew(registry);
    }

    /// The last generation that whoever waits for changes was told of.
    pub fn generation_told(&self) -> u64 {
        self.offers.told()
    }

    /// Resolves at the next change.
    pub fn changes(&self) -> tokio::sync::futures::OwnedNotified {
        self.offers.changes()
    }

    /// Calls under way and kept.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Calls in the air.
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// Who holds permits.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.path.leases
    }

    /// The pool that all lanes share, and each lane's, with their names.
    pub fn pools(&self) -> (PoolView, Vec<(Arc<str>, PoolView)>) {
        let offer = self.offers.now();
        let each = offer.desks().iter().map(|desk| (Arc::clone(desk.name()), desk.pool.view())).collect();
        (self.path.global.view(), each)
    }

    /// How each provider is, and what was done about it.
    pub fn care(&self) -> Vec<(Arc<str>, CareView)> {
        let offer = self.offers.now();
        offer.desks().iter().filter_map(|desk| Some((Arc::clone(desk.name()), desk.view()?))).collect()
    }

    /// The slots of each kind of composite that is offered, with their names.
    pub fn composites(&self) -> Vec<(Arc<str>, PoolView)> {
        let registry = self.registry();
        let offered = self.path.composites.iter().filter(|desk| registry.find(desk.name()).is_some());
        offered.map(|desk| (Arc::clone(desk.name()), desk.pool.view())).collect()
    }
}
