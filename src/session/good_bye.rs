//! How a session ends.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite;

use crate::deadline::Deadline;
use crate::proto::{Close, Dialect};
use crate::session::{Session, Wire};

/// How long a closing connection may take to say good-bye.
pub(super) const GOOD_BYE: Duration = Duration::from_secs(2);

/// How a session ends.
pub enum End {
    /// The connection is gone; nothing can be said.
    Gone,
    /// With this close code, and the peer's answer to it.
    Close(Close),
    /// With this close code: the peer broke the protocol, and nothing that it says is looked at any more.
    Broken(Close),
}

impl<S, D> Session<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// Leaves the calls under way, and says good-bye: whoever takes that slowly holds up none of them.
    pub(super) async fn good_bye(mut self, end: End) {
        drop(std::mem::take(&mut self.under_way));
        self.wire.good_bye(end).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Says good-bye as far as the peer listens, within a bound.
    pub async fn good_bye(&mut self, end: End) {
        let (close, answered) = match end {
            End::Gone => return,
            End::Close(close) => (close, true),
            End::Broken(close) => (close, false),
        };
        let (code, reason) = close.frame();
        self.close(tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() });
        let farewell = async {
            if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
                return;
            }
            if answered {
                while let Some(Ok(_)) = poll_fn(|cx| self.poll_message(cx)).await {}
            } else {
                // What broke may have been its close frame: another would not come (RFC 6455, section 7.1.7).
                let _ = poll_fn(|cx| self.poll_shut_down(cx)).await;
            }
        };
        // A peer that does not read gets no good-bye.
        let _ = Deadline::after(GOOD_BYE).limit(farewell).await;
    }
}

/// What a protocol violation is answered with.
pub fn broken(error: &tungstenite::Error) -> End {
    match error {
        tungstenite::Error::Capacity(_) => End::Broken(Close::TooBig),
        tungstenite::Error::Utf8(_) => End::Broken(Close::NotText),
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone
        }
        tungstenite::Error::Protocol(_) => End::Broken(Close::ProtocolError),
        _ => End::Gone,
    }
}
