//! The real shim before a real daemon, which is killed, or whose connection is lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use serde_json::{Value, json};

use crate::proxy::Proxy;
use crate::stage::{Daemon, PATIENCE};

/// Longer than any test: only a kill ends such a call.
const FOR_EVER_MS: &str = "600000";

const TOOLS: &str = r#"
[[tool]]
name = "note"
description = "Writes something down."
effect = "write"
class = "workflow"
message = ["{text}"]
input_schema = { type = "object", properties = { text = { type = "string" } } }
"#;

/// A process of ours, killed at the end of the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It fails only when the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, with nothing of this machine's settings, in a folder of its own.
pub fn command(folder: &Folder, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
    command.args(args).current_dir(&folder.0).env_clear().env("HOME", &folder.0).env("PATH", "/usr/bin:/bin");
    command
}

/// An empty folder, gone with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!("inflightd-reattach-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("tools.toml"), TOOLS).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Whoever reads no more wants no more; the pipe is still to be emptied.
            let _ = send.try_send(line);
        }
    });
    receive
}

/// A daemon as a process, and where it listens.
fn serve(folder: &Folder, listen: &str, latency_ms: &str) -> (Process, SocketAddr) {
    let args = ["serve", "--listen", listen, "--tools-file", "tools.toml"];
    let mut command = command(folder, &args);
    command.env("OFFLINE_LATENCY_MS", latency_ms).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = lines(child.stderr.take().unwrap());
    let process = Process(child);
    loop {
        let line = log.recv_timeout(PATIENCE).unwrap();
        if let Some((_, behind)) = line.split_once("inflightd listens on ") {
            return (process, behind.split_whitespace().next().unwrap().parse().unwrap());
        }
    }
}

/// The daemon's statistics.
pub fn statistics(address: SocketAddr) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /api/v1/stats HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The real shim, as its client sees it.
pub struct Shim {
    process: Process,
    stdin: ChildStdin,
    stdout: Receiver<String>,
}

impl Shim {
    pub fn start(folder: &Folder, args: &[&str]) -> Self {
        let mut command = command(folder, &["shim"]);
        let piped = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), lines(child.stdout.take().unwrap()));
        Self { process: Process(child), stdin, stdout }
    }

    pub fn call(&mut self, id: &str, tool: &str, arguments: &Value) {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": id});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        writeln!(self.stdin, "{request}").unwrap();
    }

    pub fn read(&self) -> Value {
        serde_json::from_str(&self.stdout.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    /// The next progress message's number: the call is at work.
    fn progress(&self) -> u64 {
        let message = self.read();
        message["params"]["progress"].as_u64().unwrap_or_else(|| panic!("no progress: {message}"))
    }

    /// The answer, with the numbers of what was told on the way.
    pub fn answer(&self, id: &str) -> (Value, Vec<u64>) {
        let mut told = Vec::new();
        loop {
            let message = self.read();
            if let Some(number) = message["params"]["progress"].as_u64() {
                told.push(number);
                continue;
            }
            assert_eq!(message["id"], id, "{message}");
            return (message["result"].clone(), told);
        }
    }

    pub fn finish(self) {
        let Self { mut process, stdin, stdout } = self;
        drop(stdin);
        assert!(process.0.wait().unwrap().success());
        assert_eq!(stdout.recv_timeout(PATIENCE).ok(), None);
    }
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[test]
fn a_read_whose_daemon_was_killed_is_answered_by_the_next_daemon() {
    let folder = Folder::new();
    let tools = std::fs::read_to_string(folder.0.join("tools.toml")).unwrap();
    std::fs::write(folder.0.join("tools.toml"), tools.replace("write", "read")).unwrap();
    let (mut daemon, address) = serve(&folder, "127.0.0.1:0", FOR_EVER_MS);
    let mut shim = Shim::start(&folder, &["--url", &format!("ws://{address}")]);
    shim.call("r", "note", &json!({"text": "which answer"}));
    let before = shim.progress();
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let (_daemon, _) = serve(&folder, &address.to_string(), "1");
    let (result, told) = shim.answer("r");
    assert!(text(&result).contains("which answer"), "{result}");
    assert!(told.iter().all(|number| *number > before) && told.is_sorted(), "{before} {told:?}");
    let counted = statistics(address);
    assert_eq!(counted["reattach"], json!({"resumed": 0, "resumed_again": 1}));
    shim.finish();
}

#[test]
fn a_write_whose_daemon_was_killed_has_an_unknown_outcome_and_ran_once() {
    let folder = Folder::new();
    let (mut daemon, address) = serve(&folder, "127.0.0.1:0", FOR_EVER_MS);
    let mut shim = Shim::start(&folder, &["--url", &format!("ws://{address}")]);
    shim.call("w", "note", &json!({"text": "once"}));
    shim.progress();
    assert_eq!(statistics(address)["total_executions"], 1);
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let (_daemon, _) = serve(&folder, &address.to_string(), "1");
    let (result, _) = shim.answer("w");
    assert_eq!(result["_meta"]["inflightd/error"]["code"], "OUTCOME_UNKNOWN", "{result}");
    assert_eq!(statistics(address)["total_executions"], 0);
    shim.finish();
}

#[test]
fn a_running_call_survives_the_loss_of_its_connection() {
    for tool in ["look", "change"] {
        let (daemon, folder) = (Daemon::start(), Folder::new());
        let proxy = Proxy::start(daemon.address);
        let mut shim = Shim::start(&folder, &["--url", &proxy.url()]);
        shim.call("a", tool, &json!({"n": 1}));
        daemon.gate.wait_for(1);
        proxy.cut();
        proxy.wait_for(2);
        daemon.gate.open();
        let (result, _) = shim.answer("a");
        assert_eq!(text(&result), "answer 1", "{tool}");
        assert_eq!(daemon.gate.runs(), 1);
        shim.finish();
    }
}

#[test]
fn an_answer_lost_with_its_connection_is_collected() {
    for tool in ["look", "change"] {
        let (daemon, folder) = (Daemon::start(), Folder::new());
        let proxy = Proxy::start(daemon.address);
        let mut shim = Shim::start(&folder, &["--url", &proxy.url()]);
        shim.call("a", tool, &json!({"n": 1}));
        daemon.gate.wait_for(1);
        proxy.deafen();
        daemon.gate.open();
        while daemon.hub.calls.watch().lifecycle().totals().completed == 0 {
            std::thread::yield_now();
        }
        proxy.cut();
        let (result, _) = shim.answer("a");
        assert_eq!((text(&result), &result["_meta"]["inflightd/role"]), ("answer 1", &json!("follower")));
        assert_eq!((daemon.gate.runs(), daemon.resumed()), (1, (1, 0)), "{tool}");
        // The same question anew is another call.
        daemon.gate.open();
        shim.call("b", tool, &json!({"n": 1}));
        assert_eq!(text(&shim.answer("b").0), "answer 2");
        shim.finish();
    }
}

#[test]
fn two_shims_never_collect_one_anothers_calls() {
    let (daemon, folder) = (Daemon::start(), Folder::new());
    let proxy = Proxy::start(daemon.address);
    let mut shims: Vec<_> = (0..2).map(|_| Shim::start(&folder, &["--url", &proxy.url()])).collect();
    for shim in &mut shims {
        // The same id, tool and arguments: only the keys of the shims differ.
        shim.call("a", "change", &json!({}));
    }
    daemon.gate.wait_for(2);
    proxy.cut();
    proxy.wait_for(4);
    (0..2).for_each(|_| daemon.gate.open());
    let mut answers: Vec<_> = shims.iter().map(|shim| text(&shim.answer("a").0).to_owned()).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["answer 1", "answer 2"]);
    assert_eq!(daemon.gate.runs(), 2);
}
