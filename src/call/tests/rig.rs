//! A whole path of a call, without a door.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::call::flight::{About, Boarding, FlightRules};
use crate::call::flights::{Aboard, RunGuard};
use crate::call::key::{CallKey, Form};
use crate::call::permits::Lease;
use crate::call::queue::{Pool, Priority, Share};
use crate::call::tests::stage::{Act, Model, Stage};
use crate::call::{
    Answer, Call, CallError, Caller, Calls, ClientSession, Code, Options, Principal, Submitted, Waiter,
};
use crate::config::{self, Alias, Config, Fallback, PrincipalConfig, Sources};
use crate::deadline::Deadline;
use crate::ids::{ClientSessionId, PrincipalId, SessionKey};
use crate::lifecycle::Lifecycle;
use crate::provider::catalog::{Catalog, ProviderEntry};
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::CallLog;
use crate::tool::prompt;
use crate::tool::{Dedup, Effect, Registry, Worth};

/// The tools of the stage. `look` is a cheap read, `ask` a paid one, `put` idempotent, `post` a write.
pub(crate) const TOOLS: [(&str, Effect, Worth); 4] = [
    ("look", Effect::Read, Worth::Cheap),
    ("ask", Effect::Read, Worth::Paid),
    ("put", Effect::Idempotent, Worth::Cheap),
    ("post", Effect::Write, Worth::Cheap),
];

/// A second provider beside `offline`, with two permits; `consult` asks it.
const SECOND: &str = "second";

const PROMPTS: &str = r#"
    [[tool]]
    name = "consult"
    description = "asks the second provider"
    class = "workflow"
    message = ["{k}"]
    input_schema = { type = "object" }

    [[tool]]
    name = "renew"
    description = "asks the second provider for what is done once, however often"
    class = "workflow"
    effect = "idempotent"
    message = ["{k}"]
    input_schema = { type = "object" }

    [[tool]]
    name = "publish"
    description = "asks the second provider for what counts each time"
    class = "workflow"
    effect = "write"
    message = ["{k}"]
    input_schema = { type = "object" }

    [[tool]]
    name = "recite"
    description = "asks the second provider for what is the same for an hour"
    class = "workflow"
    cache_ttl_secs = 3600
    message = ["{k}"]
    input_schema = { type = "object" }

    [[tool]]
    name = "chat"
    description = "asks whom the caller names, of whom `second` is the first"
    class = "workflow"
    message = ["{prompt}"]
    input_schema = { type = "object" }
"#;

/// A whole path of a call, its tools on a stage.
pub(crate) struct Rig {
    pub(crate) calls: Arc<Calls>,
    pub(crate) stage: Arc<Stage>,
    pub(crate) tasks: Tasks,
    pub(crate) config: Config,
}

impl Rig {
    /// Configured with these keys beside the defaults, and without a guard window: outcomes are kept by the machine's
    /// own clock, which stands still for nobody. Its breakers never open: work fails here as it is told to.
    pub(crate) fn new(keys: &[(&str, &str)]) -> Self {
        let (config, stage) = Self::parts(keys);
        let second = entry(&stage, SECOND, "", config.ladder.tool());
        Self::of(config, stage, vec![second])
    }

    /// The same with a third provider, `third`, which is asked where the second one fails; the labels of its work begin
    /// with its name. Work at either may take 30 s, and is attempted once.
    pub(crate) fn falling_back(keys: &[(&str, &str)]) -> Self {
        let keys: Vec<_> = [("RETRY_ATTEMPTS", "1")].iter().chain(keys).copied().collect();
        let (mut config, stage) = Self::parts(&keys);
        let chain = |of: &str, then: &str| Fallback { of: of.into(), then: vec![then.into()] };
        config.fallbacks = vec![chain(SECOND, "third"), chain("fast", "third")];
        config.aliases =
            vec![Alias { name: "fast".into(), provider: Some(SECOND.into()), model: "f".into() }];
        let [second, third] =
            [(SECOND, ""), ("third", "third ")].map(|(name, label)| entry(&stage, name, label, secs(30)));
        Self::of(config, stage, vec![second, third])
    }

    fn parts(keys: &[(&str, &str)]) -> (Config, Arc<Stage>) {
        let flags = [("GUARD_WINDOW_MS", "0"), ("BREAKER_MIN_CALLS", "1000000")]
            .iter()
            .chain(keys)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let config =
            config::resolve(Sources { flags, ..Sources::default() }).unwrap_or_else(|e| panic!("{e}")).config;
        (config, Arc::new(Stage::default()))
    }

    fn of(config: Config, stage: Arc<Stage>, providers: Vec<ProviderEntry>) -> Self {
        let catalog = Catalog::behind(providers, &config).unwrap();
        let mut registry = Registry::new(catalog, &prompt::parse(PROMPTS).unwrap(), &config.ladder).unwrap();
        for (name, effect, worth) in TOOLS {
            let work = Box::new(Act(Arc::clone(&stage)));
            registry.add_custom(name, effect, worth, work, &config.ladder).unwrap();
        }
        let tasks = Tasks::default();
        let lifecycle = Arc::new(Lifecycle::new(CallLog::off()));
        let calls = Arc::new(Calls::new(&config, registry, lifecycle, tasks.clone()));
        stage.watch(&calls);
        Self { calls, stage, tasks, config }
    }

    /// A caller of a new session with this number.
    pub(crate) fn caller(&self, principal: u32, session: u64) -> Caller {
        let limits = &self.config.limits;
        let session = ClientSession::new(ClientSessionId(session), limits.session, limits.queue);
        let config = PrincipalConfig::plain("somebody");
        let principal = Arc::new(Principal::new(PrincipalId(principal), &config, 1));
        Caller { principal, session: Arc::new(session), attachment: None }
    }

    /// The same, and it may come back over another connection.
    pub(crate) fn attached(&self, principal: u32, session: u64) -> Caller {
        let attachment =
            self.calls.attachments().attach(PrincipalId(principal), SessionKey::new(session.into()));
        Caller { attachment, ..self.caller(principal, session) }
    }

    /// Offers what is offered by now and other tools, in this order; the next time others instead.
    pub(crate) fn offers(&self) -> impl Fn(&[&str]) {
        let plain = (*self.calls.registry()).clone();
        move |names| {
            let mut registry = plain.clone();
            for name in names {
                let work = Box::new(Act(Arc::clone(&self.stage)));
                registry.add_custom(name, Effect::Write, Worth::Cheap, work, &self.config.ladder).unwrap();
            }
            self.calls.offer_anew(registry);
        }
    }

    /// Hands a call over, with its arguments as JSON text.
    pub(crate) fn submit(&self, caller: &Caller, tool: &str, arguments: &str, options: Options) -> Submitted {
        self.calls.submit(caller, Call { id: None, tool, arguments, extra: None, options })
    }

    /// A call under this label that is under way.
    pub(crate) fn wait(&self, caller: &Caller, tool: &str, label: &str) -> Waiter {
        self.wait_with(caller, tool, label, Options::default())
    }

    pub(crate) fn wait_with(&self, caller: &Caller, tool: &str, label: &str, options: Options) -> Waiter {
        match self.submit(caller, tool, &format!(r#"{{"k":"{label}"}}"#), options) {
            Submitted::Waiting(waiter) => waiter,
            Submitted::Answered(answer) => {
                panic!("{tool} {label} was answered at once: {:?}", answer.outcome)
            }
        }
    }

    /// A call under this label that is answered at once.
    pub(crate) fn answered(&self, caller: &Caller, tool: &str, label: &str) -> Answer {
        match self.submit(caller, tool, &format!(r#"{{"k":"{label}"}}"#), Options::default()) {
            Submitted::Answered(answer) => answer,
            Submitted::Waiting(_) => panic!("{tool} {label} is under way"),
        }
    }

    /// A caller on its own whose call works at once, and the place of its work on the stage.
    pub(crate) fn at_work(&self, tool: &str, label: &str) -> (Waiter, usize) {
        let waiter = self.wait(&self.caller(0, 1), tool, label);
        (waiter, self.stage.last())
    }

    /// A lease of permits that are not this daemon's: its sums are wrong for as long as it lives.
    pub(crate) fn stray_lease(&self) -> Lease {
        let [holder] = &self.calls.leases().holders()[..] else { panic!("one works") };
        let permit = || Arc::new(Pool::new(Arc::from("stray"), 1, 1, Share::All)).try_take().unwrap();
        self.calls.leases().grant(permit(), permit(), holder.clone())
    }

    /// A flight in the map for which nobody works, for as long as its guard lives.
    pub(crate) fn lost_flight(&self) -> RunGuard {
        let tool = Arc::clone(self.calls.registry().find("look").unwrap());
        let key = CallKey {
            principal: PrincipalId(9),
            session: None,
            tool: tool.id,
            definition: 0,
            ordinal: 0,
            digest: 0,
        };
        let rules = FlightRules { max_waiters: 1, reattach: Duration::ZERO };
        let (at, provider) = (Instant::now(), Arc::from("offline"));
        let boarding = Boarding {
            key: Some(key),
            arguments: Form::default(),
            tool,
            provider,
            rules,
            keep: None,
            about: About::default(),
            at,
            priority: Priority::Medium,
            can: crate::provider::asking::Can::NOTHING,
            until: Deadline::since(at, Duration::from_secs(60)),
        };
        let Ok(Aboard::Opened(guard, _)) = self.calls.flights().board(boarding) else { panic!("it joined") };
        guard.flight().run_ended();
        guard
    }

    /// Nothing is held, kept in the map, or waited for.
    pub(crate) fn assert_at_rest(&self) {
        let (global, providers) = self.calls.pools();
        let flights = self.calls.flights();
        assert_eq!((flights.keys(), flights.executions(), self.calls.watch().active()), (0, 0, 0), "flights");
        assert!(self.calls.leases().holders().is_empty(), "leases");
        let pools = providers.into_iter().chain(self.calls.composites()).chain([("global".into(), global)]);
        for (name, view) in pools {
            assert_eq!((view.in_use, view.queued), (0, 0), "{name}");
        }
        assert_eq!(self.tasks.live(TaskKind::Run), 0, "tasks");
    }
}

/// A provider on the stage with two permits.
fn entry(stage: &Arc<Stage>, name: &str, label: &'static str, timeout: Duration) -> ProviderEntry {
    ProviderEntry {
        name: Arc::from(name),
        model: Arc::from("m"),
        place: Arc::from("the stage"),
        timeout,
        follow_up_timeout: timeout,
        max_inflight: 2,
        has_key: false,
        connections: None,
        chat: Arc::new(Model(Arc::clone(stage), label)),
    }
}

/// Options of a caller that waits so long.
pub(crate) fn within(timeout: Duration) -> Options {
    Options { timeout: Some(timeout), ..Options::default() }
}

/// Options of a caller that shares as it says.
pub(crate) fn sharing(dedup: Dedup) -> Options {
    Options { dedup: Some(dedup), ..Options::default() }
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Lets every task run until none has anything left to do: no chain of wake-ups on this path is longer.
pub(crate) async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// Moves time, and lets what fell due run.
pub(crate) async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    settle().await;
}

/// The end of a call, within its own deadline.
pub(crate) async fn end(waiter: &mut Waiter) -> Answer {
    waiter.answer().await
}

/// The end of a call, if it has come.
pub(crate) fn peek(waiter: &mut Waiter) -> Option<Answer> {
    waiter.answer().now_or_never()
}

/// What a call must have failed with.
pub(crate) fn error(answer: &Answer) -> &CallError {
    answer.outcome.as_ref().expect_err("the call has a reply")
}

pub(crate) fn code(answer: &Answer) -> Option<Code> {
    answer.outcome.as_ref().err().map(|error| error.code())
}

/// The text that a call was answered with.
pub(crate) fn text(answer: &Answer) -> String {
    let reply = answer.outcome.as_ref().unwrap_or_else(|error| panic!("{error}"));
    let content: serde_json::Value = serde_json::from_str(reply.content()).unwrap();
    content[0]["text"].as_str().unwrap().to_owned()
}
