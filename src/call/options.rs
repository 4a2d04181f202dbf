//! A call as a door hands it over.

use std::time::Duration;

use serde_json::Value;

use crate::call::outcome::CallError;
use crate::call::queue::Priority;
use crate::call::waiter::Bounds;
use crate::provider::Level;
use crate::provider::asking::Can;
use crate::tool::Dedup;

/// How large what a request brings beside its arguments may be, as JSON: it is kept with its Execution.
pub const METADATA_BYTES: usize = 10_240;

/// What a caller may say about its call beside the arguments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Its class in every queue.
    pub priority: Priority,
    /// How long the caller waits, if less than the daemon would.
    pub timeout: Option<Duration>,
    /// Who may share its execution, if others than the tool says.
    pub dedup: Option<Dedup>,
    /// Whether the caller wants text as it is made.
    pub wants_text: bool,
    /// From which level on the caller wants to read the log of the work.
    pub log: Option<Level>,
    /// Whether it was sent before, over a connection that is lost.
    pub resume: bool,
    /// What the caller's connection cannot take.
    pub bounds: Bounds,
    /// What the caller can be asked for while it waits.
    pub can: Can,
    /// It is a request of a server's that is no call of a tool: only then such a one is found.
    pub method: bool,
}

/// A call as a door hands it over.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The client's own id of it, as JSON text: what it goes by when it is sent again.
    pub id: Option<&'a str>,
    /// Which tool.
    pub tool: &'a str,
    /// Its arguments, as JSON text.
    pub arguments: &'a str,
    /// What else distinguishes it, as one JSON object.
    pub extra: Option<&'a str>,
    /// What else the caller says.
    pub options: Options,
}

impl Call<'_> {
    /// Its arguments as a document.
    pub(super) fn document(&self) -> Result<Value, CallError> {
        serde_json::from_str(self.arguments)
            .map_err(|_| CallError::Invalid("arguments are not valid JSON, or nest too deep".into()))
    }

    /// What it brings beside its arguments, to be kept with its Execution.
    pub(super) fn metadata(&self) -> Result<Option<Box<str>>, CallError> {
        match self.extra.map(str::len) {
            Some(bytes) if bytes > METADATA_BYTES => {
                Err(CallError::Metadata { bytes, limit: METADATA_BYTES })
            }
            Some(_) | None => Ok(self.extra.map(Into::into)),
        }
    }
}
