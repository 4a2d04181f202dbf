//! What others may look at while calls go on.

use std::sync::Arc;

use crate::call::Calls;
use crate::call::flights::Flights;
use crate::call::permits::Leases;
use crate::call::queue::PoolView;
use crate::call::watch::Watch;
use crate::tool::Registry;

impl Calls {
    /// The tools and providers.
    pub fn registry(&self) -> &Registry {
        &self.registry
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

    /// The pool that all providers share, and each provider's, with their names.
    pub fn pools(&self) -> (PoolView, Vec<(Arc<str>, PoolView)>) {
        let each = self.path.pools.iter().map(|pool| (Arc::clone(pool.name()), pool.view())).collect();
        (self.path.global.view(), each)
    }

    /// The slots of each kind of composite, with their names.
    pub fn composites(&self) -> Vec<(Arc<str>, PoolView)> {
        vec![(Arc::clone(self.path.consensus.name()), self.path.consensus.view())]
    }
}
