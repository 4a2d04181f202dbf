//! What was asked lately, by how it was written: a call that is written the same need not be read to find the flight that
//! it belongs to, or the outcome that was kept.

use std::sync::{Arc, Weak};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::call::flight::{Flight, Unread, Written};
use crate::call::key::CallKey;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::tool::Tool;

/// Longer arguments are not kept a second time while their flight is in the air.
pub(super) const LONGEST: usize = 64 * 1024;

/// Longer arguments are read each time where it is an outcome that was kept: nothing else bounds how long these stay.
pub(super) const LONGEST_KEPT: usize = 2 * 1024;

/// How many are found so, if no two meet in one place; 24 bytes each, and at most twice [`LONGEST_KEPT`] and a little for
/// what is kept. Whoever is not found is read.
const PLACES: usize = 1024;

/// A hint: what it leads to is compared in every byte.
#[derive(Debug)]
pub(super) struct ByText {
    places: Box<[Place]>,
    seed: u64,
}

#[derive(Debug, Default)]
struct Place {
    /// Of what is found here: looked at without the lock, since most calls are like none before.
    tag: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    InTheAir(Weak<Flight>),
    Kept(Arc<Asked>),
}

/// What a call turned out to ask whose outcome is kept.
#[derive(Debug)]
pub struct Asked {
    pub(super) written: Written,
    /// Under which key its outcome is kept.
    pub key: CallKey,
    /// Its canonical arguments.
    pub arguments: Box<[u8]>,
    /// The tool, as it is for these arguments.
    pub tool: Arc<Tool>,
    /// Who would do the work.
    pub provider: Arc<str>,
}

impl Asked {
    /// Whether this call asks the same.
    pub fn speaks_for(&self, call: &Unread<'_>) -> bool {
        self.written.speaks_for(call, &self.key, &self.tool)
    }
}

/// What a call that is written so is likely to find.
pub enum Found {
    /// A flight in the air.
    Flight(Arc<Flight>),
    /// An outcome that was kept.
    Kept(Arc<Asked>),
}

impl Default for ByText {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect(), seed: fastrand::u64(..) }
    }
}

impl ByText {
    pub(super) fn find(&self, call: &Unread<'_>) -> Option<Found> {
        if call.text.len() > LONGEST {
            return None;
        }
        let (tag, place) = self.place(call)?;
        if place.tag.load(Ordering::Relaxed) != tag {
            return None;
        }
        match &*place.known.lock() {
            Known::Nothing => None,
            Known::InTheAir(flight) => flight.upgrade().map(Found::Flight),
            Known::Kept(asked) => Some(Found::Kept(Arc::clone(asked))),
        }
    }

    pub(super) fn note_flight(&self, call: &Unread<'_>, flight: &Arc<Flight>) {
        self.note(call, Known::InTheAir(Arc::downgrade(flight)));
    }

    pub(super) fn note_kept(&self, call: &Unread<'_>, asked: Asked) {
        self.note(call, Known::Kept(Arc::new(asked)));
    }

    /// Nothing is kept of this call any more.
    pub(super) fn forget(&self, call: &Unread<'_>) {
        self.note(call, Known::Nothing);
    }

    fn note(&self, call: &Unread<'_>, known: Known) {
        let Some((tag, place)) = self.place(call) else { return };
        let before = std::mem::replace(&mut *place.known.lock(), known);
        place.tag.store(tag, Ordering::Relaxed);
        drop(before);
    }

    fn place(&self, call: &Unread<'_>) -> Option<(u64, &Place)> {
        let whose = u64::from(call.principal.0).rotate_left(32) ^ call.tool.0;
        let tag = xxh3_64_with_seed(call.text.as_bytes(), self.seed ^ whose ^ call.offer.rotate_left(48));
        let place = usize::try_from(tag % u64::try_from(self.places.len()).ok()?).ok()?;
        Some((tag, self.places.get(place)?))
    }
}
