//! The daemon's side of a guard: starts it, hears what it says, and tells it to end its tree.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::process::Child;

use super::guard::{self, processes::Meant};
use super::order::{Order, Report};

/// How often a tree without a guard is looked for: what cannot be killed by then hangs in the kernel.
const MOST_SWEEPS: usize = 100;
const BETWEEN_SWEEPS: Duration = Duration::from_millis(20);

/// A tree under its guard. Dropping it closes the guard's socket: the guard ends the tree then.
pub(super) struct Tree {
    guard: Child,
    says: Lines<BufReader<OwnedReadHalf>>,
    order: Option<OwnedWriteHalf>,
}

/// What a tree writes.
pub(super) struct Streams {
    pub(super) stdout: Stdout,
    pub(super) stderr: Stderr,
}

pub(super) type Stdout = pipe::Receiver;
pub(super) type Stderr = pipe::Receiver;

impl Tree {
    /// Starts a guard, and tells it what to start.
    ///
    /// # Errors
    /// The guard cannot be started, or did not take its order.
    pub(super) async fn start(program: &Path, order: &Order) -> io::Result<(Self, Streams)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ((stdout, its_stdout), (stderr, its_stderr)) = (io::pipe()?, io::pipe()?);
        let mut command = guard::command_line(program);
        command.stdin(OwnedFd::from(theirs)).stdout(its_stdout).stderr(its_stderr);
        let guard = tokio::process::Command::from(command).spawn()?;
        let streams = Streams {
            stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
            stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        };
        let (says, mut hears) = UnixStream::from_std(ours)?.into_split();
        let bytes = serde_json::to_vec(order)?;
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::ArgumentListTooLong)?;
        hears.write_u32(length).await?;
        hears.write_all(&bytes).await?;
        Ok((Self { guard, says: BufReader::new(says).lines(), order: Some(hears) }, streams))
    }

    /// The next that the guard says; `None` once it is gone.
    ///
    /// Cancel safe.
    pub(super) async fn says(&mut self) -> Option<Report> {
        let line = self.says.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Tells the guard to end the tree. Telling it again changes nothing.
    pub(super) fn stop(&mut self) {
        // Dropping this half shuts it.
        drop(self.order.take());
    }

    /// Takes the guard's own end. One that did not say that its tree is dead leaves it behind, of which everything dies
    /// that has not left its session; the guard's number stays its own until it is waited for.
    pub(super) async fn bury(mut self, is_dead: bool) {
        if !is_dead {
            // It was killed, or hangs.
            let _ = self.guard.start_kill();
            self.sweep().await;
        }
        // Its socket is closed: it has ended, or is about to.
        let _ = self.guard.wait().await;
    }

    async fn sweep(&self) {
        let session = self.guard.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(session) = session else { return };
        let left = Meant::SessionOf(session);
        for _ in 0..MOST_SWEEPS {
            if left.find().map_or(true, |found| found.is_empty()) {
                return;
            }
            let _ = left.kill();
            tokio::time::sleep(BETWEEN_SWEEPS).await;
        }
    }
}
