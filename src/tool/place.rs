//! Where a call's work is done: in a lane under its permits, or in a slot of composites.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Limits;
use crate::tool::{batch, consensus, flow};

/// Who does work, with a queue and permits of its own: a provider of the catalogue, or whatever else serves calls side
/// by side.
#[derive(Debug, Clone)]
pub struct Lane {
    /// What it is called, in errors and statistics; unique.
    pub name: Arc<str>,
    /// Its permits.
    pub max_inflight: usize,
    /// How long one work may take there, if less than its tool allows.
    pub timeout: Option<Duration>,
}

/// A lane of its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneId(pub(crate) usize);

/// A kind of work that calls tools itself. Each kind has slots of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Composite {
    /// `consensus`
    Consensus,
    /// `run_batch`
    Batch,
    /// `execute_flow`
    Flow,
}

impl Composite {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Consensus, Self::Batch, Self::Flow];

    /// The name of its slots, in errors and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consensus => consensus::NAME,
            Self::Batch => batch::NAME,
            Self::Flow => flow::NAME,
        }
    }

    /// How many of them may be at work.
    pub fn limit(self, limits: &Limits) -> usize {
        match self {
            Self::Consensus => limits.consensus,
            Self::Batch => limits.batches,
            Self::Flow => limits.flows,
        }
    }

    /// How many may wait for a place.
    pub fn queue(self, limits: &Limits) -> usize {
        match self {
            Self::Consensus | Self::Batch => limits.queue,
            Self::Flow => limits.flows_queue,
        }
    }
}

/// Where composites work, for those who look before they do more.
pub trait Slots: Sync {
    /// Whether a call that comes now would find neither a place nor room to wait for one.
    fn are_full(&self, kind: Composite) -> bool;
}

impl std::fmt::Debug for dyn Slots + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slots")
    }
}

/// Where a call's work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a lane, under its permits.
    Lane(LaneId),
    /// In a slot of its own kind: it calls others.
    Composite(Composite),
}
