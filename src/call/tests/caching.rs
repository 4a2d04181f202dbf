//! Tools with a TTL: whose result answers later equal calls, and whose does not.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::flight::{About, Boarding, FlightRules};
use crate::call::key::{CallKey, Form};
use crate::call::tests::rig::{Rig, end, secs, settle, sharing, text};
use crate::call::tests::stage::Order;
use crate::call::waiter::Arrival;
use crate::call::{Answer, Bounds, Priority, Submitted};
use crate::deadline::Deadline;
use crate::ids::{PrincipalId, RequestId};
use crate::lifecycle::Role;
use crate::provider::Reply;
use crate::tool::{Dedup, Insight};

/// A call that works, and ends as it is told.
async fn works(rig: &Rig, session: u64, label: &str, order: Order) -> Answer {
    let mut waiter = rig.wait(&rig.caller(0, session), "recite", label);
    settle().await;
    rig.stage.order(rig.stage.find(label), order);
    end(&mut waiter).await
}

#[tokio::test(start_paused = true)]
async fn a_result_answers_later_calls_of_its_principal_through_any_session() {
    let rig = Rig::new(&[]);
    let first = works(&rig, 1, "a", Order::answer("once")).await;
    assert_eq!(first.role, Some(Role::Leader));
    settle().await;
    let later = rig.answered(&rig.caller(0, 2), "recite", "a");
    assert_eq!((text(&later).as_str(), later.role, later.execution), ("once", Some(Role::Cache), None));
    let totals = rig.calls.watch().lifecycle().totals();
    assert_eq!((totals.executions, totals.cache_hits, totals.completed), (1, 1, 2));
    let found = rig.calls.request(PrincipalId(0), later.request).unwrap().about;
    assert_eq!((&found["role"], &found["state"]), (&"cache".into(), &"completed".into()));
    assert!(
        found["notes_ms"]["cache_hit"].is_number() && found["phases_ms"]["received"].is_number(),
        "{found}"
    );
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn it_answers_no_other_principal_no_other_arguments_and_nobody_who_shares_otherwise() {
    let rig = Rig::new(&[]);
    works(&rig, 1, "a", Order::answer("once")).await;
    settle().await;
    let begun = rig.stage.begun();
    drop(rig.wait(&rig.caller(1, 2), "recite", "a"));
    drop(rig.wait(&rig.caller(0, 1), "recite", "b"));
    for dedup in [Dedup::Session, Dedup::Off] {
        drop(rig.wait_with(&rig.caller(0, 1), "recite", "a", sharing(dedup)));
    }
    // The second provider does two at a time; those that wait are no cache hits either.
    assert_eq!((rig.stage.begun(), rig.calls.watch().lifecycle().totals().cache_hits), (begun + 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tool_without_a_ttl_works_each_time() {
    let rig = Rig::new(&[]);
    for _ in 0..2 {
        let mut waiter = rig.wait(&rig.caller(0, 1), "consult", "a");
        settle().await;
        rig.stage.order(rig.stage.find("a"), Order::answer("anew"));
        assert_eq!(end(&mut waiter).await.role, Some(Role::Leader));
    }
    assert_eq!(rig.stage.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_answered_once_and_the_next_call_works() {
    let rig = Rig::new(&[]);
    for order in [Order::refused(), Order::Panic] {
        assert!(works(&rig, 1, "a", order).await.outcome.is_err());
        settle().await;
    }
    assert_eq!(works(&rig, 1, "a", Order::answer("at last")).await.role, Some(Role::Leader));
    assert_eq!(rig.answered(&rig.caller(0, 1), "recite", "a").role, Some(Role::Cache));
}

/// Between the first look and the flight an equal call may land: it filled the cache before it freed the key, so whoever
/// opens the next flight finds its outcome and does no work.
#[tokio::test(start_paused = true)]
async fn what_landed_since_the_first_look_is_found_once_the_flight_is_open() {
    let rig = Rig::new(&[]);
    let (guard_key, arguments) = (key(&rig), r#"{"k":"a"}"#);
    rig.calls.flights().cache().fill(
        guard_key,
        arguments.as_bytes(),
        &Ok(Reply::text("landed").into()),
        secs(3600),
    );
    let now = Instant::now();
    let boarding = Boarding {
        key: Some(guard_key),
        arguments: Form::from(arguments),
        tool: Arc::clone(rig.calls.registry().find("recite").unwrap()),
        provider: Arc::from("second"),
        rules: FlightRules { max_waiters: 1, reattach: secs(1) },
        keep: Some(secs(3600)),
        about: About::default(),
        at: now,
        priority: Priority::Medium,
        can: crate::provider::asking::Can::NOTHING,
        until: Deadline::since(now, secs(60)),
    };
    let arrival = Arrival {
        request: RequestId::mint(),
        principal: PrincipalId(0),
        received: now,
        patience: secs(60),
        priority: Priority::Medium,
        can: crate::provider::asking::Can::NOTHING,
        bounds: Bounds::default(),
        wants_text: false,
        log: None,
    };
    let waiter = rig.calls.board(boarding, arrival, None, None, |_| panic!("it works again")).unwrap();
    let Submitted::Answered(answer) = waiter.submitted() else { panic!("it waits") };
    assert_eq!((text(&answer).as_str(), answer.role), ("landed", Some(Role::Cache)));
    rig.assert_at_rest();
}

fn key(rig: &Rig) -> CallKey {
    let tool = rig.calls.registry().find("recite").unwrap().id;
    CallKey { principal: PrincipalId(0), session: None, tool, definition: 0, ordinal: 0, digest: 7 }
}
