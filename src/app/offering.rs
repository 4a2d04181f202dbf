//! What is offered, kept up to date: tools of upstream servers come and go, and their configuration changes while calls
//! run. What runs ends on what it began with.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::call::Calls;
use crate::config::{Config, Ladder, ServerConfig};
use crate::deadline::Deadline;
use crate::ids::PrincipalId;
use crate::provider::upstream::{self, Common, Server, SetupError};
use crate::tasks::{TaskKind, Tasks};
use crate::tool::Registry;
use crate::tool::registry::RegistryError;
use crate::tool::upstream::offer;

/// A server that changes its tools without end is not asked more often.
const BETWEEN_LISTS: Duration = Duration::from_millis(500);
/// How long servers may take to end.
const ENDS: Duration = Duration::from_secs(8);

/// What is offered.
pub(super) struct Offering {
    /// All that does not come from servers.
    base: Registry,
    ladder: Ladder,
    common: Common,
    wait: Duration,
    calls: Arc<Calls>,
    servers: Mutex<Vec<Kept>>,
}

/// A server that is offered.
#[derive(Clone)]
struct Kept {
    server: Arc<Server>,
    /// Ends who follows its changes.
    stop: CancellationToken,
}

impl Offering {
    /// Offers what does not come from servers, which are set up and not started yet.
    pub(super) fn new(
        config: &Config,
        base: Registry,
        calls: Arc<Calls>,
        tasks: Tasks,
    ) -> Result<Self, SetupError> {
        let common = Common {
            environment: config.child_environment.clone(),
            result_bytes: config.limits.result_bytes,
            connect: config.ladder.connect,
            sole: (config.principals.len() == 1).then_some(PrincipalId(0)),
            tasks,
        };
        let servers = config.servers.iter().map(|config| kept(config, &common)).collect::<Result<_, _>>()?;
        let (ladder, wait) = (config.ladder.clone(), config.servers_wait);
        Ok(Self { base, ladder, common, wait, calls, servers: Mutex::new(servers) })
    }

    /// Starts all servers, and waits a while for what they list; the others come when they come.
    ///
    /// # Errors
    /// Two tools of one name.
    pub(super) async fn start(self: &Arc<Self>) -> Result<(), RegistryError> {
        let all = self.servers.lock().clone();
        if all.is_empty() {
            return Ok(());
        }
        self.listed(&all).await;
        let left_out = self.offer_anew();
        let twice = |error: &RegistryError| matches!(error, RegistryError::Twice { .. });
        if let Some(error) = left_out.into_iter().find(twice) {
            self.stop();
            return Err(error);
        }
        for kept in all {
            self.follow(kept);
        }
        Ok(())
    }

    /// Waits a while until each of these has listed its tools.
    async fn listed(&self, servers: &[Kept]) {
        let each = servers.iter().map(|kept| async {
            if let Err(fault) = kept.server.list().await {
                tracing::warn!(server = &**kept.server.name(), "its tools are not offered yet: {fault}");
            }
        });
        if Deadline::after(self.wait).limit(futures_util::future::join_all(each)).await.is_err() {
            tracing::warn!(
                waited_secs = self.wait.as_secs_f64(),
                "not every server has listed its tools yet"
            );
        }
    }

    /// Offers what servers list now; returns why some is left out.
    fn offer_anew(&self) -> Vec<RegistryError> {
        // Held over the whole: of two changes at once, the later one sees both.
        let servers = self.servers.lock();
        let mut registry = self.base.clone();
        let mut left_out = Vec::new();
        for kept in servers.iter() {
            let errors = offer(&mut registry, &kept.server, &self.ladder);
            for error in &errors {
                tracing::error!(server = &**kept.server.name(), "a tool is left out: {error}");
            }
            left_out.extend(errors);
        }
        self.calls.offer_anew(registry);
        left_out
    }

    /// Offers its tools anew whenever they change.
    fn follow(self: &Arc<Self>, kept: Kept) {
        let offering = Arc::clone(self);
        self.common.tasks.spawn(TaskKind::Upstream, async move {
            tokio::select! {
                () = kept.stop.cancelled() => {}
                () = offering.changes(&kept.server) => {}
            }
        });
    }

    async fn changes(&self, server: &Arc<Server>) {
        loop {
            let before = server.listing();
            if before.is_some() {
                server.changed().notified().await;
                tokio::time::sleep(BETWEEN_LISTS).await;
            }
            match server.list().await {
                Ok(listing) if before.as_ref() == Some(&listing) => {}
                Ok(listing) => {
                    let tools = listing.tools.len();
                    tracing::info!(server = &**server.name(), tools, "its tools have changed");
                    for why in &listing.left_out {
                        tracing::warn!(server = &**server.name(), "left out: {why}");
                    }
                    self.offer_anew();
                }
                // It is told of by whoever keeps it. One that is up and does not list is asked again when it changes.
                Err(_) if before.is_none() => server.changed().notified().await,
                Err(_) => {}
            }
        }
    }

    /// Servers are configured otherwise: those of which nothing changed stay as they are.
    ///
    /// # Errors
    /// A server that cannot be set up; then nothing changes.
    pub(super) async fn reload(self: &Arc<Self>, configs: &[ServerConfig]) -> Result<(), SetupError> {
        let before = self.servers.lock().clone();
        let same = |config: &ServerConfig| before.iter().find(|kept| kept.server.config() == config).cloned();
        let mut fresh = Vec::new();
        let mut all = Vec::with_capacity(configs.len());
        for config in configs {
            if let Some(kept) = same(config) {
                all.push(kept);
                continue;
            }
            let kept = kept(config, &self.common)?;
            fresh.push(kept.clone());
            all.push(kept);
        }
        self.listed(&fresh).await;
        let stays = |kept: &Kept| all.iter().any(|other| Arc::ptr_eq(&other.server, &kept.server));
        let gone: Vec<_> = before.into_iter().filter(|kept| !stays(kept)).collect();
        let count = all.len();
        *self.servers.lock() = all;
        self.offer_anew();
        for kept in &gone {
            kept.stop.cancel();
            kept.server.retire();
        }
        tracing::info!(
            servers = count,
            fresh = fresh.len(),
            gone = gone.len(),
            "servers were configured anew"
        );
        for kept in fresh {
            self.follow(kept);
        }
        Ok(())
    }

    fn stop(&self) {
        for kept in self.servers.lock().iter() {
            kept.stop.cancel();
            kept.server.stop();
        }
    }

    /// Ends all servers, within a bound.
    pub(super) async fn end(&self) {
        self.stop();
        let tasks = &self.common.tasks;
        if tasks.drained(TaskKind::Upstream, Deadline::after(ENDS)).await.is_err() {
            tracing::warn!(left = tasks.left(), "servers did not end in time");
        }
    }
}

fn kept(config: &ServerConfig, common: &Common) -> Result<Kept, SetupError> {
    let server = upstream::set_up(config.clone(), common)?;
    Ok(Kept { server, stop: CancellationToken::new() })
}
