//! Whether something else is offered since a client's door last looked, and its wake-up when that happens.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;

use tokio::sync::futures::OwnedNotified;

use crate::call::Calls;

/// What a client's door has seen of what is offered.
pub struct Changes {
    seen: u64,
    woken: Pin<Box<OwnedNotified>>,
    /// The next change wakes the task: asking costs a load from then on.
    armed: bool,
}

impl Changes {
    /// Nothing is new yet.
    pub fn new(calls: &Calls) -> Self {
        Self { seen: calls.generation(), woken: Box::pin(calls.changes()), armed: false }
    }

    /// Whether there was a change since this was asked last. The task is woken by the next one.
    pub fn any(&mut self, calls: &Calls, cx: &mut Context<'_>) -> bool {
        if self.armed && calls.generation() == self.seen {
            return false;
        }
        // Read before the wake-up is asked for: one that is still to come for what is seen below would use it up.
        let told = calls.generation_told();
        while self.woken.as_mut().poll(cx).is_ready() {
            self.woken.set(calls.changes());
        }
        let now = calls.generation();
        self.armed = told == now;
        std::mem::replace(&mut self.seen, now) != now
    }
}
