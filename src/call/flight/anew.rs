//! An attempt failed, and another begins: what the first one said is not to be taken for a part of the answer.

use crate::call::flight::Flight;
use crate::call::flight::telling::wanted_by;

impl Flight {
    /// Work begins once more. Who has heard a part of what was told so far hears that it is void; who comes later hears
    /// nothing of it.
    pub(in crate::call) fn begin_anew(&self, note: &str) {
        self.stages.mark_retried();
        let mut state = self.state.lock();
        if !state.told.begin_anew(note) {
            return;
        }
        let wakers = wanted_by(&state);
        drop(state);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}
