//! Streams of what clients are told of without having called: the one of a session, and one of each subscription.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper::body::Frame;

use crate::call::Caller;
use crate::door::{Changes, Closed, Hub, Subscription};
use crate::http::Answered;
use crate::http::mcp::{event, events, quiet};
use crate::http::sessions::Session;
use crate::proto::Dialect;
use crate::proto::mcp::Mcp;
use crate::proto::unasked::{List, Unasked};

/// Between two signs of life on a stream that has nothing to say.
const QUIET: Duration = Duration::from_secs(15);

type Event = Result<Frame<Bytes>, Infallible>;

/// What one client is to be told.
pub(super) struct News {
    changes: Changes,
    pub(super) subscription: Subscription,
    texts: VecDeque<String>,
    /// Which of a session's streams is the last that was opened.
    stream: u64,
}

impl News {
    /// Nothing yet.
    pub(super) fn new(hub: &Hub, subscription: Subscription) -> Self {
        Self { changes: Changes::new(&hub.calls), subscription, texts: VecDeque::new(), stream: 0 }
    }

    /// The next of it, in the words of the dialect.
    fn poll_text(&mut self, dialect: &Mcp, hub: &Hub, caller: &Caller, cx: &mut Context<'_>) -> Poll<String> {
        let id = self.subscription.id.clone();
        if self.changes.any(&hub.calls, cx) {
            self.subscription.renew(caller, &hub.calls.registry());
            let lists =
                List::ALL.into_iter().filter(|list| id.is_none() || self.subscription.lists.has(*list));
            let told = lists.filter_map(|list| dialect.tell(Unasked::Changed(list), id.as_deref()));
            for text in told {
                // Whoever has not heard yet is told once.
                if !self.texts.contains(&text) {
                    self.texts.push_back(text);
                }
            }
        }
        if let Some(text) = self.texts.pop_front() {
            return Poll::Ready(text);
        }
        loop {
            let uri = ready!(self.subscription.poll_updated(cx));
            if let Some(text) = dialect.tell(Unasked::Updated(&uri), id.as_deref()) {
                return Poll::Ready(text);
            }
        }
    }
}

/// What a session of the older era is told goes here, until it or the daemon ends or another such stream is opened: each
/// message goes over one of them.
pub(super) fn of_session(hub: &Arc<Hub>, session: &Arc<Session>) -> Answered {
    let number = {
        let mut news = session.news.lock();
        news.stream += 1;
        news.stream
    };
    let closed = Box::pin(hub.closing.wait());
    let start =
        OfSession { hub: Arc::clone(hub), session: Arc::downgrade(session), number, closed, begins: true };
    events(stream::unfold(start, OfSession::next))
}

struct OfSession {
    hub: Arc<Hub>,
    session: Weak<Session>,
    number: u64,
    closed: Pin<Box<Closed>>,
    begins: bool,
}

impl OfSession {
    async fn next(mut self) -> Option<(Event, Self)> {
        if std::mem::take(&mut self.begins) {
            return Some((Ok(quiet()), self));
        }
        let Self { hub, session, number, closed, .. } = &mut self;
        let text = tokio::select! {
            biased;
            text = std::future::poll_fn(|cx| poll_text(hub, session, *number, cx)) => Some(text?),
            () = closed => return None,
            () = tokio::time::sleep(QUIET) => None,
        };
        self.session.upgrade()?.is_used();
        Some((Ok(text.map_or_else(quiet, |text| event(&text))), self))
    }
}

/// `None`: this stream is over.
fn poll_text(hub: &Hub, session: &Weak<Session>, number: u64, cx: &mut Context<'_>) -> Poll<Option<String>> {
    let Some(session) = session.upgrade() else { return Poll::Ready(None) };
    let mut news = session.news.lock();
    if news.stream != number {
        return Poll::Ready(None);
    }
    news.poll_text(&session.dialect.lock(), hub, &session.caller, cx).map(Some)
}

/// What a subscription of the newer era tells, beginning with what is `acknowledged`.
pub(super) fn of_subscription(
    hub: &Arc<Hub>,
    caller: Caller,
    subscription: Subscription,
    acknowledged: String,
) -> Answered {
    let mut news = News::new(hub, subscription);
    news.texts.push_back(acknowledged);
    let closed = Box::pin(hub.closing.wait());
    let start = OfSubscription { hub: Arc::clone(hub), caller, news, closed };
    events(stream::unfold(Some(start), OfSubscription::next))
}

struct OfSubscription {
    hub: Arc<Hub>,
    caller: Caller,
    news: News,
    closed: Pin<Box<Closed>>,
}

impl OfSubscription {
    async fn next(this: Option<Self>) -> Option<(Event, Option<Self>)> {
        let mut this = this?;
        let Self { hub, caller, news, closed } = &mut this;
        let text = std::future::poll_fn(|cx| news.poll_text(&Mcp::default(), hub, caller, cx));
        let text = tokio::select! {
            biased;
            text = text => Some(text),
            () = closed => {
                let id = this.news.subscription.id.as_deref();
                let ended = Mcp::default().tell(Unasked::Ended, id)?;
                return Some((Ok(event(&ended)), None));
            }
            () = tokio::time::sleep(QUIET) => None,
        };
        Some((Ok(text.map_or_else(quiet, |text| event(&text))), Some(this)))
    }
}
