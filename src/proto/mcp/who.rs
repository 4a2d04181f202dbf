//! Who asks: how long that one waits, and what it can be asked for.

use super::params::Meta;
use super::{Mcp, asking};
use crate::clients::{Met, Patience};
use crate::proto::{ClientInfo, View};
use crate::provider::Level;
use crate::provider::asking::Can;

/// The longest introduction that is read.
const INTRODUCTION_BYTES: usize = 1024;

/// What is known of who asks.
#[derive(Clone, Copy)]
pub(super) struct Who {
    pub patience: Patience,
    pub can: Can,
    pub log: Option<Level>,
}

impl Mcp {
    pub(super) fn who(&mut self, meta: &Meta<'_>, view: &View<'_>) -> Who {
        let patience = self.patience(meta, view);
        if meta.version.is_some() {
            // A client of the newer era is asked by results only.
            return Who { patience, can: asking::by_results(meta.capabilities), log: meta.log };
        }
        Who { patience, can: self.can, log: self.log }
    }

    /// How long whoever asks waits: a stateless request says itself who that is.
    fn patience(&mut self, meta: &Meta<'_>, view: &View<'_>) -> Patience {
        if meta.version.is_none() {
            return self.met.as_ref().map_or(Patience::Unknown, Met::patience);
        }
        let Some(text) = meta.client_info.filter(|text| text.len() <= INTRODUCTION_BYTES) else {
            return Patience::Unknown;
        };
        if let Some((_, met)) = self.last.as_ref().filter(|(last, _)| **last == *text) {
            return met.patience();
        }
        let met = meet(text, view);
        let patience = met.patience();
        self.last = Some((text.into(), met));
        patience
    }
}

/// A client introduces itself.
pub(super) fn meet(introduction: &str, view: &View<'_>) -> Met {
    view.clients.met_again(introduction).unwrap_or_else(|| {
        let client = ClientInfo::read(introduction);
        let (name, version) = client.parts();
        view.clients.meet_in_words(introduction, name, version)
    })
}
