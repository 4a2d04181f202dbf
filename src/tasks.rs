//! Every task of the daemon starts here: named, counted, and drained within a bound.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::Notify;

use crate::deadline::{Deadline, Passed};
use crate::sync;

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Accepts connections.
    Listener,
    /// Serves one connection's HTTP.
    Connection,
    /// Serves one WebSocket.
    Session,
    /// Works for one flight.
    Run,
    /// Ends a provider's pause.
    Pause,
    /// Looks at the daemon itself.
    Health,
    /// Keeps an upstream server.
    Upstream,
}

impl TaskKind {
    const ALL: [Self; 7] = [
        Self::Listener,
        Self::Connection,
        Self::Session,
        Self::Run,
        Self::Pause,
        Self::Health,
        Self::Upstream,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::Session => "session",
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Health => "health",
            Self::Upstream => "upstream",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Listener => 0,
            Self::Connection => 1,
            Self::Session => 2,
            Self::Run => 3,
            Self::Pause => 4,
            Self::Health => 5,
            Self::Upstream => 6,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    live: [AtomicUsize; TaskKind::ALL.len()],
    ended: Notify,
}

/// The daemon's tasks. Cloning it is cheap; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    counts: Arc<Counts>,
}

/// Counts one task for as long as it lives, whether it ends, panics or is aborted.
struct Alive {
    counts: Arc<Counts>,
    kind: TaskKind,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(live) = self.counts.live.get(self.kind.index()) {
            live.fetch_sub(1, Ordering::AcqRel);
        }
        self.counts.ended.notify_waiters();
    }
}

pin_project! {
    /// A task's work, and nothing that has to be looked at before it: the state of an `async` block would stand behind the
    /// work, far from where it begins, and be fetched for each poll.
    struct Counted<F> {
        #[pin]
        work: F,
        _alive: Alive,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().work.poll(cx)
    }
}

impl Tasks {
    /// Starts a task. A panic in it ends that task alone; its guards answer whoever waits for it.
    pub fn spawn<F>(&self, kind: TaskKind, work: F) -> sync::AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(live) = self.counts.live.get(kind.index()) {
            live.fetch_add(1, Ordering::AcqRel);
        }
        let alive = Alive { counts: Arc::clone(&self.counts), kind };
        sync::spawn(Counted { work, _alive: alive })
    }

    /// How many tasks of `kind` live.
    pub fn live(&self, kind: TaskKind) -> usize {
        self.counts.live.get(kind.index()).map_or(0, |live| live.load(Ordering::Acquire))
    }

    /// Waits until no task of `kind` is left.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Passed`] when the deadline came first.
    pub async fn drained(&self, kind: TaskKind, deadline: Deadline) -> Result<(), Passed> {
        let empty = async {
            loop {
                let ended = self.counts.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.live(kind) == 0 {
                    return;
                }
                ended.await;
            }
        };
        deadline.limit(empty).await
    }

    /// Names what still lives: `session=2 run=1`; empty when nothing does.
    pub fn left(&self) -> String {
        let mut text = String::new();
        for kind in TaskKind::ALL {
            let live = self.live(kind);
            if live > 0 {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(kind.label());
                text.push('=');
                text.push_str(itoa::Buffer::new().format(live));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panicking_and_an_aborted_task_are_counted_out() {
        let tasks = Tasks::default();
        tasks.spawn(TaskKind::Run, async { panic!("on purpose") });
        tasks.spawn(TaskKind::Run, std::future::pending()).abort();
        tasks.drained(TaskKind::Run, Deadline::after(Duration::from_secs(5))).await.unwrap();
        assert_eq!(tasks.left(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_has_a_bound_and_names_what_is_left() {
        let tasks = Tasks::default();
        tasks.spawn(TaskKind::Session, std::future::pending());
        let bound = Deadline::after(Duration::from_secs(1));
        assert_eq!(tasks.drained(TaskKind::Session, bound).await, Err(Passed));
        assert_eq!(tasks.left(), "session=1");
    }
}
