//! `shim --spawn`, and a daemon that ends when nobody needs it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Instant;

use serde_json::json;

use crate::processes::{Folder, Process, Shim, command, statistics};
use crate::stage::PATIENCE;

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn ten_shims_at_once_start_one_daemon() {
    let (folder, address) = (Folder::new(), free_address());
    let url = format!("ws://{address}");
    let mut shims: Vec<_> = (0..10).map(|_| Shim::start(&folder, &["--spawn", "--url", &url])).collect();
    for shim in &mut shims {
        shim.call("e", "echo", &json!({"text": "hello"}));
    }
    for shim in &shims {
        assert_eq!(shim.answer("e").0["content"][0]["text"], "hello");
    }
    assert_eq!(statistics(address)["calls"]["total"], 10);
    shims.into_iter().for_each(Shim::finish);
    let log = fs::read_to_string(folder.0.join(".local/state/inflightd/serve.log")).unwrap();
    assert_eq!(log.matches("inflightd listens on").count(), 1, "{log}");
    // The losers are gone, or on their way; the winner outlives its shims, in a session of its own.
    let since = Instant::now();
    let left = loop {
        let left = daemon_of(&folder);
        if left.len() == 1 || since.elapsed() > PATIENCE {
            break left;
        }
        std::thread::yield_now();
    };
    for (process, _) in &left {
        let arguments = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap();
        assert!(arguments.ends_with("\0--idle-exit-secs\0900\0"), "{arguments}");
        let killed = std::process::Command::new("kill").args(["-9", &process.to_string()]).status();
        assert!(killed.unwrap().success());
    }
    assert!(left.len() == 1 && left[0].0 == left[0].1, "{left:?}");
}

/// Processes that work in this folder's state, each with its session.
#[cfg(target_os = "linux")]
fn daemon_of(folder: &Folder) -> Vec<(u32, u32)> {
    let state = fs::canonicalize(folder.0.join(".local/state/inflightd")).unwrap();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let here =
        processes.filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == state));
    here.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // `pid (name) state ppid pgrp session …`
        let session = stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, session))
    })
    .collect()
}

#[test]
fn a_daemon_that_nobody_needs_ends_when_it_is_told_to() {
    let (folder, address) = (Folder::new(), free_address());
    let mut serve = command(&folder, &["serve", "--idle-exit-secs", "1", "--listen", &address.to_string()]);
    let quiet = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Process(quiet.spawn().unwrap());
    assert!(daemon.0.wait().unwrap().success());
}

#[test]
fn a_daemon_on_another_machine_is_not_started_from_here() {
    let folder = Folder::new();
    let output = command(&folder, &["shim", "--spawn", "--url", "ws://192.0.2.1:1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
    assert_eq!(output.status.code(), Some(2));
}
