//! What does the work: providers, and the vocabulary in which they are asked and answer.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::ids::{ContinuationId, RequestId};
use crate::lifecycle::spend::Exhausted;
pub use crate::lifecycle::spend::Usage;

pub mod asking;
pub mod breaker;
pub mod catalog;
pub mod chat;
pub mod command;
pub mod content;
pub mod conversation;
pub mod flow;
pub mod llm;
pub mod machine;
pub mod module;
pub mod offline;
pub mod pool;
pub mod recent;
pub mod retry;
mod sse;
pub mod submit;
mod tell;
pub mod upstream;

pub use tell::{Level, Logged, Step, Tell};

/// Why a provider did not do the work. It names no prompt, no argument and no secret: a provider's own error
/// text may quote any of them, so only its short machine-readable code is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It said no: the work was surely not done.
    #[error("{provider} refused the request with HTTP {status}{}", shown(code.as_deref()))]
    Refused {
        /// Who.
        provider: Arc<str>,
        /// The HTTP status.
        status: u16,
        /// Its own code for the error, if it has the form of one.
        code: Option<String>,
        /// When it says to come back.
        retry_after: Option<Duration>,
    },
    /// No connection: the work was surely not begun.
    #[error("{provider} cannot be reached: {reason}")]
    Unreachable {
        /// Who.
        provider: Arc<str>,
        /// Which step failed.
        reason: &'static str,
    },
    /// The connection broke, or its answer made no sense: the work may have been done.
    #[error("{provider} broke off its answer: {reason}")]
    Broken {
        /// Who.
        provider: Arc<str>,
        /// What was wrong.
        reason: &'static str,
    },
    /// It is down: the work was surely not begun.
    #[error("{provider} is down: {why}")]
    Down {
        /// Who.
        provider: Arc<str>,
        /// How it ended, or why it was not started.
        why: Arc<str>,
        /// When it is started again.
        retry_after: Option<Duration>,
    },
    /// It said no in the words of its protocol, which are meant for the caller.
    #[error("{provider} answered with error {code}: {message}")]
    Answered {
        /// Who.
        provider: Arc<str>,
        /// Its code for the error.
        code: i64,
        /// What it said, cut.
        message: Box<str>,
        /// What it said beside it, as JSON text on one line.
        data: Option<Box<str>>,
    },
    /// The answer is larger than `MAX_RESULT_BYTES`.
    #[error("{provider} answered with more than {limit} bytes")]
    TooLarge {
        /// Who.
        provider: Arc<str>,
        /// The bound.
        limit: usize,
    },
    /// It was not asked at all.
    #[error(transparent)]
    NotAsked(#[from] NotAsked),
}

/// Why a provider was not asked: nothing was done, and it is nobody's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// Its caller has spent what it may in this day.
    #[error(
        "Your models' answers have cost your limit of {} for this day; the next one begins at 00:00 UTC",
        .0.limit
    )]
    Spent(Exhausted),
    /// Another call goes on with the conversation just now.
    #[error("this conversation is answering another of your calls: send this one again when that has ended")]
    Busy,
    /// The conversation went on, or was forgotten, since the call was sent.
    #[error(
        "this conversation has gone on since your call was sent: look at what was answered, then send it again"
    )]
    Moved,
}

/// Whose fault a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The provider's: it fails, or cannot be reached.
    Provider,
    /// Nobody's: it is well, and has more to do than it takes.
    Load,
    /// The request's, or of whoever set the provider up.
    Caller,
}

fn shown(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

impl Fault {
    /// Whether the provider surely has not done the work, so that even a `write` may be asked again.
    pub fn surely_not_done(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status < 500 || *status == 503,
            Self::Unreachable { .. } | Self::Down { .. } | Self::Answered { .. } | Self::NotAsked(_) => true,
            Self::Broken { .. } | Self::TooLarge { .. } => false,
        }
    }

    /// Whether the same call may do better later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 429 | 500..),
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Down { .. } | Self::NotAsked(_) => true,
            Self::TooLarge { .. } | Self::Answered { .. } => false,
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Refused { status: 429, .. } => Blame::Load,
            Self::Refused { .. } if self.pause().is_some() => Blame::Load,
            Self::Refused { status: 408 | 500.., .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Down { .. } => Blame::Provider,
            Self::Refused { .. } | Self::TooLarge { .. } | Self::NotAsked(_) | Self::Answered { .. } => {
                Blame::Caller
            }
        }
    }

    /// For how long the provider wants to be left alone, by everybody.
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Self::Refused { status: 429 | 503, retry_after, .. } => {
                retry_after.filter(|after| !after.is_zero())
            }
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Down { .. }
            | Self::Answered { .. }
            | Self::NotAsked(_) => None,
        }
    }

    /// When the provider said to come back.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Down { retry_after, .. } => *retry_after,
            Self::NotAsked(NotAsked::Spent(exhausted)) => Some(exhausted.retry_after),
            Self::NotAsked(NotAsked::Busy | NotAsked::Moved) => Some(Duration::from_secs(1)),
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Answered { .. } => None,
        }
    }
}

/// What a tool answered: serialised once, however many wait for it.
#[derive(Debug)]
pub struct Reply {
    /// Members of the result object, without braces: `"content":[…]`, perhaps more.
    members: String,
    /// Where in `members` the content array stands.
    content: Range<usize>,
    /// The tool itself says that it failed.
    pub is_error: bool,
    /// Parts of what was asked for are missing, and it says which: no failure, and nothing that answers others later.
    pub is_partial: bool,
    /// It is no answer yet: it asks whoever called.
    pub asks: bool,
    /// Who answered, where that is not whom the call was for.
    pub provider: Option<Arc<str>>,
    /// Which model answered.
    pub model: Option<Arc<str>>,
    /// What it counted.
    pub usage: Option<Usage>,
    /// The kept outcome that it ends with.
    pub collects: Option<Collects>,
    /// The conversation that a later call may go on with.
    pub continues: Option<Continues>,
}

/// A conversation that a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continues {
    /// Its name.
    pub id: ContinuationId,
    /// Whether this reply is its first: who shares it gets a conversation of its own.
    pub opened: bool,
    /// Where in the members its name stands, where the caller asked to be told.
    shown: Option<usize>,
}

/// A kept outcome, in a reply that tells of it first.
#[derive(Debug, Clone, Copy)]
pub struct Collects {
    /// Whose it is.
    pub request: RequestId,
    /// Its character with which the reply goes on…
    pub from: usize,
    /// …after so many characters of the reply's own.
    pub told: usize,
}

const CONTENT: &str = "\"content\":";

impl Reply {
    /// A reply of one text block.
    pub fn text(text: &str) -> Self {
        let mut members = String::with_capacity(text.len() + text.len() / 16 + 64);
        members.push_str(CONTENT);
        members.push_str("[{\"type\":\"text\",\"text\":");
        push_json_string(&mut members, text);
        members.push_str("}]");
        Self::of_content(members)
    }

    /// A reply of members that its server wrote; where among them the content stands, if it does.
    pub fn spliced(members: String, content: Range<usize>, is_error: bool) -> Self {
        Self {
            members,
            content,
            is_error,
            is_partial: false,
            asks: false,
            provider: None,
            model: None,
            usage: None,
            collects: None,
            continues: None,
        }
    }

    /// A reply whose members are its content only.
    fn of_content(members: String) -> Self {
        let content = CONTENT.len()..members.len();
        Self::spliced(members, content, false)
    }

    /// A reply of one structured object, with its own text as content for clients that read only text.
    pub fn structured(object: &serde_json::Value) -> Self {
        let json = object.to_string();
        Self::text(&json).with(&json)
    }

    /// Adds the same as one object, for clients that read structures.
    #[must_use]
    pub fn with_structure(self, object: &serde_json::Value) -> Self {
        self.with(&object.to_string())
    }

    fn with(mut self, json: &str) -> Self {
        self.members.push_str(",\"structuredContent\":");
        self.members.push_str(json);
        self
    }

    /// What is told of a kept outcome, as a JSON object, then the outcome itself from the character `from` on; for
    /// clients that read structures, the object has it as `outputs`.
    pub fn collected(told: &str, outcome: &content::Piece, request: RequestId, from: usize) -> Self {
        let mut members = String::with_capacity(2 * (told.len() + outcome.blocks.len()) + 128);
        members.push_str(CONTENT);
        members.push('[');
        members.push_str(&content::text_block(told));
        if !outcome.blocks.is_empty() {
            members.push(',');
            members.push_str(&outcome.blocks);
        }
        members.push(']');
        let mut reply = Self::of_content(members);
        reply.members.push_str(",\"structuredContent\":");
        reply.members.push_str(told.strip_suffix('}').unwrap_or_default());
        reply.members.push_str(",\"outputs\":[");
        reply.members.push_str(&outcome.blocks);
        reply.members.push_str("]}");
        reply.collects = Some(Collects { request, from, told: told.chars().count() });
        reply
    }

    /// Names the model that answered and what it counted.
    #[must_use]
    pub fn answered_by(mut self, model: Arc<str>, usage: Option<Usage>) -> Self {
        self.model = Some(model);
        self.usage = usage;
        self
    }

    /// Names the conversation that a later call may go on with; where `told`, in a text block of its own.
    #[must_use]
    pub fn continued_as(mut self, id: ContinuationId, opened: bool, told: bool) -> Self {
        const BEFORE: &str = ",{\"type\":\"text\",\"text\":\"To go on with this conversation, call again with continuation_id ";
        let mut shown = None;
        if told {
            let end = self.content.end.saturating_sub(1);
            let block = format!("{BEFORE}{id}\"}}");
            self.members.insert_str(end, &block);
            self.content.end += block.len();
            shown = Some(end + BEFORE.len());
        }
        self.continues = Some(Continues { id, opened, shown });
        self
    }

    /// The conversation of a caller that got this reply, which `shared` it with the one whose call it was answered to.
    pub fn continuation(&self, shared: bool, request: RequestId) -> Option<ContinuationId> {
        let continues = self.continues?;
        let own = shared && continues.opened;
        Some(if own { continues.id.fork(request.random()) } else { continues.id })
    }

    /// The same reply for one who shared it, where it tells a name: its own.
    pub fn for_sharer(&self, request: RequestId) -> Option<Self> {
        let continues = self.continues.filter(|continues| continues.opened)?;
        let start = continues.shown?;
        let id = continues.id.fork(request.random());
        let mut members = self.members.clone();
        members.replace_range(start..start + ContinuationId::LENGTH, &id.to_string());
        Some(Self {
            members,
            content: self.content.clone(),
            is_error: self.is_error,
            is_partial: self.is_partial,
            asks: self.asks,
            provider: self.provider.clone(),
            model: self.model.clone(),
            usage: self.usage,
            collects: self.collects,
            continues: Some(Continues { id, opened: false, shown: Some(start) }),
        })
    }

    /// Members of the result object, without braces.
    pub fn members(&self) -> &str {
        &self.members
    }

    /// The content array.
    pub fn content(&self) -> &str {
        self.members.get(self.content.clone()).filter(|content| !content.is_empty()).unwrap_or("[]")
    }

    /// How much memory the reply takes, about.
    pub fn bytes(&self) -> usize {
        self.members.len()
    }
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(stop) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (plain, special) = rest.split_at(stop);
        out.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            // Writing to a String cannot fail.
            Some(control) => drop(write!(out, "\\u{:04x}", u32::from(control))),
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// What the work is given beside its arguments.
#[derive(Clone)]
pub struct Context {
    /// When the work must have ended: it travels with every request made for it.
    pub deadline: Deadline,
    /// Where to tell of progress.
    pub tell: Arc<dyn Tell>,
    /// The largest reply that can be delivered.
    pub max_reply_bytes: usize,
    /// How a composite calls others; no other work does.
    pub children: Option<Arc<dyn submit::Submit>>,
    /// How work that may ask on its way does; no other work does.
    pub ask: Option<Arc<dyn asking::Ask>>,
    /// Tells work that winds down by itself to do so; no other work is told.
    pub stop: Option<CancellationToken>,
}

/// Work that is ready to be done, once. Dropping what [`Job::run`] returned stops it.
pub trait Job: Send {
    /// Does the work.
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>>;

    /// The same work once more, in case this attempt fails; it is asked for before each one.
    ///
    /// Most work is done once or not at all, and says nothing: a second attempt needs a provider whose faults say
    /// whether one may be made.
    fn again(&self) -> Option<Box<dyn Job>> {
        None
    }

    /// Whether it ends by itself, soon after it was told to, and is to be waited for: what it started must be gone before its
    /// permits are. Other work is dropped.
    fn winds_down(&self) -> bool {
        false
    }

    /// Whether it may ask whoever called, on its way.
    fn asks(&self) -> bool {
        false
    }

    /// What it answers where there is neither a place for it nor room to wait for one; none is the plain refusal.
    fn when_full(&self) -> Option<Reply> {
        None
    }

    /// Who else may do it where its provider fails, one after the other; it is asked for before the first attempt.
    fn fallbacks(&self) -> Vec<Elsewhere> {
        Vec::new()
    }
}

/// The same work at another provider.
pub struct Elsewhere {
    /// Which one.
    pub provider: Arc<str>,
    /// How long it may take there.
    pub timeout: Duration,
    /// The work.
    pub job: Box<dyn Job>,
}

#[cfg(test)]
mod tests;
