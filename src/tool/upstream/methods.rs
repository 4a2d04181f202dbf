//! What servers serve beside tools, on the path of a call: prompts, resources and completions. Each of these methods is
//! worked on as a tool is, in its server's lane; it is in no list, and no caller of tools finds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Map;
use serde_json::value::RawValue;

use crate::config::Ladder;
use crate::config::servers::Share;
use crate::provider::push_json_string;
use crate::provider::upstream::{Errand, InUse, Owner, Server, What};
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::place::{LaneId, Place};
use crate::tool::prompt::TimeoutClass;
use crate::tool::registry::{Prepared, Registration, RegistryError};
use crate::tool::{Asked, CustomWork, Dedup, Effect, Misfit, Registry, Unprepared, Work, Worth};

/// A method that is passed to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `resources/read`
    Read,
    /// `prompts/get`
    Get,
    /// `completion/complete`
    Complete,
    /// `resources/subscribe`, which waits for what the server says to it.
    Subscribe,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Get, Self::Complete, Self::Subscribe];
    /// Those of both eras, whose answers are the servers'.
    pub const PASSED: [Self; 3] = [Self::Read, Self::Get, Self::Complete];

    /// As the protocol calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "resources/read",
            Self::Get => "prompts/get",
            Self::Complete => "completion/complete",
            Self::Subscribe => "resources/subscribe",
        }
    }

    /// Whether its server may ask before it answers.
    pub fn may_ask(self) -> bool {
        match self {
            Self::Read | Self::Get => true,
            Self::Complete | Self::Subscribe => false,
        }
    }

    /// What it is called at this server: what lists of allowed tools know it by. No tool's name has a slash.
    pub fn at(self, server: &Server) -> String {
        format!("{}__{}", server.name(), self.name())
    }
}

/// What callers call a prompt of this server.
pub fn prompt_name(server: &Server, own: &str) -> String {
    if server.config().prefix { format!("{}__{own}", server.name()) } else { own.to_owned() }
}

/// Adds the methods of a server, in its lane.
pub(super) fn offer(
    registry: &mut Registry,
    server: &Arc<Server>,
    lane: LaneId,
    ladder: &Ladder,
) -> Result<(), RegistryError> {
    for method in Method::ALL {
        let work = Passing { server: Arc::clone(server), method, lane, digest: server.config().digest() };
        let alone = server.config().share == Share::Session;
        registry.register_method(
            Registration {
                name: method.at(server),
                description: method.name().to_owned(),
                effect: Effect::Read,
                worth: Worth::Cheap,
                dedup: alone.then_some(Dedup::Session),
                cache_ttl: None,
                class: TimeoutClass::Workflow,
                counts_steps: true,
                input_schema: Map::from_iter([("type".into(), "object".into())]),
                work: Work::Custom(Box::new(work)),
            },
            ladder,
        )?;
    }
    Ok(())
}

struct Passing {
    server: Arc<Server>,
    method: Method,
    lane: LaneId,
    digest: u64,
}

impl std::fmt::Debug for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{:x}", self.method.at(&self.server), self.digest)
    }
}

type Members = BTreeMap<String, Box<RawValue>>;

impl Passing {
    /// The parameters as the server knows them: by its own names.
    fn params(&self, text: &str) -> Result<Vec<(String, Box<str>)>, Misfit> {
        let wrong = |path: &str| Misfit { path: path.into(), message: "it makes no sense".into() };
        let mut members: Members = serde_json::from_str(text).map_err(|_| wrong("params"))?;
        let own = |json: &RawValue| {
            let name: String = serde_json::from_str(json.get()).ok()?;
            let prefix = format!("{}__", self.server.name());
            let own = if self.server.config().prefix { name.strip_prefix(&*prefix)? } else { &*name };
            let mut json = String::new();
            push_json_string(&mut json, own);
            RawValue::from_string(json).ok()
        };
        if self.method == Method::Get {
            let name = members.get_mut("name").ok_or_else(|| wrong("name"))?;
            *name = own(name).ok_or_else(|| wrong("name"))?;
        }
        if let Some(reference) = members.get_mut("ref").filter(|_| self.method == Method::Complete) {
            let mut inner: Members = serde_json::from_str(reference.get()).map_err(|_| wrong("ref"))?;
            if let Some(name) = inner.get_mut("name") {
                *name = own(name).ok_or_else(|| wrong("ref/name"))?;
                *reference = serde_json::value::to_raw_value(&inner).map_err(|_| wrong("ref"))?;
            }
        }
        Ok(members.into_iter().map(|(name, json)| (name, json.get().into())).collect())
    }
}

impl CustomWork for Passing {
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared> {
        if self.method == Method::Subscribe {
            return self.settles(&asked);
        }
        let what = What::Method { name: self.method.name(), params: self.params(asked.text)? };
        let owner = self.server.owner(asked.principal, asked.session);
        let errand = Errand { owner, principal: asked.principal, what, continued: asked.continued };
        let job = Box::new(Pass { server: self.server.claim(), errand, method: self.method });
        Ok(Prepared {
            place: Place::Lane(self.lane),
            definition: self.digest,
            is_settled: true,
            model: None,
            limit: None,
            job,
        })
    }
}

impl Passing {
    /// Waits for what the server says: the caller's door has had it asked already.
    fn settles(&self, asked: &Asked<'_>) -> Result<Prepared, Unprepared> {
        let owner = self.server.owner(asked.principal, asked.session);
        let uri = self.params(asked.text)?.into_iter().find(|(name, _)| name == "uri");
        let uri = uri.and_then(|(_, json)| serde_json::from_str::<Box<str>>(&json).ok());
        let uri = uri.ok_or_else(|| Misfit { path: "uri".into(), message: "it makes no sense".into() })?;
        let job = Box::new(Settle { server: self.server.claim(), owner, uri });
        Ok(Prepared {
            place: Place::Lane(self.lane),
            definition: self.digest,
            is_settled: true,
            model: None,
            limit: None,
            job,
        })
    }
}

struct Settle {
    server: InUse,
    owner: Owner,
    uri: Box<str>,
}

impl Job for Settle {
    fn run(self: Box<Self>, _context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move { self.server.settled(self.owner, &self.uri).await }.boxed()
    }

    fn asks(&self) -> bool {
        false
    }
}

struct Pass {
    server: InUse,
    errand: Errand,
    method: Method,
}

impl Job for Pass {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let Self { server, errand, .. } = *self;
        server.run(errand, context).boxed()
    }

    fn asks(&self) -> bool {
        self.method.may_ask() && self.server.server().may_ask()
    }
}
