//! What stands in for the map of flights where shuttle schedules: one lock around all keys, with the same entries.
//!
//! DashMap's own locks know no scheduler. Its promise, that an entry is held until it is let go, is kept here by the
//! one lock, which also makes operations on different keys wait for each other: what DashMap does inside is not tested.

use std::collections::HashMap;
use std::collections::hash_map;
use std::hash::{BuildHasher, Hash};

use shuttle::sync::MutexGuard;

use crate::sync::Mutex;

#[derive(Debug)]
pub(super) struct OneLock<K, V, S>(Mutex<HashMap<K, V, S>>);

/// One key's place; nobody else reaches the map while it is held.
pub(super) enum Entry<'a, K, V, S> {
    Vacant(Vacant<'a, K, V, S>),
    Occupied(Held<'a, K, V, S>),
}

pub(super) struct Vacant<'a, K, V, S>(Held<'a, K, V, S>);

pub(super) struct Held<'a, K, V, S> {
    map: MutexGuard<'a, HashMap<K, V, S>>,
    key: K,
}

/// A key's value, copied.
pub(super) struct Copied<V>(V);

impl<K: Copy + Eq + Hash, V: Clone, S: BuildHasher> OneLock<K, V, S> {
    pub(super) fn with_hasher(hasher: S) -> Self {
        Self(Mutex::new(HashMap::with_hasher(hasher)))
    }

    pub(super) fn entry(&self, key: K) -> Entry<'_, K, V, S> {
        let map = self.0.lock();
        let occupied = map.contains_key(&key);
        let held = Held { map, key };
        if occupied { Entry::Occupied(held) } else { Entry::Vacant(Vacant(held)) }
    }

    pub(super) fn remove_if(&self, key: &K, is_it: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
        match self.0.lock().entry(*key) {
            hash_map::Entry::Occupied(found) if is_it(key, found.get()) => Some(found.remove_entry()),
            hash_map::Entry::Occupied(_) | hash_map::Entry::Vacant(_) => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn iter(&self) -> std::vec::IntoIter<Copied<V>> {
        self.0.lock().values().cloned().map(Copied).collect::<Vec<_>>().into_iter()
    }
}

impl<K: Copy + Eq + Hash, V, S: BuildHasher> Vacant<'_, K, V, S> {
    pub(super) fn insert(mut self, value: V) {
        self.0.insert(value);
    }
}

impl<K: Copy + Eq + Hash, V, S: BuildHasher> Held<'_, K, V, S> {
    pub(super) fn get(&self) -> &V {
        let Some(value) = self.map.get(&self.key) else {
            unreachable!("nobody else reaches the map while an occupied entry is held")
        };
        value
    }

    pub(super) fn insert(&mut self, value: V) {
        self.map.insert(self.key, value);
    }
}

impl<V> Copied<V> {
    pub(super) fn value(&self) -> &V {
        &self.0
    }
}
