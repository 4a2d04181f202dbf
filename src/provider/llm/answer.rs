//! An answer as it comes in, whichever wire it comes over.

use crate::provider::chat::Meter;
use crate::provider::{Context, Usage};

/// Why what came is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nonsense {
    /// An event of a stream.
    Event,
    /// A whole answer.
    Whole,
    /// It is an error, in the middle of a stream that began well.
    Error,
    /// The provider does not answer this.
    Blocked,
}

impl Nonsense {
    /// What a caller may read.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Event => "an event is not JSON",
            Self::Whole => "the answer is not JSON",
            Self::Error => "it reported an error in the middle of its answer",
            Self::Blocked => "it does not answer this question",
        }
    }
}

/// What has come so far.
pub(super) struct Answer<'a> {
    /// The text.
    pub(super) text: String,
    /// Which model answers.
    pub(super) model: Option<String>,
    /// Its text has come to its end.
    pub(super) is_finished: bool,
    /// Nothing follows any more.
    pub(super) is_over: bool,
    usage: Option<Usage>,
    meter: Meter,
    context: &'a Context,
}

impl<'a> Answer<'a> {
    pub(super) fn new(meter: Meter, context: &'a Context) -> Self {
        let (text, model, usage) = (String::new(), None, None);
        Self { text, model, is_finished: false, is_over: false, usage, meter, context }
    }

    /// The next piece of text: everybody who waits hears it.
    pub(super) fn push(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.context.tell.text(piece);
            self.text.push_str(piece);
        }
    }

    /// The first name counts.
    pub(super) fn by(&mut self, model: Option<String>) {
        if self.model.is_none() {
            self.model = model;
        }
    }

    /// The tokens counted so far: services that count more than once count from the beginning.
    pub(super) fn counted(&mut self, prompt_tokens: Option<u64>, completion_tokens: Option<u64>) {
        if prompt_tokens.is_none() && completion_tokens.is_none() {
            return;
        }
        let usage = self.usage.get_or_insert(Usage::tokens(0, 0));
        usage.prompt_tokens = prompt_tokens.unwrap_or(usage.prompt_tokens);
        usage.completion_tokens = completion_tokens.unwrap_or(usage.completion_tokens);
        self.meter.counted(*usage);
    }

    /// What was counted.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage
    }
}
