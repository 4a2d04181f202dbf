//! `--spawn`: a daemon for whom none answers. Binding the port is the lock: of many that are started at once, one
//! gets it, and the others end.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Endpoint;
use crate::config::env;

/// A daemon that was started ends after so long without a connection and a call.
const IDLE_EXIT: Duration = Duration::from_secs(15 * 60);
/// Before another is started: one that is well answers long before.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest such pause: what keeps failing is only written to the log.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// A thread that only waits needs next to no memory.
const WAITER_STACK_BYTES: usize = 32 * 1024;

/// Why no daemon was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// Nothing says where its log goes.
    #[error("find a folder for its log: set XDG_STATE_HOME or HOME")]
    NoFolder,
    /// The folder or the log in it cannot be made.
    #[error("open its log in {0}")]
    Log(PathBuf, #[source] io::Error),
    /// The system does not start it.
    #[error("run this program once more")]
    Run(#[source] io::Error),
}

/// Starts daemons.
#[derive(Debug)]
pub(super) struct Spawner {
    listen: String,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Spawner {
    /// Starts daemons that listen there.
    pub(super) fn new(listen: String) -> Self {
        Self { listen, pause: FIRST_PAUSE, not_before: None }
    }

    /// A daemon answers: the next absence is another one.
    pub(super) fn answered(&mut self) {
        self.pause = FIRST_PAUSE;
        self.not_before = None;
    }

    /// Starts one, unless one was started a moment ago; says where its log is.
    pub(super) fn spawn(&mut self, endpoint: &Endpoint) -> Option<Result<PathBuf, SpawnError>> {
        let now = Instant::now();
        if self.not_before.is_some_and(|before| now < before) {
            return None;
        }
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(self.start(endpoint))
    }

    fn start(&self, endpoint: &Endpoint) -> Result<PathBuf, SpawnError> {
        let folder = folder().ok_or(SpawnError::NoFolder)?;
        let path = folder.join("serve.log");
        let log = open(&folder, &path).map_err(|error| SpawnError::Log(folder.clone(), error))?;
        let program = std::env::current_exe().map_err(SpawnError::Run)?;
        let mut command = Command::new(program);
        command.args(["serve", "--background", "--listen", &self.listen]);
        command.args(["--idle-exit-secs", &IDLE_EXIT.as_secs().to_string()]);
        // Not the folder of somebody's project: `serve` reads its files where it starts.
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(token) = endpoint.token() {
            command.env("INFLIGHTD_TOKEN", token.reveal());
        }
        let mut daemon = command.spawn().map_err(SpawnError::Run)?;
        // One that ends before the shim does leaves nothing behind. Without the thread it would, until then.
        let waiter = std::thread::Builder::new().name("spawned".to_owned()).stack_size(WAITER_STACK_BYTES);
        let _ = waiter.spawn(move || daemon.wait());
        Ok(path)
    }
}

/// `$XDG_STATE_HOME/inflightd`, by default `~/.local/state/inflightd`. A relative path does not count, as the
/// specification of these names has it.
fn folder() -> Option<PathBuf> {
    let absolute = |name| env::get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("inflightd"))
}

/// Only their owner may read what is in them.
#[cfg(unix)]
fn open(folder: &PathBuf, path: &PathBuf) -> io::Result<File> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    File::options().create(true).append(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn open(folder: &PathBuf, path: &PathBuf) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    File::options().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_later_and_later() {
        let mut spawner = Spawner::new("127.0.0.1:1".to_owned());
        let endpoint = Endpoint::parse("ws://127.0.0.1:1", None).unwrap();
        spawner.not_before = Some(Instant::now() + FIRST_PAUSE);
        assert!(spawner.spawn(&endpoint).is_none());
        spawner.answered();
        assert!(spawner.not_before.is_none() && spawner.pause == FIRST_PAUSE);
    }
}
