//! Tools of upstream servers: `server__tool`, with the effect that the operator says, or that the server hints at.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Map;

use crate::config::Ladder;
use crate::config::servers::{SaidEffect, ServerConfig, Share};
use crate::provider::upstream::{Errand, InUse, Listed, Mirrored, Server, What};
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::place::{Lane, LaneId, Place};
use crate::tool::prompt::TimeoutClass;
use crate::tool::registry::{Entries, Prepared, Registration, RegistryError};
use crate::tool::{Asked, CustomWork, Dedup, Effect, Registry, Unprepared, Work, Worth};

pub mod methods;

/// Adds the tools that a server has listed, in a lane of their own; returns why some are left out.
pub fn offer(registry: &mut Registry, server: &Arc<Server>, ladder: &Ladder) -> Vec<RegistryError> {
    let config = server.config();
    let owner: Arc<str> = Arc::from(format!("server {}", config.name));
    let lane = registry.add_lane(Lane {
        name: Arc::clone(&owner),
        max_inflight: config.max_inflight,
        timeout: config.timeout,
    });
    let digest = config.digest();
    registry.add_server(Arc::clone(server));
    // Of names that no tool can have: only a server of the same name would be in the way, and there is none.
    let mut left_out: Vec<_> = methods::offer(registry, server, lane, ladder).err().into_iter().collect();
    let Some(listing) = server.listing() else { return left_out };
    for listed in &listing.tools {
        let Some(name) = config.offered_as(&listed.name) else { continue };
        let work = UpstreamTool {
            server: Arc::clone(server),
            tool: Arc::from(&*listed.name),
            lane,
            digest,
            mirrored: Arc::from(&*listed.mirrored),
        };
        let entries = Entries {
            full: listed.entry(&name),
            plain: listed.plain_entry(&name),
            owner: Arc::clone(&owner),
        };
        let registration = registration(config, listed, name, Work::Custom(Box::new(work)));
        left_out.extend(registry.register_listed(registration, entries, ladder).err());
    }
    server.not_offered(left_out.iter().map(ToString::to_string).collect());
    left_out
}

fn registration(config: &ServerConfig, listed: &Listed, name: String, work: Work) -> Registration {
    let effect = effect(config, listed);
    // What is in one session's process is no answer for another session.
    let alone = config.share == Share::Session && effect == Effect::Read;
    Registration {
        name,
        description: listed.description.to_string(),
        effect,
        worth: Worth::Cheap,
        dedup: alone.then_some(Dedup::Session),
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        counts_steps: true,
        input_schema: listed.schema.as_object().cloned().unwrap_or_else(Map::new),
        work,
    }
}

/// The operator's word beats a stranger's hint; where nobody says anything, each call counts.
fn effect(config: &ServerConfig, listed: &Listed) -> Effect {
    match config.effect_of(&listed.name) {
        Some(SaidEffect::Read) => Effect::Read,
        Some(SaidEffect::Idempotent) => Effect::Idempotent,
        None if listed.says_read_only => Effect::Read,
        None if listed.says_idempotent => Effect::Idempotent,
        Some(SaidEffect::Write) | None => Effect::Write,
    }
}

/// One tool of a server.
struct UpstreamTool {
    server: Arc<Server>,
    /// By its server's own name.
    tool: Arc<str>,
    lane: LaneId,
    /// Of its server's configuration.
    digest: u64,
    mirrored: Arc<[Mirrored]>,
}

/// Whatever is part of a call's key.
impl std::fmt::Debug for UpstreamTool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{:x}", self.server.name(), self.tool, self.digest)
    }
}

impl CustomWork for UpstreamTool {
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared> {
        let what = What::Tool {
            name: Arc::clone(&self.tool),
            arguments: asked.text.into(),
            mirrored: Arc::clone(&self.mirrored),
        };
        let owner = self.server.owner(asked.principal, asked.session);
        let errand = Errand { owner, principal: asked.principal, what, continued: asked.continued };
        let job = Box::new(Call { server: self.server.claim(), errand });
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

struct Call {
    server: InUse,
    errand: Errand,
}

impl Job for Call {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let Self { server, errand } = *self;
        server.run(errand, context).boxed()
    }

    fn asks(&self) -> bool {
        self.server.server().may_ask()
    }
}
