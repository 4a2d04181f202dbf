//! What a Run's end means for those who wait.

use std::sync::Arc;

use crate::call::flight::Flight;
use crate::call::outcome::{CallError, Outcome};
use crate::provider::{Fault, Reply};
use crate::tool::Effect;

/// A write that may have been done says so.
pub(super) fn settle(
    worked: Result<Reply, CallError>,
    flight: &Flight,
    began: bool,
    max_reply_bytes: usize,
) -> Outcome {
    let write = flight.tool().effect == Effect::Write;
    let unknown =
        |what| Err(Arc::new(CallError::OutcomeUnknown { tool: Arc::clone(&flight.tool().name), what }));
    match worked {
        Ok(reply) if reply.bytes() > max_reply_bytes => {
            Err(Arc::new(CallError::TooLarge { bytes: reply.bytes(), limit: max_reply_bytes }))
        }
        Ok(reply) => Ok(Arc::new(reply)),
        Err(CallError::Provider(fault)) if write && began && !fault.surely_not_done() => {
            unknown(what_failed(&fault))
        }
        Err(CallError::ProviderTimeout { .. }) if write => unknown("ran into its time limit"),
        // Who took it back is told so by its seat; this is for whoever collects the outcome later.
        Err(CallError::Cancelled) if write && began => unknown("was stopped"),
        Err(CallError::ShuttingDown) if write && began => unknown("was cut off because the daemon went down"),
        Err(CallError::ShuttingDown) if began => Err(Arc::new(CallError::CutOff)),
        Err(error) => Err(Arc::new(error)),
    }
}

fn what_failed(fault: &Fault) -> &'static str {
    match fault {
        Fault::Refused { .. } => "its provider failed",
        Fault::Unreachable { .. } => "its provider could not be reached",
        Fault::Broken { .. } => "its provider broke off",
        Fault::TooLarge { .. } => "its answer was too large",
        Fault::NotAsked(_) => "was not asked",
        Fault::Down { .. } => "its server was down",
        Fault::Answered { .. } => "its server said no",
    }
}
