//! Bad days that `offline` plays, so that clients can be tried against them. To a caller each of them looks as that of a
//! real provider does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::{OfflineConfig, OfflineFault};
use crate::provider::offline::NAME;
use crate::provider::{Context, Fault};

/// Between two characters of an answer that trickles in.
const DRIP: Duration = Duration::from_secs(1);

/// Between what is told of an answer and its end: whoever waits is to hear it, as of a real provider.
const HEARD: Duration = Duration::from_millis(100);

/// A fault, and how often it strikes.
#[derive(Debug)]
pub(super) struct BadDay {
    fault: OfflineFault,
    every: usize,
    retry_after: Duration,
    calls: AtomicUsize,
}

/// What strikes a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Struck {
    fault: OfflineFault,
    retry_after: Duration,
}

impl BadDay {
    /// `None`: the day is good.
    pub(super) fn new(config: &OfflineConfig) -> Option<Self> {
        let fault = config.fault?;
        let (every, retry_after) = (config.fault_every.max(1), config.retry_after);
        Some(Self { fault, every, retry_after, calls: AtomicUsize::new(0) })
    }

    /// What the next call meets, if it meets anything.
    pub(super) fn strike(&self) -> Option<Struck> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let struck = Struck { fault: self.fault, retry_after: self.retry_after };
        number.is_multiple_of(self.every).then_some(struck)
    }
}

impl Struck {
    /// Plays the fault on an answer of this text. `Ok`: the whole text was told after all.
    ///
    /// It ends when its caller drops it, whatever it plays.
    pub(super) async fn play(self, text: &str, context: &Context) -> Result<(), Fault> {
        let provider = Arc::from(NAME);
        match self.fault {
            OfflineFault::Error => Err(refused(500, None)),
            OfflineFault::RateLimit => Err(refused(429, Some(self.retry_after))),
            OfflineFault::Hang => std::future::pending().await,
            OfflineFault::Drip => {
                drip(text, context).await;
                Ok(())
            }
            OfflineFault::Reset => {
                context.tell.text(first_half(text));
                tokio::time::sleep(HEARD).await;
                Err(Fault::Broken { provider, reason: "the event stream was cut" })
            }
            OfflineFault::Garbage => Err(Fault::Broken { provider, reason: "the answer is not JSON" }),
            OfflineFault::Endless => {
                endless(context).await;
                Err(Fault::TooLarge { provider, limit: context.max_reply_bytes })
            }
            OfflineFault::Tls => Err(Fault::Unreachable { provider, reason: "the TLS handshake failed" }),
        }
    }
}

fn refused(status: u16, retry_after: Option<Duration>) -> Fault {
    Fault::Refused { provider: Arc::from(NAME), status, code: Some("offline_fault".into()), retry_after }
}

async fn drip(text: &str, context: &Context) {
    let mut left = text;
    while let Some(character) = left.chars().next() {
        let (piece, rest) = left.split_at(character.len_utf8());
        context.tell.text(piece);
        left = rest;
        tokio::time::sleep(DRIP).await;
    }
}

fn first_half(text: &str) -> &str {
    let (half, _) = text.split_at(text.floor_char_boundary(text.len() / 2));
    half
}

/// Talks until it is more than can be delivered, as fast as others get their turn.
async fn endless(context: &Context) {
    let piece = "and so on, ".repeat(100);
    let mut told = 0;
    while told <= context.max_reply_bytes {
        context.tell.text(&piece);
        told += piece.len();
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(HEARD).await;
}
