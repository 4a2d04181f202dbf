//! Config → bound socket → running daemon → drained: the only file that knows every concrete type.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::Calls;
use crate::config::{Config, Ladder, Problems};
use crate::deadline::Deadline;
use crate::door::Hub;
use crate::health::Health;
use crate::lifecycle::Lifecycle;
use crate::listener::{Listener, Traffic};
use crate::phase::ExecutionEnd;
use crate::provider::catalog::Catalog;
use crate::provider::flow::folder::{NoFolder, Site};
use crate::provider::llm::SetupError;
use crate::provider::module::Modules;
use crate::provider::upstream;
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::CallLog;
use crate::tool::Registry;
use crate::tool::flow;
use crate::tool::module;
use crate::tool::prompt::{self, Declaration};
use crate::tool::registry::RegistryError;

mod offering;
mod reload;

use offering::Offering;
use reload::Reload;

/// How long cancelled Runs may take to end.
const AFTER_CANCEL: Duration = Duration::from_secs(2);
/// How long connections may take to say good-bye.
const GOOD_BYES: Duration = Duration::from_secs(5);
/// How often an idle daemon looks whether it is to end, in the time after which it does.
const IDLE_LOOKS: u32 = 30;
/// How long whoever holds our address may take to say who it is.
const WHO_IS_IT: Duration = Duration::from_secs(1);

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tools file cannot be read.
    #[error("read the tools file {0}")]
    ToolsFile(PathBuf, #[source] std::io::Error),
    /// The tools file is not one.
    #[error("understand the tools file {0}")]
    ToolsSyntax(PathBuf, #[source] toml::de::Error),
    /// The tools do not fit together.
    #[error("register the tools")]
    Registry(#[from] RegistryError),
    /// A provider cannot be set up.
    #[error("set up the providers")]
    Provider(#[from] SetupError),
    /// Flows have nowhere to work.
    #[error("set up the flows")]
    Flows(#[from] NoFolder),
    /// An upstream server cannot be set up.
    #[error("set up the upstream servers")]
    Server(#[from] upstream::SetupError),
    /// Somebody has the address already.
    #[error(
        "listen on {address}: {holder} holds it; stop that one, or set INFLIGHTD_LISTEN to another address"
    )]
    AddressInUse {
        /// Which.
        address: SocketAddr,
        /// Who.
        holder: String,
    },
    /// The address cannot be had.
    #[error("listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
}

impl StartError {
    /// Whether another configuration would do.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::ToolsFile(..)
            | Self::ToolsSyntax(..)
            | Self::Registry(_)
            | Self::Provider(_)
            | Self::Flows(_)
            | Self::Server(_) => true,
            Self::AddressInUse { .. } | Self::Listen(..) => false,
        }
    }
}

/// What a stop was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How long it took.
    pub shutdown_duration: Duration,
    /// Executions when it began.
    pub initial_active_sessions: usize,
    /// Executions that had to be cancelled.
    pub final_active_sessions: usize,
    /// Executions that ended with a reply meanwhile.
    pub sessions_completed: u64,
    /// Whether the wait was cut short, by its limit or by a second signal.
    pub timeout_reached: bool,
}

impl Drained {
    /// Whether everything ended by itself.
    pub fn is_clean(&self) -> bool {
        self.final_active_sessions == 0
    }
}

/// A daemon that is bound and not serving yet.
pub struct App {
    hub: Arc<Hub>,
    offering: Arc<Offering>,
    listener: Listener,
    health: Arc<Health>,
    health_interval: Duration,
    drain_timeout: Duration,
    idle_exit: Option<Duration>,
    files: Vec<PathBuf>,
    reload: Option<Reload>,
}

impl App {
    /// Builds the daemon and binds its address; nobody is served before [`App::run`].
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        Self::bind_with(config, |_, _| Ok(())).await
    }

    /// As [`App::bind`], with tools that whoever embeds the daemon brings along.
    pub async fn bind_with(
        config: &Config,
        add: impl FnOnce(&mut Registry, &Ladder) -> Result<(), RegistryError>,
    ) -> Result<Self, StartError> {
        let declared = declared(config)?;
        let mut registry = Registry::new(Catalog::new(config)?, &declared, &config.ladder)?;
        if !config.modules.is_empty() {
            let machine = Arc::clone(registry.catalog().machine());
            let modules = Arc::new(Modules::new(config.modules.clone(), machine));
            module::offer(&mut registry, &modules, &config.ladder)?;
        }
        if !config.flows.folders.is_empty() {
            let site = Site::open(&config.flows)?;
            flow::offer(&mut registry, config, site, &config.ladder)?;
        }
        add(&mut registry, &config.ladder)?;
        let socket = listen(config.listen).await?;
        let tasks = Tasks::default();
        let names = config.principals.iter().map(|principal| principal.name.clone()).collect();
        let log = CallLog::start(config.log_format, config.log_level, names);
        let lifecycle = Arc::new(Lifecycle::new(log));
        let calls = Arc::new(Calls::new(config, registry.clone(), lifecycle, tasks.clone()));
        let offering = Arc::new(Offering::new(config, registry, Arc::clone(&calls), tasks.clone())?);
        offering.start().await?;
        let health = Arc::new(Health::default());
        let hub = Arc::new(Hub::new(config, calls, Arc::clone(&health), tasks));
        let origins = config.allowed_origins.clone();
        let listener = Listener::new(socket, Arc::clone(&hub), origins);
        let listener = listener.map_err(|error| StartError::Listen(config.listen, error))?;
        Ok(Self {
            hub,
            offering,
            listener,
            health,
            health_interval: config.health_interval,
            drain_timeout: config.drain_timeout,
            idle_exit: None,
            files: config.files.clone(),
            reload: None,
        })
    }

    /// It ends by itself after so long without a connection and an Execution.
    #[must_use]
    pub fn idle_exit(self, after: Option<Duration>) -> Self {
        Self { idle_exit: after, ..self }
    }

    /// It reads its configuration again at each of these signals, and when a file of it has changed. Upstream servers
    /// follow; the rest counts at the next start.
    #[must_use]
    pub fn reloads(
        self,
        read: impl Fn() -> Result<Config, Problems> + Send + Sync + 'static,
        signals: mpsc::Receiver<()>,
    ) -> Self {
        let reload = Reload { read: Box::new(read), signals, files: self.files.clone() };
        Self { reload: Some(reload), ..self }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// What its doors share.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves until `stop` says so, then drains: the first message ends the serving, a second the waiting. A
    /// `stop` whose senders are gone is never heard.
    pub async fn run(self, mut stop: mpsc::Receiver<()>) -> Drained {
        let Self {
            hub, offering, listener, health, health_interval, drain_timeout, idle_exit, reload, ..
        } = self;
        let traffic = listener.traffic();
        let tasks = hub.tasks.clone();
        let (no_more, no_health) = (CancellationToken::new(), CancellationToken::new());
        tasks.spawn(TaskKind::Listener, listener.run(no_more.clone()));
        tasks.spawn(
            TaskKind::Health,
            health.watch(Arc::clone(&hub.calls), health_interval, no_health.clone()),
        );
        let machine = Arc::clone(hub.calls.registry().catalog().machine());
        tasks.spawn(TaskKind::Health, machine.watch(no_health.clone()));
        if let Some(reload) = reload {
            let (offering, no_more) = (Arc::clone(&offering), no_more.clone());
            tasks.spawn(TaskKind::Upstream, async move {
                tokio::select! {
                    () = no_more.cancelled() => {}
                    () = reload.run(offering) => {}
                }
            });
        }
        tokio::select! {
            () = heard(&mut stop) => {}
            () = idle_for(&hub, &traffic, idle_exit) => tracing::info!("nobody needs this daemon: it ends"),
        }
        no_more.cancel();
        let drained = drain(&hub, drain_timeout, &mut stop).await;
        offering.end().await;
        no_health.cancel();
        hub.calls.watch().lifecycle().flush();
        report(&drained);
        drained
    }
}

async fn heard(stop: &mut mpsc::Receiver<()>) {
    if stop.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when there was neither a connection nor an Execution for so long; never, where nothing is said.
///
/// Cancel safe.
async fn idle_for(hub: &Hub, traffic: &Traffic, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    let (mut seen, mut since) = (traffic.accepted(), Instant::now());
    loop {
        tokio::time::sleep(limit / IDLE_LOOKS).await;
        let accepted = traffic.accepted();
        let idle = accepted == seen && traffic.open() == 0 && hub.calls.flights().executions() == 0;
        if !idle {
            (seen, since) = (accepted, Instant::now());
        } else if since.elapsed() >= limit {
            return;
        }
    }
}

/// Refuses what is new, answers what waits, lets finish what works, then closes every connection.
async fn drain(hub: &Hub, limit: Duration, stop: &mut mpsc::Receiver<()>) -> Drained {
    let start = Instant::now();
    let initial_active_sessions = hub.calls.flights().executions();
    let completed = || hub.calls.flights().statistics().read().0.of(ExecutionEnd::Completed);
    let completed_before = completed();
    tracing::info!(active = initial_active_sessions, "stopping: new calls are refused");
    hub.calls.start_draining();
    let timeout_reached = tokio::select! {
        finished = hub.tasks.drained(TaskKind::Run, Deadline::since(start, limit)) => finished.is_err(),
        () = heard(stop) => true,
    };
    let final_active_sessions = hub.calls.flights().executions();
    if final_active_sessions > 0 {
        hub.calls.stop_all();
        if hub.tasks.drained(TaskKind::Run, Deadline::after(AFTER_CANCEL)).await.is_err() {
            tracing::warn!(left = hub.tasks.left(), "cancelled work has not ended");
        }
    }
    hub.closing.set();
    let good_byes = Deadline::after(GOOD_BYES);
    for kind in [TaskKind::Connection, TaskKind::Session] {
        if hub.tasks.drained(kind, good_byes).await.is_err() {
            tracing::warn!(left = hub.tasks.left(), "connections did not close in time");
            break;
        }
    }
    Drained {
        shutdown_duration: start.elapsed(),
        initial_active_sessions,
        final_active_sessions,
        sessions_completed: completed().saturating_sub(completed_before),
        timeout_reached,
    }
}

fn report(drained: &Drained) {
    tracing::info!(
        shutdown_duration = drained.shutdown_duration.as_secs_f64(),
        initial_active_sessions = drained.initial_active_sessions,
        final_active_sessions = drained.final_active_sessions,
        sessions_completed_during_shutdown = drained.sessions_completed,
        timeout_reached = drained.timeout_reached,
        "stopped"
    );
}

fn declared(config: &Config) -> Result<Vec<Declaration>, StartError> {
    let Some(path) = &config.tools_file else {
        return prompt::parse(prompt::BUILT_IN)
            .map_err(|error| StartError::ToolsSyntax("built in".into(), error));
    };
    let text = std::fs::read_to_string(path).map_err(|error| StartError::ToolsFile(path.clone(), error))?;
    prompt::parse(&text).map_err(|error| StartError::ToolsSyntax(path.clone(), error))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    match TcpListener::bind(address).await {
        Ok(socket) => Ok(socket),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let holder = Deadline::after(WHO_IS_IT).limit(holder(address)).await.ok().flatten();
            Err(StartError::AddressInUse {
                address,
                holder: holder.unwrap_or_else(|| "another program".into()),
            })
        }
        Err(error) => Err(StartError::Listen(address, error)),
    }
}

/// Asks whoever holds an address who it is; only an inflightd answers.
async fn holder(address: SocketAddr) -> Option<String> {
    const ANSWER_BYTES: u64 = 4096;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let version = body.get("version")?.as_str()?;
    (body.get("name")?.as_str()? == "inflightd").then(|| format!("inflightd {version}"))
}
