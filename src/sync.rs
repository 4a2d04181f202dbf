//! What the path of a call shares between threads: locks, atomics and tasks.
//!
//! In the daemon these are `parking_lot`'s, the standard library's and tokio's own, under other names. In unit tests
//! with the feature `shuttle` they are those of [shuttle], whose scheduler picks, from a seed, who goes on at each lock,
//! atomic and wake-up: an interleaving that breaks something can be run again (`.ci/run events`).
//!
//! [shuttle]: https://docs.rs/shuttle

#[cfg(all(test, feature = "shuttle"))]
mod scheduled;
#[cfg(all(test, feature = "shuttle"))]
pub use scheduled::{Mutex, spawn};
#[cfg(all(test, feature = "shuttle"))]
pub use shuttle::{future::AbortHandle, sync::atomic};

#[cfg(not(all(test, feature = "shuttle")))]
pub use parking_lot::Mutex;
#[cfg(not(all(test, feature = "shuttle")))]
pub use std::sync::atomic;
#[cfg(not(all(test, feature = "shuttle")))]
pub use tokio::task::AbortHandle;

/// Starts a task. Only [`Tasks`](crate::tasks::Tasks) does: it names and drains them.
#[cfg(not(all(test, feature = "shuttle")))]
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(work).abort_handle()
}
