//! How a call fails: as a result that a model can react to, or as an error of the protocol, which is for its client.

use std::time::Duration;

use super::{headers, open, push_meta};
use crate::call::{Answer, CallError, Code};
use crate::proto::jsonrpc::{self, INVALID_PARAMS};
use crate::proto::{Ticket, push_ms};
use crate::provider::{Fault, push_json_string};

/// Whether it is the client that has to do something about it, not the model: it lacks what the tool needs, or goes on with
/// a call in a way that makes no sense.
pub(super) fn is_for_the_client(ticket: &Ticket, error: &CallError) -> bool {
    let answered = match error {
        CallError::Provider(Fault::Answered { code, .. }) => Some(*code),
        _ => None,
    };
    let is_invalid = answered == Some(INVALID_PARAMS.into())
        || answered.is_none() && error.code() == Code::ValidationError;
    ticket.stateless
        && (answered == Some(headers::MISSING_CAPABILITY.into()) || ticket.continues && is_invalid)
}

/// How a call that has no reply is answered: a cancelled one not at all, one that no tool could answer with a
/// protocol error, every other with a result that a model can react to.
pub(super) fn refusal(id: &str, stateless: bool, answer: &Answer, error: &CallError) -> Option<String> {
    match error.code() {
        Code::Cancelled => None,
        Code::ToolNotFound | Code::InvalidRequest => {
            Some(jsonrpc::error_response(id, INVALID_PARAMS, &error.to_string(), None))
        }
        Code::ValidationError
        | Code::Unauthorized
        | Code::RateLimited
        | Code::OverCapacity
        | Code::QueueTimeout
        | Code::Timeout
        | Code::ProviderError
        | Code::ProviderUnavailable
        | Code::OutcomeUnknown
        | Code::ShuttingDown
        | Code::InternalError => {
            let mut text = error.to_string();
            if let Some(after) = error.retry_after_ms() {
                text.push_str("; retry in ");
                push_ms(&mut text, Duration::from_millis(after));
                text.push_str(" ms");
            }
            let mut out = open(id, stateless, text.len() + 32);
            out.push_str("\"content\":[{\"type\":\"text\",\"text\":");
            push_json_string(&mut out, &text);
            // A call that goes on has not failed: an error might be taken for a reason to call again.
            let goes_on = matches!(error, CallError::AnsweredEarly { .. });
            out.push_str(if goes_on { "}]" } else { "}],\"isError\":true" });
            push_meta(&mut out, stateless, answer, Some(error));
            Some(out)
        }
    }
}
