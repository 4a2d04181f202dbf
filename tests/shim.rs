//! The shim and the commands as a client meets them: the real program against a daemon that the test plays.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests are tests"
)]

#[path = "shim/commands.rs"]
mod commands;
#[path = "shim/fake.rs"]
mod fake;

use std::io::{ErrorKind, Write};
use std::process::Stdio;
use std::time::Duration;

use fake::{Daemon, Peer, Shim, command};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const LIST: &str = r#"{"id":5,"method":"tools/list"}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":99,"method":"ping"}"#;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","x":18446744073709551616}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Half of it is the poll for the parent; the other half is room for a busy machine.
#[cfg(unix)]
const ORPHAN_GONE_WITHIN: Duration = Duration::from_secs(1);

/// A message that arrived: the shim has taken the connection into use.
fn greet(shim: &Shim, peer: &mut Peer) {
    peer.send(r#"{"method":"notifications/greeting"}"#);
    assert_eq!(shim.json()["method"], "notifications/greeting");
}

#[test]
fn the_shim_ends_with_its_stdin_and_says_good_bye() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    greet(&shim, &mut peer);
    let (rest, status) = shim.finish();
    peer.expect_close();
    assert!(rest.is_empty() && shim.rest_of_stderr().is_empty(), "{rest:?}");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_shim_ends_with_its_stdin_while_no_daemon_answers() {
    let daemon = Daemon::start();
    let url = daemon.url();
    drop(daemon);
    let mut shim = Shim::spawn(command(&["shim", "--url", &url]));
    shim.send(CALL);
    assert!(shim.diagnostic().contains("inflightd serve"));
    let (rest, status) = shim.finish();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn the_shim_ends_when_its_parent_is_killed() {
    let daemon = Daemon::start();
    let mut shell = std::process::Command::new("sh");
    // A background job would get /dev/null as stdin: the pipe, which the test holds open, goes through fd 3.
    shell.args(["-c", r#"exec 3<&0; "$0" shim --url "$1" <&3 & wait"#]);
    shell.args([env!("CARGO_BIN_EXE_inflightd"), &daemon.url()]);
    let mut shim = Shim::spawn(shell);
    let mut peer = daemon.accept();
    // At work: the shim has looked at its parent before.
    greet(&shim, &mut peer);
    shim.kill();
    assert!(shim.output_ends_within(ORPHAN_GONE_WITHIN));
    peer.expect_close();
}

#[test]
fn the_shim_ends_when_nobody_reads_its_stdout() {
    let daemon = Daemon::start();
    let mut program = command(&["shim", "--url", &daemon.url()]);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let _stdin = child.stdin.take();
    drop(child.stdout.take());
    let mut peer = daemon.accept();
    peer.send(CALL);
    // The connection ends, or the peer's patience does.
    let gone = !matches!(peer.socket.read(), Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock);
    if !gone {
        child.kill().unwrap();
    }
    assert!(child.wait().unwrap().success() && gone);
}

#[test]
fn bytes_go_through_as_they_are() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    let odd = [
        r#"{"z":1.0,"a":18446744073709551616,"jsonrpc":"2.0","id":1e2,"method":"x","params":{"é":"\u00e9 🦀","n":1E400}}"#,
        r#"  {"jsonrpc" : "2.0",  "method":"notifications/unknown", "a":1, "a":2}  "#,
        "no JSON at all",
    ];
    for line in odd {
        shim.send(line);
        assert_eq!(peer.text(), line);
        peer.send(line);
        assert_eq!(shim.line(), line);
    }
    assert!(shim.finish().0.is_empty());
}

#[test]
fn a_message_on_many_lines_stays_one_message() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    peer.send("{\n  \"id\": 1,\r\n  \"result\": \"a\\nb\"\n}");
    assert_eq!(shim.json(), json!({"id": 1, "result": "a\nb"}));
    assert!(shim.finish().0.is_empty());
}

#[test]
fn large_messages_go_both_ways() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    let up = json!({"id": 1, "method": "x", "params": "u".repeat(20 << 20)}).to_string();
    let mut stdin = shim.take_stdin();
    let sent = up.clone();
    let writer = std::thread::spawn(move || {
        stdin.write_all(format!("{sent}\n").as_bytes()).unwrap();
        stdin
    });
    assert!(peer.text() == up);
    let stdin = writer.join().unwrap();
    let down = json!({"id": 1, "result": "d".repeat(30 << 20)}).to_string();
    peer.send(down.as_str());
    assert!(shim.line() == down);
    drop(stdin);
    assert!(shim.finish().0.is_empty());
}

#[test]
fn a_line_over_the_limit_is_refused_and_the_next_one_served() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    shim.send(&"x".repeat((32 << 20) + 1));
    assert_eq!(shim.json()["error"]["code"], -32600);
    shim.send(CALL);
    assert_eq!(peer.text(), CALL);
}

#[test]
fn a_call_whose_daemon_does_not_come_back_is_answered_with_a_typed_error() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    greet(&shim, &mut peer);
    shim.send(CALL);
    shim.send(r#"{"id":5,"method":"tools/list"}"#);
    shim.send(PING);
    (0..3).for_each(|_| drop(peer.text()));
    drop(peer);
    // The shim itself answers whether it lives.
    assert_eq!(shim.json(), json!({"jsonrpc": "2.0", "id": 99, "result": {}}));
    // A daemon that does not let it in is as good as none, and there is nothing to wait for.
    daemon.refuse("401 Unauthorized");
    let call = shim.json();
    assert_eq!((&call["id"], &call["error"]["code"]), (&json!("c"), &json!(-32017)));
    assert_eq!(call["error"]["data"], json!({"code": "OUTCOME_UNKNOWN", "retryable": false}));
    let list = shim.json();
    assert_eq!((&list["id"], &list["error"]["code"]), (&json!(5), &json!(-32019)));
    shim.send(PING);
    assert_eq!(shim.json(), json!({"jsonrpc": "2.0", "id": 99, "result": {}}));
    assert!(shim.finish().0.is_empty());
}

#[test]
fn what_was_in_flight_is_sent_again_with_the_mark_as_its_only_change() {
    const ODD: &str = r#"{"jsonrpc":"2.0","id":1e2,"method":"tools/call","params":{"name":"x", "_meta":{ "progressToken":7},"arguments":{"n":18446744073709551616}}}"#;
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    let key = peer.session.clone().unwrap();
    assert!(key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    for line in [ODD, CALL, r#"{"id":5,"method":"tools/list"}"#] {
        shim.send(line);
        assert_eq!(peer.text(), line);
    }
    peer.answer(&json!("c"), &json!({}));
    assert_eq!(shim.json()["id"], "c");
    drop(peer);
    let mut peer = daemon.accept();
    assert_eq!(peer.session.as_deref(), Some(&*key));
    assert_eq!(peer.text(), ODD.replace(r#""_meta":{ "#, r#""_meta":{"inflightd/resume":true, "#));
    assert_eq!(peer.text(), r#"{"id":5,"method":"tools/list"}"#);
    peer.send(r#"{"jsonrpc":"2.0","id":1e2,"result":{}}"#);
    assert_eq!(shim.line(), r#"{"jsonrpc":"2.0","id":1e2,"result":{}}"#);
    // A new call is a new call.
    shim.send(CALL);
    assert_eq!(peer.text(), CALL);
    peer.answer(&json!(5), &json!({}));
    assert_eq!(shim.json()["id"], 5);
    assert!(shim.finish().0.is_empty());
}

#[test]
fn what_is_too_large_for_the_daemon_is_refused_and_not_sent_again() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    let large =
        CALL.replace("\"c\"", "\"large\"").replace("{}", &json!({"text": "x".repeat(9999)}).to_string());
    for line in [CALL, &large] {
        shim.send(line);
        assert_eq!(peer.text(), line);
    }
    peer.socket.close(Some(CloseFrame { code: CloseCode::Size, reason: Utf8Bytes::default() })).unwrap();
    let refused = shim.json();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("large"), &json!(-32600)));
    assert!(refused["error"]["message"].as_str().unwrap().contains(&large.len().to_string()));
    drop(peer);
    let mut peer = daemon.accept();
    assert_eq!(peer.json()["id"], "c");
    shim.send(LIST);
    assert_eq!(peer.text(), LIST);
    assert!(shim.finish().0.is_empty());
}

#[test]
fn a_call_taken_back_while_the_daemon_is_away_reaches_nobody() {
    const CANCEL: &str = r#"{"method":"notifications/cancelled","params":{"requestId":"c"}}"#;
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    greet(&shim, &mut peer);
    shim.send(CALL);
    shim.send(PING);
    (0..2).for_each(|_| drop(peer.text()));
    drop(peer);
    // Answered by the shim: the connection is lost, for certain.
    assert_eq!(shim.json()["id"], 99);
    shim.send(CANCEL);
    shim.send(PING);
    assert_eq!(shim.json()["id"], 99);
    let mut peer = daemon.accept();
    assert_eq!(peer.text(), CANCEL);
    peer.answer(&json!("c"), &json!({}));
    peer.send(r#"{"method":"notifications/greeting"}"#);
    assert_eq!(shim.json()["method"], "notifications/greeting");
    assert!(shim.finish().0.is_empty());
}

#[test]
fn a_daemon_of_another_version_is_warned_of_once() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    drop(daemon.accept_as(Some(env!("CARGO_PKG_VERSION"))));
    drop(daemon.accept_as(Some("0.0.7")));
    let mut peer = daemon.accept_as(Some("0.0.7"));
    greet(&shim, &mut peer);
    assert!(shim.finish().0.is_empty());
    let warned = shim.rest_of_stderr();
    let warned: Vec<_> = warned.iter().filter(|line| line.contains("0.0.7")).collect();
    assert!(warned.len() == 1 && warned[0].contains(env!("CARGO_PKG_VERSION")), "{warned:?}");
}

#[test]
fn a_session_of_the_older_era_is_begun_again_and_the_client_sees_only_a_change_of_tools() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    shim.send(INITIALIZE);
    assert_eq!(peer.text(), INITIALIZE);
    peer.answer(&json!(0), &json!({"serverInfo": {"name": "first"}}));
    assert_eq!(shim.json()["result"]["serverInfo"]["name"], "first");
    shim.send(INITIALIZED);
    assert_eq!(peer.text(), INITIALIZED);
    drop(peer);

    let mut peer = daemon.accept();
    // What comes meanwhile waits for the session.
    shim.send(CALL);
    let again = peer.text();
    assert!(
        again.contains(r#""params":{"protocolVersion":"2025-11-25","x":18446744073709551616}"#),
        "{again}"
    );
    let own_id = serde_json::from_str::<serde_json::Value>(&again).unwrap()["id"].clone();
    assert_ne!(own_id, 0);
    peer.answer(&own_id, &json!({"serverInfo": {"name": "second"}}));
    assert_eq!(peer.text(), INITIALIZED);
    assert_eq!(peer.text(), CALL);
    assert_eq!(shim.json()["method"], "notifications/tools/list_changed");
    peer.answer(&json!("c"), &json!({}));
    assert_eq!(shim.json()["id"], "c");
    assert!(shim.finish().0.is_empty());
}

#[test]
fn a_stateless_client_sees_nothing_of_a_new_daemon() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    shim.send(CALL);
    assert_eq!(peer.text(), CALL);
    peer.answer(&json!("c"), &json!({}));
    assert_eq!(shim.json()["id"], "c");
    drop(peer);
    let mut peer = daemon.accept();
    shim.send(CALL);
    assert_eq!(peer.text(), CALL);
    assert!(shim.finish().0.is_empty());
}

#[test]
fn what_is_sent_before_the_daemon_answers_reaches_it() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    shim.send(CALL);
    daemon.refuse("503 Service Unavailable");
    assert_eq!(daemon.accept().text(), CALL);
}

#[test]
fn pongs_and_messages_never_interleave() {
    const LINES: usize = 2_000;
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    let mut peer = daemon.accept();
    let sent = |n: usize| json!({"method": "x", "n": n, "pad": "p".repeat(n * 37 % 20_000)}).to_string();

    let mut stdin = shim.take_stdin();
    let client = std::thread::spawn(move || {
        (0..LINES).for_each(|n| stdin.write_all(format!("{}\n", sent(n)).as_bytes()).unwrap());
        stdin
    });
    let mut pinging =
        WebSocket::from_raw_socket(peer.socket.get_ref().try_clone().unwrap(), Role::Server, None);
    let pinger = std::thread::spawn(move || {
        (0..20_000_u32).for_each(|n| {
            pinging.send(Message::Ping(Bytes::copy_from_slice(&n.to_be_bytes()))).unwrap();
        });
    });
    let (mut texts, mut last_pong) = (0, None);
    while texts < LINES || last_pong != Some(19_999) {
        match peer.socket.read().unwrap() {
            Message::Text(text) => {
                assert!(text.as_str() == sent(texts), "message {texts}");
                texts += 1;
            }
            Message::Pong(payload) => last_pong = Some(u32::from_be_bytes(payload[..].try_into().unwrap())),
            other => panic!("neither text nor pong: {other:?}"),
        }
    }
    pinger.join().unwrap();
    drop(client.join().unwrap());
    assert!(shim.finish().0.is_empty());
}

#[test]
fn a_missing_token_is_named_to_the_client_and_on_stderr() {
    let daemon = Daemon::start();
    let mut shim = Shim::start(&daemon);
    shim.send(CALL);
    daemon.refuse("401 Unauthorized");
    let refused = shim.json();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("c"), &json!(-32019)));
    assert!(refused["error"]["message"].as_str().unwrap().contains("INFLIGHTD_TOKEN"));
    assert!(shim.diagnostic().contains("INFLIGHTD_TOKEN"));
}

#[test]
fn the_token_comes_from_the_environment_and_goes_into_the_header() {
    let daemon = Daemon::start();
    let mut program = command(&["shim"]);
    program.env("INFLIGHTD_URL", daemon.url()).env("INFLIGHTD_TOKEN", "a long enough token");
    let _shim = Shim::spawn(program);
    assert_eq!(daemon.accept().authorization.as_deref(), Some("Bearer a long enough token"));
}

/// Clients start the shim in folders of their users' projects: whose `.env` that is, nobody knows.
#[test]
fn a_dotenv_where_it_is_started_is_not_read() {
    let daemon = Daemon::start();
    let folder = std::env::temp_dir().join(format!("inflightd-dotenv-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let text = "INFLIGHTD_TOKEN=the token of another daemon\nSHIM_TIMEOUT_SECS=none\n";
    std::fs::write(folder.join(".env"), text).unwrap();
    for name in ["shim", "healthcheck"] {
        let mut program = command(&[name]);
        program.env("INFLIGHTD_URL", daemon.url()).current_dir(&folder);
        program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut started = program.spawn().unwrap();
        assert_eq!(daemon.accept().authorization, None, "{name}");
        drop(started.stdin.take());
        let _ = started.wait().unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
