//! Local commands: one program and everything that it starts, bounded, timed and fenced, its output drained.
//!
//! ```text
//! the daemon ── socket ── guard (this program again, see `guard`) ── the program ── whatever it starts
//! ```
//!
//! A run is over when nothing of the tree lives any more, not before. Elsewhere than on Linux there is no such guard: a
//! process group stands in for the tree, and does not outlast a killed daemon's word.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;

#[cfg(not(target_os = "linux"))]
#[path = "command/elsewhere.rs"]
mod tree;
#[cfg(target_os = "linux")]
mod tree;

#[cfg(target_os = "linux")]
pub mod guard;
mod order;
mod output;

pub use order::{End, Fence, Folder, GRACE, Order};
pub use output::Kept;
use output::Tail;

use order::Report;
use tree::Tree;

/// How long ending a tree takes at most, as long as nothing hangs: the grace, and some rounds of killing.
pub const ENDING: Duration = Duration::from_secs(10);

/// A guard that says nothing for so long after it was told to end its tree is killed.
const SILENT_GUARD: Duration = Duration::from_secs(60);
/// Who holds a stream open although the tree is dead is not waited for longer.
const LEFT_IN_STREAMS: Duration = Duration::from_secs(1);
/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// At most so often is told how a run goes…
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// …and at least so often, also where nothing is written.
const TOLD_AFTER_SILENCE: Duration = Duration::from_secs(5);
/// How much of a line is told.
const TOLD_CHARS: usize = 200;

/// One run of a program.
pub struct Launch {
    /// This very program, which is its own guard.
    pub guard: PathBuf,
    /// What is started.
    pub order: Order,
    /// When it is ended.
    pub until: Deadline,
    /// Ends it sooner.
    pub stop: CancellationToken,
    /// How much is kept of each stream.
    pub output_bytes: usize,
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// How long it has been going.
    pub elapsed: Duration,
    /// The last line that was written.
    pub line: Option<String>,
}

/// Who ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The program itself.
    Itself,
    /// Its time was over.
    Time,
    /// Whoever started it.
    Stop,
}

/// A run that is over: nothing of its tree lives.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the program ended; else why it could not be started.
    pub end: Result<End, String>,
    /// Who ended it.
    pub by: EndedBy,
    /// What it wrote.
    pub stdout: Kept,
    /// The same of its other stream.
    pub stderr: Kept,
    /// How long it took, until the program ended.
    pub took: Duration,
    /// Why something of its own folder is left, if something is.
    pub left: Option<String>,
}

/// Runs a program until nothing of its tree lives. `see` is shown how it goes, not more often than once a second.
///
/// Not cancel safe: dropping it ends the tree, and nobody waits for that.
pub async fn run(launch: Launch, mut see: impl FnMut(Glimpse)) -> Finished {
    let start = Instant::now();
    let (tree, streams) = match Tree::start(&launch.guard, &launch.order).await {
        Ok(started) => started,
        Err(error) => return Finished::not_started(&error, start),
    };
    let mut run = Run {
        tree,
        stdout: Drain::new(streams.stdout, launch.output_bytes),
        stderr: Drain::new(streams.stderr, launch.output_bytes),
        end: None,
        by: EndedBy::Itself,
        took: None,
        silent_after: None,
    };
    let dead = run.guarded(start, &launch, &mut see).await;
    // All writers are dead: what is left in the pipes ends at once.
    let rest = async { tokio::join!(run.stdout.rest(), run.stderr.rest()) };
    let _ = Deadline::after(LEFT_IN_STREAMS).limit(rest).await;
    let Run { tree, stdout, stderr, end, by, took, .. } = run;
    tree.bury(dead.is_some()).await;
    let left = match &dead {
        Some(left) => left.clone(),
        None => Some("its guard was killed".to_owned()),
    };
    Finished {
        end: end.unwrap_or_else(|| Err("its guard was killed".to_owned())),
        by,
        stdout: stdout.tail.end(),
        stderr: stderr.tail.end(),
        took: took.unwrap_or_else(|| start.elapsed()),
        left,
    }
}

impl Finished {
    fn not_started(error: &io::Error, start: Instant) -> Self {
        Self {
            end: Err(error.to_string()),
            by: EndedBy::Itself,
            stdout: Kept::default(),
            stderr: Kept::default(),
            took: start.elapsed(),
            left: None,
        }
    }
}

/// One stream, while it is read.
struct Drain<R> {
    stream: Option<R>,
    chunk: Vec<u8>,
    tail: Tail,
}

impl<R: AsyncRead + Unpin> Drain<R> {
    fn new(stream: R, bound: usize) -> Self {
        Self { stream: Some(stream), chunk: Vec::with_capacity(CHUNK_BYTES), tail: Tail::new(bound) }
    }

    /// Reads once; never ready after the stream's end.
    ///
    /// Cancel safe.
    async fn pull(&mut self) {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        match stream.read_buf(&mut self.chunk).await {
            Ok(0) | Err(_) => self.stream = None,
            Ok(_) => {
                self.tail.push(&self.chunk);
                self.chunk.clear();
            }
        }
    }

    /// Reads to the end.
    async fn rest(&mut self) {
        while self.stream.is_some() {
            self.pull().await;
        }
    }
}

struct Run {
    tree: Tree,
    stdout: Drain<tree::Stdout>,
    stderr: Drain<tree::Stderr>,
    end: Option<Result<End, String>>,
    by: EndedBy,
    took: Option<Duration>,
    /// From when on the guard hangs: it was told to end its tree.
    silent_after: Option<Deadline>,
}

/// What a run is woken by.
enum Event {
    Report(Option<Report>),
    Wrote,
    Stop(EndedBy),
    Tick,
    Silent,
}

impl Run {
    /// Until the guard says that the tree is dead, and whether something of its folder is left; `None`: the guard is
    /// gone, or hangs.
    async fn guarded(
        &mut self,
        start: Instant,
        launch: &Launch,
        see: &mut impl FnMut(Glimpse),
    ) -> Option<Option<String>> {
        let (mut told, mut news) = (start, false);
        loop {
            let wait = if news { TOLD_EVERY } else { TOLD_AFTER_SILENCE };
            match self.next(launch, told + wait).await {
                Event::Report(Some(Report::Dead { left })) => return Some(left),
                Event::Report(None) | Event::Silent => return None,
                Event::Report(Some(report)) => self.take(report, start),
                Event::Wrote => news = true,
                Event::Stop(by) => self.stop(by),
                Event::Tick => {
                    let line = self.stdout.tail.last_line(TOLD_CHARS);
                    let line = line.or_else(|| self.stderr.tail.last_line(TOLD_CHARS));
                    see(Glimpse { elapsed: start.elapsed(), line });
                    (told, news) = (Instant::now(), false);
                }
            }
        }
    }

    /// Cancel safe.
    async fn next(&mut self, launch: &Launch, tick: Instant) -> Event {
        let stopping = self.silent_after;
        let silent = async {
            match stopping {
                Some(deadline) => tokio::time::sleep_until(deadline.instant()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            report = self.tree.says() => Event::Report(report),
            () = self.stdout.pull() => Event::Wrote,
            () = self.stderr.pull() => Event::Wrote,
            () = launch.stop.cancelled(), if stopping.is_none() => Event::Stop(EndedBy::Stop),
            () = tokio::time::sleep_until(launch.until.instant()), if stopping.is_none() => {
                Event::Stop(EndedBy::Time)
            }
            () = tokio::time::sleep_until(tick) => Event::Tick,
            () = silent => Event::Silent,
        }
    }

    fn take(&mut self, report: Report, start: Instant) {
        match report {
            Report::Started | Report::Dead { .. } => return,
            Report::NotStarted(reason) => self.end = Some(Err(reason)),
            Report::Ended(end) => self.end = Some(Ok(end)),
        }
        self.took = Some(start.elapsed());
        // The guard ends by itself what the program left behind.
        self.silent_after.get_or_insert_with(|| Deadline::after(SILENT_GUARD));
    }

    fn stop(&mut self, by: EndedBy) {
        // A program that had ended by itself was not ended by others.
        if self.end.is_none() {
            self.by = by;
        }
        self.silent_after = Some(Deadline::after(SILENT_GUARD));
        self.tree.stop();
    }
}
