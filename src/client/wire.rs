//! One WebSocket connection, cut into a half that reads and a half that sends.
//!
//! Two threads write: the reader's automatic pongs, and whoever sends. tungstenite hands over whole frames
//! at each write, and [`Socket`] puts each write on the wire under one lock, so frames never interleave.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Bytes, Message, Utf8Bytes, WebSocket};

use crate::client::pulse::{Beat, Pulse};

/// An idle connection costs two of these; the library's own 128 KiB would be most of the shim.
const BUFFER_BYTES: usize = 4 * 1024;
/// Twice the largest result, so that nothing the daemon may send is refused here.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// A sender that wrote more than this gives its buffer back afterwards.
const KEPT_BUFFER_BYTES: usize = 256 * 1024;
/// A daemon that takes not one byte for so long is as good as gone.
const WRITE_STALL: Duration = Duration::from_secs(10);
/// What saying good-bye may take.
const CLOSE_STALL: Duration = Duration::from_millis(100);

/// Why a connection that was open is not any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkLost {
    /// The daemon said good-bye.
    #[error("the daemon closed the connection ({reason})")]
    Closed {
        /// Close code and text, as the daemon gave them.
        reason: String,
    },
    /// It said that a message was too large for it.
    #[error("the daemon closed the connection: a message was too large for it")]
    TooBig,
    /// A ping went unanswered.
    #[error("the daemon did not answer a ping in time")]
    Silent,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] Box<tungstenite::Error>),
}

impl From<tungstenite::Error> for LinkLost {
    fn from(error: tungstenite::Error) -> Self {
        Self::Broken(Box::new(error))
    }
}

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// A TCP stream that several threads write to, one whole write at a time.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tcp: TcpStream,
    writing: Mutex<()>,
    /// Bytes came since the reader last looked, even if they make no whole frame yet.
    heard: AtomicBool,
}

impl Socket {
    /// Wraps a fresh connection; until [`split`], reads and writes end after `patience`.
    pub(super) fn new(tcp: TcpStream, patience: Duration) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(patience))?;
        tcp.set_write_timeout(Some(patience))?;
        Ok(Self(Arc::new(Shared { tcp, writing: Mutex::new(()), heard: AtomicBool::new(false) })))
    }

    fn shutdown(&self) {
        // It fails only when the connection is gone already.
        let _ = self.0.tcp.shutdown(Shutdown::Both);
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = (&self.0.tcp).read(buf)?;
        self.0.heard.store(read > 0, Ordering::Relaxed);
        Ok(read)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let _alone = self.0.writing.lock();
        match (&self.0.tcp).write_all(buf) {
            Ok(()) => Ok(buf.len()),
            Err(error) => {
                // A part may be out: nothing after it could be understood. Never `WouldBlock`, which
                // tungstenite takes for a wish to try the same bytes again.
                self.shutdown();
                Err(io::Error::new(ErrorKind::BrokenPipe, error))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts an upgraded connection in two.
pub(super) fn split(websocket: WebSocket<Socket>) -> io::Result<(Reader, Sender)> {
    let socket = websocket.get_ref().clone();
    socket.0.tcp.set_write_timeout(Some(WRITE_STALL))?;
    let writer = WebSocket::from_raw_socket(socket.clone(), Role::Client, Some(config()));
    let sender = Sender { socket, writer: Arc::new(Mutex::new(writer)) };
    Ok((Reader { websocket, pulse: Pulse::new(Instant::now()) }, sender))
}

/// The reading half; it also pings, answers pings, and knows when the daemon is gone.
#[derive(Debug)]
pub struct Reader {
    websocket: WebSocket<Socket>,
    pulse: Pulse,
}

impl Reader {
    /// The next message; `None` when `until` comes first.
    pub fn next(&mut self, until: Option<Instant>) -> Result<Option<Utf8Bytes>, LinkLost> {
        loop {
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Ok(None);
            }
            match self.pulse.step(now) {
                Beat::Rest => {}
                Beat::Ping => self.ping()?,
                Beat::Dead => return Err(LinkLost::Silent),
            }
            let wake = until.map_or(self.pulse.next(), |until| until.min(self.pulse.next()));
            let patience = wake.saturating_duration_since(now).max(Duration::from_millis(1));
            self.websocket
                .get_ref()
                .0
                .tcp
                .set_read_timeout(Some(patience))
                .map_err(tungstenite::Error::Io)?;
            if let Some(text) = self.read()? {
                return Ok(Some(text));
            }
        }
    }

    fn read(&mut self) -> Result<Option<Utf8Bytes>, LinkLost> {
        let message = match self.websocket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                if self.websocket.get_ref().0.heard.swap(false, Ordering::Relaxed) {
                    self.pulse.alive();
                }
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.pulse.alive();
        match message {
            Message::Text(text) => Ok(Some(text)),
            Message::Close(Some(frame)) if frame.code == CloseCode::Size => Err(LinkLost::TooBig),
            Message::Close(frame) => {
                let reason = frame.map_or_else(|| "no reason given".to_owned(), |frame| frame.to_string());
                Err(LinkLost::Closed { reason })
            }
            // The daemon speaks text; whatever else comes means only that it lives.
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }

    fn ping(&mut self) -> Result<(), LinkLost> {
        self.websocket.write(Message::Ping(Bytes::new()))?;
        Ok(self.websocket.flush()?)
    }
}

/// Nobody reads any more: whoever sends must learn it.
impl Drop for Reader {
    fn drop(&mut self) {
        self.websocket.get_ref().shutdown();
    }
}

/// The sending half; clones send on the same connection.
#[derive(Debug, Clone)]
pub struct Sender {
    socket: Socket,
    writer: Arc<Mutex<WebSocket<Socket>>>,
}

impl Sender {
    /// Sends one message; a failure also ends the reading half, which says why.
    pub fn send(&self, text: impl Into<Utf8Bytes>) -> Result<(), LinkLost> {
        let text = text.into();
        let large = text.len() > KEPT_BUFFER_BYTES;
        let mut writer = self.writer.lock();
        let sent = writer.send(Message::Text(text));
        if large {
            *writer = WebSocket::from_raw_socket(self.socket.clone(), Role::Client, Some(config()));
        }
        Ok(sent?)
    }

    /// Says good-bye, unless that would take time, and ends the connection.
    pub fn close(&self) {
        if let Some(mut writer) = self.writer.try_lock()
            && self.socket.0.writing.try_lock().is_some()
            && self.socket.0.tcp.set_write_timeout(Some(CLOSE_STALL)).is_ok()
        {
            // Best effort: the process ends whether or not the daemon hears of it.
            let _ = writer.close(None);
        }
        self.socket.shutdown();
    }
}
