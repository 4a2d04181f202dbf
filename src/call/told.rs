//! Work in progress: the latest of its text and of its log, and how far it has come, for everybody who waits, whenever they came.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::provider::{Level, Logged, Step};

/// Text in progress that is kept for those who join late. More than a screen or two helps nobody.
const RETAINED_TEXT_BYTES: usize = 64 * 1024;
/// The same of messages of its log: this many, and so many bytes but for the last one.
const RETAINED_LOG: usize = 64;

/// How much of it a waiter has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    text: u64,
    steps: u64,
    logged: u64,
    /// The least urgent message that it wants to read.
    level: Option<Level>,
}

impl Seen {
    /// Nothing, by who wants to read these messages of a log.
    pub fn nothing(level: Option<Level>) -> Self {
        Self { level, ..Self::default() }
    }
}

/// What a waiter has not seen yet.
#[derive(Debug, PartialEq)]
pub enum New {
    /// More text.
    Text(String),
    /// The latest step.
    Step(Step),
    /// A message of the log.
    Logged(Arc<Logged>),
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
    log: VecDeque<Arc<Logged>>,
    /// How many messages of the log were told.
    logged: u64,
    /// The least urgent of them that anybody wants.
    level: Option<Level>,
}

impl Told {
    /// The work has come further. A step nobody saw is forgotten.
    pub(super) fn step(&mut self, step: Step) {
        self.step = Some(step);
        self.steps += 1;
    }

    /// Somebody wants to read the log from this level on.
    pub(super) fn wants_log(&mut self, level: Level) {
        self.level = Some(self.level.map_or(level, |known| known.min(level)));
    }

    /// The least urgent message that anybody wants to read.
    pub(super) fn log_level(&self) -> Option<Level> {
        self.level
    }

    /// A message of the log. Says whether anybody wants it.
    pub(super) fn log(&mut self, logged: Arc<Logged>) -> bool {
        if self.level.is_none_or(|level| logged.level < level) {
            return false;
        }
        self.log.push_back(logged);
        self.logged += 1;
        let bytes = |log: &VecDeque<Arc<Logged>>| log.iter().map(|logged| logged.params.len()).sum::<usize>();
        while self.log.len() > RETAINED_LOG || self.log.len() > 1 && bytes(&self.log) > RETAINED_TEXT_BYTES {
            self.log.pop_front();
        }
        true
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
        let (step, log) = (self.step.take(), std::mem::take(&mut self.log));
        let &mut Self { steps, logged, level, .. } = self;
        *self = Self { step, steps, log, logged, level, ..Self::default() };
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
        let level = seen.level?;
        loop {
            let unread = usize::try_from(self.logged.saturating_sub(seen.logged)).unwrap_or(usize::MAX);
            // One that looks late has missed those that are not kept any more.
            let next = self.log.get(self.log.len().saturating_sub(unread)).filter(|_| unread > 0)?;
            let kept = u64::try_from(self.log.len()).unwrap_or(u64::MAX);
            seen.logged = seen.logged.max(self.logged.saturating_sub(kept)) + 1;
            if next.level >= level {
                return Some(New::Logged(Arc::clone(next)));
            }
        }
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
    fn each_reads_of_the_log_what_it_wants_and_what_is_kept() {
        let logged = |level, text: &str| Arc::new(Logged { level, params: text.into() });
        let mut told = Told::default();
        assert!(!told.log(logged(Level::Emergency, "nobody reads it")));
        told.wants_log(Level::Warning);
        told.wants_log(Level::Info);
        told.wants_log(Level::Error);
        assert!(!told.log(logged(Level::Debug, "d")));
        assert!(told.log(logged(Level::Info, "i")) && told.log(logged(Level::Error, "e")));
        let (mut all, mut some, mut none) =
            (Seen::nothing(Some(Level::Info)), Seen::nothing(Some(Level::Warning)), Seen::default());
        assert_eq!(told.since(&mut none), None);
        assert_eq!(told.since(&mut all), Some(New::Logged(logged(Level::Info, "i"))));
        told.end();
        for seen in [&mut all, &mut some] {
            assert_eq!(told.before_the_end(seen), Some(New::Logged(logged(Level::Error, "e"))));
            assert_eq!(told.before_the_end(seen), None);
        }
        for n in 0..RETAINED_LOG + 9 {
            told.log(logged(Level::Info, &n.to_string()));
        }
        assert_eq!(told.since(&mut all), Some(New::Logged(logged(Level::Info, "9"))));
        assert_eq!(told.log.len(), RETAINED_LOG);
    }

    #[test]
    fn what_is_void_is_never_mixed_with_what_counts() {
        let mut told = Told::default();
        let [mut all, mut some, mut late] = [Seen::default(); 3];
        let hears = |told: &Told, seen: &mut Seen| match told.since(seen) {
            Some(New::Text(text)) => Some(text),
            Some(other) => panic!("{other:?}"),
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
