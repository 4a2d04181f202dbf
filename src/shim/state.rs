//! What the shim remembers: which requests are at the daemon, which wait for one, and how the session began.
//!
//! No input or output happens here: each step says what is to be sent or answered, so that nobody holds the
//! lock while a peer is slow.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::shim::answer::{self, Refusal};
use crate::shim::envelope::{Id, Message, Method, cancelled_id};
use crate::shim::mark;

/// Requests at the daemon. The daemon itself takes fewer from one client; this only bounds memory.
const MAX_IN_FLIGHT: usize = 4_096;
/// Bytes of requests at the daemon that are kept for sending them again, one largest message; a request above it is
/// answered with an error when its connection is lost.
const MAX_IN_FLIGHT_BYTES: usize = super::lines::MAX_LINE_BYTES;
/// Requests taken back while no daemon was there, whose answers may still come.
const MAX_TAKEN_BACK: usize = 256;
/// Messages that wait for a daemon: a client sends a handful before its first answer.
const MAX_HELD: usize = 256;
/// Their bytes together, one largest message.
const MAX_HELD_BYTES: usize = super::lines::MAX_LINE_BYTES;

/// Where a message goes.
#[derive(Debug)]
enum Door<S> {
    /// No daemon yet, or not again yet: messages wait until then.
    Waiting { until: Instant },
    /// To the daemon.
    Open(S),
    /// The daemon stayed away: requests are answered with this.
    Shut(Refusal),
}

/// What is to be done with a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<S> {
    /// Send it to the daemon.
    Send(S, String),
    /// Write this answer to the client.
    Answer(String),
    /// Nothing now.
    Rest,
}

/// What is to be done with a message of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Toward {
    /// Hand it on.
    Client,
    /// It answers a request that the client took back: nobody waits for it.
    Nobody,
    /// It answers the shim's own `initialize`.
    Shim {
        /// With an error.
        failed: bool,
    },
}

/// How a client of the older era began its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The `initialize` under the shim's own id.
    pub(super) initialize: String,
    /// The client's `notifications/initialized`, once it came.
    pub(super) initialized: Option<String>,
}

#[derive(Debug)]
struct InFlight {
    id: Id,
    method: Method,
    /// Answers keep the order of the questions.
    order: u64,
    /// The request itself, to be sent again over the next connection; `None`: it is too large to be kept.
    line: Option<Box<str>>,
    bytes: usize,
    /// A daemon had it before.
    again: bool,
}

/// A message that waits for a daemon, with its id if it is a request.
#[derive(Debug)]
struct Held {
    line: String,
    id: Option<Id>,
}

/// The whole memory of the shim.
#[derive(Debug)]
pub(super) struct State<S> {
    door: Door<S>,
    in_flight: HashMap<Box<str>, InFlight>,
    in_flight_bytes: usize,
    order: u64,
    /// What was in flight when the connection was lost, in order: to be sent again before anything else.
    again: VecDeque<Box<str>>,
    /// Requests taken back since a connection was lost.
    taken_back: VecDeque<Box<str>>,
    /// The largest message sent over this connection that wants no answer.
    unasked_bytes: usize,
    held: VecDeque<Held>,
    held_bytes: usize,
    session: Option<Session>,
    /// The daemon accepted the session: it must learn of it again after a reconnect.
    established: bool,
}

/// The id under which the shim initialises again. Long enough that no client counts up to it.
pub(super) const OWN_ID: &str = "\"inflightd-shim-initialize\"";

impl<S: Clone> State<S> {
    pub(super) fn new(wait_until: Instant) -> Self {
        Self {
            door: Door::Waiting { until: wait_until },
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            order: 0,
            again: VecDeque::new(),
            taken_back: VecDeque::new(),
            unasked_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            session: None,
            established: false,
        }
    }

    /// Until when messages wait for a daemon; `None` when they do not wait.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        match self.door {
            Door::Waiting { until } => Some(until),
            Door::Open(_) | Door::Shut(_) => None,
        }
    }

    /// The way to the daemon, if it is open.
    pub(super) fn open_door(&self) -> Option<S> {
        match &self.door {
            Door::Open(sender) => Some(sender.clone()),
            Door::Waiting { .. } | Door::Shut(_) => None,
        }
    }

    /// The session to begin again on a new connection.
    pub(super) fn session(&self) -> Option<Session> {
        self.session.clone().filter(|_| self.established)
    }

    /// A line of the client.
    pub(super) fn line(&mut self, line: String) -> Step<S> {
        let message = Message::read(&line);
        match &self.door {
            Door::Open(sender) => {
                let sender = sender.clone();
                self.admit(&line).map_or_else(Step::Answer, |()| Step::Send(sender, line))
            }
            Door::Waiting { .. } => match message {
                Message::Request { id, method: Method::Ping, .. } => Step::Answer(answer::pong(id.raw())),
                Message::Request { id, .. } => self.hold(Some(id), line),
                Message::Notification { method: Method::Cancelled, params } => {
                    self.take_back(cancelled_id(params), line)
                }
                // A question of the lost daemon: nobody waits for its answer.
                Message::Response { .. } => Step::Rest,
                Message::Notification { .. } | Message::Opaque => self.hold(None, line),
            },
            Door::Shut(refusal) => match message {
                Message::Request { id, method: Method::Ping, .. } => Step::Answer(answer::pong(id.raw())),
                Message::Request { id, .. } => Step::Answer(refusal.answer(id.raw())),
                Message::Opaque => Step::Answer(refusal.answer("null")),
                Message::Notification { .. } | Message::Response { .. } => Step::Rest,
            },
        }
    }

    /// A message of the daemon.
    pub(super) fn frame(&mut self, text: &str) -> Toward {
        let Message::Response { id, failed } = Message::read(text) else { return Toward::Client };
        if id.key() == OWN_ID {
            return Toward::Shim { failed };
        }
        if let Some(asked) = self.land(id.key()) {
            if asked.method == Method::Initialize {
                self.established = !failed;
            }
            return Toward::Client;
        }
        match self.taken_back.iter().position(|taken| **taken == *id.key()) {
            Some(place) => {
                self.taken_back.remove(place);
                Toward::Nobody
            }
            None => Toward::Client,
        }
    }

    /// A request is at the daemon no longer.
    fn land(&mut self, key: &str) -> Option<InFlight> {
        let asked = self.in_flight.remove(key)?;
        self.in_flight_bytes -= asked.line.as_ref().map_or(0, |line| line.len());
        Some(asked)
    }

    /// The daemon says that a message was too large for it: what the client must be told. Of what is in flight the
    /// largest is too large, whichever was meant, unless that was one that wants no answer.
    pub(super) fn too_big(&mut self) -> Option<String> {
        let largest = self.in_flight.iter().max_by_key(|(_, asked)| asked.bytes);
        let (key, _) = largest.filter(|(_, asked)| asked.bytes > self.unasked_bytes)?;
        let key = key.clone();
        let asked = self.land(&key)?;
        let refusal = Refusal::TooBig { bytes: asked.bytes };
        // With the mark it has become too large: an earlier daemon took it.
        Some(if asked.again { asked.farewell(&refusal) } else { refusal.answer(asked.id.raw()) })
    }

    /// The connection is gone: what the client must be told at once. Everything else in flight is sent again over the
    /// next one. Messages wait anew only if it had been open.
    pub(super) fn lost(&mut self, wait_until: Instant, away: &Refusal) -> Vec<String> {
        if matches!(self.door, Door::Open(_)) {
            self.door = Door::Waiting { until: wait_until };
        }
        let mut answers = Vec::new();
        self.unasked_bytes = 0;
        self.again.clear();
        for (key, waits) in self.in_order() {
            if waits {
                self.again.push_back(key);
            } else if let Some(asked) = self.land(&key) {
                answers.push(asked.farewell(away));
            }
        }
        answers
    }

    /// Nobody waits any longer: what the client must be told.
    pub(super) fn shut(&mut self, refusal: Refusal) -> Vec<String> {
        self.again.clear();
        let lost: Vec<_> = self.in_order().into_iter().filter_map(|(key, _)| self.land(&key)).collect();
        let lost = lost.iter().map(|asked| asked.farewell(&refusal));
        self.held_bytes = 0;
        let held = std::mem::take(&mut self.held);
        let held = held.iter().filter_map(|held| Some(refusal.answer(held.id.as_ref()?.raw())));
        let answers = lost.chain(held).collect();
        self.door = Door::Shut(refusal);
        answers
    }

    /// What is in flight, the oldest first, with whether it can wait for another connection.
    fn in_order(&self) -> Vec<(Box<str>, bool)> {
        let mut all: Vec<_> = self.in_flight.iter().collect();
        all.sort_unstable_by_key(|(_, asked)| asked.order);
        // A ping asks whether somebody lives now: the shim does.
        let waits = |asked: &InFlight| asked.line.is_some() && asked.method != Method::Ping;
        all.into_iter().map(|(key, asked)| (key.clone(), waits(asked))).collect()
    }

    /// One message after the other that waited for `sender`, then opens the door and says [`Step::Rest`].
    pub(super) fn release(&mut self, sender: &S) -> Step<S> {
        while let Some(key) = self.again.pop_front() {
            let Some(asked) = self.in_flight.get_mut(&key) else { continue };
            asked.again = true;
            if let Some(line) = asked.line.as_deref() {
                let line = match asked.method {
                    Method::ToolsCall => mark::resume(line),
                    Method::Initialize
                    | Method::Initialized
                    | Method::Ping
                    | Method::Cancelled
                    | Method::Other => line.to_owned(),
                };
                return Step::Send(sender.clone(), line);
            }
        }
        let Some(held) = self.held.pop_front() else {
            self.door = Door::Open(sender.clone());
            return Step::Rest;
        };
        self.held_bytes = self.held_bytes.saturating_sub(held.line.len());
        self.admit(&held.line).map_or_else(Step::Answer, |()| Step::Send(sender.clone(), held.line))
    }

    /// Takes note of a message that goes to the daemon, or refuses it with an answer.
    fn admit(&mut self, line: &str) -> Result<(), String> {
        match Message::read(line) {
            Message::Request { id, method, params } => {
                if self.in_flight.len() >= MAX_IN_FLIGHT {
                    return Err(Refusal::OverCapacity.answer(id.raw()));
                }
                if method == Method::Initialize {
                    let params = params.map_or("{}", |params| params.get());
                    self.established = false;
                    self.session = Some(Session { initialize: own_initialize(params), initialized: None });
                }
                self.order += 1;
                // An id that is used again is another request.
                self.land(id.key());
                self.taken_back.retain(|taken| **taken != *id.key());
                let (bytes, all) = (line.len(), self.in_flight_bytes.saturating_add(line.len()));
                let line = (all <= MAX_IN_FLIGHT_BYTES).then(|| line.into());
                if line.is_some() {
                    self.in_flight_bytes = all;
                }
                let asked = InFlight { method, order: self.order, line, bytes, again: false, id };
                self.in_flight.insert(asked.id.key().into(), asked);
                return Ok(());
            }
            Message::Notification { method: Method::Initialized, .. } => {
                if let Some(session) = &mut self.session {
                    session.initialized = Some(line.to_owned());
                }
            }
            Message::Notification { method: Method::Cancelled, params } => {
                // A request that is taken back gets no answer, not even that of a lost connection.
                self.forget(cancelled_id(params));
            }
            Message::Notification { .. } | Message::Response { .. } | Message::Opaque => {}
        }
        self.unasked_bytes = self.unasked_bytes.max(line.len());
        Ok(())
    }

    fn hold(&mut self, id: Option<Id>, line: String) -> Step<S> {
        let bytes = self.held_bytes.saturating_add(line.len());
        if self.held.len() < MAX_HELD && bytes <= MAX_HELD_BYTES {
            self.held_bytes = bytes;
            self.held.push_back(Held { line, id });
            return Step::Rest;
        }
        id.map_or(Step::Rest, |id| Step::Answer(Refusal::OverCapacity.answer(id.raw())))
    }

    /// The client takes a request back while no daemon is there. One that was never sent is forgotten; of any other
    /// the next daemon hears, since this one's work may still go on, and an answer reaches nobody.
    fn take_back(&mut self, id: Option<Id>, line: String) -> Step<S> {
        let Some(id) = id else { return Step::Rest };
        if self.land(id.key()).is_none() {
            self.forget(Some(id));
            return Step::Rest;
        }
        if self.taken_back.len() >= MAX_TAKEN_BACK {
            self.taken_back.pop_front();
        }
        self.taken_back.push_back(id.key().into());
        self.hold(None, line)
    }

    fn forget(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        self.land(id.key());
        self.held.retain(|held| held.id.as_ref().is_none_or(|held| held.key() != id.key()));
        self.held_bytes = self.held.iter().map(|held| held.line.len()).sum();
    }
}

impl InFlight {
    fn farewell(&self, away: &Refusal) -> String {
        match self.method {
            Method::ToolsCall => Refusal::OutcomeUnknown.answer(self.id.raw()),
            // A ping asks whether somebody lives: the shim does.
            Method::Ping => answer::pong(self.id.raw()),
            Method::Initialize | Method::Initialized | Method::Cancelled | Method::Other => {
                away.answer(self.id.raw())
            }
        }
    }
}

fn own_initialize(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{OWN_ID},"method":"initialize","params":{params}}}"#)
}

#[cfg(test)]
mod tests;
