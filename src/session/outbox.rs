//! Messages on their way out, bounded in bytes.

use std::collections::VecDeque;

use tokio_tungstenite::tungstenite::{Bytes, Message};

/// What waits to be written.
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    bytes: usize,
    limit: usize,
    dirty: bool,
    overflowed: bool,
}

impl Outbox {
    /// Room for `limit` bytes behind the message that is being written.
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, limit, dirty: false, overflowed: false }
    }

    /// Queues a text. One message may be larger than the bound, or a large result could never be delivered; a
    /// second one behind it may not.
    pub(super) fn push(&mut self, text: String) {
        if !self.waiting.is_empty() && self.bytes + text.len() > self.limit {
            self.overflowed = true;
            return;
        }
        self.bytes += text.len();
        self.dirty = true;
        self.waiting.push_back(Message::text(text));
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.dirty = true;
        self.waiting.push_back(Message::Ping(Bytes::new()));
    }

    /// Something was queued in the socket itself.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// The next message to write.
    pub(super) fn take(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.len());
        if self.waiting.is_empty() && self.waiting.capacity() > 64 {
            // A burst is over: an idle connection keeps no memory for it.
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn needs_flush(&self) -> bool {
        self.dirty
    }

    pub(super) fn flushed(&mut self) {
        self.dirty = false;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the client has let more wait than the bound.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_message_passes_and_a_second_overflows() {
        let mut outbox = Outbox::new(10);
        outbox.push("x".repeat(50));
        assert!(!outbox.overflowed());
        outbox.push("y".into());
        assert!(outbox.overflowed());
    }

    #[test]
    fn what_was_taken_waits_no_more() {
        let mut outbox = Outbox::new(10);
        outbox.push("12345".into());
        outbox.push("67890".into());
        assert!(outbox.take().is_some() && outbox.take().is_some() && !outbox.has_waiting());
        assert_eq!((outbox.bytes(), outbox.overflowed(), outbox.needs_flush()), (0, false, true));
    }
}
