//! A stream whose peer must read: a write that nobody takes ends it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a peer may take no byte of what waits for it. Without this bound an answer of 32 MiB would be held for
/// as long as its client pleases.
const STALLED: Duration = Duration::from_secs(30);

/// A stream that ends when its peer stops reading.
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// Watches over `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, stalled: None }
    }

    /// The stream itself.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Turns "not yet" into an error once it has lasted too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        match stalled.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up_and_one_that_reads_slowly_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut paced = Paced::new(ours);
        let slow = async {
            let mut read = Vec::new();
            while read.len() < 40 {
                tokio::time::sleep(Duration::from_secs(29)).await;
                let mut some = [0; 10];
                let count = theirs.read(&mut some).await.unwrap();
                read.extend_from_slice(&some[..count]);
            }
            read
        };
        let (sent, read) = tokio::join!(paced.write_all(&[7; 45]), slow);
        assert_eq!((sent.is_ok(), read.len()), (true, 40));
        let before = Instant::now();
        let error = paced.write_all(&[7; 45]).await.unwrap_err();
        assert_eq!((error.kind(), before.elapsed()), (io::ErrorKind::TimedOut, STALLED));
    }
}
