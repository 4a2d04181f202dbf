//! What carries requests to a server, whichever way: pipes of a child, or HTTP.

use std::sync::Arc;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::provider::asking::{Ask, Can};
use crate::provider::upstream::http::Session;
use crate::provider::upstream::message::{Draft, Era};
use crate::provider::upstream::pipe::{Failed, Outcome, Pipe};
use crate::provider::{Level, Tell};

/// A request before it has an id.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// Its method.
    pub(super) method: &'a str,
    /// Its parameters, without `_meta`.
    pub(super) params: &'a [(&'a str, Param<'a>)],
    /// Members of `_meta` that the caller brings, each with a comma before it.
    pub(super) meta: &'a str,
    /// Headers over HTTP in the stateless era: `Mcp-Param-…`.
    pub(super) headers: &'a [(String, String)],
    /// When nobody waits any more: it travels along.
    pub(super) deadline: Option<Deadline>,
    /// Who is told of progress.
    pub(super) tell: Option<&'a Arc<dyn Tell>>,
    /// From which level on somebody reads the log of the work: said in the stateless era.
    pub(super) log: Option<Level>,
    /// Who is asked what the server asks on the stream of this request.
    pub(super) ask: Option<&'a Arc<dyn Ask>>,
    /// What whoever calls can be asked for: said in the stateless era.
    pub(super) can: Can,
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Param<'a> {
    /// A text.
    Text(&'a str),
    /// JSON text, sent as it is.
    Json(&'a str),
}

impl<'a> Request<'a> {
    /// A plain one.
    pub(super) fn new(method: &'a str, params: &'a [(&'a str, Param<'a>)]) -> Self {
        Self {
            method,
            params,
            meta: "",
            headers: &[],
            deadline: None,
            tell: None,
            log: None,
            ask: None,
            can: Can::NOTHING,
        }
    }

    /// The text parameter of this name.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find_map(|(key, value)| match value {
            Param::Text(text) if *key == name => Some(*text),
            Param::Text(_) | Param::Json(_) => None,
        })
    }

    /// The message, under this id.
    pub(super) fn write(&self, id: u64, era: Era) -> String {
        let bytes = self.params.iter().map(|(_, value)| match value {
            Param::Text(text) | Param::Json(text) => text.len(),
        });
        let mut draft = Draft::new(id, self.method, bytes.sum::<usize>() + self.meta.len());
        for (name, value) in self.params {
            draft = match value {
                Param::Text(text) => draft.text(name, text),
                Param::Json(json) => draft.raw(name, json),
            };
        }
        let mut digits = itoa::Buffer::new();
        let mut meta = String::new();
        if self.tell.is_some() {
            meta.push_str(",\"progressToken\":");
            meta.push_str(digits.format(id));
        }
        if let Some(deadline) = self.deadline {
            // Another inflightd takes it for what it is; whoever else may.
            meta.push_str(",\"inflightd/timeout_ms\":");
            let left = deadline.remaining().max(Duration::from_millis(1)).as_millis();
            meta.push_str(digits.format(u64::try_from(left).unwrap_or(u64::MAX)));
        }
        if let Some(level) = self.log.filter(|_| era == Era::Stateless) {
            meta.push_str(",\"io.modelcontextprotocol/logLevel\":\"");
            meta.push_str(level.name());
            meta.push('"');
        }
        meta.push_str(self.meta);
        draft.meta(era, self.can, &meta).done()
    }
}

/// A connection to a server.
#[derive(Clone)]
pub(super) enum Link {
    /// A child's pipes.
    Pipe(Pipe),
    /// HTTP.
    Http(Arc<Session>),
}

impl Link {
    /// Asks, and waits for the answer. Dropping what is returned takes the request back.
    pub(super) async fn ask(&self, request: Request<'_>, era: Era) -> Outcome {
        match self {
            Self::Pipe(pipe) => {
                let id = pipe.next_id();
                pipe.ask(id, request.write(id, era), request.tell.cloned())?.await
            }
            Self::Http(session) => session.ask(request, era).await,
        }
    }

    /// Tells it something.
    pub(super) async fn notify(&self, line: String) -> Result<(), Failed> {
        match self {
            Self::Pipe(pipe) => pipe.notify(line),
            Self::Http(session) => session.notify(line).await,
        }
    }
}
