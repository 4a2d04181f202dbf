//! A peer that has as much waiting as it may.

use std::future::Future;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::{Close, Dialect};
use crate::session::good_bye::End;
use crate::session::{DOES_NOT_READ, Event, Session, Timer};

/// How far a peer had read when it was last seen to, and how long it may take to read on.
pub(super) struct Stalled {
    written: (u64, usize),
    timer: Timer,
}

impl<S, D> Session<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// Nothing more is read or answered until the peer has taken some; one that takes nothing for a while does not read.
    pub(super) fn wait_for_reader(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let written = (self.wire.written(), self.wire.outbox.bytes());
        let fresh = || Stalled { written, timer: Box::pin(tokio::time::sleep(DOES_NOT_READ)) };
        let stalled = self.stalled.get_or_insert_with(fresh);
        if stalled.written != written {
            *stalled = fresh();
        }
        if stalled.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Over(End::Close(Close::DoesNotRead)));
        }
        if self.is_closing(cx) {
            return Poll::Ready(Event::Closing);
        }
        self.rest()
    }
}
