//! One client's wish to be told of what changes, however it came; what is still to be told is kept until its door asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::call::{CallError, Caller};
use crate::proto::mcp;
use crate::proto::unasked::{Lists, RESOURCES, Wanted};
use crate::provider::upstream::{Server, Watch, Watcher};
use crate::tool::Registry;

/// What waits to be told before parts of one resource are told as the whole.
const WAITING: usize = 256;

/// What a client is told of.
pub struct Subscription {
    /// What it is called, as JSON text: the newer era names them.
    pub id: Option<Box<str>>,
    /// Of which lists it tells.
    pub lists: Lists,
    inbox: Arc<Inbox>,
    watching: Vec<Watching>,
}

struct Watching {
    server: Arc<Server>,
    uri: Box<str>,
    _watch: Watch,
}

/// Resources that have changed and are still to be told, each once however often it does.
#[derive(Default)]
struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    uris: VecDeque<Box<str>>,
    waker: Option<Waker>,
}

impl Watcher for Inbox {
    fn updated(&self, watched: &str, uri: &str) {
        let waker = {
            let mut waiting = self.0.lock();
            // A client that does not listen, and a server that names ever other parts, grow nothing.
            let told = if waiting.uris.len() < WAITING { uri } else { watched };
            if !waiting.uris.iter().any(|waits| **waits == *told) {
                waiting.uris.push_back(told.into());
            }
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Subscription {
    /// One of this name, to all that is wanted.
    ///
    /// # Errors
    /// As of [`Subscription::watch`], for the first of its resources of which that holds.
    pub fn open(id: &str, wanted: Wanted, caller: &Caller) -> Result<Self, CallError> {
        let mut subscription = Self::new(Some(id), wanted.lists);
        for (server, uri) in wanted.resources {
            subscription.watch(caller, server, uri)?;
        }
        Ok(subscription)
    }

    /// One of this name, to these lists and no resource yet.
    pub fn new(id: Option<&str>, lists: Lists) -> Self {
        Self { id: id.map(Into::into), lists, inbox: Arc::default(), watching: Vec::new() }
    }

    /// It tells of this resource too.
    ///
    /// # Errors
    /// There are too many, or there cannot be a process or session of that server for the caller.
    pub fn watch(&mut self, caller: &Caller, server: Arc<Server>, uri: Box<str>) -> Result<(), CallError> {
        self.unwatch(&uri);
        if self.watching.len() >= RESOURCES {
            let text = format!("one client may watch {RESOURCES} resources: end to watch another one first");
            return Err(CallError::Invalid(text));
        }
        let owner = server.owner(caller.principal.id, caller.session.id);
        let watcher = Arc::clone(&self.inbox);
        let watch = server.watch(owner, &uri, watcher).map_err(CallError::Provider)?;
        self.watching.push(Watching { server, uri, _watch: watch });
        Ok(())
    }

    /// It does not tell of it any more.
    pub fn unwatch(&mut self, uri: &str) {
        self.watching.retain(|watching| *watching.uri != *uri);
    }

    /// Something else is offered: what a server listed may be another one's now.
    pub fn renew(&mut self, caller: &Caller, registry: &Registry) {
        let moved = self.watching.extract_if(.., |watching| {
            let server = mcp::server_of(registry, &caller.principal, &watching.uri);
            server.is_none_or(|server| !Arc::ptr_eq(&server, &watching.server))
        });
        for Watching { uri, .. } in moved.collect::<Vec<_>>() {
            if let Some(server) = mcp::server_of(registry, &caller.principal, &uri) {
                // Where it is full, nothing is told, as if it were gone.
                let _ = self.watch(caller, server, uri);
            }
        }
    }

    /// The next resource that has changed.
    pub fn poll_updated(&self, cx: &mut Context<'_>) -> Poll<Box<str>> {
        let mut waiting = self.inbox.0.lock();
        if let Some(uri) = waiting.uris.pop_front() {
            return Poll::Ready(uri);
        }
        if waiting.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_once_and_never_grows_beyond_its_bound() {
        let subscription = Subscription::new(None, Lists::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || match subscription.poll_updated(&mut cx) {
            Poll::Ready(uri) => Some(uri),
            Poll::Pending => None,
        };
        for part in 0..10_000 {
            subscription.inbox.updated("a:b", &format!("a:b/{part}"));
            subscription.inbox.updated("a:b", "a:b/0");
        }
        let told: Vec<_> = std::iter::from_fn(&mut next).collect();
        assert_eq!(told.len(), WAITING + 1);
        assert_eq!((&*told[0], &*told[WAITING]), ("a:b/0", "a:b"));
        assert!(next().is_none());
    }
}
