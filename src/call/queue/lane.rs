//! Those of one class who wait: principals take turns, then each one's sessions, then who came first.

use std::collections::BTreeMap;

use crate::ids::{ClientSessionId, PrincipalId};

/// Members that take turns. Who comes new has its turn after all the others.
#[derive(Debug)]
struct Round<K, V> {
    members: BTreeMap<K, (u64, V)>,
    turns: BTreeMap<u64, K>,
    next_turn: u64,
}

impl<K, V> Default for Round<K, V> {
    fn default() -> Self {
        Self { members: BTreeMap::new(), turns: BTreeMap::new(), next_turn: 0 }
    }
}

impl<K: Copy + Ord, V: Default> Round<K, V> {
    /// A member, who joins if it is none yet.
    fn joined(&mut self, member: K) -> &mut V {
        let (_, value) = self.members.entry(member).or_insert_with(|| {
            let turn = self.next_turn;
            self.next_turn += 1;
            self.turns.insert(turn, member);
            (turn, V::default())
        });
        value
    }

    fn get(&self, member: K) -> Option<&V> {
        self.members.get(&member).map(|(_, value)| value)
    }

    fn get_mut(&mut self, member: K) -> Option<&mut V> {
        self.members.get_mut(&member).map(|(_, value)| value)
    }

    /// Whose turn it is.
    fn first(&self) -> Option<K> {
        self.turns.first_key_value().map(|(_, member)| *member)
    }

    /// A member had its turn: its next one is after all the others'.
    fn had_its_turn(&mut self, member: K) {
        let Some((turn, _)) = self.members.get_mut(&member) else { return };
        self.turns.remove(turn);
        *turn = self.next_turn;
        self.turns.insert(*turn, member);
        self.next_turn += 1;
    }

    fn leave(&mut self, member: K) {
        if let Some((turn, _)) = self.members.remove(&member) {
            self.turns.remove(&turn);
        }
    }

    fn others(&self, member: K) -> impl Iterator<Item = &V> {
        self.members.iter().filter(move |(each, _)| **each != member).map(|(_, (_, value))| value)
    }
}

/// Where somebody stands in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) principal: PrincipalId,
    pub(super) session: ClientSessionId,
    /// Numbers in the order in which they came to the pool.
    pub(super) arrival: u64,
}

/// One principal's, by session; places by arrival.
#[derive(Debug, Default)]
struct Own {
    waiting: usize,
    sessions: Round<ClientSessionId, BTreeMap<u64, usize>>,
}

/// Those of one class. What it knows of each is the number of its place.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: usize,
    principals: Round<PrincipalId, Own>,
}

impl Lane {
    pub(super) fn insert(&mut self, stand: Stand, place: usize) {
        let own = self.principals.joined(stand.principal);
        own.sessions.joined(stand.session).insert(stand.arrival, place);
        own.waiting += 1;
        self.waiting += 1;
    }

    pub(super) fn remove(&mut self, stand: Stand) {
        let Some(own) = self.principals.get_mut(stand.principal) else { return };
        let Some(line) = own.sessions.get_mut(stand.session) else { return };
        if line.remove(&stand.arrival).is_none() {
            return;
        }
        if line.is_empty() {
            own.sessions.leave(stand.session);
        }
        own.waiting -= 1;
        if own.waiting == 0 {
            self.principals.leave(stand.principal);
        }
        self.waiting -= 1;
    }

    /// Takes out the one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let principal = self.principals.first()?;
        let own = self.principals.get_mut(principal)?;
        let session = own.sessions.first()?;
        let (arrival, place) = own.sessions.get(session)?.first_key_value()?;
        let (arrival, place) = (*arrival, *place);
        own.sessions.had_its_turn(session);
        self.principals.had_its_turn(principal);
        self.remove(Stand { principal, session, arrival });
        Some(place)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of this principal wait.
    pub(super) fn waiting_of(&self, principal: PrincipalId) -> usize {
        self.principals.get(principal).map_or(0, |own| own.waiting)
    }

    /// How many are served before one that comes now: those of its own session, and of each other session and
    /// each other principal as many as have their turns meanwhile.
    pub(super) fn before(&self, principal: PrincipalId, session: ClientSessionId) -> usize {
        let own = self.principals.get(principal).map_or(0, |own| {
            let line = own.sessions.get(session).map_or(0, BTreeMap::len);
            let others = own.sessions.others(session).map(|other| other.len().min(line + 1));
            line + others.sum::<usize>()
        });
        let others = self.principals.others(principal).map(|other| other.waiting.min(own + 1));
        own + others.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(principal: u32, session: u64, arrival: u64) -> Stand {
        Stand { principal: PrincipalId(principal), session: ClientSessionId(session), arrival }
    }

    fn lane(stands: &[(u32, u64)]) -> Lane {
        let mut lane = Lane::default();
        for (place, (principal, session)) in stands.iter().enumerate() {
            lane.insert(stand(*principal, *session, u64::try_from(place).unwrap()), place);
        }
        lane
    }

    fn order(mut lane: Lane) -> Vec<usize> {
        std::iter::from_fn(|| lane.pop()).collect()
    }

    #[test]
    fn principals_take_turns_then_their_sessions_then_who_came_first() {
        let flood = lane(&[(1, 1), (1, 1), (1, 1), (1, 2), (2, 3), (2, 3)]);
        assert_eq!(order(flood), [0, 4, 3, 5, 1, 2]);
    }

    #[test]
    fn who_leaves_changes_no_turn_but_its_own() {
        let mut line = lane(&[(1, 1), (2, 2), (1, 1), (2, 2)]);
        line.remove(stand(1, 1, 0));
        line.remove(stand(9, 9, 9));
        assert_eq!((line.waiting(), line.waiting_of(PrincipalId(1))), (3, 1));
        assert_eq!(order(line), [2, 1, 3]);
    }

    #[test]
    fn the_number_in_front_is_that_of_the_order_in_which_they_are_served() {
        let stands = [(1, 1), (1, 1), (1, 2), (2, 3), (2, 3), (2, 3), (3, 4)];
        for (principal, session) in [(1, 1), (1, 2), (1, 9), (2, 3), (3, 4), (9, 9)] {
            let mut lane = lane(&stands);
            let before = lane.before(PrincipalId(principal), ClientSessionId(session));
            lane.insert(stand(principal, session, 99), 99);
            let served = order(lane).iter().position(|place| *place == 99).unwrap();
            assert!(served <= before && before <= served + 2, "{principal} {session}: {before} for {served}");
        }
    }
}
