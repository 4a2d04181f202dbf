//! What the client of a session wants to be told of, and telling it.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::call::CallError;
use crate::door::Subscription;
use crate::proto::unasked::{List, Lists, Unasked, Wanted};
use crate::proto::{CallFrame, Dialect, Ticket, one_spelling};
use crate::provider::upstream::Server;
use crate::session::Session;
use crate::session::outbox::Outbox;
use crate::session::telling::PROGRESS_BACKLOG_BYTES;

/// Subscriptions of one connection.
const SUBSCRIPTIONS: usize = 32;

impl<S, D> Session<S, D>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dialect,
{
    /// The client opens a subscription.
    pub(super) fn listen(&mut self, id: &str, wanted: Wanted, acknowledged: &str) {
        let id = one_spelling(id);
        let opened = if self.under_way.find(&id, false).is_some() || self.is_subscription(&id) {
            Err(CallError::Invalid("this request id is still in use on this connection".into()))
        } else if self.subscriptions.len() >= SUBSCRIPTIONS {
            let text = format!("one connection may have {SUBSCRIPTIONS} subscriptions");
            Err(CallError::Invalid(text))
        } else {
            Subscription::open(&id, wanted, &self.caller)
        };
        match opened {
            Ok(subscription) => {
                self.subscriptions.push(subscription);
                self.wire.outbox.push(acknowledged);
            }
            Err(error) => {
                let ticket = Ticket { id: Some((&*id).into()), stateless: true, ..Ticket::default() };
                self.wire.outbox.push(&self.dialect.refuse(&ticket, &error));
            }
        }
    }

    /// The client wants to be told of a resource, in words that have no name for a subscription.
    pub(super) fn watch(&mut self, server: Arc<Server>, uri: Box<str>, frame: CallFrame<'_>) {
        let own = self.subscriptions.iter_mut().find(|subscription| subscription.id.is_none());
        let watched = if let Some(own) = own {
            own.watch(&self.caller, server, uri)
        } else {
            let mut own = Subscription::new(None, Lists::default());
            let watched = own.watch(&self.caller, server, uri);
            self.subscriptions.push(own);
            watched
        };
        match watched {
            Ok(()) => self.call(frame),
            Err(error) => self.wire.outbox.push(&self.dialect.refuse(&frame.ticket, &error)),
        }
    }

    /// The client wants to be told of it no more.
    pub(super) fn unwatch(&mut self, uri: &str) {
        let own = self.subscriptions.iter_mut().find(|subscription| subscription.id.is_none());
        if let Some(own) = own {
            own.unwatch(uri);
        }
    }

    pub(super) fn is_subscription(&self, id: &str) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.id.as_deref() == Some(id))
    }

    /// Ends a subscription; whether there was one of this name.
    pub(super) fn end_subscription(&mut self, id: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|subscription| subscription.id.as_deref() != Some(id));
        self.subscriptions.len() < before
    }

    /// Something else is offered.
    pub(super) fn lists_changed(&mut self) {
        for list in List::ALL {
            tell(&mut self.wire.outbox, &self.dialect, Unasked::Changed(list), None);
        }
        let registry = self.hub.calls.registry();
        for subscription in &mut self.subscriptions {
            subscription.renew(&self.caller, &registry);
            if subscription.id.is_some() {
                for list in List::ALL.into_iter().filter(|list| subscription.lists.has(*list)) {
                    tell(
                        &mut self.wire.outbox,
                        &self.dialect,
                        Unasked::Changed(list),
                        subscription.id.as_deref(),
                    );
                }
            }
        }
    }

    /// Tells of resources that have changed; where the client is slow, later: each waits once.
    pub(super) fn tell_updates(&mut self, cx: &mut Context<'_>) {
        for subscription in &self.subscriptions {
            while self.wire.outbox.bytes() <= PROGRESS_BACKLOG_BYTES
                && let Poll::Ready(uri) = subscription.poll_updated(cx)
            {
                tell(
                    &mut self.wire.outbox,
                    &self.dialect,
                    Unasked::Updated(&uri),
                    subscription.id.as_deref(),
                );
            }
        }
    }

    /// Nothing more is told.
    pub(super) fn end_subscriptions(&mut self) {
        for subscription in self.subscriptions.drain(..) {
            tell(&mut self.wire.outbox, &self.dialect, Unasked::Ended, subscription.id.as_deref());
        }
    }
}

fn tell<D: Dialect>(outbox: &mut Outbox, dialect: &D, what: Unasked<'_>, of: Option<&str>) {
    if let Some(text) = dialect.tell(what, of) {
        outbox.push(&text);
    }
}
