//! Who calls: a principal, through a client session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::outcome::CallError;
use crate::call::queue::{Pool, Priority, Share};
use crate::call::reattach::Attachment;
use crate::config::PrincipalConfig;
use crate::config::principals::{Ceiling, Expiry, ToolPatterns};
use crate::ids::{ClientSessionId, PrincipalId};
use crate::rate::Gcra;

/// For whom calls are made.
#[derive(Debug)]
pub struct Principal {
    /// Its id, part of every key.
    pub id: PrincipalId,
    /// Its name in logs and statistics.
    pub name: Arc<str>,
    /// The highest class that its calls get.
    pub ceiling: Priority,
    /// Its own places for Runs at work, shared by all its sessions, where it has a bound of its own.
    pub slots: Option<Arc<Pool>>,
    rate: Option<Rate>,
    tools: Tools,
    expires: Option<Expiry>,
    said_expired: AtomicBool,
}

/// How often it may call.
#[derive(Debug)]
struct Rate {
    per_minute: u32,
    pace: Gcra,
}

#[derive(Debug)]
enum Tools {
    All,
    Some(ToolPatterns),
    None,
}

impl Principal {
    /// A principal as configured; `queue` wait for its own places where it does not say how many.
    pub fn new(id: PrincipalId, config: &PrincipalConfig, queue: usize) -> Self {
        let slots = config.limits.map(|limits| {
            let name = Arc::from(format!("principal {}", config.name));
            Arc::new(Pool::new(name, limits.max_inflight, limits.max_queued.unwrap_or(queue), Share::All))
        });
        Self {
            id,
            name: Arc::from(&*config.name),
            ceiling: match config.ceiling {
                Ceiling::High => Priority::High,
                Ceiling::Medium => Priority::Medium,
                Ceiling::Low => Priority::Low,
            },
            slots,
            rate: config.rate.map(|rate| Rate {
                per_minute: rate.per_minute,
                pace: Gcra::new(rate.per_minute, Duration::from_secs(60), rate.burst),
            }),
            tools: config.tools.clone().map_or(Tools::All, Tools::Some),
            expires: config.expires,
            said_expired: AtomicBool::new(false),
        }
    }

    /// Who has not said who it is. No tool is there for it: nothing goes by this id.
    pub fn nobody() -> Self {
        let config = PrincipalConfig::plain("nobody");
        Self { tools: Tools::None, ..Self::new(PrincipalId(u32::MAX), &config, 1) }
    }

    /// Whether a tool of this name is there for it.
    pub fn allows(&self, tool: &str) -> bool {
        match &self.tools {
            Tools::All => true,
            Tools::Some(patterns) => patterns.allow(tool),
            Tools::None => false,
        }
    }

    /// Takes one call of those it may make.
    ///
    /// # Errors
    /// It calls more often than it may.
    pub fn take_call(&self, now: Instant) -> Result<(), CallError> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.pace.take(now).map_err(|retry_after| {
            let (principal, per_minute) = (Arc::clone(&self.name), rate.per_minute);
            CallError::RateLimited { principal, per_minute, retry_after }
        })
    }

    /// Whether its time has come; the log is told once.
    pub fn has_expired(&self, epoch_ms: u64) -> bool {
        let expired = self.expires.is_some_and(|expires| expires.has_come(epoch_ms));
        if expired && self.is_first_to_say() {
            let name = &*self.name;
            tracing::warn!(principal = name, "the token of `{name}` has expired: its calls are refused");
        }
        expired
    }

    fn is_first_to_say(&self) -> bool {
        !self.said_expired.swap(true, Ordering::Relaxed)
    }
}

/// Told that a session has ended. It must not wait.
pub type SessionEnded = Arc<dyn Fn(ClientSessionId) + Send + Sync>;

/// One connection, or what stands for one over HTTP. It ends when nobody is left who holds it: a Run whose caller has gone
/// may still work for it.
pub struct ClientSession {
    /// Its id, minted by the daemon.
    pub id: ClientSessionId,
    /// Places for Runs at work, and the queue before them.
    pub slots: Arc<Pool>,
    ended: Option<SessionEnded>,
}

impl ClientSession {
    /// A session with room for `limit` Runs at work and `queue` that wait.
    pub fn new(id: ClientSessionId, limit: usize, queue: usize) -> Self {
        let slots = Pool::new(Arc::from("this session"), limit, queue, Share::All);
        Self { id, slots: Arc::new(slots), ended: None }
    }

    /// Its end is told.
    #[must_use]
    pub fn tells(mut self, ended: &SessionEnded) -> Self {
        self.ended = Some(Arc::clone(ended));
        self
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        if let Some(ended) = &self.ended {
            ended(self.id);
        }
    }
}

impl std::fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSession").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who made a call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For whom.
    pub principal: Arc<Principal>,
    /// Through which session.
    pub session: Arc<ClientSession>,
    /// What is kept for the case that its connection goes; none without a session key.
    pub attachment: Option<Arc<Attachment>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_once_that_a_principal_has_expired() {
        let config =
            PrincipalConfig { expires: Expiry::parse("2000-01-01").ok(), ..PrincipalConfig::plain("ci") };
        let principal = Principal::new(PrincipalId(1), &config, 1);
        assert!(!principal.has_expired(0) && !principal.said_expired.load(Ordering::Relaxed));
        assert!(principal.has_expired(u64::MAX) && principal.said_expired.load(Ordering::Relaxed));
        assert!(!principal.is_first_to_say(), "it was said");
        assert!(principal.has_expired(u64::MAX));
    }

    #[test]
    fn nobody_has_a_tool() {
        assert!(!Principal::nobody().allows("echo"));
        let ci = PrincipalConfig::plain("ci");
        assert!(Principal::new(PrincipalId(0), &ci, 1).allows("echo"));
    }
}
