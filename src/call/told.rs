//! Work in progress: the latest of its text, and how far it has come, for everybody who waits, whenever they came.

use crate::provider::Step;

/// Text in progress that is kept for those who join late. More than a screen or two helps nobody.
const RETAINED_TEXT_BYTES: usize = 64 * 1024;

/// How much of it a waiter has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    text: u64,
    steps: u64,
}

/// What a waiter has not seen yet.
#[derive(Debug, PartialEq)]
pub enum New {
    /// More text.
    Text(String),
    /// The latest step.
    Step(Step),
}

/// The latest of what was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    text: String,
    /// How many bytes were told before `text` begins.
    forgotten: u64,
    /// Where what counts begins: what was told before is void.
    counts_from: u64,
    /// What those are told who heard some of that.
    void: Box<str>,
    step: Option<Step>,
    /// How many steps were told.
    steps: u64,
}

impl Told {
    /// The work has come further. A step nobody saw is forgotten.
    pub(super) fn step(&mut self, step: Step) {
        self.step = Some(step);
        self.steps += 1;
    }

    /// More text was told.
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

    /// What was told so far is void, which `note` says to those who heard some of it. Says whether anything was told.
    pub(super) fn begin_anew(&mut self, note: &str) -> bool {
        if self.told() <= self.counts_from {
            return false;
        }
        // One place more than was told: whoever has heard all of it has not heard this.
        self.forgotten = self.told() + 1;
        self.counts_from = self.forgotten;
        self.text.clear();
        self.void = note.into();
        true
    }

    /// The work has ended: what the end says is not kept.
    pub(super) fn end(&mut self) {
        *self = Self { step: self.step.take(), steps: self.steps, ..Self::default() };
    }

    fn told(&self) -> u64 {
        self.forgotten + u64::try_from(self.text.len()).unwrap_or(u64::MAX)
    }

    /// What came after `seen`, as far as it is retained: steps first.
    pub(super) fn since(&self, seen: &mut Seen) -> Option<New> {
        self.before_the_end(seen).or_else(|| self.text_since(seen))
    }

    /// What is worth to be told though the end is there, which says all that the text says.
    pub(super) fn before_the_end(&self, seen: &mut Seen) -> Option<New> {
        if seen.steps < self.steps {
            seen.steps = self.steps;
            return self.step.clone().map(New::Step);
        }
        None
    }

    fn text_since(&self, seen: &mut Seen) -> Option<New> {
        if (1..self.counts_from).contains(&seen.text) {
            seen.text = self.counts_from;
            return Some(New::Text(self.void.clone().into()));
        }
        let skip = usize::try_from(seen.text.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let new = self.text.get(skip..).filter(|new| !new.is_empty())?;
        seen.text = self.told();
        Some(New::Text(new.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(progress: f64) -> Step {
        Step { progress, total: Some(3.0), message: String::new() }
    }

    #[test]
    fn who_looks_late_sees_the_latest_step_once_and_all_of_the_text() {
        let mut told = Told::default();
        told.step(step(1.0));
        told.push("a");
        told.step(step(2.0));
        told.push("b");
        let mut seen = Seen::default();
        assert_eq!(told.since(&mut seen), Some(New::Step(step(2.0))));
        assert_eq!(told.since(&mut seen), Some(New::Text("ab".into())));
        assert_eq!(told.since(&mut seen), None);
        told.step(step(3.0));
        assert_eq!(told.since(&mut seen), Some(New::Step(step(3.0))));
        assert_eq!(told.since(&mut seen), None);
        told.step(step(4.0));
        told.push("c");
        told.end();
        assert_eq!(told.before_the_end(&mut seen), Some(New::Step(step(4.0))), "the end does not swallow it");
        assert_eq!(told.since(&mut seen), None);
    }

    #[test]
    fn what_is_void_is_never_mixed_with_what_counts() {
        let mut told = Told::default();
        let [mut all, mut some, mut late] = [Seen::default(); 3];
        let hears = |told: &Told, seen: &mut Seen| match told.since(seen) {
            Some(New::Text(text)) => Some(text),
            Some(New::Step(step)) => panic!("{step:?}"),
            None => None,
        };
        assert!(!told.begin_anew("void"), "nothing was told yet");
        told.push("one ");
        assert_eq!(hears(&told, &mut some).as_deref(), Some("one "));
        told.push("two");
        assert_eq!(hears(&told, &mut all).as_deref(), Some("one two"));
        assert!(told.begin_anew("void"));
        assert_eq!((hears(&told, &mut all).as_deref(), hears(&told, &mut all)), (Some("void"), None));
        told.push("1 2");
        assert_eq!(hears(&told, &mut all).as_deref(), Some("1 2"));
        assert_eq!(hears(&told, &mut some).as_deref(), Some("void"));
        assert_eq!(hears(&told, &mut some).as_deref(), Some("1 2"));
        assert_eq!(hears(&told, &mut late).as_deref(), Some("1 2"), "who comes late hears nothing of it");
        assert!(told.begin_anew("void again") && !told.begin_anew("twice"));
        assert_eq!(hears(&told, &mut late).as_deref(), Some("void again"));
    }
}
