//! Tools that the daemon answers itself, at once: they take no slot and no permit, so they pass under full load.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::ids::{PrincipalId, RequestId};
use crate::provider::catalog::Catalog;
use crate::provider::{Reply, content};
use crate::tool::Misfit;

/// A tool that the daemon answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Which providers and models there are.
    ListModels,
    /// Which daemon this is.
    Version,
    /// Whether it is well.
    Health,
    /// What it has done.
    ServerStats,
    /// What became of one request.
    GetRequest,
    /// What is under way.
    ListActive,
    /// What the machine has left.
    SystemStats,
}

/// What the built-in tools look at; whoever puts the daemon together brings it.
pub trait Insight: Send + Sync {
    /// The daemon's health.
    fn health(&self) -> Value;
    /// The daemon's statistics.
    fn server_stats(&self) -> Value;
    /// One request of this principal, with its reply if that was kept.
    fn request(&self, who: PrincipalId, id: RequestId) -> Option<Found>;
    /// This principal's requests under way.
    fn active(&self, who: PrincipalId) -> Value;
}

/// What is known of one request.
#[derive(Debug)]
pub struct Found {
    /// Its state and timings.
    pub about: Value,
    /// What it ended with, if that was kept.
    pub reply: Option<Arc<Reply>>,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ListModels,
        Self::Version,
        Self::Health,
        Self::ServerStats,
        Self::GetRequest,
        Self::ListActive,
        Self::SystemStats,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ListModels => "listmodels",
            Self::Version => "version",
            Self::Health => "health",
            Self::ServerStats => "get_server_stats",
            Self::GetRequest => "get_request",
            Self::ListActive => "list_active_requests",
            Self::SystemStats => "get_system_stats",
        }
    }

    /// What a model chooses it by.
    pub fn description(self) -> &'static str {
        match self {
            Self::ListModels => {
                "List the model providers that are configured here, their default models and limits, and which one \
                 answers when a call names none."
            }
            Self::Version => "Tell the name and version of this inflightd daemon.",
            Self::Health => {
                "Tell whether the daemon is well: permits in use and their limits, calls in flight and waiting."
            }
            Self::ServerStats => {
                "Statistics of the daemon: requests and quantiles of their durations, executions and how they ended, \
                 permits by provider, and how many executions deduplication saved."
            }
            Self::GetRequest => {
                "Look up one request by its id (req_…): its state and timings, then its outcome if that was kept, as it is \
                 for a call that was answered before its work had ended, or whose answer was cut. Where an answer was cut, \
                 `offset` goes on with the rest."
            }
            Self::ListActive => {
                "List your requests that are waiting or running now, with their ids, tools and phases."
            }
            Self::SystemStats => {
                "Tell how busy the daemon's machine is: processors in percent, memory in all and still available. Look \
                 before you start heavy work there."
            }
        }
    }

    /// The JSON Schema of its arguments.
    pub fn input_schema(self) -> Map<String, Value> {
        let mut properties = Map::new();
        let mut required = Vec::new();
        match self {
            Self::GetRequest => {
                let id = json!({"type": "string", "pattern": "^req_[0-9a-f]{16}_[0-9]+$",
                    "description": "The id, as the call's answer gave it."});
                properties.insert("request_id".into(), id);
                let offset = json!({"type": "integer", "minimum": 0, "default": 0,
                    "description": "With which character of the outcome to begin."});
                properties.insert("offset".into(), offset);
                required.push(Value::from("request_id"));
            }
            Self::ListModels
            | Self::Version
            | Self::Health
            | Self::ServerStats
            | Self::ListActive
            | Self::SystemStats => {}
        }
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("properties".into(), properties.into());
        schema.insert("required".into(), required.into());
        schema.insert("additionalProperties".into(), false.into());
        schema
    }

    /// Answers.
    ///
    /// # Errors
    /// A request id that nobody of this principal had, or that was forgotten since.
    pub fn answer(
        self,
        arguments: &Value,
        who: PrincipalId,
        catalog: &Catalog,
        insight: &dyn Insight,
    ) -> Result<Reply, Misfit> {
        match self {
            Self::ListModels => Ok(Reply::structured(&models(catalog))),
            Self::Version => {
                Ok(Reply::structured(&json!({"name": "inflightd", "version": env!("CARGO_PKG_VERSION")})))
            }
            Self::Health => Ok(Reply::structured(&insight.health())),
            Self::ServerStats => Ok(Reply::structured(&insight.server_stats())),
            Self::GetRequest => {
                let id = arguments.get("request_id").and_then(Value::as_str).and_then(RequestId::parse);
                let found = id.and_then(|id| Some((id, insight.request(who, id)?)));
                let (id, found) = found.ok_or_else(|| Misfit {
                    path: "request_id".into(),
                    message: "no such request of yours is known; the last 4096 are kept".into(),
                })?;
                match &found.reply {
                    Some(reply) => collected(id, found.about, reply, offset(arguments)?),
                    None => Ok(Reply::structured(&found.about)),
                }
            }
            Self::ListActive => Ok(Reply::structured(&insight.active(who))),
            Self::SystemStats => Ok(Reply::structured(&catalog.machine().latest().shown())),
        }
    }
}

/// The schema takes 1.0 for an integer, and we do not: it must not silently be 0.
fn offset(arguments: &Value) -> Result<usize, Misfit> {
    let Some(asked) = arguments.get("offset") else { return Ok(0) };
    let offset = asked.as_u64().and_then(|offset| usize::try_from(offset).ok());
    offset.ok_or_else(|| Misfit {
        path: "offset".into(),
        message: "it must be a whole number, written without a point".into(),
    })
}

/// What is told of a request, then its outcome from the character `offset` on.
fn collected(id: RequestId, mut about: Value, reply: &Reply, offset: usize) -> Result<Reply, Misfit> {
    let total = content::characters(reply.content());
    if offset > total {
        let message = format!("the outcome has {total} characters");
        return Err(Misfit { path: "offset".into(), message });
    }
    if let Some(members) = about.as_object_mut() {
        members.insert("offset".into(), offset.into());
        members.insert("characters".into(), total.into());
    }
    Ok(Reply::collected(&about.to_string(), &content::after(reply.content(), offset), id, offset))
}

fn models(catalog: &Catalog) -> Value {
    let providers: Vec<_> = catalog
        .entries()
        .iter()
        .map(|entry| {
            json!({
                "provider": &*entry.name,
                "default_model": &*entry.model,
                "max_inflight": entry.max_inflight,
                "timeout_secs": entry.timeout.as_secs_f64(),
            })
        })
        .collect();
    let default = catalog.preferred().map(|(_, entry)| entry.name.to_string());
    let aliases: Vec<_> = catalog
        .aliases()
        .iter()
        .map(|alias| json!({"alias": &*alias.name, "model": &*alias.model, "provider": alias.provider.as_deref()}))
        .collect();
    let mut models = json!({"default_provider": default, "providers": providers});
    if let Some(members) = models.as_object_mut().filter(|_| !aliases.is_empty()) {
        members.insert("aliases".into(), aliases.into());
    }
    models
}
