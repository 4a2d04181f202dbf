//! Where rare lines go: a bounded queue and one thread that writes to stderr, so that a reader of the log that hangs
//! holds up nobody but that thread.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What may wait to be written: more than a start tells, and little beside all else.
const WAITING_BYTES: usize = 1 << 20;

/// How long the end of the process waits for a reader.
const LAST_WORDS: Duration = Duration::from_secs(2);

static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// Takes whole lines, and never waits.
#[derive(Debug, Clone)]
pub(super) struct Outlet(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    come: Condvar,
    gone: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    writing: bool,
}

impl Outlet {
    /// The one of this process.
    pub(super) fn of_process() -> Self {
        OUTLET.get_or_init(Self::start).clone()
    }

    fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let started = std::thread::Builder::new().name("log".into()).spawn(move || writer.run());
        // Without a thread, whoever has a line writes it.
        Self(started.ok().map(|_| shared))
    }
}

/// Writes what waits, two seconds at most: the process is about to end, or to say something past the log.
pub fn flush() {
    let Some(Outlet(Some(shared))) = OUTLET.get() else { return };
    let mut lines = shared.lines.lock();
    while !lines.waiting.is_empty() || lines.writing {
        if shared.gone.wait_for(&mut lines, LAST_WORDS).timed_out() {
            return;
        }
    }
}

/// Says something to whoever started the daemon by hand, behind the lines before it.
pub fn say(text: &str) {
    // Whoever closed stderr does not want to read it.
    let _ = Outlet::of_process().write_all(text.as_bytes());
}

impl Write for Outlet {
    /// Takes all of it, or drops all of it: a line is never torn.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let Some(shared) = &self.0 else { return std::io::stderr().write(line) };
        let mut lines = shared.lines.lock();
        if lines.waiting.len() + line.len() > WAITING_BYTES {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        lines.waiting.extend_from_slice(line);
        drop(lines);
        shared.come.notify_one();
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        let mut batch = Vec::new();
        let mut told = 0;
        loop {
            let mut lines = self.lines.lock();
            while lines.waiting.is_empty() {
                self.come.wait(&mut lines);
            }
            std::mem::swap(&mut lines.waiting, &mut batch);
            lines.writing = true;
            drop(lines);
            // A log that cannot be written cannot be complained about.
            let _ = std::io::stderr().lock().write_all(&batch);
            batch.clear();
            self.lines.lock().writing = false;
            self.gone.notify_all();
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > told {
                let dropped = dropped - told;
                tracing::warn!(dropped, "log: lines came faster than they could be written");
            }
            told = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_no_line_is_torn() {
        let shared = Arc::new(Shared::default());
        let mut outlet = Outlet(Some(Arc::clone(&shared)));
        let line = [b'x'; 1000];
        for _ in 0..2000 {
            outlet.write_all(&line).unwrap();
        }
        let waiting = shared.lines.lock().waiting.len();
        assert!(
            waiting <= WAITING_BYTES && waiting + line.len() > WAITING_BYTES && waiting % line.len() == 0
        );
        let kept = u64::try_from(waiting / line.len()).unwrap();
        assert_eq!(kept + shared.dropped.load(Ordering::Relaxed), 2000);
    }
}
