//! A daemon that does what a test says, and a shim to talk through. Every wait has a bound.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept_hdr_with_config};

/// Longer than anything takes on a busy machine; reached only when a promise is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A listener that the test answers for.
pub struct Daemon {
    listener: TcpListener,
}

/// One connection, from the daemon's side.
pub struct Peer {
    pub socket: WebSocket<TcpStream>,
    pub authorization: Option<String>,
    pub session: Option<String>,
}

impl Daemon {
    pub fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().unwrap())
    }

    /// Refuses the next upgrade with an HTTP status.
    pub fn refuse(&self, status: &str) {
        let (mut tcp, _) = self.listener.accept().unwrap();
        let mut head = BufReader::new(tcp.try_clone().unwrap()).lines().map(Result::unwrap);
        assert!(head.any(|line| line.is_empty()));
        write!(tcp, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
    }

    pub fn accept(&self) -> Peer {
        self.accept_as(None)
    }

    /// Accepts the next upgrade as a daemon of this version.
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    pub fn accept_as(&self, version: Option<&str>) -> Peer {
        let (tcp, _) = self.listener.accept().unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut authorization, mut session) = (None, None);
        let config =
            WebSocketConfig::default().max_frame_size(Some(64 << 20)).max_message_size(Some(64 << 20));
        let upgrade = |request: &Request, mut response: Response| {
            let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(header("Sec-WebSocket-Protocol").as_deref(), Some("mcp"));
            authorization = header("Authorization");
            session = header("Inflightd-Session");
            if let Some(version) = version {
                response.headers_mut().insert("Inflightd-Version", version.parse().unwrap());
            }
            response.headers_mut().insert("Sec-WebSocket-Protocol", "mcp".parse().unwrap());
            Ok(response)
        };
        let socket = accept_hdr_with_config(tcp, upgrade, Some(config)).unwrap();
        Peer { socket, authorization, session }
    }
}

impl Peer {
    /// The next text; control frames are answered on the way.
    pub fn text(&mut self) -> String {
        let since = Instant::now();
        // The shim's pings come for ever.
        while since.elapsed() < PATIENCE {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return text.to_string();
            }
        }
        panic!("no text came");
    }

    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    pub fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).unwrap();
    }

    pub fn answer(&mut self, id: &Value, result: &Value) {
        self.send(serde_json::json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    }

    /// The shim says good-bye, and nothing else before it.
    pub fn expect_close(&mut self) {
        assert!(matches!(self.socket.read(), Ok(Message::Close(_))));
    }
}

/// The program, with nothing of this machine's settings.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
    command.args(args).env_remove("INFLIGHTD_URL").env_remove("INFLIGHTD_TOKEN");
    command
}

/// Lines of a stream as they come; the sender is dropped at its end.
pub fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(1_024);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

/// A running shim, killed at the end of the test if it still runs.
pub struct Shim {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Shim {
    pub fn start(daemon: &Daemon) -> Self {
        Self::spawn(command(&["shim", "--url", &daemon.url()]))
    }

    pub fn spawn(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdin, stdout, stderr }
    }

    pub fn send(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The other end of stdin, for a thread of its own.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    pub fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    pub fn diagnostic(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// What an ended shim left on stderr beside what the test read.
    pub fn rest_of_stderr(&self) -> Vec<String> {
        std::iter::from_fn(|| self.stderr.recv_timeout(PATIENCE).ok()).collect()
    }

    /// Ends stdin and waits: what was on stdout beside what the test read, and how the shim ended.
    pub fn finish(&mut self) -> (Vec<String>, ExitStatus) {
        self.stdin = None;
        let rest = std::iter::from_fn(|| self.stdout.recv_timeout(PATIENCE).ok()).collect();
        (rest, self.child.wait().unwrap())
    }

    /// Until every process that holds this stdout is gone.
    pub fn output_ends_within(&self, bound: Duration) -> bool {
        self.stdout.recv_timeout(bound) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // It fails only when the shim has ended, which is how most tests leave it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
