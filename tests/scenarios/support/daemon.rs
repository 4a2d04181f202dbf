//! A daemon inside the test's own runtime.

use std::net::SocketAddr;
use std::sync::Arc;

use inflightd::app::{App, Drained};
use inflightd::config::{self, Ladder, Sources};
use inflightd::door::Hub;
use inflightd::tool::registry::RegistryError;
use inflightd::tool::{Insight, Registry};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::provider::Provider;
use super::{until, within};

/// The tools of the scenarios, one for each effect.
pub const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/tools.toml");
/// A key that every scenario's provider takes.
pub const API_KEY: &str = "sk-of-the-scenarios";

/// A daemon on a port of its own.
pub struct Daemon {
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    stop: mpsc::Sender<()>,
    running: JoinHandle<Drained>,
}

impl Daemon {
    /// A daemon whose provider `kimi` is `provider`, with these keys set.
    pub async fn start(provider: &Provider, keys: &[(&str, &str)]) -> Self {
        Self::start_with(Some(provider), keys, |_, _| Ok(())).await
    }

    /// A daemon with nothing but `offline`.
    pub async fn offline(keys: &[(&str, &str)]) -> Self {
        Self::start_with(None, keys, |_, _| Ok(())).await
    }

    /// A daemon with tools that the test brings along.
    pub async fn start_with(
        provider: Option<&Provider>,
        keys: &[(&str, &str)],
        add: impl FnOnce(&mut Registry, &Ladder) -> Result<(), RegistryError>,
    ) -> Self {
        let mut flags = vec![
            ("INFLIGHTD_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("LOG_LEVEL".to_owned(), "error".to_owned()),
            ("TOOLS_FILE".to_owned(), TOOLS.to_owned()),
        ];
        if let Some(provider) = provider {
            flags.push(("KIMI_API_KEY".to_owned(), API_KEY.to_owned()));
            flags.push(("KIMI_API_URL".to_owned(), provider.url()));
        }
        flags.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Self::run(flags, toml::Table::new(), add).await
    }

    /// A daemon with these keys, and this TOML file.
    pub async fn with_toml(keys: &[(String, String)], toml: &str) -> Self {
        let own = [("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "error")];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let flags = own.into_iter().chain(keys.iter().cloned()).collect();
        Self::run(flags, toml.parse().unwrap(), |_, _| Ok(())).await
    }

    async fn run(
        flags: Vec<(String, String)>,
        toml: toml::Table,
        add: impl FnOnce(&mut Registry, &Ladder) -> Result<(), RegistryError>,
    ) -> Self {
        let flags = flags.into_iter().collect();
        let loaded = config::resolve(Sources { flags, toml, ..Sources::default() });
        let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
        let app = App::bind_with(&config, add).await.unwrap();
        let (address, hub) = (app.address(), Arc::clone(app.hub()));
        let (stop, stopped) = mpsc::channel(2);
        let running = tokio::spawn(app.run(stopped));
        Self { address, hub, stop, running }
    }

    /// What `/api/v1/stats` says.
    pub fn stats(&self) -> Value {
        self.hub.calls.server_stats()
    }

    /// One number of the statistics, by its JSON pointer.
    pub fn stat(&self, pointer: &str) -> u64 {
        self.stats()
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no number at {pointer}"))
    }

    /// Waits until a number of the statistics is this.
    pub async fn shows(&self, pointer: &str, number: u64) {
        until(&format!("{pointer} = {number}"), || self.stat(pointer) == number).await;
    }

    /// Waits until so many callers wait.
    pub async fn has_waiters(&self, waiters: u64) {
        self.shows("/waiters", waiters).await;
    }

    /// Nothing is left of any call: no key, no Run, no waiter, no permit, and nothing is broken.
    pub async fn at_rest(&self) {
        let calls = &self.hub.calls;
        until("a daemon at rest", || {
            let (global, each) = calls.pools();
            let idle = std::iter::once(global)
                .chain(each.into_iter().chain(calls.composites()).map(|(_, view)| view));
            calls.flights().keys() == 0
                && calls.flights().executions() == 0
                && calls.watch().active() == 0
                && calls.leases().holders().is_empty()
                && idle.into_iter().all(|view| view.in_use == 0 && view.queued == 0)
        })
        .await;
        self.hub.health.look(calls).await;
        assert!(!self.hub.health.broken());
    }

    /// A signal: the first stops the daemon, the second the waiting.
    pub fn stop(&self) {
        self.stop.try_send(()).unwrap();
    }

    /// Waits until the daemon has ended.
    pub async fn ended(self) -> Drained {
        within("the end of the daemon", self.running).await.unwrap()
    }
}
