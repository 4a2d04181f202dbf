//! What becomes of messages, without input or output.

use super::*;

fn state() -> State<u8> {
    State::new(Instant::now())
}

fn open() -> State<u8> {
    let mut state = state();
    assert_eq!(state.release(&1), Step::Rest);
    state
}

fn away() -> Refusal {
    Refusal::Away { text: "gone".to_owned() }
}

fn send(state: &mut State<u8>, line: &str) {
    assert_eq!(state.line(line.to_owned()), Step::Send(1, line.to_owned()));
}

fn answer(step: Step<u8>) -> serde_json::Value {
    let Step::Answer(text) = step else { panic!("an answer, not {step:?}") };
    serde_json::from_str(&text).unwrap()
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"}}"#;

const MARKED: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"_meta":{"inflightd/resume":true},"name":"echo"}}"#;
const LIST: &str = r#"{"id":"l","method":"tools/list"}"#;
const CANCEL: &str = r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#;

#[test]
fn what_was_in_flight_is_sent_again_in_order_before_what_waited_and_only_calls_are_marked() {
    let mut state = open();
    send(&mut state, CALL);
    send(&mut state, LIST);
    send(&mut state, r#"{"id":9,"method":"ping"}"#);
    let answers = state.lost(Instant::now(), &away());
    assert_eq!(answers, [r#"{"jsonrpc":"2.0","id":9,"result":{}}"#]);
    let later = r#"{"id":10,"method":"tools/call","params":{}}"#;
    assert_eq!(state.line(later.to_owned()), Step::Rest);
    assert_eq!(state.release(&1), Step::Send(1, MARKED.to_owned()));
    // The next connection is lost before it was in use: everything begins again.
    assert!(state.lost(Instant::now(), &away()).is_empty());
    for expected in [MARKED, LIST, later] {
        assert_eq!(state.release(&2), Step::Send(2, expected.to_owned()));
    }
    assert_eq!(state.release(&2), Step::Rest);
    assert_eq!(state.frame(r#"{"id":7,"result":{}}"#), Toward::Client);
    assert!(state.lost(Instant::now(), &away()).is_empty());
    assert_eq!(state.release(&3), Step::Send(3, LIST.to_owned()));
}

#[test]
fn a_daemon_that_stays_away_is_an_error_for_each_request_once_and_in_order() {
    let mut state = open();
    send(&mut state, CALL);
    send(&mut state, LIST);
    state.lost(Instant::now(), &away());
    state.line(r#"{"id":10,"method":"tools/call"}"#.to_owned());
    let answers = state.shut(away());
    assert_eq!(answers.len(), 3);
    for (answer, (id, code)) in answers.iter().zip([("7", "-32017"), ("\"l\"", "-32018"), ("10", "-32018")]) {
        assert!(answer.contains(code) && answer.contains(&format!(r#""id":{id},"#)), "{answers:?}");
    }
    assert_eq!(state.release(&1), Step::Rest);
    assert!(state.lost(Instant::now(), &away()).is_empty() && state.in_flight_bytes == 0);
}

#[test]
fn a_request_taken_back_while_no_daemon_is_there_is_not_sent_again_and_its_answer_is_dropped() {
    let mut state = open();
    send(&mut state, CALL);
    state.lost(Instant::now(), &away());
    assert_eq!(state.line(CANCEL.to_owned()), Step::Rest);
    // Its work may still go on, so the daemon hears of it.
    assert_eq!(state.release(&1), Step::Send(1, CANCEL.to_owned()));
    assert_eq!(state.release(&1), Step::Rest);
    assert_eq!(state.frame(r#"{"id":7,"result":{}}"#), Toward::Nobody);
    // The same id in a new request is another request.
    send(&mut state, CALL);
    assert_eq!(state.frame(r#"{"id":7,"result":{}}"#), Toward::Client);
}

#[test]
fn a_request_too_large_to_be_kept_is_answered_when_its_connection_is_lost() {
    let mut state = open();
    let pad = "p".repeat(MAX_IN_FLIGHT_BYTES);
    send(&mut state, &format!(r#"{{"id":1,"method":"tools/call","params":{{"p":"{pad}"}}}}"#));
    send(&mut state, CALL);
    let answers = state.lost(Instant::now(), &away());
    assert!(answers.len() == 1 && answers[0].contains("-32017"), "{}", answers.len());
    assert_eq!(state.release(&1), Step::Send(1, MARKED.to_owned()));
}

#[test]
fn what_was_answered_or_taken_back_is_not_answered_again() {
    let mut state = open();
    send(&mut state, CALL);
    send(&mut state, r#"{"id":8,"method":"tools/call"}"#);
    assert_eq!(state.frame(r#"{"id":7,"result":{}}"#), Toward::Client);
    send(&mut state, r#"{"method":"notifications/cancelled","params":{"requestId":8}}"#);
    assert!(state.lost(Instant::now(), &away()).is_empty());
}

#[test]
fn what_waits_goes_out_in_order_and_before_what_comes_later() {
    let mut state = state();
    for line in [CALL, r#"{"method":"notifications/initialized"}"#, "nonsense"] {
        assert_eq!(state.line(line.to_owned()), Step::Rest);
    }
    assert_eq!(state.release(&1), Step::Send(1, CALL.to_owned()));
    assert_eq!(state.line("later".to_owned()), Step::Rest);
    assert!(matches!(state.release(&1), Step::Send(1, _)));
    assert_eq!(state.release(&1), Step::Send(1, "nonsense".to_owned()));
    assert_eq!(state.release(&1), Step::Send(1, "later".to_owned()));
    assert_eq!(state.release(&1), Step::Rest);
    assert_eq!(state.open_door(), Some(1));
}

#[test]
fn a_request_taken_back_while_it_waits_is_never_sent() {
    let mut state = state();
    assert_eq!(state.line(CALL.to_owned()), Step::Rest);
    let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#;
    assert_eq!(state.line(cancel.to_owned()), Step::Rest);
    assert_eq!(state.release(&1), Step::Rest);
    assert_eq!(state.held_bytes, 0);
}

#[test]
fn a_daemon_that_stays_away_is_an_error_for_requests_and_none_for_pings() {
    let mut state = state();
    assert_eq!(state.line(CALL.to_owned()), Step::Rest);
    let answers = state.shut(away());
    assert_eq!(answers.len(), 1);
    assert_eq!(answer(state.line(CALL.to_owned()))["error"]["code"], -32018);
    assert_eq!(answer(state.line(r#"{"id":1,"method":"ping"}"#.to_owned()))["result"], serde_json::json!({}));
    assert_eq!(answer(state.line("nonsense".to_owned()))["id"], serde_json::Value::Null);
    assert_eq!(state.line(r#"{"method":"notifications/x"}"#.to_owned()), Step::Rest);
}

#[test]
fn only_an_accepted_session_is_begun_again() {
    let mut state = open();
    let initialize = r#"{"id":0,"method":"initialize","params":{"b":1,"a":2}}"#;
    send(&mut state, initialize);
    assert_eq!(state.session(), None);
    assert_eq!(state.frame(r#"{"id":0,"result":{}}"#), Toward::Client);
    let initialized = r#"{"method":"notifications/initialized"}"#;
    send(&mut state, initialized);
    let session = state.session().unwrap();
    assert!(session.initialize.contains(r#""params":{"b":1,"a":2}"#) && session.initialize.contains(OWN_ID));
    assert_eq!(session.initialized.as_deref(), Some(initialized));
    let own = format!(r#"{{"id":{OWN_ID},"result":{{}}}}"#);
    assert_eq!(state.frame(&own), Toward::Shim { failed: false });
}

#[test]
fn a_refused_session_is_not_begun_again() {
    let mut state = open();
    send(&mut state, r#"{"id":0,"method":"initialize"}"#);
    assert_eq!(state.frame(r#"{"id":0,"error":{"code":-32602,"message":"no"}}"#), Toward::Client);
    assert_eq!(state.session(), None);
}

#[test]
fn both_tables_are_bounded_and_say_so() {
    let mut waiting = state();
    for id in 0..MAX_HELD {
        assert_eq!(waiting.line(format!(r#"{{"id":{id},"method":"x"}}"#)), Step::Rest);
    }
    assert_eq!(answer(waiting.line(CALL.to_owned()))["error"]["code"], -32010);

    let mut state = open();
    for id in 0..MAX_IN_FLIGHT {
        send(&mut state, &format!(r#"{{"id":{id},"method":"x"}}"#));
    }
    let full = r#"{"id":"one more","method":"x"}"#.to_owned();
    assert_eq!(answer(state.line(full))["error"]["data"]["code"], "OVER_CAPACITY");
}

#[test]
fn of_what_is_in_flight_the_largest_was_too_large_unless_something_else_was() {
    let mut state = open();
    send(&mut state, CALL);
    send(&mut state, LIST);
    let note = format!(r#"{{"method":"x","params":"{}"}}"#, "x".repeat(999));
    send(&mut state, &note);
    assert_eq!(state.too_big(), None, "nobody waits for that one");
    assert!(state.lost(Instant::now(), &away()).is_empty());
    for expected in [MARKED, LIST] {
        assert_eq!(state.release(&2), Step::Send(2, expected.to_owned()));
    }
    // It was taken without the mark, and may have run.
    let refused = |state: &mut State<u8>| answer(Step::Answer(state.too_big().unwrap()));
    assert_eq!(refused(&mut state)["error"]["code"], -32017);
    assert_eq!(refused(&mut state)["error"]["code"], -32600);
    assert_eq!(state.too_big(), None);
}
