//! One upstream server: its processes or sessions, each for those who may share it, and what it lists.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::servers::{self, ServerConfig};
use crate::ids::{ClientSessionId, PrincipalId};
use crate::provider::upstream::instance::{Instance, Live, State, Terms};
use crate::provider::upstream::listing::{self, Listing};
use crate::provider::upstream::message::{Era, Refusal};
use crate::provider::upstream::others;
use crate::provider::upstream::pipe::Failed;
use crate::provider::upstream::required::Given;
use crate::provider::upstream::watched::{Watch, Watcher};
use crate::provider::{Fault, Reply};

/// A restart that comes so soon is waited for.
const WORTH_WAITING: Duration = Duration::from_secs(2);
/// Processes or sessions of one server.
const INSTANCES: usize = 256;

/// For whom a process or session of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Everybody.
    All,
    /// Nobody: it lists what there is, where those who call have one each.
    Catalogue,
    /// One principal.
    Principal(PrincipalId),
    /// One client session.
    Session(ClientSessionId),
}

impl Owner {
    fn shown(self) -> String {
        match self {
            Self::All => "everybody".to_owned(),
            Self::Catalogue => "the list of tools".to_owned(),
            Self::Principal(id) => format!("principal {}", id.0),
            Self::Session(id) => format!("session {}", id.0),
        }
    }
}

/// One upstream server.
pub struct Server {
    config: ServerConfig,
    name: Arc<str>,
    terms: Arc<Terms>,
    lister: Owner,
    instances: Mutex<HashMap<Owner, Arc<Instance>>>,
    listing: Mutex<Option<Arc<Listing>>>,
    /// Why tools that it lists are not offered.
    not_offered: Mutex<Vec<String>>,
    /// States of its that were handed on.
    pub(super) given: Given,
    in_use: AtomicUsize,
    retired: AtomicBool,
    ended: AtomicBool,
}

/// A call that is to be made, or is under way: as long as there is one, its server stays.
pub struct InUse(Arc<Server>);

impl Server {
    pub(super) fn new(config: ServerConfig, terms: Terms, sole: Option<PrincipalId>) -> Self {
        let lister = match (config.share, sole) {
            (servers::Share::All, _) => Owner::All,
            (servers::Share::Principal, Some(principal)) => Owner::Principal(principal),
            (servers::Share::Principal | servers::Share::Session, _) => Owner::Catalogue,
        };
        Self {
            name: Arc::clone(&terms.name),
            config,
            terms: Arc::new(terms),
            lister,
            instances: Mutex::default(),
            listing: Mutex::default(),
            not_offered: Mutex::default(),
            given: Given::default(),
            in_use: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// As configured.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// For whom a call is that this principal makes through this session.
    pub fn owner(&self, principal: PrincipalId, session: ClientSessionId) -> Owner {
        match self.config.share {
            servers::Share::All => Owner::All,
            servers::Share::Principal => Owner::Principal(principal),
            servers::Share::Session => Owner::Session(session),
        }
    }

    /// Told whenever its tools may have changed.
    pub fn changed(&self) -> &Arc<Notify> {
        &self.terms.changed
    }

    /// What it listed last.
    pub fn listing(&self) -> Option<Arc<Listing>> {
        self.listing.lock().clone()
    }

    /// Asks what it lists, and keeps it. A list that cannot be had leaves the one that was had before.
    ///
    /// # Errors
    /// It is down, or does not answer.
    pub async fn list(&self) -> Result<Arc<Listing>, Fault> {
        let live = self.live(self.lister).await?;
        let mut listing = listing::tools(&live).await.map_err(|failed| self.fault(failed))?;
        listing.others = others::others(&live, &mut listing.left_out).await;
        let listing = Arc::new(listing);
        *self.listing.lock() = Some(Arc::clone(&listing));
        Ok(listing)
    }

    /// Tools that it lists are not offered, for these reasons.
    pub fn not_offered(&self, why: Vec<String>) {
        *self.not_offered.lock() = why;
    }

    /// Claims it for a call that is to be made.
    pub fn claim(self: &Arc<Self>) -> InUse {
        self.in_use.fetch_add(1, Ordering::AcqRel);
        InUse(Arc::clone(self))
    }

    /// It is offered no more: it ends when the last call does that was made before.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        if self.in_use.load(Ordering::Acquire) == 0 {
            self.stop();
        }
    }

    /// Ends all its processes and sessions.
    pub fn stop(&self) {
        self.ended.store(true, Ordering::Release);
        let instances = std::mem::take(&mut *self.instances.lock());
        for instance in instances.values() {
            instance.stop();
        }
    }

    /// A client session has ended, and with it whatever was for it alone.
    pub fn session_ended(&self, session: ClientSessionId) {
        let gone = self.instances.lock().remove(&Owner::Session(session));
        if let Some(instance) = gone {
            instance.stop();
        }
    }

    /// The connection for these, once it is there.
    pub(super) async fn live(&self, owner: Owner) -> Result<Arc<Live>, Fault> {
        let instance = self.instance(owner)?;
        loop {
            let state = instance.state();
            match &state {
                State::Ready(live) => return Ok(Arc::clone(live)),
                State::Waiting { until, why } => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left > WORTH_WAITING {
                        return Err(self.down(why, Some(left)));
                    }
                }
                State::Over(why) => return Err(self.down(why, None)),
                State::Starting => {}
            }
            instance.moved(&state).await;
        }
    }

    pub(super) fn instance(&self, owner: Owner) -> Result<Arc<Instance>, Fault> {
        let mut instances = self.instances.lock();
        if let Some(instance) = instances.get(&owner) {
            return Ok(Arc::clone(instance));
        }
        if self.ended.load(Ordering::Acquire) {
            return Err(self.down(&Arc::from("it was stopped"), None));
        }
        if instances.len() >= INSTANCES {
            let why = Arc::from(format!("{INSTANCES} sessions have a process of their own already"));
            return Err(self.down(&why, Some(Duration::from_secs(10))));
        }
        let instance = Arc::new(Instance::start(&self.terms));
        instances.insert(owner, Arc::clone(&instance));
        Ok(instance)
    }

    /// Tells `watcher` when that resource changes, as long as what is returned is held.
    ///
    /// # Errors
    /// There cannot be a process or session for `owner`.
    pub fn watch(&self, owner: Owner, uri: &str, watcher: Arc<dyn Watcher>) -> Result<Watch, Fault> {
        Ok(self.instance(owner)?.watched.begin(uri, watcher))
    }

    fn down(&self, why: &Arc<str>, retry_after: Option<Duration>) -> Fault {
        Fault::Down { provider: Arc::clone(&self.name), why: Arc::clone(why), retry_after }
    }

    pub(super) fn fault(&self, failed: Failed) -> Fault {
        let provider = Arc::clone(&self.name);
        match failed {
            Failed::Refused(refusal) => {
                let Refusal { code, message, data } = refusal;
                Fault::Answered { provider, code, message, data }
            }
            Failed::Status { status, retry_after } => {
                Fault::Refused { provider, status, code: None, retry_after }
            }
            Failed::NotSent(reason) => Fault::Unreachable { provider, reason },
            Failed::Gone => Fault::Unreachable { provider, reason: "it has just ended" },
            Failed::Broken(reason) => Fault::Broken { provider, reason },
            Failed::TooLarge => Fault::TooLarge { provider, limit: self.terms.limit },
        }
    }

    /// What `doctor` shows of it.
    pub fn report(&self) -> Value {
        let mut instances: Vec<_> =
            self.instances.lock().iter().map(|(owner, instance)| (*owner, Arc::clone(instance))).collect();
        instances.sort_by_key(|(owner, _)| owner.shown());
        let instances: Vec<_> = instances.iter().map(|(owner, instance)| about(*owner, instance)).collect();
        let listing = self.listing();
        let mut left_out = listing.as_ref().map_or_else(Vec::new, |listing| listing.left_out.clone());
        left_out.extend(self.not_offered.lock().iter().cloned());
        json!({
            "name": &*self.name,
            "transport": match &self.config.transport {
                servers::Transport::Stdio { command, .. } => format!("stdio: {command}"),
                servers::Transport::Http { .. } => "http".to_owned(),
            },
            "tools": listing.as_ref().map(|listing| listing.tools.len()),
            "prompts": listing.as_ref().map(|listing| listing.others.prompts.len()),
            "resources": listing.as_ref().map(|listing| listing.others.resources.len()),
            "left_out": left_out,
            "instances": instances,
        })
    }
}

fn about(owner: Owner, instance: &Instance) -> Value {
    let shown = &instance.shown;
    let (state, detail) = match instance.state() {
        State::Starting => ("starting", None),
        State::Ready(live) => {
            ("ready", Some(format!("{}, MCP {}", live.greeting.name, live.greeting.version)))
        }
        State::Waiting { why, .. } => ("waiting", Some(why.to_string())),
        State::Over(why) => ("down", Some(why.to_string())),
    };
    let oddities = &shown.oddities;
    json!({
        "for": owner.shown(),
        "state": state,
        "detail": detail,
        "process": Some(shown.process.load(Ordering::Relaxed)).filter(|id| *id != 0),
        "starts": shown.starts.load(Ordering::Relaxed),
        "last_end": shown.last_end.lock().as_deref(),
        "last_words": shown.last_words.lines(),
        "not_messages": oddities.garbage.load(Ordering::Relaxed),
        "answers_to_nothing": oddities.strangers.load(Ordering::Relaxed),
        "too_large": oddities.too_large.load(Ordering::Relaxed),
    })
}

impl InUse {
    /// Waits until the server says whether it tells when that resource changes.
    ///
    /// # Errors
    /// The server is down, or says that it does not.
    pub async fn settled(self, owner: Owner, uri: &str) -> Result<Reply, Fault> {
        let server = &*self.0;
        server.live(owner).await?;
        let settled = server.instance(owner)?.watched.settled(uri).await;
        settled.map_err(|failed| server.fault(failed))?;
        Ok(Reply::spliced(String::new(), 0..0, false))
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Server {
    /// Whether it may ask whoever calls.
    pub fn may_ask(&self) -> bool {
        self.config.may_ask() || self.terms.era.get() == Some(Era::Stateless)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let last = self.0.in_use.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && self.0.retired.load(Ordering::Acquire) {
            self.0.stop();
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
