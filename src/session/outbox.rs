//! Messages on their way out, bounded in bytes.

use std::collections::VecDeque;

use tokio_tungstenite::tungstenite::{Bytes, Message};

/// What waits to be written.
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    bytes: usize,
    limit: usize,
    dirty: bool,
}

impl Outbox {
    /// Room for `limit` bytes beside the message that is being written.
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, limit, dirty: false }
    }

    /// Queues a text. Nothing is refused: whoever fills the queue asks first whether it [is full](Self::is_full),
    /// so it holds its bound and one message more.
    pub(super) fn push(&mut self, text: String) {
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

    /// Whether as much waits as may.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_waits_no_more() {
        let mut outbox = Outbox::new(10);
        outbox.push("123456".into());
        assert!(!outbox.is_full());
        outbox.push("78901".into());
        assert!(outbox.is_full());
        assert!(outbox.take().is_some() && !outbox.is_full());
        assert!(outbox.take().is_some() && !outbox.has_waiting());
        assert_eq!((outbox.bytes(), outbox.needs_flush()), (0, true));
    }
}
