//! Calls whose caller was asked by a result: it comes back with the answers in a call of its own, which goes on with the
//! same Run. Meanwhile nobody waits, and the Run keeps its place at its server.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::call::flight::{Flight, NoSeat, SeatNo};
use crate::call::outcome::{CallError, Full};
use crate::call::reattach::Attached;
use crate::call::waiter::{Arrival, Waiter};
use crate::call::{Calls, Submitted};
use crate::ids::{PrincipalId, QuestionId, RequestState};
use crate::lifecycle::Role;
use crate::provider::asking::{QUESTION_BYTES, Question, Said, one_line};
use crate::provider::upstream::Continued;
use crate::sync::Mutex;
use crate::tool::{Misfit, Tool};

/// How long a parked Run's clock stands still: as long as a person may take.
pub(super) const PARKED_FOR: Duration = Duration::from_secs(300);
/// Parked Runs of one principal.
const OF_ONE_PRINCIPAL: usize = 64;

/// What a call brings that goes on with an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continues<'a> {
    /// What the earlier one's result named.
    pub state: Option<&'a str>,
    /// What is said to each question, by its name, as one JSON object.
    pub responses: Option<&'a str>,
}

impl Continues<'_> {
    /// The same for whose state it is.
    pub(super) fn owned(self) -> Continued {
        Continued { state: self.state.map(Into::into), responses: self.responses.map(Into::into) }
    }
}

/// Parked Runs, by their handles.
#[derive(Debug, Default)]
pub(super) struct Parked {
    runs: Mutex<HashMap<RequestState, Entry>>,
}

/// One parked Run.
#[derive(Debug)]
struct Entry {
    principal: PrincipalId,
    flight: Arc<Flight>,
    seat: SeatNo,
    questions: Vec<QuestionId>,
    until: Instant,
}

impl Parked {
    /// Makes room for one whose caller sits there; `None`: its principal has too many.
    pub(super) fn park(
        &self,
        principal: PrincipalId,
        flight: &Arc<Flight>,
        seat: SeatNo,
        questions: Vec<QuestionId>,
    ) -> Option<RequestState> {
        let now = Instant::now();
        let state = RequestState::mint()?;
        let mut runs = self.runs.lock();
        runs.retain(|_, entry| entry.until > now);
        if runs.values().filter(|entry| entry.principal == principal).count() >= OF_ONE_PRINCIPAL {
            return None;
        }
        let flight = Arc::clone(flight);
        runs.insert(state, Entry { principal, flight, seat, questions, until: now + PARKED_FOR });
        Some(state)
    }

    /// It is not parked after all.
    pub(super) fn forget(&self, state: RequestState) {
        self.runs.lock().remove(&state);
    }

    /// Its caller could not come aboard, and may come again with the same handle.
    fn put_back(&self, state: RequestState, entry: Entry) {
        self.runs.lock().insert(state, entry);
    }

    /// Who parked there is back without its handle, which never arrived.
    pub(super) fn forget_seat(&self, flight: &Arc<Flight>, seat: SeatNo) {
        let is_it = |entry: &Entry| Arc::ptr_eq(&entry.flight, flight) && entry.seat == seat;
        self.runs.lock().retain(|_, entry| !is_it(entry));
    }

    /// Lets go of those whose callers came too late.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.runs.lock().retain(|_, entry| entry.until > now);
    }

    /// Takes out the one of this handle, which its own principal comes back to once, with the same call.
    fn take(
        &self,
        state: RequestState,
        principal: PrincipalId,
        tool: &Tool,
        arguments: &[u8],
    ) -> Option<Entry> {
        let mut runs = self.runs.lock();
        let found = runs.get(&state).filter(|entry| entry.principal == principal)?;
        let same = found.flight.tool().name == tool.name && found.flight.has_arguments(arguments);
        if !same || found.until <= Instant::now() {
            return None;
        }
        runs.remove(&state)
    }
}

impl Calls {
    /// How many calls are parked, those counted that nobody comes back for any more.
    pub fn parked(&self) -> usize {
        self.watch.parked().runs.lock().len()
    }

    /// Lets go of parked calls whose callers came too late.
    pub fn sweep_parked(&self) {
        self.watch.parked().sweep();
    }

    /// Goes on with a parked Run, where the call names one of ours; `None`: it is its server's own state.
    pub(super) fn continued(
        &self,
        continues: Continues<'_>,
        tool: &Arc<Tool>,
        arguments: &[u8],
        arrival: Arrival,
        attached: Option<&Attached>,
    ) -> Result<Option<Submitted>, CallError> {
        let Some(text) = continues.state.filter(|text| text.starts_with(RequestState::PREFIX)) else {
            return Ok(None);
        };
        let misfit = |path: &str, message: &str| {
            CallError::from(Misfit { path: path.into(), message: message.into() })
        };
        let unknown =
            || misfit("requestState", "names no call of yours that waits for answers: call again without it");
        let said = match continues.responses {
            Some(responses) => Responses::read(responses)
                .ok_or_else(|| misfit("inputResponses", "is not an object of objects"))?,
            None => Responses::default(),
        };
        let state = RequestState::parse(text).ok_or_else(unknown)?;
        let entry =
            self.watch.parked().take(state, arrival.principal, tool, arguments).ok_or_else(unknown)?;
        let boarded = entry.flight.board_parked(entry.seat, arrival.priority, arrival.until(), arrival.can);
        let seat = match boarded {
            Ok(seat) => seat,
            Err(NoSeat::Over) => return Err(unknown()),
            Err(NoSeat::Full) => {
                self.watch.parked().put_back(state, entry);
                let full = Full::Waiters { limit: self.rules.max_waiters };
                return Err(CallError::Full { full, retry_after: Some(Duration::from_secs(1)) });
            }
        };
        let Entry { flight, questions, .. } = entry;
        for id in questions {
            match said.to(id) {
                Some(said) => {
                    flight.said(seat, id, said);
                }
                // It is asked once more.
                None => flight.ask_again(seat, id),
            }
        }
        let waiter = Waiter::new(Arc::clone(&self.watch), flight, seat, Role::Follower, arrival);
        Ok(Some(waiter.attached(attached.cloned()).submitted()))
    }
}

/// Members of a result that asks these, and that this goes on with.
pub(super) fn members(asked: &[(QuestionId, Arc<Question>)], state: RequestState) -> String {
    let mut out = String::from("\"inputRequests\":{");
    for (at, (id, question)) in asked.iter().enumerate() {
        let (method, params) = (question.method.name(), question.params.as_deref().unwrap_or("{}"));
        let between = if at > 0 { "," } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(out, "{between}\"{id}\":{{\"method\":\"{method}\",\"params\":{params}}}");
    }
    let _ = write!(out, "}},\"requestState\":\"{}\"", state.reveal());
    out
}

/// What was said to each question.
#[derive(Default)]
struct Responses<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Responses<'a> {
    fn read(text: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Members<'a>(#[serde(borrow)] HashMap<Cow<'a, str>, &'a RawValue>);
        let members: Members<'_> = serde_json::from_str(text).ok()?;
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        members.0.values().all(is_object).then_some(Self(members.0))
    }

    fn to(&self, id: QuestionId) -> Option<Said> {
        let said = self.0.get(&*id.to_string())?.get();
        Some(if said.len() > QUESTION_BYTES {
            Said::Error("{\"code\":-32603,\"message\":\"the answer is too large\"}".into())
        } else {
            Said::Result(one_line(said))
        })
    }
}
