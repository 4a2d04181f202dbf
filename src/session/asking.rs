//! What comes from servers while a call is under way: questions to its client, what that says to them, and logs.

use crate::ids::QuestionId;
use crate::proto::Dialect;
use crate::provider::Logged;
use crate::provider::asking::{Question, Said};
use crate::session::outbox::Outbox;
use crate::session::under_way::{CallUnderWay, UnderWay};

/// Asks the client of a call.
pub(super) fn ask<D: Dialect>(
    outbox: &mut Outbox,
    dialect: &D,
    call: &mut CallUnderWay,
    id: QuestionId,
    question: &Question,
) {
    if let Some(text) = dialect.question(id, question) {
        call.asked.push(id);
        outbox.push(&text);
    }
}

/// A server logs while it works.
pub(super) fn log<D: Dialect>(outbox: &mut Outbox, dialect: &D, logged: &Logged) {
    if let Some(text) = dialect.logged(logged) {
        outbox.push(&text);
    }
}

/// A question that a client was asked needs no answer any more.
pub(super) fn withdraw<D: Dialect>(
    outbox: &mut Outbox,
    dialect: &D,
    call: &mut CallUnderWay,
    id: QuestionId,
) {
    call.asked.retain(|asked| *asked != id);
    withdraw_all(outbox, dialect, &[id]);
}

/// The same for all questions of a call that has ended.
pub(super) fn withdraw_all<D: Dialect>(outbox: &mut Outbox, dialect: &D, ids: &[QuestionId]) {
    for text in ids.iter().filter_map(|id| dialect.withdrawn(*id)) {
        outbox.push(&text);
    }
}

/// A client says something to a question. What it was not asked, has answered before, or answers too late goes nowhere.
pub(super) fn said(under_way: &mut UnderWay, id: QuestionId, said: Said) {
    if let Some(call) = under_way.asked(id) {
        call.asked.retain(|asked| *asked != id);
        call.waiter.said(id, said);
    }
}
