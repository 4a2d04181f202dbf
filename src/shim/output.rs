//! The client's end of stdout: one message, one line, one write.

use std::io::{self, Write};

use parking_lot::Mutex;

/// A message larger than this gives its buffer back afterwards.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// Whole lines to the client, from any thread.
pub(super) struct Output(Mutex<Inner>);

struct Inner {
    to: Box<dyn Write + Send>,
    line: Vec<u8>,
}

impl Output {
    pub(super) fn new(to: Box<dyn Write + Send>) -> Self {
        Self(Mutex::new(Inner { to, line: Vec::new() }))
    }

    /// Writes one message. In valid JSON a line break is only ever space between tokens, so a message that
    /// has some stays the same message on one line.
    pub(super) fn line(&self, message: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        let Inner { to, line } = &mut *inner;
        line.clear();
        line.extend(message.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        line.push(b'\n');
        let written = to.write_all(line).and_then(|()| to.flush());
        line.clear();
        line.shrink_to(KEPT_BUFFER_BYTES);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Seen {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().push(buf.to_vec());
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_message_on_many_lines_becomes_one_line_in_one_write() {
        let seen = Seen::default();
        Output::new(Box::new(seen.clone())).line("{\r\n  \"a\": 1\n}").unwrap();
        assert_eq!(*seen.0.lock(), [b"{    \"a\": 1 }\n".to_vec()]);
    }
}
