//! The guard of one module: this program once more, as the parent of everything that the module starts.
//!
//! It is a child subreaper: whatever loses its parent becomes the guard's child, however it was detached, so when the
//! guard has no child left, nothing of the tree lives. It ends the tree (TERM, five seconds, KILL) when the program
//! itself has ended and left others behind, when it is told to, and when the daemon is gone: then its socket closes.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Signal, WaitOptions, getpid, getrlimit, set_child_subreaper, setrlimit, setsid, wait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal as Heard, SignalKind, signal};
use tokio::time::Instant;

use crate::provider::command::order::{End, Folder, GRACE, LONGEST_ORDER_BYTES, Order, Report};

mod fence;
pub(super) mod own_folder;
pub(super) mod processes;

pub use fence::is_there as fence_is_there;
use processes::Meant;

/// How often in each round its own children are killed, for those that are quicker than a look through all processes.
const CHASES: usize = 100;
/// Between two rounds of killing; each further one waits longer, up to a second.
const ROUND: Duration = Duration::from_millis(10);
/// What most programs are used to: the daemon's own limit is far higher.
const OPEN_FILES: u64 = 1024;
/// Its name in lists of processes.
const NAME: &str = "inflightd";

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Stdin is no socket, or the order on it makes no sense. Only a daemon starts a guard.
    #[error("read the order: only the daemon starts a guard")]
    Order(#[source] io::Error),
    /// The system does not let it guard.
    #[error("become the guard of a tree")]
    Guard(#[source] io::Error),
}

/// Reads the order from stdin, and guards what it starts until nothing of it lives.
///
/// # Errors
/// Nothing was started.
pub fn run() -> Result<(), GuardError> {
    // A terminal's signals are for the daemon, which then says what is to happen.
    let _ = setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(GuardError::Guard)?.block_on(guard())
}

async fn guard() -> Result<(), GuardError> {
    let mut signals = Signals::hear().map_err(GuardError::Guard)?;
    set_child_subreaper(Some(getpid())).map_err(|error| GuardError::Guard(error.into()))?;
    let mut socket = socket().map_err(GuardError::Order)?;
    let order = order(&mut socket).await.map_err(GuardError::Order)?;
    let started = start(&order);
    // The module alone holds its streams from here on: their end is its own.
    let closed = close_streams();
    let mut tree = Tree { main: None, socket, hears: true, life: Life::Works };
    match started.and_then(|pid| closed.map(|()| pid)) {
        Ok(pid) => {
            tree.main = Some(pid);
            tree.tell(&Report::Started).await;
        }
        Err(error) => {
            tree.tell(&Report::NotStarted(error.to_string())).await;
            tree.stop();
        }
    }
    tree.live(&mut signals).await;
    let left = match &order.folder {
        Folder::Own(path) => own_folder::remove(path).err().map(|error| error.to_string()),
        Folder::Given(_) => None,
    };
    tree.tell(&Report::Dead { left }).await;
    Ok(())
}

/// Both ends of what the daemon says and hears.
fn socket() -> io::Result<UnixStream> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = StdUnixStream::from(stdin);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn order(socket: &mut UnixStream) -> io::Result<Order> {
    let length = socket.read_u32().await?;
    if length > LONGEST_ORDER_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    socket.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Starts the program in a group of its own, from a thread of its own: the fence is around that thread and what it
/// starts.
fn start(order: &Order) -> io::Result<Pid> {
    if let Folder::Own(path) = &order.folder {
        own_folder::make(path)?;
    }
    let files = getrlimit(Resource::Nofile);
    let fewer = rustix::process::Rlimit {
        current: files.maximum.map_or(Some(OPEN_FILES), |most| Some(most.min(OPEN_FILES))),
        ..files
    };
    let _ = setrlimit(Resource::Nofile, fewer);
    let spawn = || -> io::Result<u32> {
        // No program gains rights by being run: all that it starts stays ours to end.
        rustix::thread::set_no_new_privs(true)?;
        if let Some(fence) = &order.fence {
            fence::put_up(fence, &order.program, order.folder.path()).map_err(io::Error::other)?;
        }
        let mut command = Command::new(&order.program);
        command.args(&order.args).env_clear().envs(order.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(order.folder.path()).stdin(Stdio::null()).process_group(0);
        // It is waited for with everything else that becomes the guard's child.
        Ok(command.spawn()?.id())
    };
    let pid = std::thread::scope(|scope| scope.spawn(spawn).join());
    let pid = pid.unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))?;
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn close_streams() -> io::Result<()> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}

/// What the guard is woken by.
struct Signals {
    child: Heard,
    stop: [Heard; 4],
}

impl Signals {
    fn hear() -> io::Result<Self> {
        let stop = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ];
        Ok(Self { child: signal(SignalKind::child())?, stop })
    }

    /// Cancel safe.
    async fn stop(stop: &mut [Heard; 4]) {
        let [term, int, hup, quit] = stop;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// Where a tree is in its life.
#[derive(Debug, Clone, Copy)]
enum Life {
    /// The program works.
    Works,
    /// It was told to end, and may do so by itself until then.
    Ends(Instant),
    /// It is killed in rounds, the next one then.
    Killed { next: Instant, pause: Duration },
}

struct Tree {
    main: Option<Pid>,
    socket: UnixStream,
    /// The daemon may still say that it must end.
    hears: bool,
    life: Life,
}

impl Tree {
    /// Until nothing of it lives.
    async fn live(&mut self, signals: &mut Signals) {
        loop {
            let (lives, end) = self.reap();
            if let Some(end) = end {
                self.tell(&Report::Ended(end)).await;
                self.stop();
            }
            if !lives {
                return;
            }
            let Signals { child, stop } = &mut *signals;
            let mut byte = [0];
            tokio::select! {
                biased;
                _ = child.recv() => {}
                _ = self.socket.read(&mut byte), if self.hears => {
                    self.hears = false;
                    self.stop();
                }
                () = Signals::stop(stop) => self.stop(),
                () = until(self.life) => self.go_on(),
            }
        }
    }

    /// Takes every end that there is: whether anything of the tree lives, and how the program ended if it just did.
    fn reap(&mut self) -> (bool, Option<End>) {
        let mut main = None;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if self.main == Some(pid) => {
                    self.main = None;
                    main = end(status.exit_status(), status.terminating_signal());
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return (true, main),
                // No child is left, so nothing that descends from one is.
                Err(_) => return (false, main),
            }
        }
    }

    /// Tells it to end; it has a while to do so.
    fn stop(&mut self) {
        if !matches!(self.life, Life::Works) {
            return;
        }
        self.life = Life::Ends(Instant::now() + GRACE);
        let all = Meant::DescendantsOf(getpid());
        // What was stopped hears nothing before it goes on.
        if all.signal(Signal::TERM).and_then(|()| all.signal(Signal::CONT)).is_err() {
            self.without_proc(Signal::TERM);
        }
    }

    /// Its time is over.
    fn go_on(&mut self) {
        let pause = match self.life {
            Life::Works | Life::Ends(_) => ROUND,
            Life::Killed { pause, .. } => (pause * 2).min(Duration::from_secs(1)),
        };
        if Meant::DescendantsOf(getpid()).kill().is_err() {
            self.without_proc(Signal::KILL);
        }
        for _ in 0..CHASES {
            processes::kill_children();
        }
        self.life = Life::Killed { next: Instant::now() + pause, pause };
    }

    /// Where nothing can be looked up, the program's own group is all that is known.
    fn without_proc(&self, signal: Signal) {
        if let Some(main) = self.main {
            let _ = rustix::process::kill_process_group(main, signal);
        }
    }

    /// The daemon may be gone, which changes nothing here.
    async fn tell(&mut self, report: &Report) {
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        let _ = self.socket.write_all(&line).await;
    }
}

/// Cancel safe.
async fn until(life: Life) {
    match life {
        Life::Works => std::future::pending().await,
        Life::Ends(at) | Life::Killed { next: at, .. } => tokio::time::sleep_until(at).await,
    }
}

fn end(code: Option<i32>, signal: Option<i32>) -> Option<End> {
    code.map(End::Code).or(signal.map(End::Signal))
}

/// How a guard is to be started: its name in lists of processes, and its only argument.
pub(super) fn command_line(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.arg0(NAME).arg("guard").env_clear().current_dir("/");
    command
}
