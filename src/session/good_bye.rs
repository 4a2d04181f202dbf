//! How a session ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite;

use crate::deadline::Deadline;
use crate::proto::{Close, Dialect};
use crate::session::Session;

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
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// Says good-bye as far as the peer listens, within a bound; calls under way are left by being dropped.
    pub(super) async fn good_bye(mut self, end: End) {
        let End::Close(close) = end else { return };
        let (code, reason) = close.frame();
        self.wire.close(tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() });
        let farewell = async {
            if std::future::poll_fn(|cx| self.wire.poll_flush(cx)).await.is_ok() {
                // Read on until the peer has answered: a socket closed over unread bytes resets, and takes the
                // close frame with it.
                while let Some(Ok(_)) = std::future::poll_fn(|cx| self.wire.poll_message(cx)).await {}
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
