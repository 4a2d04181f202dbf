//! Conversations: what was said in them, kept for each principal within bounds of number, bytes and age, so that a call
//! can go on where an earlier one ended.
//!
//! One call at a time goes on with a conversation. Another principal's is as unknown as one that never was, and so is one
//! that was let go of: a conversation never comes back with a part of what was said.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::ConversationBounds;
use crate::ids::{ContinuationId, PrincipalId};
use crate::provider::NotAsked;
use crate::provider::chat::{ChatRole, Message};

/// Who answers in a conversation, where a call that goes on with it says nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// The provider.
    pub provider: Arc<str>,
    /// Its model, as it was asked for.
    pub model: Arc<str>,
    /// Instructions that the caller brought.
    pub system: Option<Arc<Message>>,
}

/// A conversation as a call finds it.
#[derive(Debug, Clone)]
pub struct Found {
    /// How often it was asked and answered.
    pub turn: usize,
    /// What was said.
    pub said: Vec<Arc<Message>>,
    /// Who answers.
    pub partner: Partner,
}

#[derive(Debug)]
struct Conversation {
    /// Questions and answers in turn.
    said: Vec<Arc<Message>>,
    partner: Partner,
    bytes: usize,
    used: Instant,
    busy: bool,
    /// Those that were forked from it: one that is not kept any more is not made a second time.
    forks: Vec<ContinuationId>,
}

/// More than there ever are sharers of one call (`WAITERS_MAX`) that go on; a bound all the same.
const MOST_FORKS: usize = 1024;

#[derive(Debug, Default)]
struct Shelf {
    by_id: HashMap<ContinuationId, Conversation>,
    bytes: usize,
}

/// Every principal's conversations.
#[derive(Debug)]
pub struct Conversations {
    bounds: ConversationBounds,
    shelves: Mutex<HashMap<PrincipalId, Shelf>>,
}

impl Conversations {
    /// None yet.
    pub fn new(bounds: ConversationBounds) -> Self {
        Self { bounds, shelves: Mutex::default() }
    }

    /// A conversation of this principal. The first call of one that was forked makes it, of what the sharers of its
    /// first call have in common.
    pub fn find(&self, who: PrincipalId, id: ContinuationId) -> Option<Found> {
        let now = Instant::now();
        let mut shelves = self.shelves.lock();
        let own = shelves.get_mut(&who)?;
        own.forget(now, self.bounds.age);
        if !own.by_id.contains_key(&id) {
            let forked = own.by_id.get_mut(&id.forked_from()?)?.fork(id, now)?;
            if !own.put(id, forked, self.bounds) {
                return None;
            }
        }
        let conversation = own.by_id.get_mut(&id)?;
        conversation.used = now;
        Some(Found {
            turn: conversation.said.len() / 2,
            said: conversation.said.clone(),
            partner: conversation.partner.clone(),
        })
    }

    /// A call goes on with it at this turn; nobody else does until what is returned is dropped.
    ///
    /// # Errors
    /// Another call does just now, or did since this one looked.
    pub fn begin(
        self: &Arc<Self>,
        who: PrincipalId,
        id: ContinuationId,
        turn: usize,
    ) -> Result<Speaking, NotAsked> {
        let mut shelves = self.shelves.lock();
        let conversation = shelves.get_mut(&who).and_then(|own| own.by_id.get_mut(&id));
        let Some(conversation) = conversation else { return Err(NotAsked::Moved) };
        if conversation.busy {
            return Err(NotAsked::Busy);
        }
        if conversation.said.len() / 2 != turn {
            return Err(NotAsked::Moved);
        }
        conversation.busy = true;
        Ok(Speaking { conversations: Arc::clone(self), who, id, is_over: false })
    }

    /// Keeps a conversation of one turn. `false`: it is too large to be kept.
    pub fn open(
        &self,
        who: PrincipalId,
        id: ContinuationId,
        partner: Partner,
        question: Arc<Message>,
        answer: &str,
    ) -> bool {
        let said = vec![question, Arc::new(Message::text(ChatRole::Assistant, answer))];
        let now = Instant::now();
        let mut shelves = self.shelves.lock();
        let own = shelves.entry(who).or_default();
        own.forget(now, self.bounds.age);
        own.put(id, Conversation::new(said, partner, now), self.bounds)
    }

    /// Forgets what is too old, whoever's it is.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut shelves = self.shelves.lock();
        shelves.values_mut().for_each(|own| own.forget(now, self.bounds.age));
        shelves.retain(|_, own| !own.by_id.is_empty());
    }

    /// How many conversations are kept, and their bytes, about.
    pub fn kept(&self) -> (usize, usize) {
        let shelves = self.shelves.lock();
        let each = shelves.values().map(|own| (own.by_id.len(), own.bytes));
        each.fold((0, 0), |(count, bytes), (more, their)| (count + more, bytes + their))
    }
}

impl Conversation {
    fn new(said: Vec<Arc<Message>>, partner: Partner, used: Instant) -> Self {
        let bytes = said.iter().map(|message| message.bytes()).sum::<usize>() + size_of::<Self>();
        Self { said, partner, bytes, used, busy: false, forks: Vec::new() }
    }

    /// Its first turn, as a conversation of its own, once. Counted whole, although it shares its messages: what it was
    /// forked from may go first.
    fn fork(&mut self, id: ContinuationId, now: Instant) -> Option<Self> {
        if self.forks.len() >= MOST_FORKS || self.forks.contains(&id) {
            return None;
        }
        self.forks.push(id);
        self.used = now;
        let said = self.said.iter().take(2).cloned().collect();
        Some(Self::new(said, self.partner.clone(), now))
    }
}

impl Shelf {
    fn forget(&mut self, now: Instant, age: Duration) {
        let bytes = &mut self.bytes;
        self.by_id.retain(|_, each| {
            let young = each.busy || now.saturating_duration_since(each.used) < age;
            if !young {
                *bytes = bytes.saturating_sub(each.bytes);
            }
            young
        });
    }

    /// Puts one in; the ones that were not used for longest make room. `false`: there is none.
    fn put(&mut self, id: ContinuationId, conversation: Conversation, bounds: ConversationBounds) -> bool {
        self.remove(id);
        if conversation.bytes > bounds.bytes {
            return false;
        }
        let fits = |own: &Self| {
            own.by_id.len() < bounds.count && own.bytes.saturating_add(conversation.bytes) <= bounds.bytes
        };
        while !fits(self) {
            let idle = self.by_id.iter().filter(|(_, each)| !each.busy);
            let Some(oldest) = idle.min_by_key(|(_, each)| each.used).map(|(id, _)| *id) else {
                return false;
            };
            self.remove(oldest);
        }
        self.bytes += conversation.bytes;
        self.by_id.insert(id, conversation);
        true
    }

    fn remove(&mut self, id: ContinuationId) {
        drop(self.take(id));
    }

    fn take(&mut self, id: ContinuationId) -> Option<Conversation> {
        let taken = self.by_id.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(taken.bytes);
        Some(taken)
    }
}

/// A call that goes on with a conversation. Dropped without an answer, it has said nothing.
#[must_use = "others may go on with the conversation as soon as it is dropped"]
#[derive(Debug)]
pub struct Speaking {
    conversations: Arc<Conversations>,
    who: PrincipalId,
    id: ContinuationId,
    /// The conversation is no longer this call's: perhaps another's already.
    is_over: bool,
}

impl Speaking {
    /// It was answered: this is its turn now. `false`: the conversation has become too large to be kept.
    pub fn answered(mut self, partner: Partner, question: Arc<Message>, answer: &str) -> bool {
        let conversations = Arc::clone(&self.conversations);
        let mut shelves = conversations.shelves.lock();
        let Some(own) = shelves.get_mut(&self.who) else { return false };
        let Some(before) = own.take(self.id) else { return false };
        let mut said = before.said;
        said.extend([question, Arc::new(Message::text(ChatRole::Assistant, answer))]);
        let longer = Conversation { forks: before.forks, ..Conversation::new(said, partner, Instant::now()) };
        self.is_over = true;
        own.put(self.id, longer, conversations.bounds)
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut shelves = self.conversations.shelves.lock();
        if let Some(conversation) = shelves.get_mut(&self.who).and_then(|own| own.by_id.get_mut(&self.id)) {
            conversation.busy = false;
        }
    }
}

#[cfg(test)]
mod tests;
