//! How a session ends.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::Stream;
use tokio_tungstenite::tungstenite;

use crate::deadline::Deadline;
use crate::proto::{Close, Dialect};
use crate::session::{ReadReady, Session};

/// How long a closing connection may take to say good-bye.
pub(super) const GOOD_BYE: Duration = Duration::from_secs(2);

/// How a session ends.
pub(super) enum End {
    /// The connection is gone; nothing can be said.
    Gone,
    /// With this close code.
    Close(Close),
}

impl<S, D> Session<S, D>
where
    S: ReadReady,
    D: Dialect,
{
    /// Says good-bye as far as the peer listens, within a bound; calls under way are left by being dropped.
    pub(super) async fn good_bye(mut self, end: End) {
        let End::Close(close) = end else { return };
        let (code, reason) = close.frame();
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() };
        let farewell = async {
            let mut stopped = false;
            std::future::poll_fn(|cx| match self.flush(cx) {
                Poll::Ready(event) => {
                    stopped = event.is_some();
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            })
            .await;
            if !stopped && self.socket.close(Some(frame)).await.is_ok() {
                // Read on until the peer has answered: a socket closed over unread bytes resets, and takes the
                // close frame with it.
                while let Some(Ok(_)) =
                    std::future::poll_fn(|cx| Pin::new(&mut self.socket).poll_next(cx)).await
                {
                }
            }
        };
        // A peer that does not read gets no good-bye.
        let _ = Deadline::after(GOOD_BYE).limit(farewell).await;
    }
}

/// What a protocol violation is answered with.
pub(super) fn broken(error: &tungstenite::Error) -> End {
    match error {
        tungstenite::Error::Capacity(_) => End::Close(Close::TooBig),
        tungstenite::Error::Utf8(_) => End::Close(Close::NotText),
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone
        }
        tungstenite::Error::Protocol(_) => End::Close(Close::ProtocolError),
        _ => End::Gone,
    }
}
