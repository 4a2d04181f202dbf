//! Who calls: a principal, through a client session.

use std::sync::Arc;

use crate::call::queue::Pool;
use crate::call::reattach::Attachment;
use crate::ids::{ClientSessionId, PrincipalId};

/// For whom calls are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its id, part of every key.
    pub id: PrincipalId,
    /// Its name in logs and statistics.
    pub name: Arc<str>,
}

/// One connection, or what stands for one over HTTP.
#[derive(Debug)]
pub struct ClientSession {
    /// Its id, minted by the daemon.
    pub id: ClientSessionId,
    /// Places for Runs at work, and the queue before them.
    pub slots: Arc<Pool>,
}

impl ClientSession {
    /// A session with room for `limit` Runs at work and `queue` that wait.
    pub fn new(id: ClientSessionId, limit: usize, queue: usize) -> Self {
        Self { id, slots: Arc::new(Pool::new(Arc::from("this session"), limit, queue)) }
    }
}

/// Who made a call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For whom.
    pub principal: Principal,
    /// Through which session.
    pub session: Arc<ClientSession>,
    /// What is kept for the case that its connection goes; none without a session key.
    pub attachment: Option<Arc<Attachment>>,
}
