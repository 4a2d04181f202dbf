//! Finds tools by name, and makes a call's arguments ready to be worked on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Ladder;
use crate::ids::ToolId;
use crate::provider::catalog::Catalog;
use crate::provider::offline::Offline;
use crate::provider::upstream::{self, Server};
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::consensus::{self, AskAll};
use crate::tool::place::{Composite, Lane, LaneId, Place};
use crate::tool::prompt::{Declaration, TimeoutClass};
use crate::tool::{
    Asked as Asking, Builtin, CustomWork, Dedup, Effect, PlainWork, PromptTool, Tool, Unprepared, Work, Worth,
};

mod asking;
mod listed;

pub use listed::Entries;

/// Why a registry cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Two tools of one name.
    #[error("two tools are named `{name}`: one of {first}, one of {second}")]
    Twice {
        /// Which name.
        name: String,
        /// Who brought it first.
        first: String,
        /// Who brings it again.
        second: String,
    },
    /// A name that clients could not carry.
    #[error("the tool name `{0}` must be 1 to 64 of the characters A-Z a-z 0-9 _ - .")]
    Name(String),
    /// A schema that is none.
    #[error("the input schema of `{name}` is not a JSON Schema: {reason}")]
    Schema {
        /// Whose.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The longest name of a tool, in bytes.
const LONGEST_NAME: usize = 64;

/// All tools, and where their work is done. A clone has the same tools.
#[derive(Clone)]
pub struct Registry {
    tools: Vec<Arc<Tool>>,
    /// Those that only composites call.
    inner: Vec<Arc<Tool>>,
    /// Requests of servers that are no calls of tools.
    methods: Vec<Arc<Tool>>,
    by_name: HashMap<Arc<str>, Arc<Tool>>,
    /// Who brings which tool, where that is told.
    owners: HashMap<Arc<str>, Arc<str>>,
    servers: Vec<Arc<Server>>,
    catalog: Catalog,
    lanes: Vec<Lane>,
}

/// A call's work, ready to be done.
pub struct Prepared {
    /// Where it is done.
    pub place: Place,
    /// Content hash of the definition with whatever else decides what comes out, beside the arguments: provider, place and model, or the
    /// content of a file.
    pub definition: u64,
    /// Arguments that are written the same, byte for byte, are made ready in the same way for as long as nothing else is
    /// offered: equal calls need not come here once one of them has.
    pub is_settled: bool,
    /// The model that is asked, where one is.
    pub model: Option<Arc<str>>,
    /// How long it may take there, where the lane's own limit does not hold for it; never longer than its tool allows.
    pub limit: Option<Duration>,
    /// The work.
    pub job: Box<dyn Job>,
}

/// What is registered as one tool.
pub struct Registration {
    /// Its name.
    pub name: String,
    /// What a model chooses it by.
    pub description: String,
    /// What it does to the world.
    pub effect: Effect,
    /// How long it lingers.
    pub worth: Worth,
    /// Who may share one execution, if others than the effect says.
    pub dedup: Option<Dedup>,
    /// How long its results answer equal calls.
    pub cache_ttl: Option<Duration>,
    /// Whose timeout holds.
    pub class: TimeoutClass,
    /// The JSON Schema of its arguments.
    pub input_schema: Map<String, Value>,
    /// Its work numbers its own progress.
    pub counts_steps: bool,
    /// What does the work.
    pub work: Work,
}

impl Registry {
    /// A registry of the declared prompt tools, `consensus` if they have one that it can ask, `echo` and the built-in ones.
    pub fn new(catalog: Catalog, declared: &[Declaration], ladder: &Ladder) -> Result<Self, RegistryError> {
        let lanes = catalog.entries().iter().map(|entry| Lane {
            name: Arc::clone(&entry.name),
            max_inflight: entry.max_inflight,
            timeout: Some(entry.timeout),
        });
        let lanes = lanes.collect();
        let mut registry = Self {
            tools: Vec::new(),
            inner: Vec::new(),
            methods: Vec::new(),
            by_name: HashMap::new(),
            owners: HashMap::new(),
            servers: Vec::new(),
            catalog,
            lanes,
        };
        for declaration in declared {
            registry.register(self::declared(declaration), ladder)?;
        }
        // A tools file may leave out the tool that it asks, or bring its own of that name.
        if registry.find(consensus::ASKS).is_some() && registry.find(consensus::NAME).is_none() {
            registry.register(several(), ladder)?;
        }
        registry.register(echo(), ladder)?;
        for each in Builtin::ALL {
            registry.register(builtin(each), ladder)?;
        }
        Ok(registry)
    }

    /// Adds a lane.
    pub fn add_lane(&mut self, lane: Lane) -> LaneId {
        self.lanes.push(lane);
        LaneId(self.lanes.len() - 1)
    }

    /// All lanes, in the order of their ids: first those of the catalogue's providers.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The lane of that name.
    pub fn lane(&self, name: &str) -> Option<LaneId> {
        self.lanes.iter().position(|lane| &*lane.name == name).map(LaneId)
    }

    /// Adds a tool that whoever embeds the daemon brings along; it works under the provider `offline`.
    pub fn add_custom(
        &mut self,
        name: &str,
        effect: Effect,
        worth: Worth,
        work: Box<dyn PlainWork>,
        ladder: &Ladder,
    ) -> Result<(), RegistryError> {
        let place = Place::Lane(LaneId(self.catalog.offline().0));
        let work = Box::new(AtOffline { place, work });
        let registration = Registration {
            name: name.into(),
            description: name.into(),
            effect,
            worth,
            dedup: None,
            cache_ttl: None,
            class: TimeoutClass::Workflow,
            input_schema: Map::from_iter([("type".into(), "object".into())]),
            counts_steps: false,
            work: Work::Custom(work),
        };
        self.register(registration, ladder)
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// A name or schema that is none, or a name that another tool has.
    pub fn register(&mut self, entry: Registration, ladder: &Ladder) -> Result<(), RegistryError> {
        self.add(self.compiled(entry, ladder)?);
        Ok(())
    }

    /// Adds a tool whose effect depends on the arguments: as it is listed, and the same with other effects.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn register_varied(
        &mut self,
        entry: Registration,
        others: Vec<Registration>,
        ladder: &Ladder,
    ) -> Result<(), RegistryError> {
        self.may_have_its_name(&entry, None)?;
        let mut tool = compile(entry, ladder)?;
        for other in others {
            tool.others.push(Arc::new(compile(other, ladder)?));
        }
        self.add(Arc::new(tool));
        Ok(())
    }

    fn add(&mut self, tool: Arc<Tool>) {
        self.by_name.insert(Arc::clone(&tool.name), Arc::clone(&tool));
        self.tools.push(tool);
    }

    /// Adds a tool that only composites call: it is not listed, and no caller finds it.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn register_inner(&mut self, entry: Registration, ladder: &Ladder) -> Result<(), RegistryError> {
        let tool = self.compiled(entry, ladder)?;
        self.inner.push(tool);
        Ok(())
    }

    fn compiled(&self, entry: Registration, ladder: &Ladder) -> Result<Arc<Tool>, RegistryError> {
        self.may_have_its_name(&entry, None)?;
        Ok(Arc::new(compile(entry, ladder)?))
    }

    /// Whether a tool can have the name that it wants.
    fn may_have_its_name(&self, entry: &Registration, owner: Option<&Arc<str>>) -> Result<(), RegistryError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if entry.name.is_empty() || entry.name.len() > LONGEST_NAME || !entry.name.bytes().all(fits) {
            return Err(RegistryError::Name(entry.name.clone()));
        }
        if let Some(tool) = self.find(&entry.name).or(self.inner(&entry.name)) {
            let second = owner.map_or_else(|| listed::kind(&entry.work).to_owned(), ToString::to_string);
            return Err(RegistryError::Twice { name: entry.name.clone(), first: self.owner(tool), second });
        }
        Ok(())
    }

    /// All tools, in the order in which they are listed.
    pub fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// The providers.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The tool of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<Tool>> {
        self.by_name.get(name)
    }

    /// The tool of that name that only composites call.
    pub fn inner(&self, name: &str) -> Option<&Arc<Tool>> {
        self.inner.iter().find(|tool| &*tool.name == name)
    }

    /// Names near to one that is not there, nearest first, of the tools that are `seen`.
    pub fn near(&self, name: &str, seen: impl Fn(&str) -> bool) -> Vec<String> {
        if name.len() > LONGEST_NAME {
            // Nothing is near to it, and to look would take memory for each of its characters.
            return Vec::new();
        }
        let mut near: Vec<_> = self
            .tools
            .iter()
            .filter(|tool| seen(&tool.name))
            .map(|tool| (strsim::damerau_levenshtein(&tool.name, name), &tool.name))
            .filter(|(distance, tool)| *distance <= 3.max(tool.len() / 3) || tool.contains(name))
            .collect();
        near.sort();
        near.into_iter().take(3).map(|(_, name)| name.to_string()).collect()
    }

    /// Makes what is asked ready to be worked on; `None` for a built-in tool, whose answer needs no work.
    ///
    /// # Errors
    /// A provider that is not there, or what custom work has to say.
    pub fn prepare(&self, tool: &Tool, asked: Asking<'_>) -> Result<Option<Prepared>, Unprepared> {
        let (offline_place, offline) = self.catalog.offline();
        if let Work::Custom(work) = &tool.work {
            let prepared = work.prepare(asked)?;
            let definition = mixed([tool.definition, prepared.definition]);
            return Ok(Some(Prepared { definition, ..prepared }));
        }
        match &tool.work {
            Work::Builtin(_) => Ok(None),
            Work::Echo => {
                let job = Box::new(Echo { offline: offline.clone(), text: take_text(asked.arguments) });
                Ok(Some(Prepared {
                    place: Place::Lane(LaneId(offline_place)),
                    definition: tool.definition,
                    is_settled: true,
                    model: None,
                    limit: None,
                    job,
                }))
            }
            Work::Prompt(prompt) => Ok(Some(self.ask(tool, prompt, asked)?)),
            Work::Consensus => {
                let mut definition = tool.definition;
                let all = self.all_asked(&asked.arguments, &mut definition)?;
                let job = Box::new(AskAll::new(&asked.arguments, all));
                let place = Place::Composite(Composite::Consensus);
                Ok(Some(Prepared { place, definition, is_settled: true, model: None, limit: None, job }))
            }
            Work::Custom(_) => unreachable!("it was made ready above"),
        }
    }
}

/// One hash of several.
fn mixed<const N: usize>(parts: [u64; N]) -> u64 {
    xxh3_64(parts.map(u64::to_le_bytes).as_flattened())
}

fn take_text(arguments: Value) -> String {
    match arguments {
        Value::Object(mut members) => match members.remove("text") {
            Some(Value::String(text)) => text,
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn compile(entry: Registration, ladder: &Ladder) -> Result<Tool, RegistryError> {
    let schema = Value::Object(entry.input_schema);
    let validator = jsonschema::validator_for(&schema)
        .map_err(|error| RegistryError::Schema { name: entry.name.clone(), reason: error.to_string() })?;
    let plain = json!({"name": entry.name, "description": entry.description, "inputSchema": schema});
    let mut listing = plain.clone();
    if let Value::Object(members) = &mut listing {
        members.insert("annotations".into(), annotations(entry.effect));
    }
    let timeout = match entry.class {
        TimeoutClass::Workflow => ladder.workflow_tool,
        TimeoutClass::Expert => ladder.expert_tool,
    };
    let source = format!("{plain}{:?}{}", entry.work, entry.effect.label());
    Ok(Tool {
        id: ToolId::of(&entry.name),
        name: Arc::from(&*entry.name),
        effect: entry.effect,
        dedup: entry.dedup.unwrap_or(entry.effect.default_dedup()),
        cache_ttl: entry.cache_ttl,
        worth: entry.worth,
        timeout,
        definition: xxh3_64(source.as_bytes()),
        counts_steps: entry.counts_steps,
        work: entry.work,
        mirrored: upstream::mirrored(&schema).unwrap_or_default().into(),
        listing: listing.to_string().into(),
        plain_listing: plain.to_string().into(),
        others: Vec::new(),
        validator,
    })
}

fn annotations(effect: Effect) -> Value {
    json!({"readOnlyHint": effect == Effect::Read, "idempotentHint": effect != Effect::Write, "destructiveHint": effect == Effect::Write})
}

fn declared(declaration: &Declaration) -> Registration {
    Registration {
        name: declaration.name.clone(),
        description: declaration.description.clone(),
        effect: declaration.effect,
        worth: PromptTool::WORTH,
        dedup: declaration.dedup,
        cache_ttl: declaration
            .cache_ttl_secs
            .filter(|secs| *secs > 0)
            .map(|secs| Duration::from_secs(secs.into())),
        class: declaration.class,
        input_schema: declaration.input_schema.clone(),
        counts_steps: false,
        work: Work::Prompt(PromptTool::new(declaration)),
    }
}

fn several() -> Registration {
    Registration {
        name: consensus::NAME.into(),
        description: consensus::DESCRIPTION.into(),
        effect: Effect::Read,
        worth: Worth::Paid,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Expert,
        input_schema: consensus::input_schema(),
        counts_steps: true,
        work: Work::Consensus,
    }
}

fn echo() -> Registration {
    let schema = json!({
        "type": "object",
        "required": ["text"],
        "additionalProperties": false,
        "properties": {"text": {"type": "string", "description": "What comes back."}},
    });
    let description = "Return the text it is sent. It goes through every stage that a real call goes through, so use it \
        to try the connection and to measure it.";
    Registration {
        name: "echo".into(),
        description: description.into(),
        effect: Effect::Read,
        worth: Worth::Cheap,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        input_schema: schema.as_object().cloned().unwrap_or_default(),
        counts_steps: false,
        work: Work::Echo,
    }
}

fn builtin(which: Builtin) -> Registration {
    Registration {
        name: which.name().into(),
        description: which.description().into(),
        effect: Effect::Read,
        worth: Worth::Cheap,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        input_schema: which.input_schema(),
        counts_steps: false,
        work: Work::Builtin(which),
    }
}

/// Work that says nothing of its place.
#[derive(Debug)]
struct AtOffline {
    place: Place,
    work: Box<dyn PlainWork>,
}

impl CustomWork for AtOffline {
    fn prepare(&self, asked: Asking<'_>) -> Result<Prepared, Unprepared> {
        let job = self.work.job(&asked.arguments);
        Ok(Prepared { place: self.place, definition: 0, is_settled: true, model: None, limit: None, job })
    }
}

struct Echo {
    offline: Offline,
    text: String,
}

impl Job for Echo {
    fn run(
        self: Box<Self>,
        context: Context,
    ) -> futures_util::future::BoxFuture<'static, Result<Reply, Fault>> {
        self.offline.echo(self.text, context)
    }
}
