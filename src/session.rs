//! One task a WebSocket: frames in, calls under way, a bounded queue out.
//!
//! The loop has one place where events are made ([`Session::event`]) and one where they change something
//! ([`Session::handle`]). Frames that wait together are read before anything is flushed, so their answers leave
//! together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use crate::call::{Answer, Call, CallError, Caller, Full, Submitted};
use crate::door::{Closed, Hub};
use crate::proto::progress::Progress;
use crate::proto::{CallFrame, Close, Dialect, Request, Turn, View};

mod good_bye;
mod line;
mod outbox;
mod paced;
mod pulse;
mod under_way;

use good_bye::{End, broken};
use line::{Line, Next};
use outbox::Outbox;
pub use paced::{Paced, ReadReady};
use pulse::{Beat, Pulse};
use under_way::{CallUnderWay, Happened, UnderWay};

/// Frames read before results, timers and the flush have their turn: a flood cannot hold back its own answers.
const READ_BATCH: usize = 64;

/// Calls under way on one connection. More would be one client's mistake, paid for by all.
const CALLS_UNDER_WAY: usize = 1024;

/// How long a peer with a full queue may take to read on, before it is closed as one that does not read.
const DOES_NOT_READ: Duration = Duration::from_secs(5);

/// Above this many bytes waiting, progress is dropped: it is the client's own slowness, and results come first.
const PROGRESS_BACKLOG_BYTES: usize = 256 * 1024;

/// Serves one WebSocket until it ends.
pub async fn serve<S, D>(socket: WebSocketStream<S>, dialect: D, hub: Arc<Hub>, caller: Caller)
where
    S: ReadReady,
    D: Dialect,
{
    let closing = Box::pin(hub.closing.wait());
    let pulse = Pulse::new(dialect.awaits_hello());
    let mut session = Session {
        outbox: Outbox::new(hub.limits.write_queue_bytes),
        line: Line::new(hub.limits.frame_bytes),
        socket,
        dialect,
        hub,
        caller,
        under_way: UnderWay::default(),
        closing,
        listens: false,
        pulse,
        read_in_a_row: 0,
        dry: false,
        woken: true,
        stalled: None,
    };
    loop {
        let event = std::future::poll_fn(|cx| session.event(cx)).await;
        if let Some(end) = session.handle(event) {
            session.good_bye(end).await;
            return;
        }
    }
}

struct Session<S, D> {
    socket: WebSocketStream<S>,
    dialect: D,
    hub: Arc<Hub>,
    caller: Caller,
    outbox: Outbox,
    line: Line,
    under_way: UnderWay,
    /// Wakes the session when the daemon closes its connections; polled once, since a task's waker stays good.
    closing: Pin<Box<Closed>>,
    listens: bool,
    pulse: Pulse,
    read_in_a_row: usize,
    /// The socket was read dry: its buffer holds no whole frame.
    dry: bool,
    /// The task was woken since the timer was last looked at.
    woken: bool,
    /// The peer has as much waiting as it may.
    stalled: Option<Stalled>,
}

/// How far a peer had read when it was last seen to, and how long it may take to read on.
struct Stalled {
    written: (u64, usize),
    timer: Timer,
}

/// What can happen to a session.
#[expect(
    clippy::large_enum_variant,
    reason = "an event is handled where it is made: a box would cost every answer"
)]
enum Event {
    Frame(Message),
    Broken(tungstenite::Error),
    Gone,
    Happened(Happened),
    Beat(Beat),
    /// The next request that waited for its turn has it.
    Turn,
    Overflow,
    Closing,
}

impl<S, D> Session<S, D>
where
    S: ReadReady,
    D: Dialect,
{
    /// The next event. Results come before the close, and reading before flushing.
    fn event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.outbox.is_full() {
            match self.flush(cx) {
                Poll::Ready(Some(event)) => return Poll::Ready(event),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if self.outbox.is_full() {
                return self.wait_for_reader(cx);
            }
        }
        self.stalled = None;
        let enough = self.read_in_a_row >= READ_BATCH;
        if !enough && let Poll::Ready(event) = self.read(cx) {
            return Poll::Ready(event);
        }
        if !self.under_way.is_empty()
            && let Poll::Ready(happened) = self.under_way.poll_happened(cx)
        {
            return Poll::Ready(Event::Happened(happened));
        }
        if (self.woken || self.pulse.moved())
            && let Poll::Ready(beat) = self.pulse.poll_beat(cx)
        {
            return Poll::Ready(Event::Beat(beat));
        }
        self.woken = false;
        if self.is_closing(cx) {
            return Poll::Ready(Event::Closing);
        }
        self.read_in_a_row = 0;
        match self.flush(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // Only now: a client that reads slowly is not answered faster.
            Poll::Ready(None) if self.line.moves_on() => Poll::Ready(Event::Turn),
            Poll::Ready(None) | Poll::Pending => {
                self.woken = true;
                if enough {
                    // There may be more to read: after everybody else had a turn.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    /// The peer has as much waiting as it may. Nothing more is read or answered until it has taken some; one that
    /// takes nothing for a while does not read.
    fn wait_for_reader(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let written = (self.socket.get_ref().written(), self.outbox.bytes());
        let fresh = || Stalled { written, timer: Box::pin(tokio::time::sleep(DOES_NOT_READ)) };
        let stalled = self.stalled.get_or_insert_with(fresh);
        if stalled.written != written {
            *stalled = fresh();
        }
        if stalled.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Overflow);
        }
        if self.is_closing(cx) {
            return Poll::Ready(Event::Closing);
        }
        self.woken = true;
        Poll::Pending
    }

    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.listens {
            self.listens = true;
            return self.closing.as_mut().poll(cx).is_ready();
        }
        self.hub.closing.is_set()
    }

    /// The next frame. Each read of tungstenite first clears its whole buffer, so it is asked only when there may
    /// be something: half the processor time of an answer that had to be waited for.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.dry && self.socket.get_ref().poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let frame = Pin::new(&mut self.socket).poll_next(cx);
        self.dry = frame.is_pending();
        frame.map(|frame| {
            self.read_in_a_row += 1;
            match frame {
                Some(Ok(message)) => Event::Frame(message),
                Some(Err(error)) => Event::Broken(error),
                None => Event::Gone,
            }
        })
    }

    /// Moves what waits into the socket, then flushes; `None` when all is written.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut socket = Pin::new(&mut self.socket);
        while self.outbox.has_waiting() {
            match socket.as_mut().poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Event::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            let Some(message) = self.outbox.take() else { break };
            if socket.as_mut().start_send(message).is_err() {
                return Poll::Ready(Some(Event::Gone));
            }
        }
        if !self.outbox.needs_flush() {
            return Poll::Ready(None);
        }
        match socket.poll_flush(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Some(Event::Gone)),
            Poll::Ready(Ok(())) => {
                self.outbox.flushed();
                Poll::Ready(None)
            }
        }
    }

    fn handle(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Frame(message) => {
                self.pulse.heard();
                self.frame(message)
            }
            Event::Broken(error) => Some(broken(&error)),
            Event::Gone => Some(End::Gone),
            Event::Happened(Happened::Text(place, text)) => {
                if let Some(call) = self.under_way.get_mut(place) {
                    tell(&mut self.outbox, &self.dialect, call, &text);
                }
                None
            }
            Event::Happened(Happened::Step(place, step)) => {
                if let Some(call) = self.under_way.get_mut(place) {
                    let number = call.ticket.numbers.at(step.progress);
                    let progress = Progress { number, total: step.total, message: &step.message };
                    send(&mut self.outbox, &self.dialect, call, &progress);
                }
                None
            }
            Event::Happened(Happened::Ended(call, answer)) => {
                self.answer(&call, &answer);
                None
            }
            Event::Beat(beat) => self.beat(beat),
            Event::Turn => self.next_in_turn(),
            Event::Overflow => Some(End::Close(Close::DoesNotRead)),
            Event::Closing => {
                // What waits is answered as far as it can be: new calls are refused by now.
                while self.line.moves_on() {
                    if let Some(end) = self.next_in_turn() {
                        return Some(end);
                    }
                }
                Some(End::Close(Close::GoingAway))
            }
        }
    }

    fn frame(&mut self, message: Message) -> Option<End> {
        match message {
            Message::Text(text) => self.text(&text, self.line.turn(text.len())),
            Message::Binary(_) => {
                let request = self.dialect.not_text();
                self.request(request)
            }
            // tungstenite has queued a pong, or the answer to a close after which the stream ends: it wants a flush.
            Message::Ping(_) | Message::Close(_) => {
                self.outbox.touch();
                None
            }
            Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    fn text(&mut self, text: &Utf8Bytes, turn: Turn) -> Option<End> {
        let request = self.dialect.read(text, &View { turn, ..self.hub.view(&self.caller.principal) });
        if let Request::Wait = request {
            self.line.wait(text.clone());
            return None;
        }
        self.request(request)
    }

    fn next_in_turn(&mut self) -> Option<End> {
        match self.line.next()? {
            Next::Frame(text) => self.text(&text, Turn::Free),
            Next::Answer(text) => {
                self.outbox.push(text);
                None
            }
        }
    }

    fn reply_in_turn(&mut self, text: String) -> Option<End> {
        match self.line.answer(text) {
            Ok(Some(text)) => {
                self.outbox.push(text);
                None
            }
            Ok(None) => None,
            Err(line::Overflow) => Some(End::Close(Close::DoesNotRead)),
        }
    }

    fn request(&mut self, request: Request<'_>) -> Option<End> {
        match request {
            Request::Nothing | Request::Wait => None,
            Request::ReplyInTurn(text) => self.reply_in_turn(text),
            Request::Welcome { text, principal, key } => {
                // First for whom: what is kept under a key is kept for one principal.
                if let Some(principal) = principal {
                    self.caller.principal = principal;
                }
                if let Some(key) = key {
                    self.caller.attachment = self.hub.attach(&self.caller, key);
                }
                self.reply(text);
                None
            }
            Request::Reply(text) => {
                self.reply(text);
                None
            }
            Request::ReplyThenClose(text, close) => {
                self.outbox.push(text);
                Some(End::Close(close))
            }
            Request::Close(close) => Some(End::Close(close)),
            Request::Call(frame) => {
                self.call(frame);
                None
            }
            Request::Cancel { id, acknowledge, in_turn } => {
                if let Some(call) = self.under_way.find(&id, in_turn) {
                    call.waiter.cancel_handle().cancel();
                } else if let Some(attachment) = &self.caller.attachment {
                    // Begun over a connection that is lost.
                    attachment.cancel(&id);
                }
                let acknowledge = acknowledge?;
                if in_turn {
                    return self.reply_in_turn(acknowledge);
                }
                self.outbox.push(acknowledge);
                None
            }
        }
    }

    fn reply(&mut self, text: String) {
        self.outbox.push(text);
        if !self.dialect.awaits_hello() {
            self.pulse.greeted();
        }
    }

    fn call(&mut self, frame: CallFrame<'_>) {
        let CallFrame { mut ticket, tool, arguments, extra, options } = frame;
        if ticket.id.as_ref().is_some_and(|id| self.under_way.find(id, ticket.in_turn).is_some()) {
            let error = CallError::Invalid("this request id is still in use on this connection".into());
            return self.outbox.push(self.dialect.refuse(&ticket, &error));
        }
        if self.under_way.len() >= CALLS_UNDER_WAY {
            let full = Full::Connection { limit: CALLS_UNDER_WAY };
            let error = CallError::Full { full, retry_after: Some(Duration::from_secs(1)) };
            return self.outbox.push(self.dialect.refuse(&ticket, &error));
        }
        let patience =
            options.timeout.map_or(self.hub.ladder.daemon, |asked| asked.min(self.hub.ladder.daemon));
        if let Some(accepted) = self.dialect.accepted(&ticket, patience) {
            self.outbox.push(accepted);
        }
        let id = ticket.id.as_deref();
        let call = Call { id, tool: &tool, arguments, extra: extra.as_deref(), options };
        match self.hub.calls.submit(&self.caller, call) {
            Submitted::Answered(answer) => {
                if let Some(text) = self.dialect.answer(&ticket, &answer) {
                    self.outbox.push(text);
                }
            }
            Submitted::Waiting(waiter) => {
                if ticket.progress.is_some() {
                    self.pulse.wants_heartbeat();
                }
                self.pulse.calls_end_at(waiter.until());
                if ticket.in_turn {
                    self.line.take();
                }
                if waiter.counts_steps() {
                    ticket.numbers.leave_room();
                }
                let began = waiter.received();
                self.under_way.insert(CallUnderWay { waiter, ticket, began, told_at: began });
            }
        }
    }

    fn answer(&mut self, call: &CallUnderWay, answer: &Answer) {
        if call.ticket.in_turn {
            self.line.leave();
        }
        if let Some(text) = self.dialect.answer(&call.ticket, answer) {
            self.outbox.push(text);
        }
    }

    fn beat(&mut self, beat: Beat) -> Option<End> {
        match beat {
            Beat::Ping => {
                self.outbox.ping();
                None
            }
            Beat::HelloMissing => Some(End::Close(Close::HelloTooLate)),
            Beat::Silent => Some(End::Gone),
            Beat::Heartbeat => {
                self.heartbeat();
                None
            }
            Beat::CallsEnd => {
                let (ended, next) = self.under_way.give_up(Instant::now());
                for (call, answer) in ended {
                    self.answer(&call, &answer);
                }
                if let Some(next) = next {
                    self.pulse.calls_end_at(next);
                }
                None
            }
        }
    }

    /// Tells every waiting caller that its call lives, if it was told nothing for a while.
    fn heartbeat(&mut self) {
        let now = Instant::now();
        for call in self.under_way.iter_mut() {
            if call.ticket.progress.is_some()
                && now.saturating_duration_since(call.told_at) >= pulse::HEARTBEAT
            {
                let running = now.saturating_duration_since(call.began).as_secs();
                tell(&mut self.outbox, &self.dialect, call, &format!("still running after {running} s"));
            }
        }
        if !self.under_way.is_empty() {
            self.pulse.wants_heartbeat();
        }
    }
}

fn tell<D: Dialect>(outbox: &mut Outbox, dialect: &D, call: &mut CallUnderWay, message: &str) {
    let progress = Progress { number: call.ticket.numbers.rise(), total: None, message };
    send(outbox, dialect, call, &progress);
}

fn send<D: Dialect>(outbox: &mut Outbox, dialect: &D, call: &mut CallUnderWay, progress: &Progress<'_>) {
    if outbox.bytes() > PROGRESS_BACKLOG_BYTES {
        return;
    }
    call.told_at = Instant::now();
    if let Some(text) = dialect.progress(&call.ticket, progress) {
        outbox.push(text);
    }
}

/// A timer that exists only while somebody waits for it.
type Timer = Pin<Box<Sleep>>;

#[cfg(test)]
mod tests;
