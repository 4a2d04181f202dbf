//! Lines of a child's output, each with a bound: one that is longer is skipped to its end, and told by its ends.

use std::io;

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Read at once, at least.
const CHUNK_BYTES: usize = 8 * 1024;
/// A buffer that grew for one long line is given back.
const KEPT_BYTES: usize = 64 * 1024;
/// What is kept of both ends of a line that is too long.
const END_BYTES: usize = 512;

/// Reads lines.
pub(super) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no end of line stands.
    scanned: usize,
    limit: usize,
    /// The line that is being skipped.
    long: Option<Ends>,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line.
    Whole(&'a [u8]),
    /// One above the limit.
    Long(Ends),
}

/// Both ends of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// How it began.
    pub(super) head: Vec<u8>,
    /// How it ended, so far.
    pub(super) tail: Vec<u8>,
}

impl Ends {
    fn push(&mut self, bytes: &[u8]) {
        let room = END_BYTES.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(room));
        self.tail.extend(bytes.iter().skip(bytes.len().saturating_sub(END_BYTES)));
        let surplus = self.tail.len().saturating_sub(END_BYTES);
        self.tail.drain(..surplus);
    }
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `limit` bytes.
    pub(super) fn new(source: R, limit: usize) -> Self {
        Self { source, buffer: Vec::new(), start: 0, scanned: 0, limit, long: None }
    }

    /// Reads more; 0 at the end. Only when [`Lines::next`] has nothing.
    ///
    /// Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        self.buffer.reserve(CHUNK_BYTES);
        self.source.read_buf(&mut self.buffer).await
    }

    /// The next line that is there whole.
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(place) = memchr(b'\n', fresh) else {
            self.scanned = self.buffer.len();
            if self.scanned - self.start > self.limit || self.long.is_some() {
                let piece = self.buffer.get(self.start..).unwrap_or_default();
                self.long.get_or_insert_default().push(piece);
                self.start = self.scanned;
            }
            return None;
        };
        let (from, end) = (self.start, self.scanned + place);
        (self.start, self.scanned) = (end + 1, end + 1);
        let line = self.buffer.get(from..end).unwrap_or_default();
        match self.long.take() {
            Some(mut ends) => {
                ends.push(line);
                Some(Line::Long(ends))
            }
            None if line.len() > self.limit => {
                let mut ends = Ends::default();
                ends.push(line);
                Some(Line::Long(ends))
            }
            None => Some(Line::Whole(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &'static [u8], limit: usize) -> Vec<String> {
        let mut lines = Lines::new(bytes, limit);
        let mut found = Vec::new();
        loop {
            while let Some(line) = lines.next() {
                found.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::Long(ends) => format!(
                        "{}…{}",
                        String::from_utf8_lossy(&ends.head),
                        String::from_utf8_lossy(&ends.tail)
                    ),
                });
            }
            if lines.fill().await.unwrap() == 0 {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn lines_come_one_by_one() {
        assert_eq!(all(b"a\n\nbc\r\nrest", 10).await, ["a", "", "bc\r"]);
    }

    #[tokio::test]
    async fn a_line_above_the_limit_is_told_by_its_ends_and_the_next_one_is_whole() {
        static LONG: [u8; 200_000] = {
            let mut bytes = [b'x'; 200_000];
            bytes[0] = b'{';
            bytes[199_998] = b'}';
            bytes[199_999] = b'\n';
            bytes
        };
        assert_eq!(all(b"abcdef\nxy\n", 3).await, ["abcdef…abcdef", "xy"]);
        let found = all(&LONG, 1000).await;
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with('{') && found[0].ends_with('}') && found[0].len() < 1100);
    }
}
