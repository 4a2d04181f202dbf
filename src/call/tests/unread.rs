//! Calls that are written as one before, byte for byte: they share what it found, and nothing that they may not share.

use std::sync::Arc;

use crate::call::flight::Unread;
use crate::call::flights::Found;
use crate::call::key::CallKey;
use crate::call::tests::rates::callers;
use crate::call::tests::rig::{Rig, code, end, secs, settle, sharing, text};
use crate::call::tests::stage::Order;
use crate::call::{Call, Caller, Code, Options, Submitted, Waiter};
use crate::ids::PrincipalId;
use crate::lifecycle::Role;
use crate::provider::Reply;
use crate::tool::Dedup;

const WRITTEN: &str = r#"{"k":"a"}"#;

fn unread<'a>(rig: &Rig, caller: &Caller, tool: &str, text: &'a str) -> Unread<'a> {
    Unread {
        principal: caller.principal.id,
        session: caller.session.id,
        tool: rig.calls.registry().find(tool).unwrap().id,
        dedup: None,
        offer: rig.calls.generation(),
        text,
    }
}

fn waits(submitted: Submitted) -> Waiter {
    match submitted {
        Submitted::Waiting(waiter) => waiter,
        Submitted::Answered(answer) => panic!("{:?}", answer.outcome),
    }
}

#[tokio::test(start_paused = true)]
async fn who_writes_the_same_joins_unread_and_who_writes_it_otherwise_is_read_and_joins_too() {
    let rig = Rig::new(&[]);
    let mut waiters = vec![rig.wait(&rig.caller(0, 1), "look", "a")];
    let read = rig.stage.last();
    for session in 2..9 {
        waiters.push(rig.wait(&rig.caller(0, session), "look", "a"));
    }
    assert_eq!(rig.stage.last(), read, "nothing was made ready for them");
    let otherwise = rig.submit(&rig.caller(0, 9), "look", r#"{ "k": "\u0061" }"#, Options::default());
    waiters.push(waits(otherwise));
    assert_eq!(rig.stage.last(), read + 1);
    settle().await;
    rig.stage.order(read, Order::answer("once"));
    let mut roles = Vec::new();
    for waiter in &mut waiters {
        let answer = end(waiter).await;
        assert_eq!(text(&answer), "once");
        roles.push(answer.role.unwrap());
    }
    assert_eq!(
        (roles[0], roles[1..].iter().filter(|role| **role == Role::Follower).count()),
        (Role::Leader, 8)
    );
    let totals = rig.calls.watch().lifecycle().totals();
    assert_eq!((totals.executions, totals.joined, totals.completed), (1, 8, 9));
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn it_joins_nobody_whose_answer_is_not_for_it() {
    let rig = Rig::new(&[]);
    let first = rig.wait(&rig.caller(0, 1), "look", "a");
    let guarded = rig.wait(&rig.caller(0, 1), "put", "a");
    let executions = || rig.calls.watch().lifecycle().totals().executions;
    let before = executions();
    let own = [
        rig.wait(&rig.caller(1, 2), "look", "a"),
        rig.wait(&rig.caller(0, 2), "ask", "a"),
        rig.wait(&rig.caller(0, 2), "put", "a"),
        rig.wait_with(&rig.caller(0, 2), "look", "a", sharing(Dedup::Session)),
        rig.wait_with(&rig.caller(0, 1), "look", "a", sharing(Dedup::Off)),
    ];
    assert_eq!(executions(), before + 5);
    let caller = rig.caller(0, 3);
    let options = Options::default();
    let distinguished =
        Call { id: None, tool: "look", arguments: WRITTEN, extra: Some(r#"{"acme/tenant":1}"#), options };
    let distinguished = waits(rig.calls.submit(&caller, distinguished));
    assert_eq!(executions(), before + 6);
    drop((first, guarded, own, distinguished));
}

#[tokio::test(start_paused = true)]
async fn what_is_offered_anew_is_read_anew() {
    let rig = Rig::new(&[]);
    let first = rig.wait(&rig.caller(0, 1), "look", "a");
    let read = rig.stage.last();
    rig.calls.offer_anew((*rig.calls.registry()).clone());
    let second = rig.wait(&rig.caller(0, 2), "look", "a");
    assert_eq!((rig.stage.last(), rig.calls.watch().lifecycle().totals().joined), (read + 1, 1));
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_is_over_keeps_nothing_that_was_written() {
    let rig = Rig::new(&[]);
    let (mut waiter, work) = rig.at_work("look", "a");
    let call = unread(&rig, &rig.caller(0, 1), "look", WRITTEN);
    let Some(Found::Flight(flight)) = rig.calls.flights().written_so(&call) else { panic!("not found") };
    rig.stage.order(work, Order::answer("once"));
    end(&mut waiter).await;
    settle().await;
    assert!(!flight.was_written(&call), "nobody can board it");
    drop((waiter, flight));
    assert!(rig.calls.flights().written_so(&call).is_none());
    let (next, _) = rig.at_work("look", "a");
    assert_eq!(rig.calls.watch().lifecycle().totals().executions, 2);
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_found_unread_by_its_principal_alone() {
    let rig = Rig::new(&[]);
    let mut first = rig.wait(&rig.caller(0, 1), "recite", "a");
    settle().await;
    rig.stage.order(rig.stage.find("a"), Order::answer("once"));
    end(&mut first).await;
    settle().await;
    drop(first);
    let caller = rig.caller(0, 2);
    let call = unread(&rig, &caller, "recite", WRITTEN);
    assert!(rig.calls.flights().written_so(&call).is_none());
    // The first that finds it is read, and speaks for those behind it.
    for _ in 0..3 {
        let answer = rig.answered(&caller, "recite", "a");
        assert_eq!((text(&answer).as_str(), answer.role), ("once", Some(Role::Cache)));
        assert_eq!(answer.provider.as_deref(), Some("second"));
        assert!(matches!(rig.calls.flights().written_so(&call), Some(Found::Kept(_))));
    }
    drop(rig.wait(&rig.caller(1, 2), "recite", "a"));
    drop(rig.wait_with(&caller, "recite", "a", sharing(Dedup::Session)));
    let totals = rig.calls.watch().lifecycle().totals();
    assert_eq!((totals.executions, totals.cache_hits), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_no_longer_is_asked_for_again() {
    let rig = Rig::new(&[]);
    let caller = rig.caller(0, 1);
    let call = unread(&rig, &caller, "recite", WRITTEN);
    let tool = Arc::clone(rig.calls.registry().find("recite").unwrap());
    let key = CallKey {
        principal: PrincipalId(0),
        session: None,
        tool: tool.id,
        definition: 1,
        ordinal: 0,
        digest: 1,
    };
    let flights = rig.calls.flights();
    flights.was_kept(&call, key, WRITTEN.as_bytes(), (&tool, &Arc::from("second")));
    let waiter = rig.wait(&caller, "recite", "a");
    assert!(!matches!(flights.written_so(&call), Some(Found::Kept(_))));
    // Equal digests alone are nothing.
    flights.was_kept(&call, key, WRITTEN.as_bytes(), (&tool, &Arc::from("second")));
    flights.cache().fill(key, br#"{"k":"b"}"#, &Ok(Reply::text("another's").into()), secs(3600));
    let second = rig.wait(&caller, "recite", "a");
    drop((waiter, second));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_counted_once_whether_it_is_read_or_not() {
    let rig = Rig::new(&[("WAITERS_MAX", "2")]);
    let [caller] = &callers(1, 3, 1)[..] else { panic!("one") };
    let submit = || rig.submit(caller, "look", WRITTEN, Options::default());
    let both = [waits(submit()), waits(submit())];
    // It was counted before the flight turned out to be full.
    for code_wanted in [Code::OverCapacity, Code::RateLimited] {
        let Submitted::Answered(answer) = submit() else { panic!("it is under way") };
        assert_eq!(code(&answer), Some(code_wanted));
    }
    drop(both);
}
