//! How an outcome counts. A reply that says itself that it failed is no success, whatever carried it.

use crate::call::outcome::{Code, Outcome};
use crate::phase::{ExecutionEnd, Refusal, Terminal};
use crate::provider::NotAsked;

/// What a call whose provider was not asked is answered with, and counted as.
pub(super) fn not_asked(why: &NotAsked) -> (Code, Refusal) {
    match why {
        NotAsked::Spent(_) => (Code::RateLimited, Refusal::RateLimited),
        NotAsked::Busy | NotAsked::Moved => (Code::OverCapacity, Refusal::Waiters),
    }
}

/// For the Execution that came to it.
pub(in crate::call) fn execution_end(outcome: &Outcome) -> ExecutionEnd {
    match outcome {
        Ok(reply) if reply.is_error => ExecutionEnd::Error,
        Ok(_) => ExecutionEnd::Completed,
        Err(error) => error.execution_end(),
    }
}

/// For one who waited for it.
pub(in crate::call) fn terminal(outcome: &Outcome) -> Terminal {
    match outcome {
        Ok(reply) if reply.is_error => Terminal::Error,
        Ok(_) => Terminal::Completed,
        Err(error) => error.terminal(),
    }
}

/// Whether parts of what was asked for are missing.
pub(in crate::call) fn is_partial(outcome: &Outcome) -> bool {
    outcome.as_ref().is_ok_and(|reply| reply.is_partial)
}
