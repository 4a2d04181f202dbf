//! HTTP/1.1 by hand, so that a test can also get it wrong.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut stream = start(address, method, path, headers, body).await;
    finish(&mut stream).await
}

/// `POST /api/v1/execute`.
pub async fn execute(address: SocketAddr, body: &str) -> Response {
    request(address, "POST", "/api/v1/execute", &[("content-type", "application/json")], body).await
}

/// Sends a request, and leaves its answer for later.
pub async fn start(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    let own = address.to_string();
    let host = [("Host", &*own)];
    let named = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    for (name, value) in headers.iter().chain(host.iter().filter(|_| !named)) {
        for piece in [name, ": ", value, "\r\n"] {
            text.push_str(piece);
        }
    }
    text.push_str("\r\n");
    text.push_str(body);
    let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    within("room to send", stream.write_all(text.as_bytes())).await.unwrap();
    stream
}

/// The answer, up to the end of the connection.
pub async fn finish(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    // A connection that is closed over unread bytes resets: what came before it counts.
    let _ = within("the end of the answer", stream.read_to_end(&mut bytes)).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_owned(), body: body.to_owned() }
}
