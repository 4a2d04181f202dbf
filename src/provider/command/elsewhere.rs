//! Where there is no guard: the program's process group stands in for its tree (on Windows: the program alone).
//!
//! Processes that leave the group, and those of a daemon that was killed, are not ended: only Linux lets a program
//! become the parent of whatever loses its own.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::Instant;

use super::order::{End, Folder, GRACE, Order, Report};

pub(super) type Stdout = ChildStdout;
pub(super) type Stderr = ChildStderr;

/// What a tree writes.
pub(super) struct Streams {
    pub(super) stdout: Stdout,
    pub(super) stderr: Stderr,
}

/// A program and its group.
pub(super) struct Tree {
    child: Child,
    folder: Folder,
    next: Next,
    /// When it is killed.
    kill_at: Option<Instant>,
}

/// What is to be said next.
#[derive(Clone, Copy)]
enum Next {
    Started,
    Ended,
    Dead,
    Nothing,
}

impl Tree {
    pub(super) async fn start(_guard: &Path, order: &Order) -> io::Result<(Self, Streams)> {
        if let Folder::Own(path) = &order.folder {
            fs::create_dir(path)?;
        }
        let mut command = Command::new(&order.program);
        command.args(&order.args).env_clear().envs(order.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(order.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let tree = Self { child, folder: order.folder.clone(), next: Next::Started, kill_at: None };
        Ok((tree, Streams { stdout, stderr }))
    }

    /// Cancel safe.
    pub(super) async fn says(&mut self) -> Option<Report> {
        match self.next {
            Next::Started => {
                self.next = Next::Ended;
                Some(Report::Started)
            }
            Next::Ended => {
                let status = self.ended().await;
                self.next = Next::Dead;
                Some(match status {
                    Ok(status) => Report::Ended(end(status)),
                    Err(error) => Report::NotStarted(error.to_string()),
                })
            }
            Next::Dead => {
                self.next = Next::Nothing;
                let left = match &self.folder {
                    Folder::Own(path) => fs::remove_dir_all(path).err().map(|error| error.to_string()),
                    Folder::Given(_) => None,
                };
                Some(Report::Dead { left })
            }
            Next::Nothing => None,
        }
    }

    /// The program's own end, after which its group is killed.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let group = self.child.id();
        let kill_at = self.kill_at;
        let time = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = time => {
                kill(group, true);
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        kill(group, true);
        status
    }

    pub(super) fn stop(&mut self) {
        self.kill_at.get_or_insert_with(|| Instant::now() + GRACE);
        if !kill(self.child.id(), false) {
            let _ = self.child.start_kill();
        }
    }

    pub(super) async fn bury(mut self, _is_dead: bool) {
        let _ = self.child.wait().await;
    }
}

/// Ends a group; says whether that can be done here.
#[cfg(unix)]
fn kill(group: Option<u32>, at_once: bool) -> bool {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = group.and_then(|group| i32::try_from(group).ok()).and_then(Pid::from_raw);
    let signal = if at_once { Signal::KILL } else { Signal::TERM };
    group.is_some_and(|group| kill_process_group(group, signal).is_ok())
}

#[cfg(not(unix))]
fn kill(_group: Option<u32>, _at_once: bool) -> bool {
    false
}

#[cfg(unix)]
fn end(status: ExitStatus) -> End {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().map(End::Signal);
    status.code().map(End::Code).or(signal).unwrap_or(End::Code(-1))
}

#[cfg(not(unix))]
fn end(status: ExitStatus) -> End {
    End::Code(status.code().unwrap_or(-1))
}
