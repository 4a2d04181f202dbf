//! What the way through stdin and stdout adds to a call.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::Peer;
use crate::process::{self, SHIM};
use crate::report::median;
use crate::wire::{self, ECHO, INITIALIZE, INITIALIZED};

/// What was measured.
pub struct Shim {
    /// p50 of a round trip over the WebSocket itself.
    pub direct: Duration,
    /// p50 of the same through the shim.
    pub through: Duration,
    /// Resident bytes of the shim at the end.
    pub resident: u64,
}

/// One client, one call at a time; shim and client share the generator's core.
pub fn measure(binary: Option<&Path>, port: u16, calls: u64) -> Shim {
    let mut peer = Peer::connect(port).unwrap();
    let direct = p50(calls, |id| peer.call(id));

    let mut client = Client::start(binary, port);
    client.send(INITIALIZE);
    assert!(client.line().contains("2025-11-25"), "no answer to initialize");
    client.send(INITIALIZED);
    let mut message = Vec::new();
    // Ids of its own, so that no text was asked before.
    let through = p50(calls, |id| {
        let id = id + (1 << 32);
        let text = wire::text_of(id);
        wire::write_call(&mut message, id, ECHO, &text, "");
        client.send(std::str::from_utf8(&message).unwrap());
        let answer = client.line();
        assert!(wire::find(answer.as_bytes(), &text).is_some(), "not the answer to its call: {answer}");
    });
    Shim { direct, through, resident: process::resident(client.child.id()) }
}

fn p50(calls: u64, mut call: impl FnMut(u64)) -> Duration {
    let mut times = Vec::new();
    for id in 1..=calls + calls / 10 {
        let began = Instant::now();
        call(id);
        // The first tenth warms up.
        if id > calls / 10 {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    Duration::from_secs_f64(median(&mut times))
}

struct Client {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    line: String,
}

impl Client {
    fn start(binary: Option<&Path>, port: u16) -> Self {
        let mut command = if let Some(binary) = binary {
            let mut command = Command::new(binary);
            command.arg("shim").env_clear().env("INFLIGHTD_URL", format!("ws://127.0.0.1:{port}"));
            command
        } else {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg(SHIM).arg(port.to_string());
            command
        };
        command.current_dir(std::env::temp_dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers, line: String::new() }
    }

    fn send(&mut self, message: &str) {
        let line = format!("{message}\n");
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// The next answer; notifications are passed over.
    fn line(&mut self) -> &str {
        loop {
            self.line.clear();
            let count = self.answers.read_line(&mut self.line).unwrap();
            assert!(count > 0, "the shim ended");
            if self.line.contains("\"id\":") {
                return &self.line;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stand-in for a self-test: one call at a time, initialised on both sides.
pub fn stand_in(port: u16) {
    let mut peer = Peer::connect(port).unwrap();
    let mut lines = std::io::stdin().lines();
    while let Some(Ok(line)) = lines.next() {
        if let Some(answer) = peer.pass(line.as_bytes()) {
            let mut out = std::io::stdout().lock();
            out.write_all(&answer).unwrap();
            out.write_all(b"\n").unwrap();
            out.flush().unwrap();
        }
    }
}
