//! Text in progress: the latest of it, for everybody who waits, whenever they came.

/// Text in progress that is kept for those who join late. More than a screen or two helps nobody.
const RETAINED_TEXT_BYTES: usize = 64 * 1024;

/// The latest of the text in progress.
#[derive(Debug, Default)]
pub(super) struct Told {
    text: String,
    /// How many bytes were told before `text` begins.
    forgotten: u64,
}

impl Told {
    /// More was told.
    pub(super) fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        if self.text.len() > 2 * RETAINED_TEXT_BYTES {
            let surplus = self.text.len() - RETAINED_TEXT_BYTES;
            let cut =
                (surplus..self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(surplus);
            self.text.drain(..cut);
            self.forgotten += u64::try_from(cut).unwrap_or(u64::MAX);
        }
    }

    /// What came after `seen`, as far as it is retained.
    pub(super) fn since(&self, seen: &mut u64) -> Option<String> {
        let skip = usize::try_from(seen.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let new = self.text.get(skip..).filter(|new| !new.is_empty())?;
        *seen = self.forgotten + u64::try_from(self.text.len()).unwrap_or(u64::MAX);
        Some(new.to_owned())
    }
}
