//! Whoever reads the log may hang, be gone, or have no room: calls go on, and the daemon can be stopped.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::json;

use crate::support::http::{self, request};
use crate::support::op::{self, Op};
use crate::support::until;
use crate::support::wire::Wire;

/// A daemon that logs all the time, to `stderr`; killed with the test.
struct Talker {
    address: SocketAddr,
    child: Child,
}

impl Talker {
    async fn start(stderr: Stdio) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
        command.arg("serve").env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
        command.env("INFLIGHTD_LISTEN", address.to_string()).env("HEALTH_INTERVAL_SECS", "0.001");
        // One that waits for the log then serves nobody.
        command.env("WORKER_THREADS", "1").env("LOG_LEVEL", "trace");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().unwrap();
        until("a daemon that listens", || std::net::TcpStream::connect(address).is_ok()).await;
        Self { address, child }
    }

    async fn serves(&self) {
        assert_eq!(request(self.address, "GET", "/readyz", &[], "").await.status, 200);
        let mut client = Op { wire: Wire::open(self.address, "/", &[]).await.unwrap() };
        client.hello(&json!({"op": "hello"})).await;
        for number in 0..50 {
            let text = format!("call {number}");
            assert_eq!(op::text(&client.ask("r", "echo", &json!({"text": text})).await), text);
        }
        let stats: http::Response = request(self.address, "GET", "/api/v1/stats", &[], "").await;
        assert_eq!(stats.status, 200);
    }

    async fn ends(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let mut status: Option<ExitStatus> = None;
        until("the end of the daemon", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert_eq!(status.and_then(|status| status.code()), Some(0));
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let mut daemon = Talker::start(Stdio::piped()).await;
    let pipe = daemon.child.stderr.take().unwrap();
    // It is full when it has grown no more while many lines came.
    let (mut before, mut looks) = (0, 0);
    until("a pipe that is full", || {
        let now = rustix::io::ioctl_fionread(&pipe).unwrap();
        looks = if now > 0 && now == before { looks + 1 } else { 0 };
        before = now;
        looks == 50
    })
    .await;
    daemon.serves().await;
    daemon.ends().await;
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_holds_up_nobody() {
    let mut daemon = Talker::start(Stdio::piped()).await;
    drop(daemon.child.stderr.take());
    daemon.serves().await;
    daemon.ends().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_without_room_on_its_disk_holds_up_nobody() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut daemon = Talker::start(full.into()).await;
    daemon.serves().await;
    daemon.ends().await;
}
