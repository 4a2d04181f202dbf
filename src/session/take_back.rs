//! A client takes a call back, by the id that it gave it.

use std::borrow::Cow;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::{Dialect, Short, one_spelling};
use crate::session::Session;

/// Puts an id into the spelling by which it is found again.
pub(super) fn respell(id: &mut Option<Short>) {
    if let Some(id) = id
        && let Cow::Owned(spelt) = one_spelling(id)
    {
        *id = Short::from(&*spelt);
    }
}

impl<S, D> Session<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// Says whether there was such a call.
    pub(super) fn take_back(&mut self, id: &str, in_turn: bool) -> bool {
        let id = one_spelling(id);
        if let Some(call) = self.under_way.find(&id, in_turn) {
            call.waiter.cancel_handle().cancel();
            return true;
        }
        if self.end_subscription(&id) {
            return true;
        }
        // Begun over a connection that is lost.
        self.caller.attachment.as_ref().is_some_and(|attachment| attachment.cancel(&id))
    }
}
