//! The servers: children of the benchmark, on a core of their own, watched through `/proc`.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::json;

use crate::reference::Flavour;

/// The words of the hidden commands that turn this program into one of its own children.
pub const REFERENCE: &str = "--reference";
/// The Rust SDK's server.
pub const SDK: &str = "--sdk";
/// A line on stdin is a frame and back; stands in for the shim in a self-test.
pub const SHIM: &str = "--shim";

/// A tool server over stdin and stdout, which the daemon starts.
pub const UPSTREAM: &str = "--upstream";

/// A model service that answers at once.
pub const MODEL: &str = "--model";
/// The bare loop that asks it.
pub const BARE: &str = "--bare";

/// The two cores: one for servers, one for the generator.
#[derive(Debug, Clone, Copy)]
pub struct Cores(Option<(usize, usize)>);

impl Cores {
    /// The first two that this process may use; where there is one, nothing is pinned.
    pub fn pick() -> Self {
        let allowed = sched_getaffinity(None).unwrap();
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let cores = Self(usable.next().zip(usable.next()));
        cores.generator();
        cores
    }

    /// How it reads in the report.
    pub fn describe(self) -> String {
        match self.0 {
            Some((server, generator)) => format!("server on core {server}, generator on core {generator}"),
            None => "one core only, nothing pinned: figures are not comparable".to_owned(),
        }
    }

    fn generator(self) {
        if let Some((_, core)) = self.0 {
            pin(core);
        }
    }

    /// Spawns a child on the servers' core: a child inherits the affinity of the thread that forks it.
    pub fn spawn_server(self, command: &mut Command) -> Child {
        if let Some((core, _)) = self.0 {
            pin(core);
        }
        let child = command.spawn();
        self.generator();
        child.unwrap()
    }
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap();
}

/// Room for thousands of sockets, here and in every child.
pub fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}

/// What does the work of a daemon's calls.
#[derive(Debug, Clone, Copy)]
pub enum Behind {
    /// Its offline provider, which takes so long.
    Offline {
        /// How long.
        latency: Duration,
    },
    /// The model service that listens there.
    Model {
        /// Where.
        port: u16,
    },
    /// A tool server over stdin and stdout, in this binary, beside the offline provider.
    Upstream,
}

/// What can be started.
#[derive(Debug, Clone)]
pub enum Program {
    /// The reference, in this binary.
    Reference(Flavour),
    /// `inflightd serve`.
    Daemon {
        /// Where its binary is.
        binary: PathBuf,
        /// Its `LOG_LEVEL`.
        log_level: &'static str,
        /// Where its calls go.
        behind: Behind,
    },
    /// The Rust SDK's server, in this binary.
    Sdk,
    /// The model service, in this binary; on the generator's core.
    Model,
}

/// One running server; killed when dropped.
pub struct Server {
    child: Child,
    folder: PathBuf,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    /// Starts `program` and waits until it is ready.
    pub fn start(program: &Program, cores: Cores) -> Self {
        let mut server = Self::spawn(program, cores);
        let began = Instant::now();
        while !server.is_ready(program) {
            let ended = server.child.try_wait().unwrap();
            if ended.is_some() || began.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(server.folder.join("stderr")).unwrap_or_default();
                panic!("{program:?} did not become ready ({ended:?}): {said}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        server
    }

    /// Starts `program`, and waits for nothing.
    pub fn spawn(program: &Program, cores: Cores) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("inflightd-speed-{}-{count}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut command = match program {
            Program::Reference(flavour) => reference(*flavour, port),
            Program::Daemon { binary, log_level, behind } => {
                let mut command = Command::new(binary);
                command.arg("serve").env_clear();
                daemon_environment(&mut command, port, log_level);
                put_behind(&mut command, *behind, &folder);
                command
            }
            Program::Sdk => itself(SDK, port),
            Program::Model => itself(MODEL, port),
        };
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
        if matches!(program, Program::Daemon { log_level: "info", .. }) {
            command.stderr(Stdio::null());
        } else {
            command.stderr(File::create(folder.join("stderr")).unwrap());
        }
        let child = match program {
            Program::Model => command.spawn().unwrap(),
            _ => cores.spawn_server(&mut command),
        };
        Self { child, folder, port }
    }

    fn is_ready(&self, program: &Program) -> bool {
        match program {
            Program::Reference(_) | Program::Sdk | Program::Model => {
                TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            }
            Program::Daemon { .. } => get(self.port, "/readyz").is_some_and(|head| head.contains(" 200 ")),
        }
    }

    /// Processor time of all its threads until now; sleeps a moment first, so that they are at rest.
    pub fn cpu(&self) -> Duration {
        std::thread::sleep(Duration::from_millis(20));
        cpu_of(self.child.id())
    }

    /// Resident bytes.
    pub fn resident(&self) -> u64 {
        resident(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Processor time of all threads of a process until now.
pub fn cpu_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos: Option<u64> = tasks
        .map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        })
        .sum();
    nanos.map_or_else(|| cpu_in_ticks(pid), Duration::from_nanos)
}

/// The same where the kernel keeps no schedstat: in steps of 10 ms.
fn cpu_in_ticks(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Resident bytes of a process: `smaps_rollup` is exact, `status` may lag behind by some pages a core.
pub fn resident(pid: u32) -> u64 {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    field("smaps_rollup", "Rss:").or_else(|| field("status", "VmRSS:")).unwrap() * 1024
}

/// This program as one of its own children.
fn itself(word: &str, port: u16) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(word).arg(port.to_string());
    command
}

fn reference(flavour: Flavour, port: u16) -> Command {
    let mut command = itself(REFERENCE, port);
    if let Flavour::Spawned { latency } = flavour {
        command.arg(latency.as_millis().to_string());
    }
    command
}

/// Nothing is refused, nothing is left over from whoever runs the benchmark.
fn daemon_environment(command: &mut Command, port: u16, log_level: &str) {
    for limit in [
        "GLOBAL_MAX_INFLIGHT",
        "OFFLINE_MAX_INFLIGHT",
        "SESSION_MAX_INFLIGHT",
        "EXECUTIONS_MAX",
        "QUEUE_MAX",
        "CONNECTIONS_MAX",
    ] {
        command.env(limit, "100000");
    }
    command.env("INFLIGHTD_LISTEN", format!("127.0.0.1:{port}"));
    command.env("WORKER_THREADS", "1").env("LOG_LEVEL", log_level);
    command.env("TOOLS_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed/tools.toml"));
}

fn put_behind(command: &mut Command, behind: Behind, folder: &Path) {
    match behind {
        Behind::Offline { latency } => {
            command.env("OFFLINE_LATENCY_MS", latency.as_millis().to_string());
        }
        Behind::Model { port } => {
            command.env("OPENAI_API_KEY", "k").env("OPENAI_MAX_INFLIGHT", "100000");
            command.env("OPENAI_API_URL", format!("http://127.0.0.1:{port}/v1"));
        }
        Behind::Upstream => {
            let program = std::env::current_exe().unwrap();
            let server = json!({"command": program, "args": [UPSTREAM], "max_inflight": 100_000});
            let file = folder.join("servers.json");
            fs::write(&file, json!({"mcpServers": {"upstream": server}}).to_string()).unwrap();
            command.env("MCP_SERVERS_FILE", file);
        }
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut head = [0; 64];
    let count = stream.read(&mut head).ok()?;
    String::from_utf8(head[..count].to_vec()).ok()
}
