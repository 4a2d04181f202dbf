//! The server's side of one WebSocket: tungstenite speaks the protocol, over buffers that all sessions of a thread share.
//!
//! `tokio_tungstenite`'s own stream clears its whole read buffer at each read, reads once more after each message, keeps
//! two buffers for every connection and puts two wakers between a socket and its task: together more than a call's whole
//! way through the daemon. Here frames are handed over one by one out of a buffer that is always warm, and nothing is
//! asked twice.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::outbox::Outbox;

mod plain;

/// What is read at once. Larger messages come in several reads.
const READ_BYTES: usize = 64 * 1024;

/// tungstenite's own buffer: the whole of a common request, and pieces of a large one. It is cleared with each frame.
const PROTOCOL_BYTES: usize = 512;

thread_local! {
    static CAME: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// One WebSocket.
pub struct Wire<S> {
    stream: S,
    /// Apart: most messages come and go without it.
    protocol: Box<WebSocketContext>,
    /// What came behind the last message, and how much of it was handed over.
    unread: Vec<u8>,
    handed_over: usize,
    /// So much of a frame that was begun has not come yet.
    missing: u64,
    /// A message was begun whose last frame has not come yet.
    in_pieces: bool,
    message_bytes: usize,
    /// A close frame came, or ours was answered: what waits is written, then it is over.
    closed: bool,
    /// What goes out.
    pub outbox: Outbox,
    written: u64,
    peer: Peer,
}

/// What is seen of the peer, be it within a message.
#[derive(Default)]
struct Peer {
    /// It did not take what waits for it.
    held_up: bool,
    /// It sent something, or took what it did not take before.
    moved: bool,
}

/// What tungstenite reads from and writes to.
struct Between<'a> {
    came: &'a [u8],
    /// Nothing will come any more.
    ended: bool,
    outbox: &'a mut Outbox,
}

impl Read for Between<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.came.is_empty() && !self.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.came.read(to)
    }
}

impl Write for Between<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbox.raw(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The WebSocket of a connection that was upgraded; `came` was read behind the upgrade. Messages have a bound, and
    /// so has what waits to be written.
    pub fn new(stream: S, came: Vec<u8>, message_bytes: usize, outbox: Outbox) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(PROTOCOL_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes));
        Self {
            stream,
            protocol: Box::new(WebSocketContext::new(Role::Server, Some(config))),
            unread: came,
            handed_over: 0,
            missing: 0,
            in_pieces: false,
            message_bytes,
            closed: false,
            outbox,
            written: 0,
            peer: Peer::default(),
        }
    }

    /// Whether the peer has shown that it lives since this was asked last, be it within a message.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.peer.moved)
    }

    /// How many bytes the peer took.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The next message; `None` once both sides have said good-bye.
    ///
    /// Cancel safe.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.closed {
            // The answer to its close frame goes first. Where it cannot, there is nobody to be told.
            return self.poll_flush(cx).map(|_| None);
        }
        loop {
            if let Some(message) = self.unread() {
                return Poll::Ready(self.seen(message));
            }
            if let Some(message) = ready!(self.poll_read(cx)) {
                return Poll::Ready(self.seen(message));
            }
        }
    }

    /// The next message of what was read before.
    fn unread(&mut self) -> Option<Result<Message, Error>> {
        if self.unread.is_empty() {
            return None;
        }
        let unread = std::mem::take(&mut self.unread);
        let rest = unread.get(self.handed_over..).unwrap_or_default();
        let (taken, message) = self.hand_over(rest);
        self.handed_over += taken;
        if self.handed_over < unread.len() {
            self.unread = unread;
        } else {
            self.handed_over = 0;
        }
        message
    }

    /// Reads once. `None`: it holds no whole message yet.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        CAME.with_borrow_mut(|came| {
            let mut came = ReadBuf::new(came);
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut came)) {
                return Poll::Ready(Some(Err(error.into())));
            }
            let came = came.filled();
            if came.is_empty() {
                let mut nothing = Between { came, ended: true, outbox: &mut self.outbox };
                return Poll::Ready(Some(self.protocol.read(&mut nothing)));
            }
            self.peer.moved = true;
            if !self.unread.is_empty() {
                // The start of a frame's head: the rest is behind it. What is before it was handed over.
                self.unread.drain(..std::mem::take(&mut self.handed_over));
                self.unread.extend_from_slice(came);
                return Poll::Ready(self.unread());
            }
            let (taken, message) = self.hand_over(came);
            self.unread = came.get(taken..).unwrap_or_default().to_vec();
            Poll::Ready(message)
        })
    }

    /// Hands over what came, one frame after the other up to the first message, and says how much that was. So
    /// tungstenite never holds more than it was asked for, and need not be asked whether it does.
    fn hand_over(&mut self, came: &[u8]) -> (usize, Option<Result<Message, Error>>) {
        let mut taken = 0;
        loop {
            let rest = came.get(taken..).unwrap_or_default();
            let frame = if self.missing > 0 { Some(self.missing) } else { frame_bytes(rest) };
            let Some(frame) = frame.filter(|_| !rest.is_empty()) else { return (taken, None) };
            let given = rest.get(..usize::try_from(frame).unwrap_or(usize::MAX)).unwrap_or(rest);
            taken += given.len();
            if self.missing == 0 {
                let is_whole = u64::try_from(given.len()).is_ok_and(|given| given == frame);
                if is_whole
                    && !self.in_pieces
                    && let Some(text) = plain::text(given, self.message_bytes)
                {
                    return (taken, Some(Ok(Message::Text(text))));
                }
                self.begins(given);
            }
            self.missing = frame.saturating_sub(u64::try_from(given.len()).unwrap_or(u64::MAX));
            let mut between = Between { came: given, ended: false, outbox: &mut self.outbox };
            match self.protocol.read(&mut between) {
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                message => return (taken, Some(message)),
            }
        }
    }

    /// Remembers whether this frame leaves its message in pieces; those of the protocol itself are none of it.
    fn begins(&mut self, frame: &[u8]) {
        let first = frame.first().copied().unwrap_or_default();
        let is_control = first & 0x08 != 0;
        if !is_control {
            self.in_pieces = first & 0x80 == 0;
        }
    }

    /// Queues what the protocol itself answers: a pong, or a close frame.
    fn seen(&mut self, message: Result<Message, Error>) -> Option<Result<Message, Error>> {
        match message {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            Ok(Message::Ping(_) | Message::Close(_)) => {
                // It fails only to say that this was the last of it.
                let _ =
                    self.protocol.flush(&mut Between { came: &[], ended: false, outbox: &mut self.outbox });
                if let Ok(Message::Close(_)) = message {
                    self.closed = true;
                    self.outbox.close();
                }
                Some(message)
            }
            Ok(_) | Err(_) => Some(message),
        }
    }

    /// Writes what waits, as far as the peer takes it.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let Poll::Ready(count) = Pin::new(&mut self.stream).poll_write(cx, self.outbox.waiting())? else {
                self.peer.held_up = true;
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.peer.moved |= std::mem::take(&mut self.peer.held_up);
            self.outbox.took(count);
            self.written += u64::try_from(count).unwrap_or_default();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that nothing more is written, and lets go of what comes until the peer says the same: a socket that is closed
    /// over unread bytes resets, and takes the close frame with it (RFC 6455, section 7.1.1).
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        CAME.with_borrow_mut(|came| {
            loop {
                let mut came = ReadBuf::new(came);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut came))?;
                if came.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        })
    }

    /// Queues a close frame. What comes until the peer has answered it can still be read.
    pub(super) fn close(&mut self, frame: CloseFrame) {
        let mut between = Between { came: &[], ended: false, outbox: &mut self.outbox };
        // The peer was quicker: it has its answer.
        let _ = self.protocol.close(&mut between, Some(frame));
    }
}

/// How long the frame is that begins here, its head counted; `None` where too little of the head has come to say.
fn frame_bytes(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let (payload, extended) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*head.get(2..)?.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*head.get(2..)?.first_chunk()?), 8),
        short => (u64::from(short), 0),
    };
    let head_bytes = 2 + extended + if second & 0x80 == 0 { 0 } else { 4 };
    head.get(..head_bytes)?;
    Some(payload.saturating_add(u64::try_from(head_bytes).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
