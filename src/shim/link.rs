//! The thread that keeps a connection to the daemon, as long as the shim lives.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use crate::client::{ConnectError, Connected, Endpoint, LinkLost, Reader, Sender, explain};
use crate::shim::answer::Refusal;
use crate::shim::bridge::{Bridge, OpenError};
use crate::shim::spawn::Spawner;
use crate::shim::state::{Session, Toward};

/// The first pause between two tries; a daemon that restarts is back in about this time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: what a person who started a daemon is willing to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// One try, when nobody waits for it.
const LONGEST_TRY: Duration = Duration::from_secs(5);
/// One try, however little of the wait is left.
const SHORTEST_TRY: Duration = Duration::from_secs(1);
/// What a new daemon may take to accept the session.
const SESSION_BUDGET: Duration = Duration::from_secs(10);

/// Why a connection ended, or never began.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("write to the client")]
    Output(#[from] io::Error),
    #[error("connect")]
    Connect(#[from] ConnectError),
    #[error("keep the connection")]
    Lost(#[from] LinkLost),
    #[error("begin the session again: the daemon refused it")]
    SessionRefused,
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Output(error) => Self::Output(error),
            OpenError::Lost(error) => Self::Lost(error),
        }
    }
}

/// Keeps a connection.
pub(super) struct Link<'a> {
    bridge: &'a Bridge,
    endpoint: &'a Endpoint,
    /// How long messages wait after a connection was lost.
    wait: Duration,
    pause: Duration,
    /// The last line on stderr, so that a long absence is one line.
    noted: Option<Refusal>,
    /// The daemon's version that was warned of.
    warned: Option<String>,
    spawner: Option<Spawner>,
}

impl<'a> Link<'a> {
    pub(super) fn new(
        bridge: &'a Bridge,
        endpoint: &'a Endpoint,
        wait: Duration,
        spawner: Option<Spawner>,
    ) -> Self {
        Self { bridge, endpoint, wait, pause: FIRST_PAUSE, noted: None, warned: None, spawner }
    }

    /// Connects, serves and connects again, until the client is gone.
    pub(super) fn keep(&mut self) -> io::Error {
        loop {
            let Err(trouble) = self.serve();
            if self.bridge.is_closing() {
                return io::ErrorKind::BrokenPipe.into();
            }
            if let Err(error) = self.settle(trouble) {
                return error;
            }
            let pause = self.next_pause();
            let left = self.bridge.waits_until().map(|until| until.saturating_duration_since(Instant::now()));
            std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
        }
    }

    /// One connection, from its beginning to its end.
    fn serve(&mut self) -> Result<Infallible, Trouble> {
        let Connected { mut reader, sender, version } = self.endpoint.connect(self.budget())?;
        self.compare(version);
        if let Some(spawner) = &mut self.spawner {
            spawner.answered();
        }
        let session = self.bridge.session();
        if let Some(session) = &session {
            self.begin_again(&mut reader, &sender, session)?;
        }
        self.bridge.open(&sender)?;
        if self.noted.take().is_some() {
            note(&format!("connected to the daemon at {}", self.endpoint));
        }
        if session.is_some_and(|session| session.initialized.is_some()) {
            self.bridge.announce_change()?;
        }
        loop {
            if let Some(text) = reader.next(None)? {
                // Only a daemon that talks is worth an eager retry: one that closes at once is not.
                self.pause = FIRST_PAUSE;
                self.bridge.frame(&text)?;
            }
        }
    }

    /// Says once that the daemon is of another version. Both understand one another all the same, or refuse to.
    fn compare(&mut self, version: Option<String>) {
        let own = env!("CARGO_PKG_VERSION");
        let Some(version) = version.filter(|version| version != own) else { return };
        if self.warned.as_ref() != Some(&version) {
            let url = self.endpoint;
            note(&format!(
                "the daemon at {url} is version {version}, this shim is {own}: restart the older one"
            ));
            self.warned = Some(version);
        }
    }

    /// Starts a daemon where none answers, if that is wanted; says so.
    fn spawn(&mut self, trouble: &Trouble) -> bool {
        let refused = matches!(trouble, Trouble::Connect(ConnectError::Reach(error)) if error.kind() == ErrorKind::ConnectionRefused);
        let Some(spawner) = self.spawner.as_mut().filter(|_| refused) else { return false };
        match spawner.spawn(self.endpoint) {
            Some(Ok(log)) => {
                note(&format!(
                    "no daemon answers at {}: starting one, its log is {}",
                    self.endpoint,
                    log.display()
                ));
                true
            }
            Some(Err(error)) => {
                note(&format!("cannot start a daemon: {}", explain(&error)));
                false
            }
            None => false,
        }
    }

    /// A client of the older era has initialised once and for all: the new daemon learns of it from here.
    fn begin_again(&self, reader: &mut Reader, sender: &Sender, session: &Session) -> Result<(), Trouble> {
        let until = Some(Instant::now() + SESSION_BUDGET);
        sender.send(session.initialize.clone())?;
        loop {
            let text = reader.next(until)?.ok_or(LinkLost::Silent)?;
            match self.bridge.frame(&text)? {
                Toward::Client | Toward::Nobody => {}
                Toward::Shim { failed: true } => return Err(Trouble::SessionRefused),
                Toward::Shim { failed: false } => break,
            }
        }
        match &session.initialized {
            Some(initialized) => Ok(sender.send(initialized.clone())?),
            None => Ok(()),
        }
    }

    /// Tells the client and the person behind it.
    fn settle(&mut self, trouble: Trouble) -> io::Result<()> {
        let url = self.endpoint.to_string();
        let spawned = self.spawn(&trouble);
        if matches!(trouble, Trouble::Lost(LinkLost::TooBig)) {
            self.bridge.too_big()?;
        }
        let why = match trouble {
            Trouble::Output(error) => return Err(error),
            Trouble::Connect(error) => Refusal::from_connect(&url, &error),
            Trouble::Lost(error) => Refusal::Away {
                text: format!("the connection to the daemon at {url} was lost: {}", explain(&error)),
            },
            Trouble::SessionRefused => {
                Refusal::Away { text: format!("the daemon at {url} does not take this session up again") }
            }
        };
        if !spawned && self.noted.as_ref() != Some(&why) {
            note(&format!("{why}; trying again"));
            self.noted = Some(why.clone());
        }
        let now = Instant::now();
        self.bridge.lost(now + self.wait, &why)?;
        let hopeless = matches!(why, Refusal::Unauthorized { .. });
        if hopeless || self.bridge.waits_until().is_none_or(|until| until <= now) {
            self.bridge.shut(why)?;
        }
        Ok(())
    }

    fn budget(&self) -> Duration {
        let left = self.bridge.waits_until().map(|until| until.saturating_duration_since(Instant::now()));
        left.map_or(LONGEST_TRY, |left| left.clamp(SHORTEST_TRY, LONGEST_TRY))
    }

    /// Doubles, with jitter: the shims of one machine all lose the same daemon at the same moment.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// One line for the person; whether anybody reads it is not the shim's concern.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "inflightd shim: {text}");
}
