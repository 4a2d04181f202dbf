//! Tools that the daemon answers itself, at once: they take no slot and no permit, so they pass under full load.

use serde_json::{Map, Value, json};

use crate::ids::{PrincipalId, RequestId};
use crate::provider::Reply;
use crate::provider::catalog::Catalog;
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
}

/// What the built-in tools look at; whoever puts the daemon together brings it.
pub trait Insight: Send + Sync {
    /// The daemon's health.
    fn health(&self) -> Value;
    /// The daemon's statistics.
    fn server_stats(&self) -> Value;
    /// One request of this principal, with its outcome if that was kept.
    fn request(&self, who: PrincipalId, id: RequestId) -> Option<Value>;
    /// This principal's requests under way.
    fn active(&self, who: PrincipalId) -> Value;
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ListModels,
        Self::Version,
        Self::Health,
        Self::ServerStats,
        Self::GetRequest,
        Self::ListActive,
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
                "Look up one request by its id (req_…): its state and timings, and its outcome if that was kept, as it is \
                 for a call that timed out while its work went on."
            }
            Self::ListActive => {
                "List your requests that are waiting or running now, with their ids, tools and phases."
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
                required.push(Value::from("request_id"));
            }
            Self::ListModels | Self::Version | Self::Health | Self::ServerStats | Self::ListActive => {}
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
                let found = id.and_then(|id| insight.request(who, id));
                found.map(|found| Reply::structured(&found)).ok_or_else(|| Misfit {
                    path: "request_id".into(),
                    message: "no such request of yours is known; the last 4096 are kept".into(),
                })
            }
            Self::ListActive => Ok(Reply::structured(&insight.active(who))),
        }
    }
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
    json!({"default_provider": default, "providers": providers})
}
