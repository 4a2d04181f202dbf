//! The shim's memory joined to its two ends; what both of its threads share.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::client::{LinkLost, Sender};
use crate::shim::answer::Refusal;
use crate::shim::output::Output;
use crate::shim::state::{Session, State, Step, Toward};

/// Tells the client that the new daemon may offer other tools.
const LIST_CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

/// State and output. The state's lock is never held while a peer is written to.
pub(super) struct Bridge {
    state: Mutex<State<Sender>>,
    output: Output,
    /// The client is gone: what happens to the connection now concerns nobody.
    closing: AtomicBool,
}

/// Why the way to the daemon did not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The client reads no more.
    #[error("write to the client")]
    Output(#[from] io::Error),
    /// The daemon is gone again.
    #[error("send what waited")]
    Lost(#[from] LinkLost),
}

impl Bridge {
    pub(super) fn new(wait_until: Instant, output: Output) -> Self {
        Self { state: Mutex::new(State::new(wait_until)), output, closing: AtomicBool::new(false) }
    }

    /// A line of the client.
    pub(super) fn line(&self, line: String) -> io::Result<()> {
        let step = self.state.lock().line(line);
        match step {
            // A failure reaches the reading thread too, which answers whatever was in flight, this included.
            Step::Send(sender, line) => {
                let _ = sender.send(line);
                Ok(())
            }
            Step::Answer(text) => self.output.line(&text),
            Step::Rest => Ok(()),
        }
    }

    /// A line that never becomes a message; nobody can know whose it was.
    pub(super) fn refuse(&self, refusal: &Refusal) -> io::Result<()> {
        self.output.line(&refusal.answer("null"))
    }

    /// A message of the daemon.
    pub(super) fn frame(&self, text: &str) -> io::Result<Toward> {
        let toward = self.state.lock().frame(text);
        if toward == Toward::Client {
            self.output.line(text)?;
        }
        Ok(toward)
    }

    /// Sends what waited, and then everything as it comes.
    pub(super) fn open(&self, sender: &Sender) -> Result<(), OpenError> {
        loop {
            let step = self.state.lock().release(sender);
            match step {
                Step::Send(sender, line) => sender.send(line)?,
                Step::Answer(text) => self.output.line(&text)?,
                Step::Rest => return Ok(()),
            }
        }
    }

    /// The daemon is another one now.
    pub(super) fn announce_change(&self) -> io::Result<()> {
        self.output.line(LIST_CHANGED)
    }

    /// A message was too large for the daemon: whoever sent it is told so, and it is not sent again.
    pub(super) fn too_big(&self) -> io::Result<()> {
        let answer = self.state.lock().too_big();
        answer.map_or(Ok(()), |answer| self.output.line(&answer))
    }

    /// The connection is gone, or did not come about.
    pub(super) fn lost(&self, wait_until: Instant, why: &Refusal) -> io::Result<()> {
        let answers = self.state.lock().lost(wait_until, why);
        answers.iter().try_for_each(|answer| self.output.line(answer))
    }

    /// Nobody waits for a daemon any longer.
    pub(super) fn shut(&self, why: Refusal) -> io::Result<()> {
        let answers = self.state.lock().shut(why);
        answers.iter().try_for_each(|answer| self.output.line(answer))
    }

    /// Until when messages wait for a daemon.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.state.lock().waits_until()
    }

    /// The session that a new connection must begin again.
    pub(super) fn session(&self) -> Option<Session> {
        self.state.lock().session()
    }

    /// The shim is about to end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Says good-bye to the daemon, without waiting for it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let sender = self.state.lock().open_door();
        if let Some(sender) = sender {
            sender.close();
        }
    }
}
