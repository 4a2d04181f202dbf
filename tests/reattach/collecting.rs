//! What the daemon gives back, to whom, and to whom not.

use std::sync::Arc;

use inflightd::call::{Call, Options, Principal, Submitted};
use inflightd::config::PrincipalConfig;
use inflightd::ids::{PrincipalId, SessionKey};
use inflightd::lifecycle::Role;
use inflightd::tool::Dedup;
use serde_json::json;

use crate::stage::{Daemon, KEY};

const OTHER_KEY: &str = "ffeeddccbbaa99887766554433221100";

fn follower(text: &str) -> (String, String) {
    (text.to_owned(), "follower".to_owned())
}

#[test]
fn a_running_call_is_collected_over_a_new_connection() {
    for tool in ["look", "change"] {
        let daemon = Daemon::start();
        let mut lost = daemon.connect(Some(KEY));
        lost.call("a", tool, &json!({"n": 1}), false);
        daemon.gate.wait_for(1);
        drop(lost);
        let mut peer = daemon.connect(Some(KEY));
        peer.call("a", tool, &json!({"n": 1}), true);
        peer.call("probe", "version", &json!({}), false);
        peer.answer("probe");
        daemon.gate.open();
        assert_eq!(peer.answer("a"), follower("answer 1"), "{tool}");
        assert_eq!((daemon.gate.runs(), daemon.resumed()), (1, (1, 0)));
    }
}

#[test]
fn an_answer_that_was_sent_is_sent_again_as_often_as_it_is_asked_for() {
    for tool in ["look", "change"] {
        let daemon = Daemon::start();
        daemon.gate.open();
        let mut lost = daemon.connect(Some(KEY));
        lost.call("a", tool, &json!({"n": 1, "m": 2}), false);
        assert_eq!(lost.answer("a").0, "answer 1");
        drop(lost);
        for _ in 0..2 {
            let mut peer = daemon.connect(Some(KEY));
            peer.call("a", tool, &json!({"m": 2, "n": 1}), true);
            assert_eq!(peer.answer("a"), follower("answer 1"), "{tool}");
        }
        assert_eq!((daemon.gate.runs(), daemon.resumed()), (1, (2, 0)));
    }
}

#[test]
fn a_call_that_ends_while_its_caller_is_away_is_kept_for_it() {
    for tool in ["look", "change"] {
        let daemon = Daemon::start();
        let mut lost = daemon.connect(Some(KEY));
        lost.call("a", tool, &json!({}), false);
        daemon.gate.wait_for(1);
        drop(lost);
        daemon.gate.open();
        let mut peer = daemon.connect(Some(KEY));
        peer.call("a", tool, &json!({}), true);
        assert_eq!(peer.answer("a"), follower("answer 1"), "{tool}");
        assert_eq!(daemon.gate.runs(), 1);
    }
}

#[test]
fn a_new_call_with_an_old_id_never_gets_an_old_answer() {
    let daemon = Daemon::start();
    (0..4).for_each(|_| daemon.gate.open());
    let mut peer = daemon.connect(Some(KEY));
    peer.call("a", "change", &json!({}), false);
    assert_eq!(peer.answer("a").0, "answer 1");
    // The same id and arguments without the mark, on this connection and on another.
    peer.call("a", "change", &json!({}), false);
    assert_eq!(peer.answer("a").0, "answer 2");
    let mut next = daemon.connect(Some(KEY));
    next.call("a", "look", &json!({}), false);
    assert_eq!(next.answer("a").0, "answer 3");
    // The latest call of an id is the one that is meant.
    next.call("a", "change", &json!({}), true);
    assert_eq!(next.refused("a"), "OUTCOME_UNKNOWN");
    assert_eq!(daemon.gate.runs(), 3);
}

#[test]
fn other_arguments_another_tool_or_another_id_are_another_call() {
    let daemon = Daemon::start();
    daemon.gate.open();
    let mut lost = daemon.connect(Some(KEY));
    lost.call("a", "change", &json!({"n": 1}), false);
    lost.answer("a");
    drop(lost);
    let mut peer = daemon.connect(Some(KEY));
    for (id, tool, arguments) in [("a", "change", json!({"n": 1.0})), ("b", "change", json!({"n": 1}))] {
        peer.call(id, tool, &arguments, true);
        assert_eq!(peer.refused(id), "OUTCOME_UNKNOWN");
    }
    daemon.gate.open();
    peer.call("a", "look", &json!({"n": 1}), true);
    assert_eq!(peer.answer("a").0, "answer 2");
}

#[test]
fn what_nobody_knows_of_runs_again_unless_it_is_a_write() {
    for tool in ["look", "put"] {
        let daemon = Daemon::start();
        daemon.gate.open();
        let mut peer = daemon.connect(Some(KEY));
        peer.call("a", tool, &json!({}), true);
        assert_eq!(peer.answer("a"), ("answer 1".to_owned(), "leader".to_owned()), "{tool}");
        assert_eq!(daemon.resumed(), (0, 1));
    }
    let daemon = Daemon::start();
    let mut peer = daemon.connect(Some(KEY));
    peer.call("a", "change", &json!({}), true);
    assert_eq!(peer.refused("a"), "OUTCOME_UNKNOWN");
    assert_eq!((daemon.gate.runs(), daemon.resumed()), (0, (0, 0)));
}

#[test]
fn nothing_is_kept_without_a_key_and_another_key_collects_nothing() {
    for (first, second) in [(None, None), (Some(KEY), None), (None, Some(KEY)), (Some(KEY), Some(OTHER_KEY))]
    {
        let daemon = Daemon::start();
        (0..2).for_each(|_| daemon.gate.open());
        let mut lost = daemon.connect(first);
        lost.call("w", "change", &json!({}), false);
        lost.answer("w");
        lost.call("r", "look", &json!({}), false);
        lost.answer("r");
        drop(lost);
        let mut peer = daemon.connect(second);
        peer.call("w", "change", &json!({}), true);
        assert_eq!(peer.refused("w"), "OUTCOME_UNKNOWN");
        daemon.gate.open();
        peer.call("r", "look", &json!({}), true);
        assert_eq!(peer.answer("r").0, "answer 3");
        assert_eq!((daemon.gate.runs(), daemon.resumed()), (3, (0, 1)));
    }
}

#[test]
fn another_principal_with_the_same_key_collects_nothing() {
    let daemon = Daemon::start();
    daemon.gate.open();
    let calls = &daemon.hub.calls;
    let key = SessionKey::parse(KEY).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let named = |id, name| Arc::new(Principal::new(PrincipalId(id), &PrincipalConfig::plain(name), 9));
    let mut mine = daemon.hub.new_caller(named(0, "mine"));
    mine.attachment = daemon.hub.attach(&mine, key);
    let mut other = daemon.hub.new_caller(named(1, "other"));
    other.attachment = daemon.hub.attach(&other, key);
    let call = |resume| {
        let options = Options { resume, ..Options::default() };
        Call { id: Some("1"), tool: "change", arguments: "{}", extra: None, options }
    };
    let ended = |submitted| match submitted {
        Submitted::Answered(answer) => answer,
        Submitted::Waiting(mut waiter) => runtime.block_on(waiter.answer()),
    };
    assert!(ended(calls.submit(&mine, call(false))).outcome.is_ok());
    let refused = ended(calls.submit(&other, call(true))).outcome.unwrap_err();
    assert_eq!(refused.code().label(), "OUTCOME_UNKNOWN");
    assert!(ended(calls.submit(&mine, call(true))).outcome.is_ok());
    assert_eq!(daemon.gate.runs(), 1);
}

#[test]
fn a_write_that_a_kept_outcome_answered_can_be_collected_too() {
    let daemon = Daemon::start();
    daemon.gate.open();
    let calls = &daemon.hub.calls;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let config = PrincipalConfig::plain("mine");
    let mut mine = daemon.hub.new_caller(Arc::new(Principal::new(PrincipalId(0), &config, 9)));
    mine.attachment = daemon.hub.attach(&mine, SessionKey::parse(KEY).unwrap());
    let ended = |id, resume| {
        let options = Options { resume, dedup: Some(Dedup::Session), ..Options::default() };
        let call = Call { id: Some(id), tool: "change", arguments: "{}", extra: None, options };
        let answer = match calls.submit(&mine, call) {
            Submitted::Answered(answer) => answer,
            Submitted::Waiting(mut waiter) => runtime.block_on(waiter.answer()),
        };
        assert!(answer.outcome.is_ok(), "{answer:?}");
        answer.role
    };
    assert_eq!(ended("1", false), Some(Role::Leader));
    assert_eq!(ended("2", false), Some(Role::Cache));
    assert_eq!(ended("2", true), Some(Role::Follower));
    assert_eq!((daemon.gate.runs(), daemon.resumed()), (1, (1, 0)));
}

#[test]
fn a_new_connection_takes_over_the_calls_of_one_that_still_seems_alive() {
    let daemon = Daemon::start();
    let mut half_open = daemon.greet(Some(KEY));
    let call = json!({"op": "call_tool", "request_id": 7, "name": "change", "arguments": {}});
    half_open.send(&call);
    assert_eq!(half_open.read()["op"], "call_tool_ack");
    daemon.gate.wait_for(1);
    let mut again = call.clone();
    again["resume"] = json!(true);
    let mut peer = daemon.greet(Some(KEY));
    peer.send(&again);
    assert_eq!(peer.read()["op"], "call_tool_ack");
    let taken = half_open.read();
    assert_eq!(taken["error"]["code"], "CANCELLED", "{taken}");
    daemon.gate.open();
    let answer = peer.read();
    assert_eq!(answer["outputs"][0]["text"], "answer 1", "{answer}");
    assert_eq!((&answer["metadata"]["role"], &answer["from_inflight"]), (&json!("follower"), &json!(true)));
    assert_eq!(daemon.gate.runs(), 1);
}

#[test]
fn a_call_can_be_taken_back_over_a_new_connection() {
    let daemon = Daemon::start();
    let mut lost = daemon.connect(Some(KEY));
    lost.call("a", "change", &json!({}), false);
    daemon.gate.wait_for(1);
    drop(lost);
    let mut peer = daemon.connect(Some(KEY));
    peer.cancel("a");
    peer.call("a", "change", &json!({}), true);
    assert_eq!(peer.refused("a"), "OUTCOME_UNKNOWN");
    // The work was stopped, though nobody let it go on.
    daemon.gate.wait_for_ends(1);
    assert_eq!(daemon.gate.runs(), 1);
}

#[test]
fn a_read_that_was_taken_back_runs_again_when_it_is_asked_for_again() {
    let daemon = Daemon::start();
    let mut peer = daemon.connect(Some(KEY));
    peer.call("a", "look", &json!({}), false);
    daemon.gate.wait_for(1);
    peer.cancel("a");
    daemon.gate.wait_for_ends(1);
    let mut next = daemon.connect(Some(KEY));
    next.call("a", "look", &json!({}), true);
    daemon.gate.wait_for(2);
    daemon.gate.open();
    assert_eq!(next.answer("a"), ("answer 2".to_owned(), "leader".to_owned()));
}

#[test]
fn a_key_of_another_form_is_refused() {
    let daemon = Daemon::start();
    let mut wrong = daemon.op();
    wrong.send(&json!({"op": "hello", "session_key": "short"}));
    let refused = wrong.read();
    assert_eq!(refused["ok"], false);
    assert!(refused["error"].as_str().unwrap().contains("32 hexadecimal digits"), "{refused}");
}
