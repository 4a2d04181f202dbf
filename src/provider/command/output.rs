//! What a module writes: read to its end always, and the last of it kept.

use std::borrow::Cow;

/// The last bytes of a stream, within a bound.
#[derive(Debug)]
pub(super) struct Tail {
    bound: usize,
    kept: Vec<u8>,
    /// Bytes that were written and are not kept.
    cut: u64,
}

impl Tail {
    /// One that keeps `bound` bytes.
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, kept: Vec::new(), cut: 0 }
    }

    /// More was written. Takes memory for twice the bound at most, beside `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > self.bound.saturating_mul(2) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let surplus = self.kept.len().saturating_sub(self.bound);
        self.kept.drain(..surplus);
        self.cut += u64::try_from(surplus).unwrap_or(u64::MAX);
    }

    /// The last line in which something stands, cut to `chars`.
    pub(super) fn last_line(&self, chars: usize) -> Option<String> {
        const LOOKED_AT: usize = 4096;
        let end = self.kept.len();
        let text = String::from_utf8_lossy(self.kept.get(end.saturating_sub(LOOKED_AT)..)?);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().filter(|c| !c.is_control()).take(chars).collect())
    }

    /// All that is kept, as text. What is no UTF-8 is replaced.
    pub(super) fn end(mut self) -> Kept {
        self.settle();
        let mut kept = &*self.kept;
        if self.cut > 0 {
            // The cut may have gone through a character, which has three more bytes at most.
            let torn = kept.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
            let (before, whole) = kept.split_at(torn);
            self.cut += u64::try_from(before.len()).unwrap_or_default();
            kept = whole;
        }
        let text = match String::from_utf8_lossy(kept) {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        };
        Kept { text, cut_bytes: self.cut }
    }
}

/// What is kept of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its last bytes.
    pub text: String,
    /// How many came before.
    pub cut_bytes: u64,
}

impl Kept {
    /// Its last lines, at most so many, with at most so many characters.
    pub fn last_lines(&self, lines: usize, chars: usize) -> String {
        let text = self.text.trim_end();
        let from = text.rmatch_indices('\n').nth(lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
        let last = text.get(from..).unwrap_or_default();
        let surplus = last.chars().count().saturating_sub(chars);
        last.chars().skip(surplus).collect()
    }

    /// The same, cut to its last `bytes` bytes.
    #[must_use]
    pub fn cut_to(mut self, bytes: usize) -> Self {
        let surplus = self.text.len().saturating_sub(bytes);
        if surplus > 0 {
            let cut = (surplus..=self.text.len()).find(|at| self.text.is_char_boundary(*at));
            let cut = cut.unwrap_or(self.text.len());
            self.text.drain(..cut);
            self.cut_bytes += u64::try_from(cut).unwrap_or(u64::MAX);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_stream_is_kept_whole() {
        let mut tail = Tail::new(8);
        tail.push("grüße".as_bytes());
        assert_eq!(tail.end(), Kept { text: "grüße".into(), cut_bytes: 0 });
    }

    #[test]
    fn a_long_stream_keeps_its_end_and_says_how_much_is_missing() {
        let mut tail = Tail::new(10);
        for _ in 0..1000 {
            tail.push(b"0123456789abcdef");
            assert!(tail.kept.len() <= 2 * 10 + 16);
        }
        assert_eq!(tail.end(), Kept { text: "6789abcdef".into(), cut_bytes: 16_000 - 10 });
    }

    #[test]
    fn a_cut_never_tears_a_character() {
        let mut tail = Tail::new(5);
        tail.push("ééé".as_bytes());
        tail.push("ééé".as_bytes());
        assert_eq!(tail.end(), Kept { text: "éé".into(), cut_bytes: 8 });
        let kept = Kept { text: "aéé".into(), cut_bytes: 1 }.cut_to(3);
        assert_eq!(kept, Kept { text: "é".into(), cut_bytes: 4 });
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut tail = Tail::new(8);
        tail.push(&[b'a', 0xFF, b'b']);
        assert_eq!(tail.end().text, "a\u{FFFD}b");
    }

    #[test]
    fn the_last_lines_are_the_last_lines() {
        let kept = |text: &str| Kept { text: text.into(), cut_bytes: 0 };
        assert_eq!(kept("a\nb\nc\n").last_lines(2, 100), "b\nc");
        assert_eq!(kept("a\nb").last_lines(5, 100), "a\nb");
        assert_eq!(kept("").last_lines(5, 100), "");
        assert_eq!(kept("grüße").last_lines(1, 3), "üße");
        let mut tail = Tail::new(100);
        tail.push(b"first\n  second \n\n");
        assert_eq!(tail.last_line(3).as_deref(), Some("sec"));
        assert_eq!(Tail::new(9).last_line(3), None);
    }
}
