//! Coming aboard unread: a call that is written as one before, byte for byte, asks the same. What was found out about the
//! first holds for it: that its arguments fit, what they stand for, and who will answer.

use crate::call::flight::{Flight, Life, SeatNo};
use crate::call::key::CallKey;
use crate::call::queue::Priority;
use crate::deadline::Deadline;
use crate::ids::{ClientSessionId, PrincipalId, ToolId};
use crate::provider::asking::Can;
use crate::tool::{Dedup, Tool};

/// A call that was not read yet.
#[derive(Debug, Clone, Copy)]
pub struct Unread<'a> {
    /// For whom.
    pub principal: PrincipalId,
    /// Through which client session.
    pub session: ClientSessionId,
    /// Which tool.
    pub tool: ToolId,
    /// Who may share its execution, if others than the tool says.
    pub dedup: Option<Dedup>,
    /// The generation of what is offered.
    pub offer: u64,
    /// Its arguments, as they came.
    pub text: &'a str,
}

/// What was written by one that was read, and under which offer it was understood.
#[derive(Debug)]
pub(in crate::call) struct Written {
    text: Box<str>,
    offer: u64,
}

impl Written {
    /// What this call wrote.
    pub(in crate::call) fn by(call: &Unread<'_>) -> Self {
        Self { text: call.text.into(), offer: call.offer }
    }

    /// Whether a call is written the same under the same offer.
    fn is_by(&self, call: &Unread<'_>) -> bool {
        self.offer == call.offer && *self.text == *call.text
    }

    /// Whether it speaks for a call: for whoever may share what goes by this key.
    pub(in crate::call) fn speaks_for(&self, call: &Unread<'_>, key: &CallKey, tool: &Tool) -> bool {
        call.shares(key, tool) && self.is_by(call)
    }
}

impl Unread<'_> {
    /// Whether it may share what goes by this key, its arguments aside. The tool goes by its id: under one offer, one id is
    /// one tool.
    fn shares(&self, key: &CallKey, tool: &Tool) -> bool {
        let session = match self.dedup.unwrap_or(tool.dedup) {
            Dedup::Principal => None,
            Dedup::Session => Some(self.session),
            Dedup::Off => return false,
        };
        (key.principal, key.session, key.tool, key.ordinal) == (self.principal, session, self.tool, 0)
    }
}

impl Flight {
    /// Its opener wrote this: from here on, who writes the same can come aboard unread. A flight that nobody can board
    /// keeps no copy.
    pub(in crate::call) fn was_written(&self, call: &Unread<'_>) -> bool {
        if self.key.is_none() || self.outcome.get().is_some() {
            return false;
        }
        let written = Written::by(call);
        let mut state = self.state.lock();
        let is_flying = state.life == Life::Flying;
        if is_flying {
            state.written = Some(written);
        }
        is_flying
    }

    /// A seat for a call that its opener's words speak for; `None`: it must be read.
    pub(in crate::call) fn board_unread(
        &self,
        call: &Unread<'_>,
        class: Priority,
        until: Deadline,
        can: Can,
    ) -> Option<SeatNo> {
        let key = self.key.as_ref()?;
        let mut state = self.state.lock();
        if !state.written.as_ref()?.speaks_for(call, key, &self.tool) {
            return None;
        }
        state.take_seat(self.rules.max_waiters, class, until, can).ok()
    }
}
