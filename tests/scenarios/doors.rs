//! Who comes in, and how a conversation begins.

use std::sync::Arc;
use std::time::Duration;

use inflightd::proto::op::Op as OpDialect;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::daemon::Daemon;
use crate::support::http::{self, request};
use crate::support::mcp::{Mcp, OFFER};
use crate::support::op::{self, Op};
use crate::support::wire::{Heard, Wire};
use crate::support::{until, within};

const TOKEN: &str = "0123456789abcdef-right";
const WRONG: &str = "0123456789abcdef-wrong";

async fn guarded() -> Daemon {
    Daemon::offline(&[("INFLIGHTD_TOKEN", TOKEN)]).await
}

#[tokio::test]
async fn what_is_not_a_hello_closes_with_its_code() {
    let daemon = Daemon::offline(&[]).await;
    for (first, code) in [
        (Message::text(r#"{"op":"list_tools","request_id":"r"}"#), 4001),
        (Message::text(r#"{"hello":1}"#), 4001),
        (Message::text("[]"), 4001),
        (Message::text(r#"["hello"]"#), 4001),
        (Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#), 4001),
        (Message::text("hello"), 4000),
        (Message::text(r#"{"op":"hello""#), 4000),
        (Message::text(""), 4000),
        (Message::binary(r#"{"op":"hello"}"#), 4000),
    ] {
        let mut client = Op::silent(&daemon).await;
        client.wire.message(first.clone()).await;
        assert_eq!(client.wire.closed().await, code, "{first:?}");
    }
    op::text(&Op::connect(&daemon).await.ask("r", "echo", &json!({"text": "others live"})).await);
}

/// In one process over a duplex stream, where time can be driven.
#[tokio::test(start_paused = true)]
async fn a_hello_that_never_comes_closes_with_4002() {
    let daemon = Daemon::offline(&[]).await;
    let (ours, theirs) = tokio::io::duplex(4096);
    let caller = daemon.hub.new_caller(Arc::clone(&daemon.hub.auth.principals()[0]));
    let dialect = OpDialect::new(caller.session.id, true);
    tokio::spawn(inflightd::session::serve(theirs, Vec::new(), dialect, daemon.hub.clone(), caller));
    let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    let before = Instant::now();
    let heard = futures_util::StreamExt::next(&mut client).await.unwrap().unwrap();
    let Message::Close(Some(frame)) = heard else { panic!("{heard:?}") };
    assert_eq!((u16::from(frame.code), before.elapsed().as_secs()), (4002, 15));
}

#[tokio::test]
async fn a_hello_is_acknowledged_with_the_ladder_and_the_clients_own_label() {
    let daemon = Daemon::offline(&[]).await;
    let mut client = Op::silent(&daemon).await;
    let info = json!({"name": "c", "version": "1"});
    let ack = client.hello(&json!({"op": "hello", "session_id": "my \"label\"", "clientInfo": info})).await;
    assert_eq!((&ack["ok"], &ack["session_id"]), (&json!(true), &json!("my \"label\"")));
    assert_eq!(ack["server"]["name"], "inflightd");
    let timeouts = json!({"tool_secs": 180, "daemon_secs": 270, "shim_secs": 360, "client_secs": 450});
    assert_eq!(ack["timeouts"], timeouts);
    client.wire.send(&json!({"op": "hello", "request_id": "h"})).await;
    let again = client.wire.find(|frame| frame["request_id"] == "h").await;
    assert_eq!(op::code(&again), "INVALID_REQUEST");
}

#[tokio::test]
async fn the_right_token_comes_in_by_hello_header_or_query() {
    let daemon = guarded().await;
    let mut by_hello = Op::silent(&daemon).await;
    assert_eq!(by_hello.hello(&json!({"op": "hello", "token": TOKEN})).await["ok"], true);
    let bearer = format!("Bearer {TOKEN}");
    let query = format!("/?x=1&token={}", TOKEN.replace('-', "%2D"));
    for (path, headers) in [("/", vec![("authorization", &*bearer)]), (&*query, vec![])] {
        let mut client = Op { wire: Wire::open(daemon.address, path, &headers).await.unwrap() };
        assert_eq!(client.hello(&json!({"op": "hello"})).await["ok"], true);
        let headers = [headers, vec![OFFER]].concat();
        let mut client = Mcp { wire: Wire::open(daemon.address, path, &headers).await.unwrap() };
        client.ping().await;
    }
    let stats = request(daemon.address, "GET", "/api/v1/stats", &[("authorization", &bearer)], "").await;
    assert_eq!(stats.status, 200);
}

#[tokio::test]
async fn a_wrong_token_is_refused_before_the_upgrade_or_closed_with_4003() {
    let daemon = guarded().await;
    for hello in
        [json!({"op": "hello", "token": WRONG}), json!({"op": "hello"}), json!({"op": "hello", "token": ""})]
    {
        let mut client = Op::silent(&daemon).await;
        let ack = client.hello(&hello).await;
        assert_eq!(ack, json!({"op": "hello_ack", "ok": false, "error": "unauthorized"}));
        assert_eq!(client.wire.closed().await, 4003);
    }
    let bearer = format!("Bearer {WRONG}");
    let query = format!("/?token={WRONG}");
    for (path, headers) in [
        ("/", vec![("authorization", &*bearer)]),
        (&*query, vec![]),
        ("/", vec![OFFER]),
        (&*query, vec![OFFER]),
    ] {
        assert_eq!(Wire::open(daemon.address, path, &headers).await.unwrap_err(), 401, "{path} {headers:?}");
    }
    let right_query = format!("/api/v1/stats?token={TOKEN}");
    for (path, headers) in [
        ("/api/v1/stats", vec![]),
        ("/api/v1/stats", vec![("authorization", &*bearer)]),
        (&*right_query, vec![]),
    ] {
        let response = request(daemon.address, "GET", path, &headers, "").await;
        assert_eq!(
            (response.status, &response.json()["error"]["code"]),
            (401, &json!("UNAUTHORIZED")),
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request(daemon.address, "GET", path, &[], "").await.status, 200);
    }
}

#[tokio::test]
async fn a_strangers_host_or_origin_is_refused_and_the_own_one_is_fine() {
    let daemon = Daemon::offline(&[("ALLOWED_ORIGINS", "https://app.example.com")]).await;
    let own = format!("http://{}", daemon.address);
    for (headers, refused) in [
        (vec![("host", "evil.example")], true),
        (vec![("origin", "http://evil.example")], true),
        (vec![("origin", "null")], true),
        (vec![("origin", "http://localhost:3000")], true),
        (vec![("origin", &*own)], false),
        (vec![("origin", "https://app.example.com")], false),
        (vec![("host", "localhost")], false),
    ] {
        let (http, upgrade) = if refused { (403, Err(403)) } else { (200, Ok(())) };
        let response = request(daemon.address, "GET", "/api/v1/stats", &headers, "").await;
        assert_eq!(response.status, http, "{headers:?}");
        for door in [vec![], vec![OFFER]] {
            let opened = Wire::open(daemon.address, "/", &[headers.clone(), door].concat()).await;
            assert_eq!(opened.map(drop), upgrade, "{headers:?}");
        }
    }
    assert_eq!(request(daemon.address, "GET", "/healthz", &[("host", "evil.example")], "").await.status, 403);
}

/// RFC 9112, section 3.2: two names are none, and a target in absolute form counts.
#[tokio::test]
async fn a_request_that_names_its_host_twice_or_not_at_all_is_refused_at_every_path() {
    let daemon = Daemon::offline(&[]).await;
    let own = daemon.address.to_string();
    let target = |host: &str, path: &str| format!("http://{host}{path}");
    for path in ["/healthz", "/readyz", "/api/v1/stats", "/"] {
        for (target, hosts, status) in [
            (path.to_owned(), vec![("host", "localhost"), ("host", "localhost")], 400),
            (path.to_owned(), vec![("host", "localhost"), ("host", "evil.example")], 400),
            (target("evil.example", path), vec![("host", "localhost")], 400),
            (target("evil.example", path), vec![("host", "evil.example")], 403),
        ] {
            let response = request(daemon.address, "GET", &target, &hosts, "").await;
            assert_eq!(response.status, status, "{target} {hosts:?}");
        }
    }
    let response = request(daemon.address, "GET", &target(&own, "/healthz"), &[("host", &own)], "").await;
    assert_eq!(response.status, 200, "a target in absolute form is fine");
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(b"GET /api/v1/stats HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    assert_eq!(http::finish(&mut stream).await.status, 400, "no host at all");
}

#[tokio::test]
async fn over_the_limit_of_connections_the_answer_is_503_and_healthz_still_answers() {
    let daemon = Daemon::offline(&[("CONNECTIONS_MAX", "2")]).await;
    let (first, mut second) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    assert_eq!(Wire::open(daemon.address, "/", &[]).await.unwrap_err(), 503);
    let refused = request(daemon.address, "GET", "/api/v1/stats", &[], "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request(daemon.address, "GET", path, &[], "").await.status, 200);
    }
    second.ping().await;
    drop(first);
    within("a place", async {
        while Wire::open(daemon.address, "/", &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn above_the_reserved_places_a_connection_is_told_503_unread() {
    let daemon = Daemon::offline(&[("CONNECTIONS_MAX", "1")]).await;
    let _first = Op::connect(&daemon).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(daemon.address).await.unwrap());
    }
    let mut seventh = TcpStream::connect(daemon.address).await.unwrap();
    let response = http::finish(&mut seventh).await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    // The reserved places do not stay taken by those who say nothing.
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = within("the end of a silent connection", stream.read_to_end(&mut rest)).await;
    }
    assert_eq!(request(daemon.address, "GET", "/healthz", &[], "").await.status, 200);
}

/// Time runs ahead while nobody has anything to say, which is what a slow client is about.
#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_dropped() {
    let daemon = Daemon::offline(&[]).await;
    for part in ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        let before = Instant::now();
        let mut rest = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut rest)).await.expect(part);
        assert!(before.elapsed() <= Duration::from_secs(16), "{part:?}: {:?}", before.elapsed());
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_or_no_http_is_refused() {
    let daemon = Daemon::offline(&[]).await;
    let long = "x".repeat(100_000);
    let answer = request(daemon.address, "GET", "/api/v1/stats", &[("x-long", &long)], "").await;
    assert_eq!(answer.status, 431);
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.unwrap();
    assert_eq!(http::finish(&mut stream).await.status, 400);
}

#[tokio::test]
async fn a_handshake_that_is_none_is_answered_with_400() {
    let daemon = Daemon::offline(&[]).await;
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let (version, upgrade) = (("sec-websocket-version", "13"), ("upgrade", "websocket"));
    for headers in [
        vec![upgrade, version],
        vec![upgrade, version, ("sec-websocket-key", "short")],
        vec![upgrade, key, ("sec-websocket-version", "8")],
        vec![upgrade, key, version],
    ] {
        // Each but the last lacks something; the last lacks `Connection: Upgrade`.
        let response = request(daemon.address, "GET", "/", &headers, "").await;
        assert_eq!((response.status, &response.json()["error"]["code"]), (400, &json!("INVALID_REQUEST")));
    }
}

#[tokio::test]
async fn a_client_that_leaves_politely_is_answered_politely() {
    let daemon = Daemon::offline(&[]).await;
    let mut client = Op::connect(&daemon).await;
    client.wire.message(Message::Close(None)).await;
    assert!(matches!(client.wire.hear().await, Heard::Close(_)));
    let tasks = &daemon.hub.tasks;
    until("the end of the session", || tasks.live(inflightd::tasks::TaskKind::Session) == 0).await;
}
