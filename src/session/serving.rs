//! The task of a session.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::Dialect;
use crate::session::Session;

/// A WebSocket, served until it ends.
///
/// A future of its own making: what an `async` function remembers would be several times as much, spread wide, and most
/// of what a call costs is fetching it.
pub struct Serving<S, D, K = ()> {
    state: State<S, D>,
    /// Let go of when it has ended.
    _kept: K,
}

#[expect(
    clippy::large_enum_variant,
    reason = "it is the one that is looked at, and is to lie where the task does"
)]
enum State<S, D> {
    Open(Session<S, D>),
    Ending(BoxFuture<'static, ()>),
    Over,
}

impl<S, D> Serving<S, D> {
    pub(super) fn of(session: Session<S, D>) -> Self {
        Self { state: State::Open(session), _kept: () }
    }

    /// The same, and `kept` is held until it has ended.
    pub fn keeping<K>(self, kept: K) -> Serving<S, D, K> {
        Serving { state: self.state, _kept: kept }
    }
}

impl<S, D, K> Future for Serving<S, D, K>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Dialect,
    K: Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut self.get_mut().state;
        if let State::Open(session) = state {
            let end = ready!(session.poll_end(cx));
            if let State::Open(session) = std::mem::replace(state, State::Over) {
                *state = State::Ending(session.good_bye(end).boxed());
            }
        }
        if let State::Ending(good_bye) = state {
            ready!(good_bye.as_mut().poll(cx));
            *state = State::Over;
        }
        Poll::Ready(())
    }
}
