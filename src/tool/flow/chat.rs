//! The chat call of a node: whom it is put to, with which key and model.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, Ladder, ProviderConfig, Secret, Wire, keys};
use crate::provider::catalog::{Catalog, ProviderEntry};
use crate::provider::chat::{ChatProvider, ChatRequest, ChatRole, Message, Meter, Parameters};
use crate::provider::flow::kind::{ModelMode, NodeKind};
use crate::provider::flow::question::{ASKS, Question};
use crate::provider::llm::Llm;
use crate::provider::offline;
use crate::provider::pool::PoolRules;
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::place::{Lane, LaneId, Place};
use crate::tool::prompt::{Ask, Bill, TimeoutClass};
use crate::tool::registry::{Prepared, Registration, RegistryError};
use crate::tool::{Asked, CustomWork, Effect, Misfit, Registry, Unprepared, Work, Worth};

/// Where nodes ask that name an endpoint of their own.
const LANE: &str = "flow-endpoints";
/// Calls at once to all of them: as many as to a provider of one's own.
const LANE_MAX_INFLIGHT: usize = 8;
/// Connections with keys and endpoints of nodes are kept for so many.
const MOST_OWN: usize = 64;
/// What editors call an endpoint that only speaks like `OpenAI`.
const NAMELESS: [&str; 6] =
    ["compatible", "openai_compatible", "openai-compatible", "openaicompatible", "custom", "generic"];

/// Adds the inner tool, and the lane of endpoints that are no provider's.
pub(super) fn offer(registry: &mut Registry, config: &Config, ladder: &Ladder) -> Result<(), RegistryError> {
    let lane =
        registry.add_lane(Lane { name: Arc::from(LANE), max_inflight: LANE_MAX_INFLIGHT, timeout: None });
    let asker = Asker {
        catalog: registry.catalog().clone(),
        providers: config.providers.clone(),
        lane,
        own: Arc::new(Own {
            rules: PoolRules { idle: config.idle_connections, connect: config.ladder.connect },
            made: Mutex::default(),
        }),
    };
    let registration = Registration {
        name: ASKS.into(),
        description: "The chat call of a flow's node.".into(),
        effect: Effect::Read,
        worth: Worth::Paid,
        dedup: None,
        cache_ttl: None,
        class: TimeoutClass::Workflow,
        input_schema: Question::schema(),
        counts_steps: false,
        work: Work::Custom(Box::new(asker)),
    };
    registry.register_inner(registration, ladder)
}

struct Asker {
    catalog: Catalog,
    providers: Vec<ProviderConfig>,
    lane: LaneId,
    own: Arc<Own>,
}

/// Whatever is part of a call's key, beside its arguments and whom they are put to.
impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asker")
    }
}

/// Connections to endpoints, or with keys, that only nodes name.
struct Own {
    rules: PoolRules,
    made: Mutex<HashMap<[u8; 32], Llm>>,
}

impl Own {
    /// The connections for a provider that is not configured so.
    fn connect(&self, config: &ProviderConfig) -> Result<Llm, String> {
        let key = config.api_key.as_ref().map_or("", Secret::reveal);
        let mut hash = blake3::Hasher::new();
        for part in [&*config.name, &config.base_url, key, &format!("{:?}", config.wire)] {
            hash.update(&part.len().to_le_bytes()).update(part.as_bytes());
        }
        let hash = *hash.finalize().as_bytes();
        if let Some(made) = self.made.lock().get(&hash) {
            return Ok(made.clone());
        }
        let llm = Llm::new(config, self.rules).map_err(|error| format!("The node cannot ask: {error}."))?;
        let mut made = self.made.lock();
        if made.len() >= MOST_OWN {
            made.clear();
        }
        made.insert(hash, llm.clone());
        Ok(llm)
    }
}

/// Whom a question is put to.
enum Target {
    /// A provider as it is configured.
    Configured(usize),
    /// One that the node says more of: an endpoint, a key. In whose lane, where it is the same place.
    Own(Option<usize>, Box<ProviderConfig>),
}

fn misfit(path: &str, message: impl Into<String>) -> Misfit {
    Misfit { path: path.into(), message: message.into() }
}

/// What is known of a provider by its name alone.
fn preset(name: &str, key: &str) -> Option<&'static str> {
    let name = format!("{}_{key}", name.to_ascii_uppercase());
    keys::find(&name).map(|key| key.default.shown()).filter(|shown| !shown.is_empty())
}

fn usual_url(name: Option<&str>, kind: NodeKind) -> Option<&str> {
    match name {
        Some(name) if kind.provider() == Some(name) => kind.base_url(),
        Some(name) => preset(name, "API_URL"),
        None => None,
    }
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

impl Asker {
    fn target(&self, question: &Question<'_>, kind: NodeKind) -> Result<Target, Misfit> {
        let said = question.provider.as_deref().filter(|name| !NAMELESS.contains(name));
        let is_nameless = question.provider.is_some() && said.is_none();
        let name = said.or(if is_nameless { None } else { kind.provider() });
        let usual = usual_url(name, kind);
        // What an editor fills in by itself says nothing: the type's default, or the provider's own.
        let is_usual =
            |url: &&str| [kind.base_url(), usual].into_iter().flatten().any(|usual| same(usual, url));
        let url = question.base_url.as_deref().filter(|url| !is_usual(url));
        let key = question.api_key.clone().map(Secret::new);
        let found = match (name, url) {
            (Some(name), _) => self.catalog.find(name),
            (None, None) => self.catalog.preferred(),
            (None, Some(_)) => None,
        };
        let config =
            found.and_then(|(_, entry)| self.providers.iter().find(|each| *each.name == *entry.name));
        match (found, config, url) {
            (Some((place, _)), Some(config), None) => Ok(match key {
                None => Target::Configured(place),
                Some(_) => {
                    Target::Own(Some(place), Box::new(ProviderConfig { api_key: key, ..config.clone() }))
                }
            }),
            (Some((place, _)), Some(config), Some(url)) if same(&config.base_url, url) => Ok(match key {
                None => Target::Configured(place),
                Some(_) => {
                    Target::Own(Some(place), Box::new(ProviderConfig { api_key: key, ..config.clone() }))
                }
            }),
            // `offline` has neither address nor key.
            (Some((place, _)), None, None) => Ok(Target::Configured(place)),
            (_, _, Some(url)) => Ok(Target::Own(None, Box::new(own(name, sound(url)?, key)))),
            (None, _, None) => match (usual, name) {
                (Some(url), _) if key.is_some() => {
                    Ok(Target::Own(None, Box::new(own(name, url.to_owned(), key))))
                }
                // A fresh machine: flows are tried before anybody has a key.
                _ if self.providers.is_empty() => Ok(Target::Configured(self.catalog.offline().0)),
                _ => {
                    let name = name.unwrap_or_default().chars().take(64).collect::<String>();
                    let why = format!("{name} is not configured here, and the node has no api_key");
                    Err(misfit("provider", why))
                }
            },
        }
    }
}

/// A provider of which only the node speaks. A key that is configured is never sent to an address that is not.
fn own(name: Option<&str>, base_url: String, api_key: Option<Secret>) -> ProviderConfig {
    let wire = match name {
        Some("gemini") => Wire::Gemini,
        Some("anthropic") => Wire::Anthropic,
        _ => Wire::OpenAi,
    };
    let host = reqwest::Url::parse(&base_url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let timeout = std::time::Duration::MAX;
    ProviderConfig {
        name: name.map(str::to_owned).or(host).unwrap_or_default().into(),
        wire,
        model: name.and_then(|name| preset(name, "MODEL")).unwrap_or_default().to_owned(),
        base_url,
        api_key,
        max_inflight: LANE_MAX_INFLIGHT,
        timeout,
        follow_up_timeout: timeout,
        stream: true,
        newer_max_tokens: name == Some("openai"),
    }
}

/// An address that a node may name.
fn sound(url: &str) -> Result<String, Misfit> {
    let parsed = reqwest::Url::parse(url).ok();
    let is_sound = |url: &reqwest::Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let parsed = parsed.filter(is_sound);
    let parsed = parsed.ok_or_else(|| {
        misfit("base_url", "it is not an http or https URL without user, query and fragment")
    })?;
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// A number as it goes over the wire.
fn literal(number: f64) -> Option<Box<RawValue>> {
    RawValue::from_string(serde_json::Number::from_f64(number)?.to_string()).ok()
}

fn parameters(question: &Question<'_>, wire: Option<Wire>) -> Parameters {
    let name = if wire == Some(Wire::Gemini) { "topP" } else { "top_p" };
    // Newer models of Anthropic take one of the two only, and 1 changes nothing.
    #[expect(clippy::float_cmp, reason = "exactly this value changes nothing")]
    let is_left_out = wire == Some(Wire::Anthropic) && question.top_p == 1.0;
    let top_p = literal(question.top_p).filter(|_| !is_left_out);
    Parameters {
        temperature: literal(question.temperature),
        max_tokens: None,
        more: top_p.map(|top_p| (name.to_owned(), top_p)).into_iter().collect(),
    }
}

/// Where a question goes, and what is known of whoever is there.
struct Address<'a> {
    lane: LaneId,
    /// Its entry in the catalogue, where it has one.
    entry: Option<&'a ProviderEntry>,
    name: Arc<str>,
    place: &'a str,
    model: &'a str,
    wire: Option<Wire>,
}

impl Asker {
    fn entry(&self, place: usize) -> &ProviderEntry {
        let entry = self.catalog.entries().get(place);
        entry.unwrap_or_else(|| unreachable!("a place comes from this very catalogue"))
    }

    fn address<'a>(&'a self, target: &'a Target) -> Address<'a> {
        match target {
            Target::Configured(place) => {
                let entry = self.entry(*place);
                let config = self.providers.iter().find(|each| *each.name == *entry.name);
                Address {
                    lane: LaneId(*place),
                    entry: Some(entry),
                    name: Arc::clone(&entry.name),
                    place: &entry.place,
                    model: &entry.model,
                    wire: config.map(|config| config.wire),
                }
            }
            Target::Own(place, config) => Address {
                lane: place.map_or(self.lane, LaneId),
                entry: place.map(|place| self.entry(place)),
                name: Arc::from(&*config.name),
                place: &config.base_url,
                model: &config.model,
                wire: Some(config.wire),
            },
        }
    }

    /// The model that the node names, or whoever it asks has; `None` where one is picked from a list.
    fn model(
        &self,
        question: &Question<'_>,
        mode: ModelMode,
        to: &Address<'_>,
    ) -> Result<Option<Arc<str>>, Misfit> {
        match mode {
            _ if &*to.name == offline::NAME => Ok(Some(Arc::from(to.model))),
            ModelMode::Random | ModelMode::RandomFree => Ok(None),
            ModelMode::Choose => {
                let said = question.model.as_deref();
                let alias = said.and_then(|model| self.catalog.alias(model, Some(&to.name)));
                let model = alias.map(|alias| &*alias.model).or(said).unwrap_or(to.model);
                let named = Some(model).filter(|model| !model.is_empty());
                named
                    .map(|model| Some(Arc::from(model)))
                    .ok_or_else(|| misfit("model", "the node names none"))
            }
        }
    }
}

impl CustomWork for Asker {
    fn prepare(&self, asked: Asked<'_>) -> Result<Prepared, Unprepared> {
        let question: Question<'_> = serde_json::from_str(asked.text)
            .map_err(|_| misfit("arguments", "they are no question of a node"))?;
        let kind = NodeKind::parse(&question.kind).ok_or_else(|| misfit("kind", "there is no such type"))?;
        let mode = ModelMode::parse(&question.model_mode).unwrap_or(kind.model_mode());
        let target = self.target(&question, kind)?;
        let to = self.address(&target);
        let model = self.model(&question, mode, &to)?;
        let named = model.clone().unwrap_or_default();
        let system = question.system.as_ref().map(|text| Message::text(ChatRole::System, &**text));
        let said = Message::text(ChatRole::User, &*question.text);
        let request = ChatRequest {
            model: Arc::clone(&named),
            messages: system.into_iter().chain([said]).map(Arc::new).collect(),
            parameters: parameters(&question, to.wire),
            meter: Meter::default(),
        };
        let definition = [&*to.name, to.place, &named].map(str::as_bytes);
        let definition = xxh3_64(definition.map(xxh3_64).map(u64::to_le_bytes).as_flattened());
        let bill = Bill {
            books: Arc::clone(self.catalog.books()),
            principal: asked.principal,
            provider: Arc::clone(&to.name),
            model: named,
        };
        let (place, limit) = (Place::Lane(to.lane), to.entry.map(|entry| entry.timeout));
        let answerer = match target {
            Target::Configured(place) => Answerer::Configured(Arc::clone(&self.entry(place).chat)),
            Target::Own(_, config) => Answerer::Own(Arc::clone(&self.own), Arc::from(config)),
        };
        let pick = model.is_none().then_some(mode);
        let job = Box::new(NodeAsk { answerer, request, bill, pick });
        Ok(Prepared { place, definition, is_settled: false, model, limit, job })
    }
}

#[derive(Clone)]
enum Answerer {
    Configured(Arc<dyn ChatProvider>),
    Own(Arc<Own>, Arc<ProviderConfig>),
}

/// A node's question, ready to be asked.
#[derive(Clone)]
struct NodeAsk {
    answerer: Answerer,
    request: ChatRequest,
    bill: Bill,
    /// How to find the model, where the node does not name it.
    pick: Option<ModelMode>,
}

fn failed(text: &str) -> Reply {
    let mut reply = Reply::text(text);
    reply.is_error = true;
    reply
}

impl Job for NodeAsk {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let Self { answerer, mut request, mut bill, pick } = *self;
        async move {
            let provider: Arc<dyn ChatProvider> = match answerer {
                Answerer::Configured(chat) => chat,
                Answerer::Own(own, config) => match own.connect(&config) {
                    Ok(llm) => Arc::new(llm),
                    Err(why) => return Ok(failed(&why)),
                },
            };
            if let Some(mode) = pick {
                let mut models = provider.models(&context).await?;
                if mode == ModelMode::RandomFree {
                    models.retain(|model| model.ends_with(":free"));
                }
                let Some(model) = fastrand::choice(&models) else {
                    let free = if mode == ModelMode::RandomFree { "free " } else { "" };
                    return Ok(failed(&format!("{} lists no {free}model.", bill.provider)));
                };
                request.model = Arc::from(&**model);
                bill.model = Arc::clone(&request.model);
            }
            let ask = Ask { provider, request, bill, thread: None, fallbacks: Vec::new() };
            Box::new(ask).run(context).await
        }
        .boxed()
    }

    fn again(&self) -> Option<Box<dyn Job>> {
        Some(Box::new(self.clone()))
    }
}
