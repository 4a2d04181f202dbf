//! What a Run listens to while it works: nobody waits for it any more, or the daemon says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::call::flight::{Flight, Life, Stop};

/// Resolves when a Run must stop: nobody waits for it, or the daemon says so.
///
/// Cancel safe.
#[must_use = "a Run that does not look does not stop"]
pub struct Stopped {
    flight: Arc<Flight>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stopped {
    pub(super) fn new(flight: Arc<Flight>) -> Self {
        Self { flight, timer: None }
    }
}

impl Future for Stopped {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let until = {
                let mut state = self.flight.state.lock();
                match state.stop {
                    Stop::Now => return Poll::Ready(()),
                    Stop::At(until) if until <= Instant::now() => {
                        state.life = Life::Stopping;
                        state.stop = Stop::Now;
                        return Poll::Ready(());
                    }
                    Stop::At(until) => {
                        state.run = Some(cx.waker().clone());
                        until
                    }
                    Stop::No => {
                        state.run = Some(cx.waker().clone());
                        drop(state);
                        self.timer = None;
                        return Poll::Pending;
                    }
                }
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            timer.as_mut().reset(until);
            match timer.as_mut().poll(cx) {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
