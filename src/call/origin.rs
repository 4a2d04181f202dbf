//! Who hands a call over, and which tools are there for it.

use std::sync::Arc;

use crate::call::Call;
use crate::call::caller::Principal;
use crate::call::outcome::CallError;
use crate::call::parked::Continues;
use crate::tool::place::Place;
use crate::tool::{Registry, Tool};

/// Who hands a call over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    /// A caller, through a door; it may go on with an earlier call.
    Door(Option<Continues<'a>>),
    /// A composite's work, after so many equal children of it.
    Composite { ordinal: u32 },
}

impl Origin<'_> {
    /// The tool of that name, if it is there for this caller. What only composites call goes with them: whoever may call
    /// one may have it ask.
    pub(super) fn find<'a>(
        self,
        registry: &'a Registry,
        principal: &Principal,
        call: &Call<'_>,
    ) -> Option<&'a Arc<Tool>> {
        let name = call.tool;
        let found = if call.options.method { registry.method(name) } else { registry.find(name) };
        let found = found.filter(|tool| principal.allows(&tool.name));
        match self {
            Self::Door(_) => found,
            Self::Composite { .. } => found.or_else(|| registry.inner(name)),
        }
    }

    pub(super) fn continues(&self) -> Option<Continues<'_>> {
        match self {
            Self::Door(continues) => *continues,
            Self::Composite { .. } => None,
        }
    }

    /// Whether its arguments say all that it asks.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Door(None))
    }

    pub(super) fn is_child(self) -> bool {
        matches!(self, Self::Composite { .. })
    }

    /// How many equal children came before. Children are leaves, so that waiting has no cycle.
    pub(super) fn ordinal(self, tool: &Tool, place: Place) -> Result<u32, CallError> {
        match self {
            Self::Door(_) => Ok(0),
            Self::Composite { .. } if matches!(place, Place::Composite(_)) => {
                Err(CallError::NoLeaf { tool: Arc::clone(&tool.name) })
            }
            Self::Composite { ordinal } => Ok(ordinal),
        }
    }
}
