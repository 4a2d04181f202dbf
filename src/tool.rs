//! What a client can call: specifications, effects, and the registry that finds them by name.

use std::sync::Arc;
use std::time::Duration;

use jsonschema::error::ValidationErrorKind;
use serde::Deserialize;
use serde_json::Value;

use crate::ids::{ClientSessionId, PrincipalId, ToolId};
use crate::provider::upstream::{Continued, Mirrored};
use crate::provider::{Job, Reply};
use crate::tool::place::Slots;
use crate::tool::registry::Prepared;

mod batch;
pub mod builtin;
pub mod consensus;
pub mod flow;
pub mod module;
pub mod place;
pub mod prompt;
pub mod registry;
pub mod upstream;

pub use builtin::{Builtin, Found, Insight};
pub use prompt::PromptTool;
pub use registry::Registry;

/// What calling a tool does to the world. It drives dedup, and what happens when the waiters leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// Doing it twice is doing it once.
    Idempotent,
    /// Each time counts.
    Write,
}

impl Effect {
    /// Its name in configuration and documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Idempotent => "idempotent",
            Self::Write => "write",
        }
    }
}

/// Who may share one execution of equal calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Dedup {
    /// `read`: everybody of one principal.
    #[serde(rename = "read")]
    Principal,
    /// `guard`: one client session, which may dispatch its call twice.
    #[serde(rename = "guard")]
    Session,
    /// `off`: nobody.
    #[serde(rename = "off")]
    Off,
}

impl Dedup {
    /// Reads a policy by its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Principal),
            "guard" => Some(Self::Session),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

impl Effect {
    /// The policy of a tool that names none. A write is never silently dropped.
    pub fn default_dedup(self) -> Dedup {
        match self {
            Self::Read => Dedup::Principal,
            Self::Idempotent => Dedup::Session,
            Self::Write => Dedup::Off,
        }
    }
}

/// How long a read lingers for a waiter that lost its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Cheap to do again: it lingers two seconds.
    Cheap,
    /// Paid for, as a model's answer is: it lingers `REATTACH_SECS`.
    Paid,
}

/// What does a tool's work.
#[derive(Debug)]
pub enum Work {
    /// Answered by the daemon itself, at once: no slot, no permit.
    Builtin(Builtin),
    /// The text it is sent, through every stage of the path.
    Echo,
    /// A question to a model.
    Prompt(PromptTool),
    /// A question to several models: a composite.
    Consensus,
    /// Whatever else: it says itself where it is done.
    Custom(Box<dyn CustomWork>),
}

/// What a call asks of its tool. The arguments fit the tool's schema.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The arguments.
    pub arguments: Value,
    /// The same as the caller wrote them: every digit, every member where it stood.
    pub text: &'a str,
    /// For whom.
    pub principal: PrincipalId,
    /// Through which client session.
    pub session: ClientSessionId,
    /// Whether a composite asks.
    pub is_child: bool,
    /// The state of its server, and what was said to it, where it goes on with an earlier call.
    pub continued: Option<Continued>,
    /// Where composites work.
    pub slots: &'a dyn Slots,
}

/// Work of a tool that is not the registry's own.
pub trait CustomWork: Send + Sync + std::fmt::Debug {
    /// Makes ready to do what is asked. It runs for each call that is read, whether it joins another or not: it does not
    /// wait, and asks nobody. The registry mixes the tool's own definition into what it returns.
    ///
    /// # Errors
    /// Arguments that fit the schema and still make no sense, or whose answer needs no work.
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared>;

    /// What a call with these arguments does to the world, where that is not what its tool does.
    fn effect(&self, _arguments: &Value) -> Option<Effect> {
        None
    }
}

/// Why there is nothing to work on.
#[derive(Debug)]
pub enum Unprepared {
    /// The arguments make no sense.
    Misfit(Misfit),
    /// The answer is known: it takes no slot and no permit, and nobody joins it.
    Answered(Box<Reply>),
}

impl From<Misfit> for Unprepared {
    fn from(misfit: Misfit) -> Self {
        Self::Misfit(misfit)
    }
}

/// Work under the provider `offline`, for whoever embeds the daemon: tests do.
pub trait PlainWork: Send + Sync + std::fmt::Debug {
    /// Makes ready to work on arguments that fit the tool's schema.
    fn job(&self, arguments: &Value) -> Box<dyn Job>;
}

/// One tool, as registered.
pub struct Tool {
    /// Its id, by its name.
    pub id: ToolId,
    /// Its name, unique in the registry.
    pub name: Arc<str>,
    /// What it does to the world.
    pub effect: Effect,
    /// Who may share one execution.
    pub dedup: Dedup,
    /// How long it lingers.
    pub worth: Worth,
    /// How long its results answer equal calls.
    pub cache_ttl: Option<Duration>,
    /// Its rung of the ladder: how long one execution may work.
    pub timeout: Duration,
    /// Its work numbers its own progress: whatever else is told between its steps stays between them.
    pub counts_steps: bool,
    /// What does the work.
    pub work: Work,
    /// Arguments that are also sent as headers.
    pub mirrored: Box<[Mirrored]>,
    /// Content hash of all the above.
    pub definition: u64,
    /// Its entry in a list of tools, as JSON: for MCP, with annotations.
    pub listing: Box<str>,
    /// The same for the op protocol: name, description and schema.
    pub plain_listing: Box<str>,
    /// The same tool with other effects, for calls whose arguments make it so.
    others: Vec<Arc<Self>>,
    validator: jsonschema::Validator,
}

/// Arguments that do not fit a tool's schema: where, and what was expected. Never the value itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument `{path}`: {message}")]
pub struct Misfit {
    /// JSON pointer of the argument, without its first slash; `arguments` for the whole.
    pub path: String,
    /// What does not fit.
    pub message: String,
}

impl Tool {
    /// The tool as it is for these arguments: its effect may depend on them.
    pub fn asked_for<'a>(self: &'a Arc<Self>, arguments: &Value) -> &'a Arc<Self> {
        let effect = match &self.work {
            Work::Custom(work) if !self.others.is_empty() => work.effect(arguments),
            _ => None,
        };
        self.others.iter().find(|other| Some(other.effect) == effect).unwrap_or(self)
    }

    /// Checks arguments against the tool's compiled schema.
    pub fn check(&self, arguments: &Value) -> Result<(), Misfit> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        let Some(error) = self.validator.iter_errors(arguments).next() else { return Ok(()) };
        let pointer = error.instance_path().to_string();
        let mut path = pointer.trim_start_matches('/').to_owned();
        // The member that is missing, or is one too many, stands in the error and not in its place.
        let member = match error.kind() {
            ValidationErrorKind::Required { property } => property.as_str().map(str::to_owned),
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.first().cloned(),
            _ => None,
        };
        if let Some(member) = member {
            let between = if path.is_empty() { "" } else { "/" };
            path = format!("{path}{between}{}", member.chars().take(64).collect::<String>());
        }
        if path.is_empty() {
            path.push_str("arguments");
        }
        Err(Misfit { path, message: error.masked_with("the value").to_string() })
    }
}

impl std::fmt::Debug for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tool").field("name", &self.name).field("effect", &self.effect).finish_non_exhaustive()
    }
}
