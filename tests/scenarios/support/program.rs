//! The daemon as a program, where a process is needed: signals, exit codes, log lines, memory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::{until, within};

/// A working folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("scene-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where a file of it is.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon that runs as a process, killed with the test.
pub struct Program {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
    _folder: Folder,
}

/// How a process ended.
pub struct Ended {
    pub code: Option<i32>,
    pub log: String,
}

fn command(folder: &Folder, keys: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
    command.arg("serve").env_clear().envs(keys.iter().copied()).current_dir(&folder.0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a daemon that must not start.
pub async fn refused(folder: &Folder, keys: &[(&str, &str)]) -> Ended {
    let output = within("the end of the process", command(folder, keys).output()).await.unwrap();
    assert!(output.stdout.is_empty());
    Ended { code: output.status.code(), log: String::from_utf8(output.stderr).unwrap() }
}

impl Program {
    /// Starts it on a free port, and waits until it listens.
    pub async fn start(keys: &[(&str, &str)]) -> Self {
        Self::start_in(Folder::new(), keys).await
    }

    pub async fn start_in(folder: Folder, keys: &[(&str, &str)]) -> Self {
        let mut all = vec![("INFLIGHTD_LISTEN", "127.0.0.1:0")];
        all.extend_from_slice(keys);
        let mut child = command(&folder, &all).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let sink = Arc::clone(&log);
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut address = None;
        until("a daemon that listens", || {
            let log = log.lock().unwrap();
            let place = log.split_once("inflightd listens on ").map(|(_, rest)| rest);
            // The line may have come in part: its end must be there.
            address = place.and_then(|rest| {
                rest.split_once(|end: char| end == '"' || end.is_whitespace())?.0.parse().ok()
            });
            address.is_some()
        })
        .await;
        Self { address: address.unwrap(), child, log, reading, _folder: folder }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    #[cfg(unix)]
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let status = within("the end of the process", self.child.wait()).await.unwrap();
        within("the end of the log", self.reading).await.unwrap();
        let log = self.log.lock().unwrap().clone();
        Ended { code: status.code(), log }
    }
}
