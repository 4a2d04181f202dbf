//! `inflightd shim`: what a client starts. A line on stdin is a frame to the daemon, and back.
//!
//! Three threads, no runtime: the one that called [`run`] watches the parent and waits for the end, one reads
//! stdin, one keeps the connection. Bytes of messages are never changed, apart from line breaks between
//! tokens; what the shim must know of a message it reads beside them.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Endpoint;
use crate::ids::SessionKey;

mod answer;
mod bridge;
mod envelope;
mod lines;
mod link;
mod mark;
mod output;
mod spawn;
mod state;

use answer::Refusal;
use bridge::Bridge;
use lines::{Line, MAX_LINE_BYTES};
use link::Link;
use output::Output;
use spawn::Spawner;

/// How long messages wait for a daemon that is starting, or starting again.
const WAIT: Duration = Duration::from_secs(10);
/// Half of the second in which a shim without a parent must end.
const PARENT_POLL: Duration = Duration::from_millis(500);

/// Why the shim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed its end of stdin.
    InputEnded,
    /// The client reads no more.
    OutputClosed,
    /// The process that started the shim is gone.
    ParentGone,
    /// A thread of the shim failed.
    Broken,
}

/// Why the shim did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread was to be had.
    #[error("start a thread of the shim")]
    Thread(#[from] io::Error),
    /// The system has no random bits.
    #[error("mint a session key")]
    Random(#[source] getrandom::Error),
    /// A daemon is to be started, on another machine.
    #[error("start a daemon at {0}: --spawn does so only on a loopback address")]
    NotLocal(String),
}

/// Runs until the client is gone, which is the only way to end it. `spawn`: starts a daemon if none answers.
///
/// # Errors
/// It cannot start.
pub fn run(endpoint: Endpoint, spawn: bool) -> Result<End, StartError> {
    let parent = Parent::now();
    let spawner = match (spawn, endpoint.local_address()) {
        (false, _) => None,
        (true, Some(listen)) => Some(Spawner::new(listen)),
        (true, None) => return Err(StartError::NotLocal(endpoint.to_string())),
    };
    let endpoint = endpoint.with_session(mint()?);
    let output = Output::new(Box::new(io::stdout()));
    let (bridge, ended) = start(endpoint, spawner, WAIT, Box::new(io::stdin()), output)?;
    let end = watch(&ended, &parent);
    bridge.close();
    Ok(end)
}

/// 128 bits that nobody can guess.
fn mint() -> Result<SessionKey, StartError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(StartError::Random)?;
    Ok(SessionKey::new(u128::from_ne_bytes(bits)))
}

fn start(
    endpoint: Endpoint,
    spawner: Option<Spawner>,
    wait: Duration,
    input: Box<dyn Read + Send>,
    output: Output,
) -> Result<(Arc<Bridge>, Receiver<End>), StartError> {
    // Each thread sends two ends at most, and the first one counts.
    let (ends, ended) = sync_channel(4);
    let bridge = Arc::new(Bridge::new(Instant::now() + wait, output));
    let (leave, shared) = (Leave(ends.clone()), Arc::clone(&bridge));
    thread::Builder::new().name("daemon".to_owned()).spawn(move || {
        Link::new(&shared, &endpoint, wait, spawner).keep();
        leave.because(End::OutputClosed);
    })?;
    let (leave, shared) = (Leave(ends), Arc::clone(&bridge));
    thread::Builder::new().name("client".to_owned()).spawn(move || {
        let end = read_client(&shared, input);
        leave.because(end);
    })?;
    Ok((bridge, ended))
}

fn read_client(bridge: &Bridge, input: Box<dyn Read + Send>) -> End {
    let mut input = BufReader::new(input);
    loop {
        let done = match lines::next(&mut input, MAX_LINE_BYTES) {
            Ok(Line::Text(line)) if line.trim_ascii().is_empty() => Ok(()),
            Ok(Line::Text(line)) => bridge.line(line),
            Ok(Line::NotUtf8) => bridge.refuse(&Refusal::NotUtf8),
            Ok(Line::TooLong) => bridge.refuse(&Refusal::TooLong { limit_bytes: MAX_LINE_BYTES }),
            Ok(Line::End) | Err(_) => return End::InputEnded,
        };
        if done.is_err() {
            return End::OutputClosed;
        }
    }
}

fn watch(ended: &Receiver<End>, parent: &Parent) -> End {
    loop {
        match ended.recv_timeout(PARENT_POLL) {
            Ok(end) => return end,
            Err(RecvTimeoutError::Timeout) if parent.is_gone() => return End::ParentGone,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return End::Broken,
        }
    }
}

/// A thread's last word; dropped without one, by a panic, it says so.
#[must_use]
struct Leave(SyncSender<End>);

impl Leave {
    fn because(self, end: End) {
        // Full or closed: somebody else ended the shim already.
        let _ = self.0.try_send(end);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let _ = self.0.try_send(End::Broken);
    }
}

/// The process that started the shim.
///
/// A poll, and not the kernel's signal on a parent's death: that one is sent when the *thread* that forked
/// ends, and a client that starts its servers from a short-lived thread would lose them at once.
struct Parent(#[cfg(unix)] Option<rustix::process::Pid>);

#[cfg(unix)]
impl Parent {
    fn now() -> Self {
        Self(rustix::process::getppid())
    }

    /// An orphan gets another parent.
    fn is_gone(&self) -> bool {
        rustix::process::getppid() != self.0
    }
}

/// Elsewhere no process gets another parent, and the end of stdin is the only sign.
#[cfg(not(unix))]
impl Parent {
    fn now() -> Self {
        Self()
    }

    fn is_gone(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use std::net::TcpListener;

    /// Each write is one message.
    struct Written(SyncSender<Vec<u8>>);

    impl Write for Written {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.send(buf.to_vec()).map_err(io::Error::other)?;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_daemon_that_stays_away_is_answered_for_with_its_address_and_how_to_start_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        drop(listener);
        let (written, read) = sync_channel(8);
        let request = b"{\"id\":1,\"method\":\"tools/list\"}\n";
        let endpoint = Endpoint::parse(&url, None).unwrap();
        let output = Output::new(Box::new(Written(written)));
        let input = Box::new(Cursor::new(request));
        let (_bridge, ended) = start(endpoint, None, Duration::ZERO, input, output).unwrap();
        let answer: serde_json::Value =
            serde_json::from_slice(&read.recv_timeout(Duration::from_secs(30)).unwrap()).unwrap();
        assert_eq!(answer["error"]["code"], -32018);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(&url) && message.contains("inflightd serve"), "{message}");
        assert_eq!(ended.recv(), Ok(End::InputEnded));
    }

    #[test]
    fn a_thread_that_panics_ends_the_shim() {
        let (ends, ended) = sync_channel(4);
        let leave = Leave(ends);
        let panicked = thread::spawn(move || {
            let _leave = leave;
            panic!("a fault of ours");
        });
        assert!(panicked.join().is_err());
        assert_eq!(watch(&ended, &Parent::now()), End::Broken);
    }
}
