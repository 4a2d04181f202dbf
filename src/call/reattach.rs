//! What is kept for clients that lose their connection: their calls under way, and outcomes whose answer they may
//! not have received.
//!
//! Asked for, never inferred: only a call that says it was sent before is looked for here, and it must match in
//! principal, session key, the client's own id, tool and arguments. Without a session key nothing is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::flight::{Flight, NoSeat, SeatNo};
use crate::call::outcome::{CallError, Full};
use crate::call::waiter::{Arrival, Waiter};
use crate::call::{Caller, Calls};
use crate::ids::{PrincipalId, RequestId, SessionKey};
use crate::lifecycle::Role;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::tool::{Effect, Tool};

mod kept;

use kept::State;

/// Session keys known at once; the oldest that nobody is connected with goes first.
const SESSIONS: usize = 10_000;

/// Every principal's session keys, and what is kept under them.
#[derive(Debug)]
pub struct Attachments {
    kept_for: Duration,
    sessions: Mutex<HashMap<Owner, Arc<Attachment>>>,
    bytes: Arc<AtomicUsize>,
}

/// Whose it is. Equal keys of two principals never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    principal: PrincipalId,
    key: SessionKey,
}

/// What is kept under one session key. Its connections hold it, one after the other, or two for a while when an
/// old one is not known to be gone.
#[derive(Debug)]
pub struct Attachment {
    kept_for: Duration,
    /// What all attachments together keep.
    all_bytes: Arc<AtomicUsize>,
    state: Mutex<State>,
}

/// A call as its waiter finds it in the attachment again.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    attachment: Arc<Attachment>,
    id: Arc<str>,
}

impl Attachments {
    /// No session yet; outcomes will be kept for so long.
    pub(super) fn new(kept_for: Duration) -> Self {
        Self { kept_for, sessions: Mutex::default(), bytes: Arc::default() }
    }

    /// What is kept for this principal under this key. `None`: too many others are connected, and nothing will be.
    pub fn attach(&self, principal: PrincipalId, key: SessionKey) -> Option<Arc<Attachment>> {
        let owner = Owner { principal, key };
        let now = Instant::now();
        let mut sessions = self.sessions.lock();
        if let Some(known) = sessions.get(&owner) {
            known.state.lock().touch(now);
            return Some(Arc::clone(known));
        }
        if sessions.len() >= SESSIONS {
            make_room(&mut sessions);
        }
        if sessions.len() >= SESSIONS {
            return None;
        }
        let attachment = Arc::new(Attachment {
            kept_for: self.kept_for,
            all_bytes: Arc::clone(&self.bytes),
            state: Mutex::new(State::new(now)),
        });
        sessions.insert(owner, Arc::clone(&attachment));
        Some(attachment)
    }

    /// Lets go of what is too old, and of sessions that nobody is connected with and that keep nothing.
    pub fn sweep(&self) {
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, attachment| {
            attachment.with(|_| ());
            is_connected(attachment) || !attachment.state.lock().is_empty()
        });
    }

    /// Session keys known.
    pub fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Bytes kept in all, about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

/// Whether a connection, or a call of one, holds it. Nobody takes one that is not held while the map is locked.
fn is_connected(attachment: &Arc<Attachment>) -> bool {
    Arc::strong_count(attachment) > 1
}

/// Forgets every session that is gone and empty; where there is none, the oldest that is gone.
fn make_room(sessions: &mut HashMap<Owner, Arc<Attachment>>) {
    sessions.retain(|_, attachment| is_connected(attachment) || !attachment.state.lock().is_empty());
    if sessions.len() < SESSIONS {
        return;
    }
    let gone = sessions.iter().filter(|(_, attachment)| !is_connected(attachment));
    let oldest = gone.min_by_key(|(_, attachment)| attachment.state.lock().used()).map(|(owner, _)| *owner);
    if let Some(owner) = oldest {
        sessions.remove(&owner);
    }
}

impl Attachment {
    /// Holds the state to its bounds, before and after something is done to it.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let now = Instant::now();
        let before = state.bytes();
        state.tidy(now, self.kept_for);
        let done = act(&mut state);
        state.tidy(now, self.kept_for);
        self.account(before, state.bytes());
        while self.all_bytes.load(Ordering::Acquire) > kept::ALL_BYTES {
            let before = state.bytes();
            if !state.drop_oldest() {
                break;
            }
            self.account(before, state.bytes());
        }
        done
    }

    fn account(&self, before: usize, after: usize) {
        if after >= before {
            self.all_bytes.fetch_add(after - before, Ordering::AcqRel);
        } else {
            self.all_bytes.fetch_sub(before - after, Ordering::AcqRel);
        }
    }

    /// Takes a call back whose connection is lost: as if its waiter had. Says whether there was one.
    pub fn cancel(&self, id: &str) -> bool {
        let Some((flight, seat)) = self.with(|state| state.take(id)) else { return false };
        flight.take_back(seat);
        true
    }

    /// Outcomes kept, and their bytes.
    pub fn kept(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.kept(), state.bytes())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let bytes = self.state.get_mut().bytes();
        self.account(bytes, 0);
    }
}

impl Attached {
    /// What a caller with a session key is found by, if its client gave the call an id.
    pub(super) fn of(caller: &Caller, id: Option<&str>) -> Option<Self> {
        let attachment = Arc::clone(caller.attachment.as_ref()?);
        Some(Self { attachment, id: Arc::from(id?) })
    }

    fn find(&self) -> Option<(Arc<Flight>, SeatNo)> {
        let oldest = Instant::now().checked_sub(self.attachment.kept_for);
        self.attachment.with(|state| state.find(&self.id, oldest))
    }

    /// The call is under way. It takes the place of any other under this id.
    pub(super) fn begin(&self, request: RequestId, seat: SeatNo, flight: &Arc<Flight>) {
        self.attachment.with(|state| state.begin(&self.id, request, seat, flight));
    }

    /// It was answered; the answer may never arrive.
    pub(super) fn keep(&self, request: RequestId) {
        self.attachment.with(|state| state.keep(&self.id, request));
    }

    /// Its waiter left, and nobody has had its outcome.
    pub(super) fn leave(&self, request: RequestId) {
        self.attachment.with(|state| state.leave(&self.id, request));
    }

    /// Its client took it back.
    pub(super) fn forget(&self, request: RequestId) {
        self.attachment.with(|state| state.forget(&self.id, request));
    }
}

impl Calls {
    /// What is kept for clients that lose their connection.
    pub fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// A seat in the flight of a call that was sent before, whether it is in the air or has landed. `None`: nothing
    /// is known of it, and it may run again.
    ///
    /// # Errors
    /// Nothing is known of a write, which may not run again; or its flight is full.
    pub(super) fn resume(
        &self,
        attached: Option<&Attached>,
        tool: &Arc<Tool>,
        arguments: &[u8],
        arrival: Arrival,
    ) -> Result<Option<Waiter>, CallError> {
        let found = attached.and_then(Attached::find);
        let matching =
            found.filter(|(flight, _)| flight.tool().id == tool.id && flight.has_arguments(arguments));
        if let Some((flight, before)) = matching {
            match flight.board_again(arrival.priority, arrival.until(), arrival.can) {
                Ok(seat) => {
                    // An old connection that is not known to be gone has lost its call to this one.
                    flight.cancel(before);
                    if flight.ask_anew(before, seat, arrival.can) {
                        self.watch.parked().forget_seat(&flight, before);
                    }
                    let watch = Arc::clone(&self.watch);
                    return Ok(Some(Waiter::new(watch, flight, seat, Role::Follower, arrival)));
                }
                Err(NoSeat::Full) => {
                    let full = Full::Waiters { limit: self.rules.max_waiters };
                    return Err(CallError::Full { full, retry_after: Some(Duration::from_secs(1)) });
                }
                // It was stopped: what it ended with is no answer.
                Err(NoSeat::Over) => {}
            }
        }
        match tool.effect {
            Effect::Read | Effect::Idempotent => {
                self.path.lifecycle.resumed_again();
                Ok(None)
            }
            Effect::Write => Err(CallError::OutcomeUnknown {
                tool: Arc::clone(&tool.name),
                what: "its caller lost the connection, and the daemon knows nothing of it now",
            }),
        }
    }
}

#[cfg(test)]
mod tests;
