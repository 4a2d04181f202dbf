//! A server that is a child process: started in a group of its own, its stderr in our log, and ended for good.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::provider::upstream::lines::{Line, Lines};

/// How long a server may take to end once its input has ended, and again once it was told to by TERM.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest line of its stderr that is told whole.
const LINE_BYTES: usize = 2048;
/// Lines of its stderr that are told…
const LINES: u32 = 50;
/// …in such a time: a server that floods us does not flood the log.
const LINES_PER: Duration = Duration::from_secs(10);
/// Its last lines, kept for `doctor`.
const LAST_LINES: usize = 8;

/// How a server is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// The command.
    pub(super) command: String,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// Its whole environment. Ours has keys in it that are none of its business.
    pub(super) env: Vec<(String, String)>,
    /// Where it runs; `None`: where we do.
    pub(super) folder: Option<PathBuf>,
}

/// A child that is there, killed with everything it started when this is dropped.
pub(super) struct Running {
    child: Child,
    group: Option<u32>,
}

/// The pipes of a child.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// Starts it.
pub(super) fn start(program: &Program) -> std::io::Result<(Running, Pipes)> {
    let mut command = Command::new(&program.command);
    command.args(&program.args).env_clear().envs(program.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn()?;
    let group = child.id();
    let gone = || std::io::Error::other("a pipe of the child is missing");
    let pipes = Pipes {
        stdin: child.stdin.take().ok_or_else(gone)?,
        stdout: child.stdout.take().ok_or_else(gone)?,
        stderr: child.stderr.take().ok_or_else(gone)?,
    };
    Ok((Running { child, group }, pipes))
}

impl Running {
    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when it has ended.
    ///
    /// Cancel safe.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// Ends it, its input being closed: waits, TERM, waits, KILL. Then whatever it has left behind.
    pub(super) async fn end(mut self) -> Option<ExitStatus> {
        let mut status = self.within(PATIENCE).await;
        if status.is_none() {
            self.signal(Signal::Term);
            status = self.within(PATIENCE).await;
        }
        // Children of its own may be left, whether it has ended or not.
        self.signal(Signal::Kill);
        if status.is_none() {
            status = self.within(PATIENCE).await;
        }
        self.group = None;
        status
    }

    async fn within(&mut self, span: Duration) -> Option<ExitStatus> {
        Deadline::after(span).limit(self.child.wait()).await.ok()?.ok()
    }

    #[cfg(unix)]
    fn signal(&mut self, signal: Signal) {
        let group = self.group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let signal = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        if let Some(group) = group {
            // A group that is gone needs no signal.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Term | Signal::Kill => drop(self.child.start_kill()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.group.is_some() {
            self.signal(Signal::Kill);
        }
    }
}

#[derive(Clone, Copy)]
enum Signal {
    Term,
    Kill,
}

/// The last of what a server said on its stderr.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<VecDeque<Box<str>>>>);

impl LastWords {
    /// Them, the oldest first.
    pub(super) fn lines(&self) -> Vec<Box<str>> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.into());
    }
}

/// Tells the log what a server says on its stderr, up to its end. It is read on however much comes: a server must
/// not wait for our log.
pub(super) async fn tell_stderr(server: Arc<str>, stderr: ChildStderr, last: LastWords) {
    let mut lines = Lines::new(stderr, LINE_BYTES);
    let (mut since, mut told, mut untold) = (Instant::now(), 0, 0_u64);
    loop {
        while let Some(line) = lines.next() {
            let (bytes, cut) = match &line {
                Line::Whole(bytes) => (*bytes, ""),
                Line::Long(ends) => (ends.head.as_slice(), "…"),
            };
            if since.elapsed() >= LINES_PER {
                if untold > 0 {
                    tracing::warn!(server = &*server, lines = untold, "it said more than is written here");
                }
                (since, told, untold) = (Instant::now(), 0, 0);
            }
            if told >= LINES {
                untold += 1;
                continue;
            }
            told += 1;
            let text: String = String::from_utf8_lossy(bytes).trim_end().chars().flat_map(plain).collect();
            last.push(&text);
            tracing::info!(server = &*server, "{text}{cut}");
        }
        if !matches!(lines.fill().await, Ok(1..)) {
            if untold > 0 {
                tracing::warn!(server = &*server, lines = untold, "it said more than is written here");
            }
            return;
        }
    }
}

/// No control character reaches a terminal through our log.
fn plain(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control() && c != '\t';
    escaped.then(|| c.escape_default()).into_iter().flatten().chain((!escaped).then_some(c))
}
