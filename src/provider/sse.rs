//! The data of server-sent events, with a bound on the bytes that a stream may bring.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use sse_stream::{Error, SseByteStream};

type Data = Pin<Box<dyn Stream<Item = Result<String, Cut>> + Send>>;

/// Events of one response. An event without data is left out.
pub(super) struct Events {
    inner: Data,
}

/// Why there is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// More came than may.
    #[error("the stream is too long")]
    TooLong,
    /// The connection broke, or what came are no events.
    #[error("the connection broke")]
    Broken,
}

impl Events {
    /// Reads events from `bytes` until more than `limit` bytes have come.
    pub(super) fn new<B, E>(bytes: impl Stream<Item = Result<B, E>> + Send + 'static, limit: usize) -> Self
    where
        B: bytes::Buf + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut left = limit;
        let bounded = bytes.map(move |piece| {
            let piece = piece.map_err(|_| Cut::Broken)?;
            left = left.checked_sub(piece.remaining()).ok_or(Cut::TooLong)?;
            Ok::<B, Cut>(piece)
        });
        let events = SseByteStream::new(bounded).filter_map(|event| async move {
            match event {
                Ok(event) => event.data.map(Ok),
                Err(Error::Body(cause)) => {
                    Some(Err(cause.downcast_ref::<Cut>().copied().unwrap_or(Cut::Broken)))
                }
                Err(_) => Some(Err(Cut::Broken)),
            }
        });
        Self { inner: Box::pin(events) }
    }

    /// The data of the next event; `None` at the end.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<String, Cut>> {
        self.inner.next().await
    }
}
