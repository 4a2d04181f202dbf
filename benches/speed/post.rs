//! The client's side of `POST /mcp`, by hand.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::wire::{INITIALIZE, INITIALIZED, Inbox};

/// The head of a request of the newer era that calls `tool`, but for its last line: how long its body is.
pub fn head(port: u16, tool: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
    )
}

/// The parameter of such a request that says who asks.
pub const META: &str = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}"#;

/// Appends a request.
pub fn push(out: &mut Vec<u8>, head: &str, body: &[u8]) {
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// What a client of the older era keeps while it has nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rests {
    /// Its session alone.
    Gone,
    /// The connection too, on which it asked. The daemon closes it after a while.
    Connected,
    /// Another one instead, on which it listens.
    Listening,
}

/// A client that has introduced itself, for as long as it is held.
pub struct Client {
    _connection: Option<TcpStream>,
}

impl Client {
    /// Opens a session; blocking.
    pub fn rests(port: u16, rests: Rests) -> Self {
        let common = format!(
            "Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n"
        );
        let posting = format!("POST /mcp HTTP/1.1\r\n{common}");
        let mut stream = connect(port);
        let welcome = exchange(&mut stream, &posting, INITIALIZE.as_bytes());
        let lower = welcome.to_lowercase();
        let (_, id) = lower.split_once("mcp-session-id: ").expect("a session");
        let (id, _) = id.split_once("\r\n").unwrap();
        let ours = format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {id}\r\n");
        exchange(&mut stream, &format!("{posting}{ours}"), INITIALIZED.as_bytes());
        let connection = match rests {
            Rests::Gone => None,
            Rests::Connected => Some(stream),
            Rests::Listening => {
                let mut stream = connect(port);
                stream.write_all(format!("GET /mcp HTTP/1.1\r\n{common}{ours}\r\n").as_bytes()).unwrap();
                let head = read_head(&mut stream, &mut Inbox::new());
                assert!(head.contains("text/event-stream"), "no stream: {head}");
                Some(stream)
            }
        };
        Self { _connection: connection }
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// One request; the head of its answer, which has no more than a body of known length.
fn exchange(stream: &mut TcpStream, head: &str, body: &[u8]) -> String {
    let mut out = Vec::new();
    push(&mut out, head, body);
    stream.write_all(&out).unwrap();
    let mut inbox = Inbox::new();
    loop {
        let count = stream.read(inbox.space()).unwrap();
        inbox.filled(count);
        let mut whole = inbox.clone();
        if whole.posted().is_some() {
            return String::from_utf8(inbox.http_head().unwrap()).unwrap();
        }
    }
}

fn read_head(stream: &mut TcpStream, inbox: &mut Inbox) -> String {
    loop {
        let count = stream.read(inbox.space()).unwrap();
        inbox.filled(count);
        if let Some(head) = inbox.http_head() {
            return String::from_utf8(head).unwrap();
        }
    }
}
