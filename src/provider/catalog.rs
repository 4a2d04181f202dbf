//! The providers of this daemon: those with a key, and `offline`, which is always there.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Alias, Config, Fallback, Prices, ProviderConfig};
use crate::lifecycle::spend::Ledger;
use crate::provider::chat::ChatProvider;
use crate::provider::conversation::Conversations;
use crate::provider::llm::{Llm, SetupError};
use crate::provider::machine::Machine;
use crate::provider::offline::{self, Offline};
use crate::provider::pool::{Gauges, PoolRules};

/// One provider.
#[derive(Clone)]
pub struct ProviderEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Who answers when the caller names no model.
    pub model: Arc<str>,
    /// How and where it is asked; part of a call's key.
    pub place: Arc<str>,
    /// The innermost rung of the ladder.
    pub timeout: Duration,
    /// The same for a call that goes on with a conversation.
    pub follow_up_timeout: Duration,
    /// Its permits.
    pub max_inflight: usize,
    /// Whether a key is sent to it.
    pub has_key: bool,
    /// What its connections are doing, where it has any.
    pub connections: Option<Arc<Gauges>>,
    /// What asks it.
    pub chat: Arc<dyn ChatProvider>,
}

/// What outlasts a catalogue: what was said and spent, and what that is counted by.
#[derive(Debug)]
pub struct Books {
    /// What was spent.
    pub ledger: Arc<Ledger>,
    /// What models cost.
    pub prices: Prices,
    /// What was said.
    pub conversations: Arc<Conversations>,
}

/// All providers, the preferred one first, `offline` last. A clone has the same providers.
#[derive(Clone)]
pub struct Catalog {
    entries: Vec<ProviderEntry>,
    aliases: Vec<Alias>,
    fallbacks: Vec<Fallback>,
    books: Arc<Books>,
    offline: Offline,
    machine: Arc<Machine>,
}

impl Catalog {
    /// Sets the configured providers up; nothing is connected yet, and nothing was spent.
    ///
    /// # Errors
    /// A key that cannot be sent, or no TLS on this machine.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        let conversations = Arc::new(Conversations::new(config.conversations));
        Self::with(config, Arc::new(Ledger::new(&config.principals)), conversations, Machine::new())
    }

    /// A catalogue that takes the place of this one, with the books that it kept.
    ///
    /// # Errors
    /// See [`Catalog::new`].
    pub fn anew(&self, config: &Config) -> Result<Self, SetupError> {
        let Books { ledger, conversations, .. } = &*self.books;
        let anew =
            Self::with(config, Arc::clone(ledger), Arc::clone(conversations), Arc::clone(&self.machine))?;
        anew.books.ledger.set_limits(&config.principals);
        Ok(anew)
    }

    fn with(
        config: &Config,
        ledger: Arc<Ledger>,
        conversations: Arc<Conversations>,
        machine: Arc<Machine>,
    ) -> Result<Self, SetupError> {
        let rules = PoolRules { idle: config.idle_connections, connect: config.ladder.connect };
        let mut entries =
            config.providers.iter().map(|each| entry(each, rules)).collect::<Result<Vec<_>, _>>()?;
        let offline = Offline::new(&config.offline);
        entries.push(ProviderEntry {
            name: Arc::from(offline::NAME),
            model: Arc::from(offline::MODEL),
            place: Arc::from("built in"),
            timeout: config.ladder.tool(),
            follow_up_timeout: config.ladder.tool(),
            max_inflight: config.offline.max_inflight,
            has_key: false,
            connections: None,
            chat: Arc::new(offline.clone()),
        });
        let books = Arc::new(Books { ledger, prices: config.prices.clone(), conversations });
        let (aliases, fallbacks) = (config.aliases.clone(), config.fallbacks.clone());
        Ok(Self { entries, aliases, fallbacks, books, offline, machine })
    }

    /// The configured providers, behind those that a test brings along.
    #[cfg(test)]
    pub(crate) fn behind(first: Vec<ProviderEntry>, config: &Config) -> Result<Self, SetupError> {
        let mut catalog = Self::new(config)?;
        catalog.entries.splice(0..0, first);
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

    /// What a model's name stands for at this provider, or wherever, where none is named.
    pub fn alias(&self, model: &str, provider: Option<&str>) -> Option<&Alias> {
        let alias = self.aliases.iter().find(|alias| *alias.name == *model)?;
        let fits = provider.is_none_or(|asked| alias.provider.as_deref().is_none_or(|own| own == asked));
        fits.then_some(alias)
    }

    /// All other names for models.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// Who is asked where this provider or alias fails, with which model: those that are offered.
    pub fn fallbacks(&self, of: &str) -> Vec<(&ProviderEntry, Arc<str>)> {
        let chain = self.fallbacks.iter().find(|fallback| *fallback.of == *of);
        chain.into_iter().flat_map(|chain| &chain.then).filter_map(|name| self.stands_for(name)).collect()
    }

    /// The provider of that name with its own model, or what an alias stands for.
    fn stands_for(&self, name: &str) -> Option<(&ProviderEntry, Arc<str>)> {
        if let Some((_, entry)) = self.find(name) {
            return Some((entry, Arc::clone(&entry.model)));
        }
        let alias = self.aliases.iter().find(|alias| *alias.name == *name)?;
        let named = alias.provider.as_deref().map(|provider| self.find(provider));
        let (_, entry) = named.unwrap_or_else(|| self.preferred())?;
        Some((entry, Arc::from(&*alias.model)))
    }

    /// The machine that all this runs on.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// What was spent, and on what terms.
    pub fn books(&self) -> &Arc<Books> {
        &self.books
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

fn entry(config: &ProviderConfig, rules: PoolRules) -> Result<ProviderEntry, SetupError> {
    let llm = Llm::new(config, rules)?;
    Ok(ProviderEntry {
        name: Arc::from(&*config.name),
        model: Arc::from(&*config.model),
        place: Arc::from(format!("{:?} {}", config.wire, config.base_url)),
        timeout: config.timeout,
        follow_up_timeout: config.follow_up_timeout,
        max_inflight: config.max_inflight,
        has_key: config.api_key.is_some(),
        connections: Some(llm.gauges()),
        chat: Arc::new(llm),
    })
}
