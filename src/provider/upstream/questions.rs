//! What a child asks its client, where its process serves one client session only: those whose calls are under way there
//! are asked, the earliest first.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::provider::asking::{Ask, Method, QUESTION_BYTES, Question, Said};
use crate::provider::upstream::pipe::Pipe;
use crate::provider::{Logged, Tell};

/// Questions of one process at once.
const QUESTIONS: usize = 64;

/// What whoever may be asked declares. Addresses to open are not: their end is told by a notice that belongs to no call.
pub(super) const DECLARED: &str = "{\"elicitation\":{\"form\":{}},\"roots\":{},\"sampling\":{\"tools\":{}}}";

/// Calls under way at one instance, the earliest first.
#[derive(Default)]
pub(super) struct Present {
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    under_way: BTreeMap<u64, Who>,
}

/// One of them: who can be asked, if anybody, and who is told.
struct Who {
    ask: Option<Arc<dyn Ask>>,
    tell: Arc<dyn Tell>,
}

/// A call is under way as long as this is held.
pub(super) struct UnderWay<'a> {
    present: &'a Present,
    number: u64,
}

impl Present {
    /// A call begins.
    pub(super) fn begins(&self, ask: Option<&Arc<dyn Ask>>, tell: &Arc<dyn Tell>) -> UnderWay<'_> {
        let mut calls = self.calls.lock();
        calls.last += 1;
        let number = calls.last;
        calls.under_way.insert(number, Who { ask: ask.cloned(), tell: Arc::clone(tell) });
        UnderWay { present: self, number }
    }

    /// All are told of a message of the log: whose it is, it does not say.
    pub(super) fn log(&self, logged: &Arc<Logged>) {
        let all: Vec<_> = self.calls.lock().under_way.values().map(|who| Arc::clone(&who.tell)).collect();
        for tell in all {
            tell.log(Arc::clone(logged));
        }
    }

    /// The first call behind this one that can be asked.
    fn after(&self, number: u64) -> Option<(u64, Arc<dyn Ask>)> {
        let calls = self.calls.lock();
        let mut behind = calls.under_way.range(number + 1..);
        behind.find_map(|(number, who)| Some((*number, Arc::clone(who.ask.as_ref()?))))
    }

    /// Asks one call after the other, until somebody says something: first those for which somebody is there. Who left to
    /// come back with an answer may never do so, and would hold everybody else up.
    async fn ask(&self, question: Question) -> Said {
        let question = Arc::new(question);
        for there in [true, false] {
            let mut last = 0;
            while let Some((number, ask)) = self.after(last) {
                if ask.is_there() == there
                    && let Ok(said) = ask.ask(Arc::clone(&question)).await
                {
                    return said;
                }
                last = number;
            }
        }
        question.nobody()
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.present.calls.lock().under_way.remove(&self.number);
    }
}

/// What came from a child.
enum Came {
    Question { id: Box<str>, question: Question },
    Cancelled { id: Box<str> },
}

/// Where what came is handed in.
pub(super) struct Inbox(mpsc::Sender<Came>);

/// Where it comes out.
pub(super) struct Questions {
    came: mpsc::Receiver<Came>,
    present: Arc<Present>,
}

/// Both ends for the questions of one process, which those who are present are asked.
pub(super) fn questions(present: &Arc<Present>) -> (Inbox, Questions) {
    let (send, came) = mpsc::channel(QUESTIONS);
    (Inbox(send), Questions { came, present: Arc::clone(present) })
}

impl Inbox {
    /// Takes a question under the child's own id, which is JSON text; `false`: it is none, or there are too many.
    pub(super) fn question(&self, id: &str, method: &str, params: Option<&str>) -> bool {
        let Some(method) = Method::parse(method) else { return false };
        if params.is_some_and(|params| params.len() > QUESTION_BYTES) {
            return false;
        }
        let question = Question::new(method, params);
        self.0.try_send(Came::Question { id: id.into(), question }).is_ok()
    }

    /// The child wants to know no more.
    pub(super) fn cancelled(&self, params: Option<&str>) {
        #[derive(Deserialize)]
        struct Cancelled<'a> {
            #[serde(borrow, rename = "requestId")]
            id: &'a RawValue,
        }
        let cancelled = params.and_then(|params| serde_json::from_str::<Cancelled<'_>>(params).ok());
        if let Some(cancelled) = cancelled {
            // Where so many wait, the answer just comes.
            let _ = self.0.try_send(Came::Cancelled { id: cancelled.id.get().into() });
        }
    }
}

impl Questions {
    /// Answers what comes, for as long as `work` goes on.
    pub(super) async fn beside<T>(mut self, work: impl Future<Output = T>, pipe: Pipe) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.serve(&pipe) => match never {},
        }
    }

    async fn serve(&mut self, pipe: &Pipe) -> std::convert::Infallible {
        let mut open: Vec<(Box<str>, AbortHandle)> = Vec::new();
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                came = self.came.recv() => match came {
                    Some(Came::Question { id, question }) => {
                        let (one, abort) = abortable(self.present.ask(question));
                        open.push((id.clone(), abort));
                        asked.push(async move { (id, one.await) });
                    }
                    Some(Came::Cancelled { id }) => {
                        for (_, abort) in open.iter().filter(|(asked, _)| *asked == id) {
                            abort.abort();
                        }
                    }
                    // The inbox is held as long as the connection.
                    None => std::future::pending().await,
                },
                Some((id, said)) = asked.next() => {
                    open.retain(|(asked, _)| *asked != id);
                    if let Ok(said) = said {
                        // One that does not read is not answered.
                        drop(pipe.notify(response(&id, &said)));
                    }
                }
            }
        }
    }
}

/// The answer to a question, under its server's own id.
pub(super) fn response(id: &str, said: &Said) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{}}}", said.member())
}
