//! Progress: what a caller is told while it waits.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::proto::Dialect;
use crate::proto::progress::Progress;
use crate::session::outbox::Outbox;
use crate::session::under_way::CallUnderWay;
use crate::session::{Session, pulse};

/// Above this many bytes waiting, progress is dropped: it is the client's own slowness, and results come first.
pub(super) const PROGRESS_BACKLOG_BYTES: usize = 256 * 1024;

impl<S, D> Session<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// Tells every waiting caller that its call lives, if it was told nothing for a while.
    pub(super) fn heartbeat(&mut self) {
        let now = Instant::now();
        for call in self.under_way.iter_mut() {
            if call.ticket.progress.is_some()
                && now.saturating_duration_since(call.told_at) >= pulse::HEARTBEAT
            {
                let running = now.saturating_duration_since(call.waiter.received()).as_secs();
                tell(&mut self.wire.outbox, &self.dialect, call, &format!("still running after {running} s"));
            }
        }
        if !self.under_way.is_empty() {
            self.pulse.wants_heartbeat();
        }
    }
}

pub(super) fn tell<D: Dialect>(outbox: &mut Outbox, dialect: &D, call: &mut CallUnderWay, message: &str) {
    let progress = Progress { number: call.ticket.numbers.rise(), total: None, message };
    send(outbox, dialect, call, &progress);
}

pub(super) fn send<D: Dialect>(
    outbox: &mut Outbox,
    dialect: &D,
    call: &mut CallUnderWay,
    progress: &Progress<'_>,
) {
    if outbox.bytes() > PROGRESS_BACKLOG_BYTES {
        return;
    }
    call.told_at = Instant::now();
    if let Some(text) = dialect.progress(&call.ticket, progress) {
        outbox.push(&text);
    }
}
