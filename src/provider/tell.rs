//! What work tells of itself while it is done.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use crate::provider::asking::one_line;

/// The longest message of a log that is passed on.
const LOGGED_BYTES: usize = 64 * 1024;

/// How urgent a message of a log is (RFC 5424), the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What goes on.
    Info,
    /// What is worth to be noticed.
    Notice,
    /// What may become a fault.
    Warning,
    /// A fault.
    Error,
    /// A fault that more will follow.
    Critical,
    /// Somebody must act.
    Alert,
    /// Nothing works.
    Emergency,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// A message of a log, as its server wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// How urgent.
    pub level: Level,
    /// All that was said, as JSON text on one line.
    pub params: Box<str>,
}

impl Logged {
    /// Reads the parameters of a message; `None`: it makes no sense, or is too long.
    pub fn read(params: &str) -> Option<Arc<Self>> {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            level: Cow<'a, str>,
        }
        if params.len() > LOGGED_BYTES || !params.trim_ascii_start().starts_with('{') {
            return None;
        }
        let message: Message<'_> = serde_json::from_str(params).ok()?;
        Some(Arc::new(Self { level: Level::parse(&message.level)?, params: one_line(params) }))
    }
}

/// How far work has come, by its own count.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How far; it rises.
    pub progress: f64,
    /// Of how much, where that is known.
    pub total: Option<f64>,
    /// What happened; it may be empty.
    pub message: String,
}

/// Where work in progress tells of itself. Telling never waits and never fails.
pub trait Tell: Send + Sync {
    /// The next piece of the text that is being made.
    fn text(&self, piece: &str);

    /// How far the work has come; whoever looks later sees the latest.
    fn step(&self, step: Step);

    /// A message of its log; whoever looks later sees the latest of them.
    fn log(&self, logged: Arc<Logged>);

    /// The least urgent of those that somebody wants to read; `None`: nobody reads any.
    fn log_level(&self) -> Option<Level>;
}
