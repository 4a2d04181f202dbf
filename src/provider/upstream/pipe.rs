//! A connection over two pipes, owned by one task: requests of many callers go in, lines come out, and each answer
//! finds its caller. Whoever stops waiting drops its [`Asked`], which takes the request back without waiting.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::provider::Tell;
use crate::provider::upstream::lines::{Ends, Line, Lines};
use crate::provider::upstream::message::{self, Incoming, Progress, Refusal};

/// Requests that wait to be taken over. There are never more than the lane of the server lets through.
const ASKS: usize = 1024;
/// What waits to be read by the server before no more is taken over: it does not read.
const UNREAD_BYTES: usize = 8 * 1024 * 1024;
/// Requests and lines taken before the other side has its turn.
const BATCH: usize = 64;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// The server said no.
    Refused(Refusal),
    /// The connection takes nothing: the request was surely not sent.
    NotSent(&'static str),
    /// The connection has just ended: the request was surely not sent, and the next one may take it.
    Gone,
    /// It said no with a status of HTTP.
    Status {
        /// Which.
        status: u16,
        /// When it says to come back.
        retry_after: Option<Duration>,
    },
    /// The connection ended, or what came made no sense.
    Broken(&'static str),
    /// The answer is larger than can be delivered.
    TooLarge,
}

/// The end of a request: its result as JSON text.
pub(super) type Outcome = Result<Box<str>, Failed>;

/// What a server says of itself, beside answers.
pub(super) trait Hear: Send + Sync {
    /// A notification, with its parameters as JSON text. It must not wait.
    fn notice(&self, method: &str, params: Option<&str>);

    /// A question under the server's own id, with its parameters, all as JSON text. It must not wait; `false`: it is not
    /// taken, and the server is told so.
    fn question(&self, id: &str, method: &str, params: Option<&str>) -> bool;
}

/// What has come that should not.
#[derive(Debug, Default)]
pub(super) struct Oddities {
    /// Lines that were no messages.
    pub(super) garbage: AtomicU64,
    /// Answers to what was not asked, or was answered already.
    pub(super) strangers: AtomicU64,
    /// Messages above the limit.
    pub(super) too_large: AtomicU64,
}

struct Ask {
    line: String,
    /// Under which id its answer comes; a notification has none.
    wants: Option<(u64, Pending)>,
}

struct Pending {
    answer: oneshot::Sender<Outcome>,
    tell: Option<Arc<dyn Tell>>,
    progress: f64,
}

/// The callers' end. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Pipe {
    asks: mpsc::Sender<Ask>,
    abandoned: Arc<Notify>,
    last_id: Arc<AtomicU64>,
}

/// A request under way. Dropping it takes the request back.
pub(super) struct Asked {
    answer: oneshot::Receiver<Outcome>,
    abandoned: Arc<Notify>,
    done: bool,
}

impl Pipe {
    /// Names the next request.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Hands a request over, written by the caller under an id of [`Pipe::next_id`].
    ///
    /// # Errors
    /// The connection is gone, or its server does not read.
    pub(super) fn ask(&self, id: u64, line: String, tell: Option<Arc<dyn Tell>>) -> Result<Asked, Failed> {
        let (send, answer) = oneshot::channel();
        let pending = Pending { answer: send, tell, progress: f64::NEG_INFINITY };
        self.send(Ask { line, wants: Some((id, pending)) })?;
        Ok(Asked { answer, abandoned: Arc::clone(&self.abandoned), done: false })
    }

    /// Hands a notification over.
    ///
    /// # Errors
    /// The connection is gone, or its server does not read.
    pub(super) fn notify(&self, line: String) -> Result<(), Failed> {
        self.send(Ask { line, wants: None })
    }

    fn send(&self, ask: Ask) -> Result<(), Failed> {
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failed::NotSent("it does not read what it is sent"),
            mpsc::error::TrySendError::Closed(_) => Failed::Gone,
        })
    }
}

impl Future for Asked {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        self.done = true;
        Poll::Ready(answer.unwrap_or(Err(Failed::Broken("it ended before it had answered"))))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.done {
            self.answer.close();
            self.abandoned.notify_one();
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server closed its output.
    Closed,
    /// Reading or writing failed.
    Broken,
    /// It was told to.
    Stopped,
}

/// The connection's own end: whoever runs it owns it.
pub(super) struct Driver<R, W> {
    lines: Lines<R>,
    writer: W,
    /// What waits to be written.
    out: Vec<u8>,
    /// How much of it is written.
    written: usize,
    pending: HashMap<u64, Pending>,
    asks: mpsc::Receiver<Ask>,
    abandoned: Arc<Notify>,
    hear: Arc<dyn Hear>,
    oddities: Arc<Oddities>,
}

/// A connection over these pipes; messages of the server may be `limit` bytes long.
pub(super) fn connect<R, W>(
    reader: R,
    writer: W,
    limit: usize,
    hear: Arc<dyn Hear>,
    oddities: Arc<Oddities>,
) -> (Pipe, Driver<R, W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (send, asks) = mpsc::channel(ASKS);
    let abandoned = Arc::new(Notify::new());
    let pipe = Pipe { asks: send, abandoned: Arc::clone(&abandoned), last_id: Arc::default() };
    let lines = Lines::new(reader, limit);
    let (out, pending) = (Vec::new(), HashMap::new());
    (pipe, Driver { lines, writer, out, written: 0, pending, asks, abandoned, hear, oddities })
}

enum Event {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Ask(Option<Ask>),
    Abandoned,
    Stop,
}

impl<R, W> Driver<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    /// Carries messages until an end comes; whoever waits then is answered by its drop.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> End {
        loop {
            let event = self.event(stop).await;
            match event {
                // Or every caller's end is gone, and with it whoever could wait.
                Event::Stop | Event::Ask(None) => return End::Stopped,
                Event::Read(Ok(0)) => return End::Closed,
                Event::Read(Err(_)) | Event::Wrote(Err(_)) => return End::Broken,
                Event::Read(Ok(_)) => self.take_lines(),
                Event::Wrote(Ok(bytes)) => self.wrote(bytes),
                Event::Ask(Some(ask)) => self.take_over(ask),
                Event::Abandoned => self.take_back(),
            }
        }
    }

    /// What is written is written before more is taken over, so that requests that come together leave together.
    async fn event(&mut self, stop: &CancellationToken) -> Event {
        let has_out = self.written < self.out.len();
        let has_room = self.out.len() - self.written < UNREAD_BYTES;
        let out = self.out.get(self.written..).unwrap_or_default();
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            wrote = self.writer.write(out), if has_out => Event::Wrote(wrote),
            ask = self.asks.recv(), if has_room => Event::Ask(ask),
            () = self.abandoned.notified() => Event::Abandoned,
            read = self.lines.fill() => Event::Read(read),
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= self.out.len() {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > BATCH * 1024 {
                self.out = Vec::new();
            }
        }
    }

    fn take_over(&mut self, first: Ask) {
        let mut next = Some(first);
        let mut left = BATCH;
        while let Some(ask) = next {
            // One that was dropped while it waited here is not sent at all.
            match ask.wants {
                Some((_, pending)) if pending.answer.is_closed() => {}
                Some((id, pending)) => {
                    self.say(&ask.line);
                    self.pending.insert(id, pending);
                }
                None => self.say(&ask.line),
            }
            left -= 1;
            let has_room = self.out.len() - self.written < UNREAD_BYTES;
            next = if left > 0 && has_room { self.asks.try_recv().ok() } else { None };
        }
    }

    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.push(b'\n');
    }

    /// Tells the server which requests nobody waits for any more.
    fn take_back(&mut self) {
        let gone = self.pending.extract_if(|_, pending| pending.answer.is_closed());
        let gone: Vec<u64> = gone.map(|(id, _)| id).collect();
        for id in gone {
            // A server that does not read is not told either: what waits for it has a bound.
            if self.out.len() - self.written < UNREAD_BYTES {
                self.say(&message::cancelled(id));
            }
        }
    }

    fn take_lines(&mut self) {
        let mut answers = Vec::new();
        while let Some(line) = self.lines.next() {
            let line = match line {
                Line::Whole(line) => line,
                Line::Long(ends) => {
                    self.oddities.too_large.fetch_add(1, Ordering::Relaxed);
                    if let Some(pending) = id_at_the_ends(&ends).and_then(|id| self.pending.remove(&id)) {
                        let _ = pending.answer.send(Err(Failed::TooLarge));
                    }
                    continue;
                }
            };
            let Ok(text) = std::str::from_utf8(line) else {
                self.oddities.garbage.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if text.trim_ascii().is_empty() {
                continue;
            }
            let (pending, hear, oddities) = (&mut self.pending, &*self.hear, &*self.oddities);
            message::read(text, |message| take(message, pending, hear, oddities, &mut answers));
        }
        for answer in answers {
            if self.out.len() - self.written < UNREAD_BYTES {
                self.say(&answer);
            }
        }
    }
}

fn take(
    message: Incoming<'_>,
    pending: &mut HashMap<u64, Pending>,
    hear: &dyn Hear,
    oddities: &Oddities,
    answers: &mut Vec<String>,
) {
    match message {
        Incoming::Answer(id, outcome) => match pending.remove(&id) {
            // Who has stopped waiting is told nothing.
            Some(pending) => {
                drop(pending.answer.send(outcome.map(Box::from).map_err(Failed::Refused)));
            }
            None => count(&oddities.strangers),
        },
        Incoming::Request(id, method, params) => {
            if !hear.question(id, &method, params) && answers.len() < BATCH {
                answers.push(message::answer(id, &method));
            }
        }
        Incoming::Notice(method, params) if method == "notifications/progress" => {
            let progress = params.and_then(|params| serde_json::from_str::<Progress<'_>>(params).ok());
            let Some(progress) = progress else { return };
            let Some(pending) = pending.get_mut(&progress.token) else { return };
            progress.tell(pending.tell.as_ref(), &mut pending.progress);
        }
        Incoming::Notice(method, params) => hear.notice(&method, params),
        Incoming::Stranger | Incoming::StrangeRefusal(_) => {
            oddities.strangers.fetch_add(1, Ordering::Relaxed);
        }
        Incoming::Garbage => count(&oddities.garbage),
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The id of a message of which only the ends are known: SDKs write it first or last.
fn id_at_the_ends(ends: &Ends) -> Option<u64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let head = String::from_utf8_lossy(&ends.head);
    let head: String = head.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    for opening in ["{\"jsonrpc\":\"2.0\",\"id\":", "{\"id\":"] {
        if let Some(rest) = head.strip_prefix(opening) {
            return rest.get(..digits(rest))?.parse().ok();
        }
    }
    let tail = String::from_utf8_lossy(&ends.tail);
    let tail: String = tail.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let tail = tail.strip_suffix('}')?;
    let tail = tail.strip_suffix(",\"jsonrpc\":\"2.0\"").unwrap_or(tail);
    let (before, id) = tail.rsplit_once(',')?;
    let id = id.strip_prefix("\"id\":")?;
    // It must be a member of the message, not of its result.
    before.ends_with(['}', '"']).then(|| id.parse().ok())?
}

#[cfg(test)]
mod tests;
