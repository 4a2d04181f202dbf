//! `inflightd serve`: the daemon.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::app::{App, StartError};
use crate::cli::ServeArgs;
use crate::client::explain;
use crate::config::{self, Config, LogFormat, ladder};
use crate::telemetry;

/// `EX_CONFIG`: the configuration does not hold.
const EXIT_CONFIG: u8 = 78;
/// The daemon could not start for another reason.
const EXIT_FAILED: u8 = 1;
/// `EX_TEMPFAIL`: it stopped before its calls had ended.
const EXIT_NOT_DRAINED: u8 = 75;

/// Runs the daemon until it is told to stop.
pub fn run(args: ServeArgs) -> ExitCode {
    if args.background {
        leave_session();
    }
    let idle_exit = args.idle_exit_secs.map(|secs| Duration::from_secs(secs.into()));
    let flags = flags(args);
    let loaded = match config::load(&flags, Path::new(".")) {
        Ok(loaded) => loaded,
        Err(problems) => {
            super::complain(&format!("the configuration does not hold:\n{problems}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let config = loaded.config;
    telemetry::start(config.log_format, config.log_level);
    tracing::info!("{}", ladder::VALIDATING);
    tracing::info!("{}", config.ladder.summary());
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.worker_threads {
        runtime.worker_threads(threads);
    }
    let code = match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(&config, idle_exit, flags)),
        Err(error) => {
            complain(&format!("could not start the runtime: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    };
    telemetry::flush();
    code
}

/// Says why it does not run, behind what the log said before.
fn complain(text: &str) {
    telemetry::flush();
    super::complain(text);
}

async fn serve(config: &Config, idle_exit: Option<Duration>, flags: Vec<(&'static str, String)>) -> ExitCode {
    // Signals are heard before anybody can connect: a daemon that says it runs can be stopped.
    let heard = signals().and_then(|stop| Ok((stop, hang_ups()?)));
    let (stop, hang_ups) = match heard {
        Ok(heard) => heard,
        Err(error) => {
            complain(&format!("could not listen for signals: {error}"));
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let app = match App::bind(config).await {
        Ok(app) => app
            .idle_exit(idle_exit)
            .reloads(move || config::load(&flags, Path::new(".")).map(|loaded| loaded.config), hang_ups),
        Err(error) => return refuse(&error),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "inflightd listens on {}", app.address());
    tell_manager(Told::Ready);
    if config.log_format == LogFormat::Text {
        welcome(config, app.address());
    }
    let drained = app.run(stop).await;
    if drained.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_DRAINED) }
}

fn refuse(error: &StartError) -> ExitCode {
    complain(&format!("could not {}", explain(error)));
    ExitCode::from(if error.is_configuration() { EXIT_CONFIG } else { EXIT_FAILED })
}

/// Flags by the key that each one sets.
fn flags(args: ServeArgs) -> Vec<(&'static str, String)> {
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let all = [
        ("INFLIGHTD_LISTEN", args.listen),
        ("INFLIGHTD_CONFIG", args.config.map(path)),
        ("LOG_LEVEL", args.log_level),
        ("LOG_FORMAT", args.log_format),
        ("TOOLS_FILE", args.tools_file.map(path)),
        ("MAX_WORKERS", args.max_workers.map(|count| count.to_string())),
        ("MAX_QUEUE", args.max_queue.map(|count| count.to_string())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// What to try next, for whoever started the daemon by hand.
fn welcome(config: &Config, address: SocketAddr) {
    let providers = if config.providers.is_empty() {
        "offline only: answers are stand-ins until KIMI_API_KEY, GLM_API_KEY or OPENAI_API_KEY is set"
            .to_owned()
    } else {
        config.providers.iter().map(|provider| &*provider.name).collect::<Vec<_>>().join(", ")
    };
    let token = if config.token_required() { " -H \"Authorization: Bearer $INFLIGHTD_TOKEN\"" } else { "" };
    // Whoever listens elsewhere, or wants a token, is told what the client commands need.
    let elsewhere = address.to_string() != "127.0.0.1:8079";
    let url = if elsewhere { format!("    export INFLIGHTD_URL=ws://{address}\n") } else { String::new() };
    let secret = if config.token_required() {
        "    export INFLIGHTD_TOKEN=…        (the daemon's token)\n"
    } else {
        ""
    };
    let env = if elsewhere {
        format!(", \"env\": {{\"INFLIGHTD_URL\": \"ws://{address}\"}}")
    } else {
        String::new()
    };
    let text = format!(
        "
  inflightd {version} is ready on {address}
  providers: {providers}

  Try, in another terminal:
{url}{secret}    inflightd tools                               (or: cargo run --release -- tools)
    inflightd call analyze '{{\"text\": \"test\"}}'
    curl -X POST http://{address}/api/v1/execute -H 'Content-Type: application/json'{token} \\
         -d '{{\"tool\":\"analyze\",\"arguments\":{{\"text\":\"test\"}}}}'

  An MCP client starts the shim:
    {{\"mcpServers\": {{\"inflightd\": {{\"command\": \"inflightd\", \"args\": [\"shim\"]{env}}}}}}}

  Ctrl-C stops it: running calls may finish within {drain} s.

",
        version = env!("CARGO_PKG_VERSION"),
        drain = config.drain_timeout.as_secs(),
    );
    telemetry::say(&text);
}

/// One message for each TERM or INT.
#[cfg(unix)]
fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, stop) = mpsc::channel(2);
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and the drain must not wait for it"
    )]
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tell_manager(Told::Stopping);
            // A third signal says nothing new.
            let _ = tell.try_send(());
        }
    });
    Ok(stop)
}

/// One message for each HUP: the configuration is to be read again.
#[cfg(unix)]
fn hang_ups() -> std::io::Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hang_up = signal(SignalKind::hangup())?;
    let (tell, hang_ups) = mpsc::channel(1);
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and the drain must not wait for it"
    )]
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            // One that is still to be followed says the same.
            let _ = tell.try_send(());
        }
    });
    Ok(hang_ups)
}

/// Nobody can ask so elsewhere; changes of files are seen.
#[cfg(not(unix))]
fn hang_ups() -> std::io::Result<mpsc::Receiver<()>> {
    let (_, hang_ups) = mpsc::channel(1);
    Ok(hang_ups)
}

/// What a service manager waits for.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// Clients are served from here on.
    Ready,
    /// It was asked to stop.
    Stopping,
}

/// Tells systemd, if it started the daemon with `Type=notify`.
#[cfg(target_os = "linux")]
fn tell_manager(what: Told) {
    let state = match what {
        Told::Ready => sd_notify::NotifyState::Ready,
        Told::Stopping => sd_notify::NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

#[cfg(not(target_os = "linux"))]
fn tell_manager(_: Told) {}

/// One message for each Ctrl-C.
#[cfg(not(unix))]
fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    let (tell, stop) = mpsc::channel(2);
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and the drain must not wait for it"
    )]
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            let _ = tell.try_send(());
        }
    });
    Ok(stop)
}

/// A signal to the terminal's programs is not for a daemon that one of them started.
#[cfg(unix)]
fn leave_session() {
    // It fails only for the leader of a group, which has a session of its own already or was started by hand.
    let _ = rustix::process::setsid();
}

#[cfg(not(unix))]
fn leave_session() {}

/// A connection is a file: the soft limit of most shells is 1024.
#[cfg(unix)]
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(not(unix))]
fn raise_file_limit() {}
