//! The providers of this daemon: those with a key, and `offline`, which is always there.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, ProviderConfig};
use crate::provider::chat::ChatProvider;
use crate::provider::llm::{OpenAi, SetupError};
use crate::provider::offline::{self, Offline};

/// One provider.
#[derive(Clone)]
pub struct ProviderEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Who answers when the caller names no model.
    pub model: Arc<str>,
    /// Where it is; part of a call's key.
    pub place: Arc<str>,
    /// The innermost rung of the ladder.
    pub timeout: Duration,
    /// Its permits.
    pub max_inflight: usize,
    /// What asks it.
    pub chat: Arc<dyn ChatProvider>,
}

/// All providers, the preferred one first, `offline` last.
pub struct Catalog {
    entries: Vec<ProviderEntry>,
    offline: Offline,
}

impl Catalog {
    /// Sets the configured providers up; nothing is connected yet.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        let connect = config.ladder.connect;
        let mut entries =
            config.providers.iter().map(|each| entry(each, connect)).collect::<Result<Vec<_>, _>>()?;
        let offline = Offline::new(&config.offline);
        entries.push(ProviderEntry {
            name: Arc::from(offline::NAME),
            model: Arc::from(offline::MODEL),
            place: Arc::from("built in"),
            timeout: config.ladder.tool(),
            max_inflight: config.offline.max_inflight,
            chat: Arc::new(offline.clone()),
        });
        Ok(Self { entries, offline })
    }

    /// The configured providers, behind one that a test brings along.
    #[cfg(test)]
    pub(crate) fn with_first(config: &Config, first: ProviderEntry) -> Result<Self, SetupError> {
        let mut catalog = Self::new(config)?;
        catalog.entries.insert(0, first);
        Ok(catalog)
    }

    /// All, the preferred one first.
    pub fn entries(&self) -> &[ProviderEntry] {
        &self.entries
    }

    /// The place of a provider in [`Catalog::entries`], by name.
    pub fn find(&self, name: &str) -> Option<(usize, &ProviderEntry)> {
        self.entries.iter().enumerate().find(|(_, entry)| &*entry.name == name)
    }

    /// The one that answers when the caller names none.
    pub fn preferred(&self) -> Option<(usize, &ProviderEntry)> {
        self.entries.iter().enumerate().next()
    }

    /// The one that is always there, with its place.
    pub fn offline(&self) -> (usize, &Offline) {
        (self.entries.len().saturating_sub(1), &self.offline)
    }
}

fn entry(config: &ProviderConfig, connect: Duration) -> Result<ProviderEntry, SetupError> {
    Ok(ProviderEntry {
        name: Arc::from(config.name),
        model: Arc::from(&*config.model),
        place: Arc::from(&*config.base_url),
        timeout: config.timeout,
        max_inflight: config.max_inflight,
        chat: Arc::new(OpenAi::new(config, connect)?),
    })
}
