//! A call that came over HTTP, until its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::call::{Answer, News, Waiter};
use crate::http::sessions::{Says, Session};
use crate::ids::QuestionId;
use crate::proto::mcp::{Mcp, headers};
use crate::proto::progress::Progress;
use crate::proto::{Dialect, Ticket};
use crate::provider::asking::Said;

/// Between two signs of life of a call.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Questions of one call that may be open at once, and some room.
const QUESTIONS: usize = 32;

/// One call. Dropping it before its end is closing its response.
pub(super) struct UnderWay {
    waiter: Waiter,
    ticket: Ticket,
    /// The client's id of it, in the spelling by which it is found.
    id: String,
    session: Option<Arc<Session>>,
    /// Whoever closes the response takes the call back.
    takes_back: bool,
    ended: bool,
    /// How it has ended, while questions of it are still to be withdrawn.
    last: Option<End>,
    says: Says,
    said: mpsc::Receiver<(QuestionId, Said)>,
    asked: Vec<QuestionId>,
    told_at: Instant,
}

/// What its client is told.
pub(super) enum Told {
    /// Something on the way.
    Way(String),
    /// The end.
    End(End),
}

/// The end of a call.
pub(super) struct End {
    /// `None`: it was taken back, and nothing is said.
    pub(super) text: Option<String>,
    /// The HTTP status of it.
    pub(super) status: u16,
}

impl End {
    /// In the words of the dialect.
    pub(super) fn new(ticket: &Ticket, answer: &Answer) -> Self {
        let mut text = String::new();
        let text = Mcp::default().answer(ticket, answer, &mut text).then_some(text);
        let status = match &text {
            None => 202,
            Some(_) if answer.outcome.is_ok() => 200,
            Some(text) => headers::status(text, ticket.stateless),
        };
        Self { text, status }
    }
}

impl UnderWay {
    /// A call that has begun; `None`: another one is under way under its id.
    pub(super) fn new(
        waiter: Waiter,
        mut ticket: Ticket,
        id: String,
        session: Option<Arc<Session>>,
        takes_back: bool,
    ) -> Option<Self> {
        if session.as_ref().is_some_and(|session| !session.begins(&id, waiter.cancel_handle())) {
            // Its client is told that it did not begin.
            waiter.cancel_handle().cancel();
            return None;
        }
        if waiter.counts_steps() {
            ticket.numbers.leave_room();
        }
        let told_at = waiter.received();
        let (says, said) = mpsc::channel(QUESTIONS);
        let asked = Vec::new();
        let (ended, last) = (false, None);
        Some(Self { waiter, ticket, id, session, takes_back, ended, last, says, said, asked, told_at })
    }

    /// The next that its client is told.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Told {
        if let Some(last) = self.last.take() {
            return self.withdraw(last);
        }
        loop {
            let (heartbeat, until) = (self.told_at + HEARTBEAT, self.waiter.until());
            tokio::select! {
                biased;
                news = std::future::poll_fn(|cx| self.waiter.poll_news(cx)) => {
                    if let Some(told) = self.news(news) {
                        return told;
                    }
                }
                Some((id, said)) = self.said.recv() => {
                    self.asked.retain(|asked| *asked != id);
                    self.waiter.said(id, said);
                }
                () = tokio::time::sleep_until(until) => {
                    let answer = self.waiter.give_up();
                    return self.end(&answer);
                }
                () = tokio::time::sleep_until(heartbeat), if self.ticket.progress.is_some() => {
                    let running = self.waiter.received().elapsed().as_secs();
                    if let Some(told) = self.tells(None, None, &format!("still running after {running} s")) {
                        return told;
                    }
                }
            }
        }
    }

    fn news(&mut self, news: News) -> Option<Told> {
        match news {
            News::Text(text) => self.tells(None, None, &text),
            News::Logged(logged) => Mcp::default().logged(&logged).map(Told::Way),
            News::Step(step) => self.tells(Some(step.progress), step.total, &step.message),
            News::Question(id, question) => {
                let text = Mcp::default().question(id, &question)?;
                self.session.as_ref()?.asks(id, self.says.clone());
                self.asked.push(id);
                Some(Told::Way(text))
            }
            News::Withdrawn(id) => {
                self.asked.retain(|asked| *asked != id);
                self.session.as_ref()?.asks_no_more(id);
                Mcp::default().withdrawn(id).map(Told::Way)
            }
            News::Answer(answer) => Some(self.end(&answer)),
        }
    }

    fn tells(&mut self, number: Option<f64>, total: Option<f64>, message: &str) -> Option<Told> {
        self.told_at = Instant::now();
        let numbers = &mut self.ticket.numbers;
        let number = match number {
            Some(number) => numbers.at(number),
            None => numbers.rise(),
        };
        Mcp::default().progress(&self.ticket, &Progress { number, total, message }).map(Told::Way)
    }

    fn end(&mut self, answer: &Answer) -> Told {
        self.ended = true;
        self.withdraw(End::new(&self.ticket, answer))
    }

    /// What was asked needs no answer once the call has ended, and whoever was asked hears so first.
    fn withdraw(&mut self, end: End) -> Told {
        while let Some(id) = self.asked.pop() {
            if let Some(session) = &self.session {
                session.asks_no_more(id);
            }
            if let Some(text) = Mcp::default().withdrawn(id) {
                self.last = Some(end);
                return Told::Way(text);
            }
        }
        Told::End(end)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.ends(&self.id);
            self.asked.iter().for_each(|id| session.asks_no_more(*id));
        }
        if self.takes_back && !self.ended {
            self.waiter.cancel_handle().cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::rig::{Rig, settle};
    use crate::call::tests::stage::Progress;
    use crate::door::Hub;
    use crate::health::Health;
    use crate::http::Sessions;

    #[tokio::test]
    async fn of_two_calls_that_come_at_once_under_one_id_the_refused_one_goes_on_for_nobody() {
        let rig = Rig::new(&[]);
        let hub =
            Hub::new(&rig.config, Arc::clone(&rig.calls), Arc::new(Health::default()), rig.tasks.clone());
        let session = Sessions::default().open(&hub, rig.caller(0, 1), Mcp::default()).unwrap();
        let ((first, kept), (second, refused)) = (rig.at_work("post", "a"), rig.at_work("post", "b"));
        let begins =
            |waiter| UnderWay::new(waiter, Ticket::default(), "1".into(), Some(Arc::clone(&session)), false);
        let first = begins(first);
        assert!(first.is_some() && begins(second).is_none());
        settle().await;
        let progress = [kept, refused].map(|work| rig.stage.progress(work));
        assert_eq!(progress, [Progress::Running, Progress::CutOff]);
        drop(first);
    }
}
