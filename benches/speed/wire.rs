//! Frames and messages of the client's side, by hand: as light as they can be, and without a task.

use std::ops::Range;

/// Any key will do: the server's work is the same, and no proxy is in between.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// The upgrade a client asks for.
pub fn upgrade(port: u16) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mcp\r\n\r\n"
    )
}

/// Panics unless `head` accepts the upgrade and the subprotocol.
pub fn check_upgrade(head: &[u8]) {
    let head = String::from_utf8_lossy(head).to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "no upgrade: {head}");
    assert!(head.contains("sec-websocket-protocol: mcp\r\n"), "the subprotocol was not echoed: {head}");
}

/// The request that opens a connection.
pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;

/// What follows its answer.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A tool and the argument that carries its text.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// The argument.
    pub argument: &'static str,
}

/// Answers its text.
pub const ECHO: Tool = Tool { name: "echo", argument: "text" };
/// The same, of the server behind the daemon.
pub const UPSTREAM: Tool = Tool { name: "upstream__echo", argument: "text" };

/// Asks a model.
pub const CHAT: Tool = Tool { name: "chat", argument: "prompt" };
/// Asks a model, and keeps its answer for those who ask the same.
pub const KEPT: Tool = Tool { name: "kept", argument: "prompt" };

/// The text of call `id`: nobody else's.
pub fn text_of(id: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (at, byte) in text.iter_mut().rev().enumerate() {
        *byte = b"0123456789abcdef"[(id >> (4 * at)) as usize & 0xf];
    }
    text
}

/// Writes the request `id` for `tool` into `message`, with parameters `more` behind its arguments.
pub fn write_call(message: &mut Vec<u8>, id: u64, tool: Tool, text: &[u8], more: &str) {
    message.clear();
    message.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    message.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
    message.extend_from_slice(br#","method":"tools/call","params":{"name":""#);
    message.extend_from_slice(tool.name.as_bytes());
    message.extend_from_slice(br#"","arguments":{""#);
    message.extend_from_slice(tool.argument.as_bytes());
    message.extend_from_slice(br#"":""#);
    message.extend_from_slice(text);
    message.extend_from_slice(br#""}"#);
    message.extend_from_slice(more.as_bytes());
    message.extend_from_slice(b"}}");
}

/// Appends a masked text frame.
pub fn push_text(out: &mut Vec<u8>, payload: &[u8]) {
    push_frame(out, TEXT, payload);
}

fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    // The final frame of its message; the length says that it is masked.
    out.push(0x80 | opcode);
    match payload.len() {
        short @ ..126 => out.push(0x80 | short as u8),
        medium @ ..65_536 => {
            out.push(0xfe);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0xff);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let from = out.len();
    out.extend_from_slice(payload);
    for chunk in out[from..].chunks_mut(4) {
        for (byte, mask) in chunk.iter_mut().zip(MASK) {
            *byte ^= mask;
        }
    }
}

/// Bytes received that are not yet frames.
#[derive(Clone)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: vec![0; 8192], start: 0, end: 0 }
    }

    /// Where the next bytes go.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.end < 1024 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() - self.end < 1024 {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes came; panics where the connection has ended.
    pub fn filled(&mut self, count: usize) {
        assert!(count > 0, "the server closed the connection");
        self.end += count;
    }

    /// The head of an HTTP answer, once it is whole.
    pub fn http_head(&mut self) -> Option<Vec<u8>> {
        let seen = &self.bytes[self.start..self.end];
        let length = find(seen, b"\r\n\r\n")? + 4;
        let head = seen[..length].to_vec();
        self.start += length;
        Some(head)
    }

    /// The body of the next HTTP answer, once it is whole; panics where it is a refusal.
    pub fn posted(&mut self) -> Option<Range<usize>> {
        let seen = &self.bytes[self.start..self.end];
        let head = find(seen, b"\r\n\r\n")? + 4;
        let said = || String::from_utf8_lossy(seen).into_owned();
        assert!(seen.starts_with(b"HTTP/1.1 2"), "refused: {}", said());
        let length = find(&seen[..head], b"ontent-length: ");
        let digits = &seen[length.unwrap_or_else(|| panic!("no length: {}", said())) + 15..head];
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let length = length.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
        if seen.len() < head + length {
            return None;
        }
        let from = self.start + head;
        self.start = from + length;
        Some(from..from + length)
    }

    /// The next text message, once it is whole; pings are answered into `out`.
    pub fn message(&mut self, out: &mut Vec<u8>) -> Option<Range<usize>> {
        loop {
            let (opcode, payload) = self.frame()?;
            match opcode {
                TEXT => return Some(payload),
                PING => push_frame(out, PONG, &self.bytes[payload]),
                PONG => {}
                CLOSE => panic!("closed: {}", String::from_utf8_lossy(&self.bytes[payload])),
                other => panic!("a frame with opcode {other}"),
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Range<usize>)> {
        let seen = &self.bytes[self.start..self.end];
        let (&head, &length) = (seen.first()?, seen.get(1)?);
        assert!(head & 0xf0 == 0x80 && length & 0x80 == 0, "a fragmented or masked frame");
        let (header, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes(seen.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(seen.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        if seen.len() < header + length {
            return None;
        }
        let from = self.start + header;
        self.start = from + length;
        Some((head & 0xf, from..from + length))
    }

    /// The bytes of a message.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }
}

/// In the `_meta` of the answer to whoever opened a flight.
pub const LEADER: &[u8] = br#""inflightd/role":"leader""#;
/// In the `_meta` of the answer to whoever joined one.
pub const FOLLOWER: &[u8] = br#""inflightd/role":"follower""#;

/// In the `_meta` of the answer that was kept from an earlier call.
pub const CACHE: &[u8] = br#""inflightd/role":"cache""#;

/// Where id, text and role stood in the last answer: mostly they stand there again.
#[derive(Default)]
pub struct Reader {
    id: usize,
    text: usize,
    role: usize,
}

impl Reader {
    /// The id of an answer; notifications have none.
    pub fn id(&mut self, answer: &[u8]) -> Option<u64> {
        const NAME: &[u8] = b"\"id\":";
        if !answer[self.id.min(answer.len())..].starts_with(NAME) {
            self.id = find(answer, NAME)?;
        }
        let digits = answer[self.id + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |id, digit| id * 10 + u64::from(digit - b'0')))
    }

    /// Panics unless `answer` carries `text`.
    pub fn check_text(&mut self, answer: &[u8], text: &[u8]) {
        if !answer[self.text.min(answer.len())..].starts_with(text) {
            let found = find(answer, text);
            assert!(found.is_some(), "not the answer to its call: {}", String::from_utf8_lossy(answer));
            self.text = found.unwrap_or_default();
        }
    }

    /// Whether `answer` says that its call came to it like this: [`FOLLOWER`], [`CACHE`].
    pub fn has_role(&mut self, answer: &[u8], role: &[u8]) -> bool {
        if !answer[self.role.min(answer.len())..].starts_with(role) {
            let Some(found) = find(answer, role) else { return false };
            self.role = found;
        }
        true
    }
}

/// The content of a tool's answer, read the long way; panics where it is none, or an error.
pub fn content_of(answer: &[u8]) -> String {
    let seen = || String::from_utf8_lossy(answer).into_owned();
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(answer) else {
        panic!("no JSON: {}", seen())
    };
    let result = &value["result"];
    assert!(result["isError"] != true, "refused: {}", seen());
    let Some(text) = result["content"][0]["text"].as_str() else { panic!("no result: {}", seen()) };
    text.to_owned()
}

/// Where `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
