//! Tools that say themselves how they are listed: those of upstream servers.

use std::sync::Arc;

use serde_json::Map;
use xxhash_rust::xxh3::xxh3_64;

use super::{Registration, Registry, RegistryError, compile};
use crate::config::Ladder;
use crate::provider::upstream::Server;
use crate::tool::{Tool, Work};

/// How a tool is listed, and whose it is.
pub struct Entries {
    /// For MCP.
    pub full: String,
    /// For the op protocol.
    pub plain: String,
    /// Who brings it: `server git`.
    pub owner: Arc<str>,
}

impl Registry {
    /// Adds a tool as its owner lists it. A schema that is none checks nothing: its owner does.
    ///
    /// # Errors
    /// A name that is none, or that another tool has.
    pub fn register_listed(
        &mut self,
        mut entry: Registration,
        entries: Entries,
        ladder: &Ladder,
    ) -> Result<(), RegistryError> {
        if jsonschema::validator_for(&entry.input_schema.clone().into()).is_err() {
            entry.input_schema = Map::from_iter([("type".into(), "object".into())]);
        }
        self.may_have_its_name(&entry, Some(&entries.owner))?;
        let mut tool = compile(entry, ladder)?;
        let mut source = tool.definition.to_le_bytes().to_vec();
        source.extend_from_slice(entries.full.as_bytes());
        tool.definition = xxh3_64(&source);
        tool.listing = entries.full.into();
        tool.plain_listing = entries.plain.into();
        let tool = Arc::new(tool);
        self.owners.insert(Arc::clone(&tool.name), entries.owner);
        self.by_name.insert(Arc::clone(&tool.name), Arc::clone(&tool));
        self.tools.push(tool);
        Ok(())
    }

    /// Adds a request of a server's that is no call of a tool.
    ///
    /// # Errors
    /// A schema that is none.
    pub fn register_method(&mut self, entry: Registration, ladder: &Ladder) -> Result<(), RegistryError> {
        let tool = compile(entry, ladder)?;
        self.methods.push(Arc::new(tool));
        Ok(())
    }

    /// The request of that name.
    pub fn method(&self, name: &str) -> Option<&Arc<Tool>> {
        self.methods.iter().find(|tool| &*tool.name == name)
    }

    /// Adds a server whose tools are offered, if it lists any.
    pub fn add_server(&mut self, server: Arc<Server>) {
        self.servers.push(server);
    }

    /// The upstream servers.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Who brings a tool.
    pub(super) fn owner(&self, tool: &Tool) -> String {
        self.owners.get(&tool.name).map_or_else(|| kind(&tool.work).to_owned(), ToString::to_string)
    }
}

/// Who brings such work.
pub(super) fn kind(work: &Work) -> &'static str {
    match work {
        Work::Builtin(_) | Work::Echo | Work::Consensus => "the daemon itself",
        Work::Prompt(_) => "the tools file",
        Work::Custom(_) => "a module or a flow",
    }
}
