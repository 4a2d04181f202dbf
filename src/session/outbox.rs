//! What goes out: frames as bytes, bounded.

use std::cell::Cell;

/// A buffer larger than this is not kept: a burst is over.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer of whoever writes next: a connection that has nothing to say has none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The opcode of a text, in a frame that is its own message.
const TEXT: u8 = 0x81;
/// A ping that carries nothing.
const PING: [u8; 2] = [0x89, 0];

/// What waits to be written.
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// The largest message since it was last empty.
    largest: usize,
    limit: usize,
    closed: bool,
}

impl Outbox {
    /// Room for `limit` bytes beside one message.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), sent: 0, largest: 0, limit, closed: false }
    }

    /// Queues a text. Nothing is refused: whoever fills the queue asks first whether it [is full](Self::is_full),
    /// so it holds its bound and one message more.
    pub fn push(&mut self, text: &str) {
        if self.closed {
            return;
        }
        self.largest = self.largest.max(text.len());
        let to = self.start();
        to.reserve(text.len() + 10);
        to.push(TEXT);
        match (u8::try_from(text.len()), u16::try_from(text.len())) {
            (Ok(short @ ..=125), _) => to.push(short),
            (_, Ok(medium)) => {
                to.push(126);
                to.extend_from_slice(&medium.to_be_bytes());
            }
            (_, Err(_)) => {
                to.push(127);
                to.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            }
        }
        to.extend_from_slice(text.as_bytes());
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.raw(&PING);
    }

    /// Queues a frame that somebody else made.
    pub fn raw(&mut self, frame: &[u8]) {
        if self.closed {
            return;
        }
        self.start().extend_from_slice(frame);
    }

    /// A close frame is the last: whatever comes behind it goes nowhere.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    fn start(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
        &mut self.bytes
    }

    /// What is to be written first.
    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was written.
    pub(super) fn took(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            let mut spare = std::mem::take(&mut self.bytes);
            (self.sent, self.largest) = (0, 0);
            if spare.capacity() <= KEPT_BYTES {
                spare.clear();
                SPARE.set(spare);
            }
        } else if self.sent >= KEPT_BYTES && self.sent * 2 >= self.bytes.len() {
            // Moved at most once for each byte that was written.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether as much waits as may, beside one message: the one that is being written may be larger than all that may.
    pub fn is_full(&self) -> bool {
        self.bytes() > self.limit + self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_its_bound_beside_one_message() {
        let mut outbox = Outbox::new(10);
        outbox.push(&"x".repeat(1000));
        assert!(!outbox.is_full());
        outbox.push("123456");
        outbox.push("78901");
        assert!(outbox.is_full());
        outbox.took(1008);
        assert!(!outbox.is_full());
        outbox.took(outbox.bytes());
        assert_eq!((outbox.bytes(), outbox.is_empty(), outbox.waiting()), (0, true, &b""[..]));
    }

    #[test]
    fn a_length_is_written_as_short_as_it_can_be() {
        let head = |length: usize| {
            let mut outbox = Outbox::new(0);
            outbox.push(&"x".repeat(length));
            outbox.waiting()[..outbox.bytes() - length].to_vec()
        };
        assert_eq!(head(0), [0x81, 0]);
        assert_eq!(head(125), [0x81, 125]);
        assert_eq!(head(126), [0x81, 126, 0, 126]);
        assert_eq!(head(65_535), [0x81, 126, 255, 255]);
        assert_eq!(head(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_was_written_takes_no_room_while_more_waits() {
        let mut outbox = Outbox::new(0);
        for _ in 0..10_000 {
            outbox.push(&"x".repeat(1000));
            outbox.took(if outbox.bytes() > 2000 { 1004 } else { 1 });
        }
        assert!(outbox.bytes.len() < 4 * KEPT_BYTES, "{}", outbox.bytes.len());
    }
}
