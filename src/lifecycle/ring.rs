//! The last finished calls: writers replace the oldest, readers copy one out.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::ids::{PrincipalId, RequestId};
use crate::lifecycle::Record;

/// A ring of records, filled from its start.
///
/// Its lock is held for as long as it takes to put one record in its place, or to copy one. Whoever looks for one
/// searches the ids, which need no lock.
#[derive(Debug)]
pub(super) struct Ring {
    /// The random part of each record's id, by place: a hint, the record itself decides.
    ids: Box<[AtomicU64]>,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    records: Vec<Record>,
    next: usize,
}

impl Ring {
    /// Room for so many, at least one; memory is touched only as records come.
    pub(super) fn new(bound: usize) -> Self {
        let bound = bound.max(1);
        Self {
            ids: (0..bound).map(|_| AtomicU64::new(0)).collect(),
            slots: Mutex::new(Slots { records: Vec::with_capacity(bound), next: 0 }),
        }
    }

    /// Puts a record in the oldest one's place.
    #[inline]
    pub(super) fn push(&self, mut record: Record) {
        let id = record.request.random();
        let mut slots = self.slots.lock();
        let place = slots.next;
        let oldest = if let Some(oldest) = slots.records.get_mut(place) {
            std::mem::swap(oldest, &mut record);
            Some(record)
        } else {
            slots.records.push(record);
            None
        };
        if let Some(known) = self.ids.get(place) {
            known.store(id, Ordering::Relaxed);
        }
        slots.next = (place + 1) % self.ids.len();
        drop(slots);
        // Its names are given back after the lock.
        drop(oldest);
    }

    /// The record of this request of this principal.
    pub(super) fn find(&self, who: PrincipalId, request: RequestId) -> Option<Record> {
        let id = request.random();
        let places = self.ids.iter().enumerate().filter(|(_, known)| known.load(Ordering::Relaxed) == id);
        places.map(|(place, _)| place).find_map(|place| {
            let slots = self.slots.lock();
            let record = slots.records.get(place);
            record.filter(|record| record.request == request && record.principal == who).cloned()
        })
    }
}
