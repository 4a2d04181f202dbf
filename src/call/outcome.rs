//! How a call ends: typed where it arises, and turned into what a client may see in one place.

use std::sync::Arc;
use std::time::Duration;

use crate::call::canonical::CanonicalError;
use crate::ids::{ExecutionId, RequestId};
use crate::phase::{ExecutionEnd, Refusal, Terminal};
use crate::provider::{Fault, Reply};
use crate::tool::Misfit;

mod end;

pub(super) use end::{execution_end, is_partial, terminal};

/// What a flight ends with, shared by all its waiters.
pub type Outcome = Result<Arc<Reply>, Arc<CallError>>;

/// Error codes on the wire: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The frame or body is not a request.
    InvalidRequest,
    /// An argument does not fit.
    ValidationError,
    /// No such tool.
    ToolNotFound,
    /// No or a wrong token.
    Unauthorized,
    /// Its caller calls more often than it may.
    RateLimited,
    /// Too many calls at once.
    OverCapacity,
    /// It waited too long for its turn.
    QueueTimeout,
    /// It worked, or was waited for, too long.
    Timeout,
    /// The caller took it back.
    Cancelled,
    /// The provider failed.
    ProviderError,
    /// The provider is not asked: it has failed too often, or wants to be left alone.
    ProviderUnavailable,
    /// The work began, and nobody knows whether it was done.
    OutcomeUnknown,
    /// The daemon is going down.
    ShuttingDown,
    /// A fault of the daemon's own.
    InternalError,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::InvalidRequest,
        Self::ValidationError,
        Self::ToolNotFound,
        Self::Unauthorized,
        Self::RateLimited,
        Self::OverCapacity,
        Self::QueueTimeout,
        Self::Timeout,
        Self::Cancelled,
        Self::ProviderError,
        Self::ProviderUnavailable,
        Self::OutcomeUnknown,
        Self::ShuttingDown,
        Self::InternalError,
    ];

    /// Its name on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::ValidationError => "VALIDATION_ERROR",
            Self::ToolNotFound => "TOOL_NOT_FOUND",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::RateLimited => "RATE_LIMITED",
            Self::OverCapacity => "OVER_CAPACITY",
            Self::QueueTimeout => "QUEUE_TIMEOUT",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::ProviderError => "PROVIDER_ERROR",
            Self::ProviderUnavailable => "PROVIDER_UNAVAILABLE",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// How such a call ended.
    pub fn terminal(self) -> Terminal {
        match self {
            Self::InvalidRequest
            | Self::ValidationError
            | Self::ToolNotFound
            | Self::Unauthorized
            | Self::RateLimited
            | Self::OverCapacity
            | Self::ProviderUnavailable
            | Self::ShuttingDown => Terminal::Rejected,
            Self::QueueTimeout | Self::Timeout => Terminal::Timeout,
            Self::Cancelled => Terminal::Cancelled,
            Self::ProviderError | Self::OutcomeUnknown | Self::InternalError => Terminal::Error,
        }
    }
}

/// Which bound was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// A provider's queue, a session's queue, or the one for all.
    #[error("The queue of {name} is full ({limit} waiting)")]
    Queue {
        /// Whose.
        name: Arc<str>,
        /// Its bound.
        limit: usize,
    },
    /// One principal's part of a queue.
    #[error(
        "Your share of the queue of {name} is full ({share} waiting): while others use it too, one may fill half of \
         its {limit} places; send more when some of yours are served"
    )]
    Share {
        /// Whose queue.
        name: Arc<str>,
        /// How many of one principal may wait.
        share: usize,
        /// How many may wait in all.
        limit: usize,
    },
    /// No queue is full, but the turn would surely come too late.
    #[error(
        "Your turn for {name} would come after {before} others, in about {wait:.0?}, and this call can \
         wait for it only {left:.0?}"
    )]
    Late {
        /// For what.
        name: Arc<str>,
        /// How many are served first.
        before: usize,
        /// How long that takes, at the recent pace.
        wait: Duration,
        /// What is left of the time for waiting.
        left: Duration,
    },
    /// Executions in all.
    #[error("Maximum concurrent sessions ({limit}) reached. Active sessions: {limit}")]
    Executions {
        /// The bound.
        limit: usize,
    },
    /// Waiters on one flight.
    #[error("Too many callers wait for this same call ({limit})")]
    Waiters {
        /// The bound.
        limit: usize,
    },
    /// Calls under way on one connection.
    #[error("Too many calls are under way on this connection ({limit})")]
    Connection {
        /// The bound.
        limit: usize,
    },
}

/// Why a provider is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Most of its last calls failed.
    Failing,
    /// It asked to be left alone.
    Resting,
}

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// What came is not a request.
    #[error("{0}")]
    Invalid(String),
    /// The caller's time has come since it connected.
    #[error("The token of {principal} has expired")]
    Expired {
        /// Whose.
        principal: Arc<str>,
    },
    /// It calls more often than it may.
    #[error(
        "Rate limit reached: {principal} may make {per_minute} calls a minute; the next one in {:.3}s",
        retry_after.as_secs_f64()
    )]
    RateLimited {
        /// Who.
        principal: Arc<str>,
        /// How often it may.
        per_minute: u32,
        /// When the next call passes.
        retry_after: Duration,
    },
    /// No such tool.
    #[error("There is no tool `{name}`{}", suggestion(near))]
    NoSuchTool {
        /// What was asked for, cut to 64 characters.
        name: String,
        /// Names near to it.
        near: Vec<String>,
    },
    /// An argument does not fit the tool's schema.
    #[error("{0}")]
    Misfit(#[from] Misfit),
    /// What the request brings beside its arguments is too large to be kept with its Execution.
    #[error("Metadata size ({bytes} bytes) exceeds limit ({limit} bytes)")]
    Metadata {
        /// How large it is, as JSON.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The arguments have no canonical form.
    #[error("arguments: {0}")]
    Arguments(#[from] CanonicalError),
    /// A composite's work called a composite.
    #[error("`{tool}` calls tools itself, so it cannot be called by one that does")]
    NoLeaf {
        /// Which tool.
        tool: Arc<str>,
    },
    /// A bound was reached.
    #[error("{full}")]
    Full {
        /// Which.
        full: Full,
        /// When it is worth to come back.
        retry_after: Option<Duration>,
    },
    /// It waited for its turn as long as calls may.
    #[error("Waited {:.1}s for {name} without getting a turn", waited.as_secs_f64())]
    QueueTimeout {
        /// For what.
        name: Arc<str>,
        /// How long.
        waited: Duration,
        /// When it is worth to come back.
        retry_after: Duration,
    },
    /// The work took longer than its rung of the ladder.
    #[error("{provider} provider timeout after {}s (session: {execution})", seconds(*after))]
    ProviderTimeout {
        /// Who worked.
        provider: Arc<str>,
        /// For how long.
        after: Duration,
        /// In which Execution.
        execution: ExecutionId,
    },
    /// The waiter's own deadline came.
    #[error(
        "No answer within {}s (request: {request}){}",
        seconds(*after),
        if *still_running { "; the work goes on: call get_request with this id to collect its outcome" } else { "" }
    )]
    WaiterTimeout {
        /// Whose.
        request: RequestId,
        /// How long it waited.
        after: Duration,
        /// Whether the work goes on, and its outcome will be kept.
        still_running: bool,
    },
    /// Its client would have given up before the work ends.
    #[error(
        "Still running after {}s (request: {request}): the work goes on. To collect its outcome, call the tool \
         get_request with {{\"request_id\":\"{request}\"}}",
        seconds(*after)
    )]
    AnsweredEarly {
        /// Whose.
        request: RequestId,
        /// How long it waited.
        after: Duration,
    },
    /// The caller took it back.
    #[error("The call was cancelled")]
    Cancelled,
    /// The provider failed, and the work surely had no lasting effect.
    #[error("{0}")]
    Provider(#[from] Fault),
    /// The provider is not asked for the time being: nothing was done.
    #[error(
        "{provider} is not asked for the next {:.1}s: {}",
        retry_after.as_secs_f64(),
        match why {
            Unavailable::Failing => "most of its last calls failed",
            Unavailable::Resting => "it asked to be left alone, for longer than this call can wait",
        }
    )]
    Unavailable {
        /// Who.
        provider: Arc<str>,
        /// Why not.
        why: Unavailable,
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// A write began, and nobody knows whether it was done.
    #[error("{tool} began and then {what}: it may or may not have been done")]
    OutcomeUnknown {
        /// Which tool.
        tool: Arc<str>,
        /// What happened.
        what: &'static str,
    },
    /// The reply is larger than can be delivered.
    #[error("The result has {bytes} bytes, more than the {limit} that can be delivered")]
    TooLarge {
        /// How large.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The daemon is going down.
    #[error("Session manager is shutting down, cannot create new sessions")]
    ShuttingDown,
    /// The daemon went down before the work had ended.
    #[error("The daemon stopped before this call ended")]
    CutOff,
    /// The work panicked, or its task was lost.
    #[error("The daemon failed while working on this call; it was not your call's fault")]
    Lost,
}

fn suggestion(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    format!("; near to it: {}", near.join(", "))
}

/// Whole seconds without a fraction, others with one digit.
fn seconds(span: Duration) -> String {
    if span.subsec_millis() == 0 { span.as_secs().to_string() } else { format!("{:.1}", span.as_secs_f64()) }
}

impl CallError {
    /// Its code on the wire: one match, so that a new error cannot be forgotten.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidRequest,
            Self::Expired { .. } => Code::Unauthorized,
            Self::Provider(Fault::NotAsked(why)) => end::not_asked(why).0,
            Self::RateLimited { .. } => Code::RateLimited,
            Self::NoSuchTool { .. } => Code::ToolNotFound,
            Self::Misfit(_) | Self::Metadata { .. } | Self::Arguments(_) | Self::NoLeaf { .. } => {
                Code::ValidationError
            }
            Self::Full { .. } | Self::TooLarge { .. } | Self::Provider(Fault::TooLarge { .. }) => {
                Code::OverCapacity
            }
            Self::QueueTimeout { .. } => Code::QueueTimeout,
            Self::ProviderTimeout { .. } | Self::WaiterTimeout { .. } | Self::AnsweredEarly { .. } => {
                Code::Timeout
            }
            Self::Cancelled => Code::Cancelled,
            Self::Unavailable { .. } | Self::Provider(Fault::Down { .. }) => Code::ProviderUnavailable,
            Self::Provider(_) => Code::ProviderError,
            Self::OutcomeUnknown { .. } => Code::OutcomeUnknown,
            Self::ShuttingDown | Self::CutOff => Code::ShuttingDown,
            Self::Lost => Code::InternalError,
        }
    }

    /// How the call ended that is answered with it: work that was done may be `OVER_CAPACITY` on the wire.
    pub fn terminal(&self) -> Terminal {
        match self {
            Self::TooLarge { .. } | Self::Provider(Fault::TooLarge { .. } | Fault::Down { .. }) => {
                Terminal::Error
            }
            _ => self.code().terminal(),
        }
    }

    /// Why the call was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        if self.terminal() != Terminal::Rejected {
            return None;
        }
        Some(match self {
            Self::Full { full, .. } => match full {
                Full::Executions { .. } => Refusal::Sessions,
                Full::Queue { .. } | Full::Share { .. } | Full::Late { .. } => Refusal::Queue,
                Full::Waiters { .. } | Full::Connection { .. } => Refusal::Waiters,
            },
            Self::Metadata { .. } => Refusal::Metadata,
            Self::Provider(Fault::NotAsked(why)) => end::not_asked(why).1,
            Self::RateLimited { .. } => Refusal::RateLimited,
            Self::Unavailable { .. } => Refusal::Unavailable,
            Self::ShuttingDown | Self::CutOff => Refusal::ShuttingDown,
            _ => Refusal::Invalid,
        })
    }

    /// How the Execution ended whose outcome it is.
    pub fn execution_end(&self) -> ExecutionEnd {
        match self.terminal() {
            Terminal::Completed => unreachable!("no error completes a call"),
            Terminal::Timeout => ExecutionEnd::Timeout,
            Terminal::Cancelled => ExecutionEnd::Cancelled,
            Terminal::Rejected if self.refusal() == Some(Refusal::ShuttingDown) => ExecutionEnd::Cancelled,
            Terminal::Error | Terminal::Rejected => ExecutionEnd::Error,
        }
    }

    /// Whether the same call may do better later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Invalid(_)
            | Self::Expired { .. }
            | Self::NoSuchTool { .. }
            | Self::Misfit(_)
            | Self::Metadata { .. }
            | Self::Arguments(_)
            | Self::NoLeaf { .. }
            | Self::AnsweredEarly { .. }
            | Self::Cancelled
            | Self::OutcomeUnknown { .. }
            | Self::TooLarge { .. } => false,
            Self::WaiterTimeout { still_running, .. } => !still_running,
            Self::RateLimited { .. }
            | Self::Full { .. }
            | Self::QueueTimeout { .. }
            | Self::ProviderTimeout { .. }
            | Self::Unavailable { .. }
            | Self::ShuttingDown
            | Self::CutOff
            | Self::Lost => true,
            Self::Provider(fault) => fault.retryable(),
        }
    }

    /// When it is worth to come back, in whole milliseconds.
    pub fn retry_after_ms(&self) -> Option<u64> {
        let after = match self {
            // Rounded up: who comes back after whole milliseconds is not refused for a part of one.
            Self::RateLimited { retry_after, .. } => Some(*retry_after + Duration::from_nanos(999_999)),
            Self::Full { retry_after, .. } => *retry_after,
            Self::QueueTimeout { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Provider(fault) => fault.retry_after(),
            // Another daemon may take its place.
            Self::ShuttingDown | Self::CutOff => Some(Duration::from_secs(1)),
            _ => None,
        };
        after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    /// The argument that does not fit, if that is what is wrong.
    pub fn argument(&self) -> Option<&str> {
        match self {
            Self::Misfit(misfit) => Some(&misfit.path),
            Self::Arguments(_) => Some("arguments"),
            Self::Metadata { .. } => Some("_meta"),
            _ => None,
        }
    }

    /// Whether the work goes on although this caller got no reply.
    pub fn still_running(&self) -> bool {
        matches!(self, Self::WaiterTimeout { still_running: true, .. } | Self::AnsweredEarly { .. })
    }
}

#[cfg(test)]
mod tests;
