//! The same, as the scheduler of a test has it.

use std::sync::PoisonError;

use shuttle::future::AbortHandle;
use shuttle::sync::MutexGuard;

/// A lock with the face of `parking_lot`'s: a panic of its holder poisons nothing.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock of this value.
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    /// Waits for its turn, as long as the scheduler likes.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds, for its only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a task of the scheduler's.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    shuttle::future::spawn(work).abort_handle()
}
