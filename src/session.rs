//! One task a WebSocket: frames in, calls under way, a bounded queue out.
//!
//! The loop has one place where events are made ([`Session::event`]) and one where they change something
//! ([`Session::handle`]). Frames that wait together are read before anything is flushed, so their answers leave
//! together.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::call::{Answer, Call, CallError, Caller, Full, News, Submitted};
use crate::door::{Changes, Closed, Hub, Subscription};
use crate::proto::progress::Progress;
use crate::proto::{CallFrame, Close, Continued, Dialect, Request, Short, Ticket, Turn, View};

mod asking;
mod good_bye;
mod line;
mod listening;
mod outbox;
mod paced;
mod pulse;
mod serving;
mod stalled;
mod take_back;
mod telling;
mod under_way;
mod wire;

#[doc(hidden)]
pub use good_bye::{End, broken};
use line::{Line, Next};
#[doc(hidden)]
pub use outbox::Outbox;
pub use paced::Paced;
use pulse::{Beat, Pulse};
pub use serving::Serving;
use stalled::Stalled;
use telling::{send, tell};
use under_way::{CallUnderWay, UnderWay};
#[doc(hidden)]
pub use wire::Wire;

/// Frames read before results, timers and the flush have their turn: a flood cannot hold back its own answers.
const READ_BATCH: usize = 64;

/// Calls under way on one connection. More would be one client's mistake, paid for by all.
const CALLS_UNDER_WAY: usize = 1024;

/// How long a peer with a full queue may take to read on, before it is closed as one that does not read.
const DOES_NOT_READ: Duration = Duration::from_secs(5);

/// An answer longer than this is not written into the buffer that is kept for the next one.
const SPARE_ANSWER_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where the next answer is written.
    static SPARE_ANSWER: Cell<String> = const { Cell::new(String::new()) };
}

/// Serves the WebSocket of a connection that was upgraded, until it ends; `came` was read behind the upgrade.
pub fn serve<S, D>(stream: S, came: Vec<u8>, dialect: D, hub: Arc<Hub>, caller: Caller) -> Serving<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    let closing = Box::pin(hub.closing.wait());
    let changes = Changes::new(&hub.calls);
    let pulse = Pulse::new(dialect.awaits_hello());
    let outbox = Outbox::new(hub.limits.write_queue_bytes);
    let session = Session {
        line: Line::new(hub.limits.frame_bytes),
        wire: Wire::new(stream, came, hub.limits.frame_bytes, outbox),
        dialect,
        hub,
        caller,
        under_way: UnderWay::default(),
        closing,
        listens: false,
        changes,
        subscriptions: Vec::new(),
        pulse,
        read_in_a_row: 0,
        has_read_all: false,
        stalled: None,
    };
    Serving::of(session)
}

struct Session<S, D> {
    wire: Wire<S>,
    dialect: D,
    hub: Arc<Hub>,
    caller: Caller,
    line: Line,
    under_way: UnderWay,
    /// Wakes the session when the daemon closes its connections; polled once, since a task's waker stays good.
    closing: Pin<Box<Closed>>,
    listens: bool,
    changes: Changes,
    subscriptions: Vec<Subscription>,
    pulse: Pulse,
    read_in_a_row: usize,
    /// Whatever came since the task was woken has been read: more of it wakes the task again.
    has_read_all: bool,
    /// The peer has as much waiting as it may.
    stalled: Option<Stalled>,
}

/// What can happen to a session.
enum Event {
    Frame(Message),
    /// It is over, whoever ended it.
    Over(End),
    /// There may be something to tell of the call at this place.
    Due(usize),
    Beat(Beat),
    /// The next request that waited for its turn has it.
    Turn,
    /// Something else is offered.
    Changed,
    Closing,
}

impl<S, D> Session<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// Lets things happen until one of them is the end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.has_read_all = false;
        self.pulse.woken();
        loop {
            let event = ready!(self.event(cx));
            if let Some(end) = self.handle(event, cx) {
                return Poll::Ready(end);
            }
        }
    }

    /// The next event. Results come before the close, and reading before flushing.
    fn event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.wire.outbox.is_full() {
            if let Poll::Ready(Err(_)) = self.wire.poll_flush(cx) {
                return Poll::Ready(Event::Over(End::Gone));
            }
            if self.wire.outbox.is_full() {
                return self.wait_for_reader(cx);
            }
        }
        self.stalled = None;
        let enough = self.read_in_a_row >= READ_BATCH;
        if !enough && !self.has_read_all {
            if let Poll::Ready(message) = self.wire.poll_message(cx) {
                self.read_in_a_row += 1;
                return Poll::Ready(match message {
                    Some(Ok(message)) => Event::Frame(message),
                    Some(Err(error)) => Event::Over(broken(&error)),
                    None => Event::Over(End::Gone),
                });
            }
            self.has_read_all = true;
        }
        self.look_for_life();
        if !self.under_way.is_empty()
            && let Poll::Ready(place) = self.under_way.poll_due(cx)
        {
            return Poll::Ready(Event::Due(place));
        }
        if self.pulse.is_due()
            && let Poll::Ready(beat) = self.pulse.poll_beat(cx)
        {
            return Poll::Ready(Event::Beat(beat));
        }
        if self.is_closing(cx) {
            return Poll::Ready(Event::Closing);
        }
        if self.changes.any(&self.hub.calls, cx) {
            return Poll::Ready(Event::Changed);
        }
        if !self.subscriptions.is_empty() {
            self.tell_updates(cx);
        }
        self.read_in_a_row = 0;
        let flushed = self.wire.poll_flush(cx);
        self.look_for_life();
        match flushed {
            Poll::Ready(Err(_)) => Poll::Ready(Event::Over(End::Gone)),
            // Only now: a client that reads slowly is not answered faster.
            Poll::Ready(Ok(())) if self.line.moves_on() => Poll::Ready(Event::Turn),
            Poll::Ready(Ok(())) | Poll::Pending => {
                if enough {
                    // There may be more to read: after everybody else had a turn.
                    cx.waker().wake_by_ref();
                }
                self.rest()
            }
        }
    }

    /// A pong may have to wait behind a long message of the peer's, or a ping behind one of ours.
    fn look_for_life(&mut self) {
        if self.wire.has_moved() {
            self.pulse.heard();
        }
    }

    /// Nothing can be done before the task is woken.
    fn rest(&mut self) -> Poll<Event> {
        self.under_way.rest();
        Poll::Pending
    }

    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.listens {
            self.listens = true;
            return self.closing.as_mut().poll(cx).is_ready();
        }
        self.hub.closing.is_set()
    }

    fn handle(&mut self, event: Event, cx: &mut Context<'_>) -> Option<End> {
        match event {
            Event::Frame(message) => {
                self.look_for_life();
                self.frame(message)
            }
            Event::Over(end) => Some(end),
            Event::Due(place) => {
                match self.under_way.look(place, cx) {
                    Some((call, News::Text(text))) => {
                        tell(&mut self.wire.outbox, &self.dialect, call, &text);
                    }
                    Some((call, News::Step(step))) => {
                        let number = call.ticket.numbers.at(step.progress);
                        let progress = Progress { number, total: step.total, message: &step.message };
                        send(&mut self.wire.outbox, &self.dialect, call, &progress);
                    }
                    Some((_, News::Logged(logged))) => {
                        asking::log(&mut self.wire.outbox, &self.dialect, &logged);
                    }
                    Some((call, News::Question(id, question))) => {
                        asking::ask(&mut self.wire.outbox, &self.dialect, call, id, &question);
                    }
                    Some((call, News::Withdrawn(id))) => {
                        asking::withdraw(&mut self.wire.outbox, &self.dialect, call, id);
                    }
                    Some((call, News::Answer(answer))) => {
                        self.pulse.is(call.waiter.received() + answer.spent.total);
                        answer_call(&mut self.wire.outbox, &self.dialect, &mut self.line, call, &answer);
                        self.under_way.remove(place);
                    }
                    None => {}
                }
                None
            }
            Event::Beat(beat) => self.beat(beat),
            Event::Turn => self.next_in_turn(),
            Event::Changed => {
                self.lists_changed();
                None
            }
            Event::Closing => {
                // What waits is answered as far as it can be: new calls are refused by now.
                while self.line.moves_on() {
                    if let Some(end) = self.next_in_turn() {
                        return Some(end);
                    }
                }
                self.end_subscriptions();
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
            // The wire has answered them.
            Message::Ping(_) | Message::Close(_) | Message::Pong(_) | Message::Frame(_) => None,
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
                self.wire.outbox.push(&text);
                None
            }
        }
    }

    fn reply_in_turn(&mut self, text: String) -> Option<End> {
        match self.line.answer(text) {
            Ok(Some(text)) => {
                self.wire.outbox.push(&text);
                None
            }
            Ok(None) => None,
            Err(line::Overflow) => Some(End::Close(Close::AsksTooMuch)),
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
                self.reply(&text);
                None
            }
            Request::Reply(text) => {
                self.reply(&text);
                None
            }
            Request::ReplyThenClose(text, close) => {
                self.wire.outbox.push(&text);
                Some(End::Close(close))
            }
            Request::Close(close) => Some(End::Close(close)),
            Request::Call(frame) => {
                self.call(frame);
                None
            }
            Request::Listen { id, wanted, acknowledged } => {
                self.listen(id, wanted, &acknowledged);
                None
            }
            Request::Watch { server, uri, frame } => {
                self.watch(server, uri, frame);
                None
            }
            Request::Unwatch { uri, text } => {
                self.unwatch(&uri);
                self.wire.outbox.push(&text);
                None
            }
            Request::Said(id, said) => {
                asking::said(&mut self.under_way, id, said);
                None
            }
            Request::Cancel { id, acknowledge, unknown, in_turn } => {
                let answer = if self.take_back(&id, in_turn) { acknowledge } else { unknown }?;
                if in_turn {
                    return self.reply_in_turn(answer);
                }
                self.wire.outbox.push(&answer);
                None
            }
        }
    }

    fn reply(&mut self, text: &str) {
        self.wire.outbox.push(text);
        if !self.dialect.awaits_hello() {
            self.pulse.greeted();
        }
    }

    fn call(&mut self, frame: CallFrame<'_>) {
        let CallFrame { mut ticket, tool, arguments, extra, options, continues } = frame;
        take_back::respell(&mut ticket.id);
        let is_used =
            |id: &Short| self.under_way.find(id, ticket.in_turn).is_some() || self.is_subscription(id);
        if ticket.id.as_ref().is_some_and(is_used) {
            let error = CallError::Invalid("this request id is still in use on this connection".into());
            return self.wire.outbox.push(&self.dialect.refuse(&ticket, &error));
        }
        if self.under_way.len() >= CALLS_UNDER_WAY {
            let full = Full::Connection { limit: CALLS_UNDER_WAY };
            let error = CallError::Full { full, retry_after: Some(Duration::from_secs(1)) };
            return self.wire.outbox.push(&self.dialect.refuse(&ticket, &error));
        }
        let patience =
            options.timeout.map_or(self.hub.ladder.daemon, |asked| asked.min(self.hub.ladder.daemon));
        if let Some(accepted) = self.dialect.accepted(&ticket, patience) {
            self.wire.outbox.push(&accepted);
        }
        let id = ticket.id.as_deref();
        let call = Call { id, tool: &tool, arguments: &arguments, extra: extra.as_deref(), options };
        let continues = continues.as_ref().map(Continued::continues);
        match self.hub.calls.resubmit(&self.caller, call, continues) {
            Submitted::Answered(answer) => say(&mut self.wire.outbox, &self.dialect, &ticket, &answer),
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
                let told_at = waiter.received();
                self.under_way.insert(CallUnderWay { waiter, ticket, told_at, asked: Vec::new() });
            }
        }
    }

    fn beat(&mut self, beat: Beat) -> Option<End> {
        match beat {
            Beat::Ping => {
                self.wire.outbox.ping();
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
                    answer_call(&mut self.wire.outbox, &self.dialect, &mut self.line, &call, &answer);
                }
                if let Some(next) = next {
                    self.pulse.calls_end_at(next);
                }
                None
            }
        }
    }
}

fn answer_call<D: Dialect>(
    outbox: &mut Outbox,
    dialect: &D,
    line: &mut Line,
    call: &CallUnderWay,
    answer: &Answer,
) {
    if call.ticket.in_turn {
        line.leave();
    }
    asking::withdraw_all(outbox, dialect, &call.asked);
    say(outbox, dialect, &call.ticket, answer);
}

fn say<D: Dialect>(outbox: &mut Outbox, dialect: &D, ticket: &Ticket, answer: &Answer) {
    let mut text = SPARE_ANSWER.take();
    if dialect.answer(ticket, answer, &mut text) {
        outbox.push(&text);
    }
    if text.capacity() <= SPARE_ANSWER_BYTES {
        text.clear();
        SPARE_ANSWER.set(text);
    }
}

/// A timer that exists only while somebody waits for it.
type Timer = Pin<Box<Sleep>>;

#[cfg(test)]
mod tests;
