//! Sessions of MCP's older era over HTTP: what stands for a connection there, named by `Mcp-Session-Id`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::call::{Caller, CancelHandle};
use crate::door::{Hub, Subscription};
use crate::http::listening::News;
use crate::ids::{PrincipalId, QuestionId};
use crate::proto::mcp::Mcp;
use crate::proto::unasked::Lists;
use crate::provider::asking::Said;

/// Who said nothing for so long has gone: most clients never say good-bye.
const IDLE: Duration = Duration::from_mins(30);

/// Where what a client says to a question goes.
pub(super) type Says = mpsc::Sender<(QuestionId, Said)>;

/// One client's session.
pub(super) struct Session {
    /// What it is named by: a secret.
    pub(super) id: Box<str>,
    pub(super) caller: Caller,
    pub(super) dialect: Mutex<Mcp>,
    /// What it is to be told of.
    pub(super) news: Mutex<News>,
    calls: Mutex<HashMap<Box<str>, CancelHandle>>,
    asked: Mutex<HashMap<QuestionId, Says>>,
    used: Mutex<Instant>,
}

impl Session {
    /// A call is under way under this id of the client's; `false`: another one is already.
    pub(super) fn begins(&self, id: &str, handle: CancelHandle) -> bool {
        let mut calls = self.calls.lock();
        if calls.contains_key(id) {
            return false;
        }
        calls.insert(id.into(), handle);
        true
    }

    /// Whether a call is under way under this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.calls.lock().contains_key(id)
    }

    /// It has ended.
    pub(super) fn ends(&self, id: &str) {
        self.calls.lock().remove(id);
        *self.used.lock() = Instant::now();
    }

    /// Its client is there.
    pub(super) fn is_used(&self) {
        *self.used.lock() = Instant::now();
    }

    /// Takes it back.
    pub(super) fn cancel(&self, id: &str) {
        let handle = self.calls.lock().get(id).cloned();
        if let Some(handle) = handle {
            handle.cancel();
        }
    }

    /// The client is asked this; what it says goes there.
    pub(super) fn asks(&self, id: QuestionId, says: Says) {
        self.asked.lock().insert(id, says);
    }

    /// Nobody wants to know any more.
    pub(super) fn asks_no_more(&self, id: QuestionId) {
        self.asked.lock().remove(&id);
    }

    /// What it says to a question goes to the call that asked. What it was not asked, or has answered, goes nowhere.
    pub(super) fn said(&self, id: QuestionId, said: Said) {
        let asked = self.asked.lock().remove(&id);
        if let Some(says) = asked {
            // It has room for each question that is open.
            let _ = says.try_send((id, said));
        }
    }

    fn has_gone(&self, now: Instant) -> bool {
        self.calls.lock().is_empty() && now.saturating_duration_since(*self.used.lock()) > IDLE
    }
}

/// All of them.
#[derive(Default)]
pub struct Sessions {
    by_id: Mutex<HashMap<Box<str>, Arc<Session>>>,
}

impl Sessions {
    /// A session of this caller, which has introduced itself; `None`: there are as many as may be.
    pub(super) fn open(&self, hub: &Hub, caller: Caller, dialect: Mcp) -> Option<Arc<Session>> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).ok()?;
        let now = Instant::now();
        let session = Arc::new(Session {
            id: format!("{:032x}", u128::from_be_bytes(bits)).into(),
            caller,
            dialect: Mutex::new(dialect),
            news: Mutex::new(News::new(hub, Subscription::new(None, Lists::default()))),
            calls: Mutex::default(),
            asked: Mutex::default(),
            used: Mutex::new(now),
        });
        let limit = hub.limits.connections;
        // Where there are several principals, none keeps the others out.
        let own = if hub.auth.principals().len() > 1 { limit.div_ceil(2) } else { limit };
        let of = session.caller.principal.id;
        let gone: Vec<_>;
        {
            let mut by_id = self.by_id.lock();
            let is_full = |by_id: &HashMap<Box<str>, Arc<Session>>| {
                by_id.len() >= limit
                    || by_id.values().filter(|other| other.caller.principal.id == of).count() >= own
            };
            if is_full(&by_id) {
                gone = by_id.extract_if(|_, other| other.has_gone(now)).collect();
                if is_full(&by_id) {
                    return None;
                }
            } else {
                gone = Vec::new();
            }
            by_id.insert(session.id.clone(), Arc::clone(&session));
        }
        // Whoever has something for one of them alone is told without the lock.
        drop(gone);
        Some(session)
    }

    /// This principal's session of that name.
    pub(super) fn find(&self, id: &str, who: PrincipalId) -> Option<Arc<Session>> {
        let now = Instant::now();
        let mut by_id = self.by_id.lock();
        let session = by_id.get(id).filter(|session| session.caller.principal.id == who)?;
        if session.has_gone(now) {
            let gone = by_id.remove(id);
            drop(by_id);
            drop(gone);
            return None;
        }
        let session = Arc::clone(session);
        drop(by_id);
        *session.used.lock() = now;
        Some(session)
    }

    /// The client says good-bye; whether there was such a session of its.
    pub(super) fn close(&self, id: &str, who: PrincipalId) -> bool {
        let mut by_id = self.by_id.lock();
        let is_its = by_id.get(id).is_some_and(|session| session.caller.principal.id == who);
        let gone = if is_its { by_id.remove(id) } else { None };
        drop(by_id);
        drop(gone);
        is_its
    }
}
