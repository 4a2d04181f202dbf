//! Lines of bounded length from the client.

use std::io::{self, BufRead};

/// The longest line; a result of the daemon may be as long.
pub(super) const MAX_LINE_BYTES: usize = 32 << 20;

/// What came from the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end.
    Text(String),
    /// A line that is no UTF-8, which no text frame can carry.
    NotUtf8,
    /// A line over the limit; it was skipped to its end.
    TooLong,
    /// The client is gone. What it left unfinished is no message.
    End,
}

/// Reads the next line of at most `limit_bytes`.
pub(super) fn next(input: &mut impl BufRead, limit_bytes: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(Line::End);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let (part, _) = available.split_at(end.unwrap_or(available.len()));
        too_long |= line.len().saturating_add(part.len()) > limit_bytes;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len();
        input.consume(if end.is_some() { used + 1 } else { used });
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { text(line) });
        }
    }
}

fn text(mut line: Vec<u8>) -> Line {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_or(Line::NotUtf8, Line::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn lines(input: &[u8], limit: usize) -> Vec<Line> {
        // A buffer of three bytes: lines come in pieces.
        let mut input = BufReader::with_capacity(3, input);
        let mut lines = Vec::new();
        loop {
            match next(&mut input, limit).unwrap() {
                Line::End => return lines,
                line => lines.push(line),
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_the_next_one_read() {
        let found = lines(b"12345\n123456\n1\n", 5);
        assert_eq!(found, [Line::Text("12345".to_owned()), Line::TooLong, Line::Text("1".to_owned())]);
    }

    #[test]
    fn what_is_left_unfinished_is_no_line() {
        assert_eq!(lines(b"a\r\n\nhalf", 9), [Line::Text("a".to_owned()), Line::Text(String::new())]);
    }

    #[test]
    fn bytes_that_are_no_text_are_told_apart() {
        assert_eq!(lines(b"\xff\n\xc3\xa9\n", 9), [Line::NotUtf8, Line::Text("é".to_owned())]);
    }
}
