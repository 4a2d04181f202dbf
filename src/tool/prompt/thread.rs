//! The conversation that a question belongs to: it opens one, or goes on with one at a turn of it.

use std::sync::Arc;

use crate::ids::ContinuationId;
use crate::provider::chat::Message;
use crate::provider::conversation::{Partner, Speaking};
use crate::provider::{NotAsked, Reply, content};
use crate::tool::prompt::Bill;

/// The argument that names a conversation.
pub const ARGUMENT: &str = "continuation_id";

/// What the argument says where there is none yet, and the caller wants to be told its name.
pub const NEW: &str = "new";

/// A question's part in a conversation.
#[derive(Debug, Clone)]
pub struct Thread {
    /// Which.
    pub id: ContinuationId,
    /// How often it was asked and answered before; `None`: the question opens it.
    pub turn: Option<usize>,
    /// Whether the answer is to tell its name where a model reads it.
    pub told: bool,
    /// Who answers from here on.
    pub partner: Partner,
    /// The question.
    pub question: Arc<Message>,
}

/// The same while its answer is being made.
pub struct Spoken {
    thread: Thread,
    speaking: Option<Speaking>,
}

impl Thread {
    /// The question is being asked.
    ///
    /// # Errors
    /// Another call goes on with the conversation, or has.
    pub(super) fn begin(self, bill: &Bill) -> Result<Spoken, NotAsked> {
        let begin = |turn| bill.books.conversations.begin(bill.principal, self.id, turn);
        let speaking = self.turn.map(begin).transpose()?;
        Ok(Spoken { thread: self, speaking })
    }
}

impl Spoken {
    /// It was answered: the conversation is kept, if it can be.
    pub(super) fn answered(self, bill: &Bill, reply: Reply) -> Reply {
        let Thread { id, partner, question, told, .. } = self.thread;
        let answer = content::text(reply.content());
        let (opened, kept) = match self.speaking {
            Some(speaking) => (false, speaking.answered(partner, question, &answer)),
            None => (true, bill.books.conversations.open(bill.principal, id, partner, question, &answer)),
        };
        if kept { reply.continued_as(id, opened, told) } else { reply }
    }
}
