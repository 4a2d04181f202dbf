//! Outcomes that answer equal calls after their flight has landed: for a tool's TTL, or for the short window in which
//! a client dispatches its call twice.
//!
//! Never an error that trying again could mend. Bounded in bytes for each principal, so that nobody's results push
//! out another's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use parking_lot::RwLock;

use crate::call::key::{BuildKeyHasher, CallKey};
use crate::call::outcome::{CallError, Outcome};
use crate::ids::PrincipalId;
use crate::tool::{Dedup, Tool};

#[derive(Clone)]
struct Kept {
    arguments: Arc<[u8]>,
    outcome: Outcome,
    ttl: Duration,
}

/// Each entry lives for its own TTL.
struct OwnTtl;

impl Expiry<CallKey, Kept> for OwnTtl {
    fn expire_after_create(&self, _key: &CallKey, kept: &Kept, _now: Instant) -> Option<Duration> {
        Some(kept.ttl)
    }

    fn expire_after_update(
        &self,
        _: &CallKey,
        kept: &Kept,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.ttl)
    }
}

type OfOne = Cache<CallKey, Kept, BuildKeyHasher>;

/// Outcomes kept for equal calls.
pub struct OutcomeCache {
    by_principal: RwLock<HashMap<PrincipalId, OfOne>>,
    bytes: u64,
    guard_window: Duration,
}

impl std::fmt::Debug for OutcomeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutcomeCache").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl OutcomeCache {
    /// Room for `bytes` of outcomes for each principal.
    pub fn new(bytes: usize, guard_window: Duration) -> Self {
        Self {
            by_principal: RwLock::default(),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            guard_window,
        }
    }

    /// How long an outcome under this policy is kept, if at all.
    pub fn keeps(&self, policy: Dedup, tool: &Tool) -> Option<Duration> {
        match policy {
            Dedup::Principal => tool.cache_ttl,
            Dedup::Session => Some(self.guard_window).filter(|window| !window.is_zero()),
            Dedup::Off => None,
        }
    }

    /// The outcome of an equal call, if it is young enough.
    pub fn find(&self, key: &CallKey, arguments: &[u8]) -> Option<Outcome> {
        let kept = self.by_principal.read().get(&key.principal)?.get(key)?;
        (*kept.arguments == *arguments).then_some(kept.outcome)
    }

    /// The same, where outcomes under this key are kept at all.
    pub(super) fn answers(
        &self,
        keep: Option<Duration>,
        key: Option<CallKey>,
        arguments: &[u8],
    ) -> Option<Outcome> {
        keep.and(key).and_then(|key| self.find(&key, arguments))
    }

    /// Keeps an outcome, if it is one to be kept.
    pub fn fill(&self, key: CallKey, arguments: &[u8], outcome: &Outcome, ttl: Duration) {
        if !is_kept(outcome) {
            return;
        }
        let kept = Kept { arguments: arguments.into(), outcome: outcome.clone(), ttl };
        let known = self.by_principal.read().get(&key.principal).cloned();
        known.unwrap_or_else(|| self.open(key.principal)).insert(key, kept);
    }

    /// How many outcomes are kept, about.
    pub fn entries(&self) -> u64 {
        self.by_principal.read().values().map(Cache::entry_count).sum()
    }

    fn open(&self, principal: PrincipalId) -> OfOne {
        let mut all = self.by_principal.write();
        let cache = all.entry(principal).or_insert_with(|| {
            Cache::builder()
                .max_capacity(self.bytes)
                .weigher(|_key, kept: &Kept| weight(kept))
                .expire_after(OwnTtl)
                .build_with_hasher(BuildKeyHasher::default())
        });
        cache.clone()
    }
}

/// A reply is kept, unless it is a question. So is the outcome of a write that nobody knows: its twin must not run.
fn is_kept(outcome: &Outcome) -> bool {
    match outcome {
        Ok(reply) => !reply.is_error && !reply.is_partial && !reply.asks,
        Err(error) => matches!(**error, CallError::OutcomeUnknown { .. }),
    }
}

fn weight(kept: &Kept) -> u32 {
    /// Key, entry and the cache's own bookkeeping, about.
    const ENTRY_BYTES: usize = 256;
    let reply = kept.outcome.as_ref().map_or(0, |reply| reply.bytes());
    u32::try_from(ENTRY_BYTES + kept.arguments.len() + reply).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
