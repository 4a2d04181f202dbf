//! Bad connections leave nothing behind.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::program::Program;
use crate::support::within;

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// As many at once as a test machine takes without noticing.
const AT_ONCE: usize = 16;

/// The first byte of a close frame.
const CLOSE: u8 = 0x88;

/// A masked text frame; the mask is zeros.
fn frame(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut frame = vec![0x81];
    if length < 126 {
        frame.push(0x80 | u8::try_from(length).unwrap());
    } else {
        frame.push(0xfe);
        frame.extend_from_slice(&length.to_be_bytes());
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

/// What one bad connection says, and whether it then waits for the daemon to end it.
fn bad(number: usize) -> (Vec<u8>, bool) {
    let hello = frame(b"{\"op\":\"hello\"}");
    let after = |bytes: &[u8]| [HANDSHAKE.as_bytes(), &hello, bytes].concat();
    match number % 11 {
        0 => (b"\x00\xff\xfe garbage \r\n\r\n".to_vec(), true),
        1 => (HANDSHAKE.as_bytes()[..60].to_vec(), false),
        2 => ([HANDSHAKE.as_bytes(), &frame(b"not JSON")].concat(), true),
        3 => ([HANDSHAKE.as_bytes(), b"\x82\x81\0\0\0\0x"].concat(), true),
        4 => (after(b"\x81\xff\0\0\0\0\x7f\xff\xff\xff\0\0\0\0"), true),
        5 => (after(b"\x81\x81\0\0\0\0\xff"), true),
        6 => (after(b"\xc1\x02{}"), true),
        7 => (after(&frame("[".repeat(20_000).as_bytes())), false),
        // It never reads what it asks for.
        10 => (HANDSHAKE.into(), false),
        8 => (after(&frame(b"{\"op\":\"list_tools\"}").repeat(200)), false),
        _ => (
            after(
                &frame(b"{\"op\":\"call_tool\",\"name\":\"echo\",\"arguments\":{\"text\":\"t\"}}").repeat(20),
            ),
            false,
        ),
    }
}

async fn connect_badly(address: SocketAddr, number: usize) {
    let (bytes, waits) = bad(number);
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The daemon may close before it has read all.
    let _ = stream.write_all(&bytes).await;
    let mut heard = Vec::new();
    // All that the daemon says is ASCII, but for the head of a close frame.
    while waits && !heard.contains(&CLOSE) {
        match within("the end of a bad connection", stream.read_buf(&mut heard)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
}

async fn connect_badly_up_to(address: SocketAddr, from: usize, to: usize) {
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|worker| {
            tokio::spawn(async move {
                for number in (from + worker..to).step_by(AT_ONCE) {
                    connect_badly(address, number).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[cfg(target_os = "linux")]
fn resident_kib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_bad_connections_take_no_more_memory_than_a_thousand() {
    let program = Program::start(&[("WORKER_THREADS", "2")]).await;
    connect_badly_up_to(program.address, 0, 1000).await;
    let early = resident_kib(&program);
    connect_badly_up_to(program.address, 1000, 10_000).await;
    let late = resident_kib(&program);
    println!("resident after 1,000 bad connections: {early} KiB, after 10,000: {late} KiB");
    assert!(late * 10 <= early * 11, "{early} KiB grew to {late} KiB");
    let alive = crate::support::http::request(program.address, "GET", "/healthz", &[], "").await;
    assert_eq!(alive.status, 200);
}

#[cfg(not(target_os = "linux"))]
#[test]
fn ten_thousand_bad_connections_take_no_more_memory_than_a_thousand() {
    let _ = (connect_badly_up_to, Program::id);
    println!("SKIPPED: resident memory is read from /proc, which this system does not have");
}
