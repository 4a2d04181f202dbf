//! What the shim remembers: which requests are at the daemon, which wait for one, and how the session began.
//!
//! No input or output happens here: each step says what is to be sent or answered, so that nobody holds the
//! lock while a peer is slow.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::shim::answer::{self, Refusal};
use crate::shim::envelope::{Id, Message, Method, cancelled_id};

/// Requests at the daemon. The daemon itself takes fewer from one client; this only bounds memory.
const MAX_IN_FLIGHT: usize = 4_096;
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
    order: u64,
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
            order: 0,
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
                    self.forget(cancelled_id(params));
                    Step::Rest
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
        if self.in_flight.remove(id.key()).is_some_and(|asked| asked.method == Method::Initialize) {
            self.established = !failed;
        }
        Toward::Client
    }

    /// The connection is gone: what the client must be told. Messages wait anew only if it had been open.
    pub(super) fn lost(&mut self, wait_until: Instant, away: &Refusal) -> Vec<String> {
        if matches!(self.door, Door::Open(_)) {
            self.door = Door::Waiting { until: wait_until };
        }
        let mut lost: Vec<_> = self.in_flight.drain().map(|(_, asked)| asked).collect();
        lost.sort_unstable_by_key(|asked| asked.order);
        lost.iter().map(|asked| asked.farewell(away)).collect()
    }

    /// Nobody waits any longer: what the client must be told.
    pub(super) fn shut(&mut self, refusal: Refusal) -> Vec<String> {
        self.held_bytes = 0;
        let held = std::mem::take(&mut self.held);
        let answers = held.iter().filter_map(|held| Some(refusal.answer(held.id.as_ref()?.raw()))).collect();
        self.door = Door::Shut(refusal);
        answers
    }

    /// One message after the other that waited for `sender`, then opens the door and says [`Step::Rest`].
    pub(super) fn release(&mut self, sender: &S) -> Step<S> {
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
                let asked = InFlight { method, order: self.order, id };
                self.in_flight.insert(asked.id.key().into(), asked);
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

    fn forget(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        self.in_flight.remove(id.key());
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
mod tests {
    use super::*;

    fn state() -> State<u8> {
        State::new(Instant::now())
    }

    fn open() -> State<u8> {
        let mut state = state();
        assert_eq!(state.release(&1), Step::Rest);
        state
    }

    fn away() -> Refusal {
        Refusal::Away { text: "gone".to_owned() }
    }

    fn send(state: &mut State<u8>, line: &str) {
        assert_eq!(state.line(line.to_owned()), Step::Send(1, line.to_owned()));
    }

    fn answer(step: Step<u8>) -> serde_json::Value {
        let Step::Answer(text) = step else { panic!("an answer, not {step:?}") };
        serde_json::from_str(&text).unwrap()
    }

    const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"}}"#;

    #[test]
    fn a_lost_connection_answers_each_request_once_and_in_order() {
        let mut state = open();
        send(&mut state, CALL);
        send(&mut state, r#"{"id":"l","method":"tools/list"}"#);
        send(&mut state, r#"{"id":9,"method":"ping"}"#);
        let answers = state.lost(Instant::now(), &away());
        assert_eq!(answers.len(), 3);
        assert!(answers[0].contains("-32017") && answers[0].contains(r#""id":7"#), "{answers:?}");
        assert!(answers[1].contains("-32018") && answers[1].contains(r#""id":"l""#), "{answers:?}");
        assert!(answers[2].contains(r#""result":{}"#), "{answers:?}");
        assert!(state.lost(Instant::now(), &away()).is_empty());
    }

    #[test]
    fn what_was_answered_or_taken_back_is_not_answered_again() {
        let mut state = open();
        send(&mut state, CALL);
        send(&mut state, r#"{"id":8,"method":"tools/call"}"#);
        assert_eq!(state.frame(r#"{"id":7,"result":{}}"#), Toward::Client);
        send(&mut state, r#"{"method":"notifications/cancelled","params":{"requestId":8}}"#);
        assert!(state.lost(Instant::now(), &away()).is_empty());
    }

    #[test]
    fn what_waits_goes_out_in_order_and_before_what_comes_later() {
        let mut state = state();
        for line in [CALL, r#"{"method":"notifications/initialized"}"#, "nonsense"] {
            assert_eq!(state.line(line.to_owned()), Step::Rest);
        }
        assert_eq!(state.release(&1), Step::Send(1, CALL.to_owned()));
        assert_eq!(state.line("later".to_owned()), Step::Rest);
        assert!(matches!(state.release(&1), Step::Send(1, _)));
        assert_eq!(state.release(&1), Step::Send(1, "nonsense".to_owned()));
        assert_eq!(state.release(&1), Step::Send(1, "later".to_owned()));
        assert_eq!(state.release(&1), Step::Rest);
        assert_eq!(state.open_door(), Some(1));
    }

    #[test]
    fn a_request_taken_back_while_it_waits_is_never_sent() {
        let mut state = state();
        assert_eq!(state.line(CALL.to_owned()), Step::Rest);
        let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#;
        assert_eq!(state.line(cancel.to_owned()), Step::Rest);
        assert_eq!(state.release(&1), Step::Rest);
        assert_eq!(state.held_bytes, 0);
    }

    #[test]
    fn a_daemon_that_stays_away_is_an_error_for_requests_and_none_for_pings() {
        let mut state = state();
        assert_eq!(state.line(CALL.to_owned()), Step::Rest);
        let answers = state.shut(away());
        assert_eq!(answers.len(), 1);
        assert_eq!(answer(state.line(CALL.to_owned()))["error"]["code"], -32018);
        assert_eq!(
            answer(state.line(r#"{"id":1,"method":"ping"}"#.to_owned()))["result"],
            serde_json::json!({})
        );
        assert_eq!(answer(state.line("nonsense".to_owned()))["id"], serde_json::Value::Null);
        assert_eq!(state.line(r#"{"method":"notifications/x"}"#.to_owned()), Step::Rest);
    }

    #[test]
    fn only_an_accepted_session_is_begun_again() {
        let mut state = open();
        let initialize = r#"{"id":0,"method":"initialize","params":{"b":1,"a":2}}"#;
        send(&mut state, initialize);
        assert_eq!(state.session(), None);
        assert_eq!(state.frame(r#"{"id":0,"result":{}}"#), Toward::Client);
        let initialized = r#"{"method":"notifications/initialized"}"#;
        send(&mut state, initialized);
        let session = state.session().unwrap();
        assert!(
            session.initialize.contains(r#""params":{"b":1,"a":2}"#) && session.initialize.contains(OWN_ID)
        );
        assert_eq!(session.initialized.as_deref(), Some(initialized));
        let own = format!(r#"{{"id":{OWN_ID},"result":{{}}}}"#);
        assert_eq!(state.frame(&own), Toward::Shim { failed: false });
    }

    #[test]
    fn a_refused_session_is_not_begun_again() {
        let mut state = open();
        send(&mut state, r#"{"id":0,"method":"initialize"}"#);
        assert_eq!(state.frame(r#"{"id":0,"error":{"code":-32602,"message":"no"}}"#), Toward::Client);
        assert_eq!(state.session(), None);
    }

    #[test]
    fn both_tables_are_bounded_and_say_so() {
        let mut waiting = state();
        for id in 0..MAX_HELD {
            assert_eq!(waiting.line(format!(r#"{{"id":{id},"method":"x"}}"#)), Step::Rest);
        }
        assert_eq!(answer(waiting.line(CALL.to_owned()))["error"]["code"], -32010);

        let mut state = open();
        for id in 0..MAX_IN_FLIGHT {
            send(&mut state, &format!(r#"{{"id":{id},"method":"x"}}"#));
        }
        let full = r#"{"id":"one more","method":"x"}"#.to_owned();
        assert_eq!(answer(state.line(full))["error"]["data"]["code"], "OVER_CAPACITY");
    }
}
