use super::*;
use crate::telemetry::heard::Lines;

const DAEMON: Duration = Duration::from_secs(270);
const UNKNOWN: Duration = Duration::from_secs(60);

fn clients() -> Clients {
    Clients::new(DAEMON, UNKNOWN)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn within(clients: &Clients, name: &str, declared: &[Option<Duration>]) -> [Option<Duration>; 2] {
    let patience = clients.meet(name, "1", declared).patience();
    [false, true].map(|progress| clients.answer_within(patience, progress))
}

#[test]
fn a_call_is_answered_five_seconds_before_its_client_gives_up() {
    let clients = clients();
    assert_eq!(within(&clients, "nobody knows me", &[]), [Some(secs(55)), None]);
    assert_eq!(within(&clients, "claude-ai", &[]), [Some(secs(55)), Some(secs(55))]);
    assert_eq!(within(&clients, "claude-code", &[]), [Some(secs(295)), None]);
    assert_eq!(within(&clients, "inflightd-cli", &[]), [None, None]);
}

#[test]
fn what_a_client_declares_beats_what_is_known_of_it_and_the_shorter_limit_counts() {
    let clients = clients();
    assert_eq!(
        within(&clients, "claude-ai", &[Some(secs(360)), Some(secs(450))]),
        [Some(secs(355)), Some(secs(355))]
    );
    assert_eq!(within(&clients, "", &[None, Some(secs(30))]), [Some(secs(25)), Some(secs(25))]);
}

#[test]
fn a_limit_too_short_for_five_seconds_is_halved() {
    assert_eq!(within(&clients(), "", &[Some(secs(4))])[0], Some(secs(2)));
}

#[test]
fn who_gives_up_first_is_told_by_the_ladder() {
    let clients = clients();
    let of = |patience| clients.gives_up_first(patience).label();
    let limited = |secs, progress_resets| Patience::Limited {
        after: Duration::from_secs(secs),
        progress_resets,
        basis: Basis::Known,
    };
    assert_eq!(of(Patience::Unlimited), "no");
    assert_eq!(of(Patience::Unknown), "without_progress");
    assert_eq!((of(limited(270, false)), of(limited(271, false))), ("yes", "no"));
    assert_eq!((of(limited(270, true)), of(limited(271, true))), ("without_progress", "no"));
}

#[test]
fn a_client_is_one_row_however_often_it_comes() {
    let clients = clients();
    let first = clients.meet("a", "1", &[]);
    let second = clients.meet("a", "1", &[]);
    let rows = clients.report();
    assert_eq!((rows.len(), &rows[0]["connections"], &rows[0]["basis"]), (1, &json!(2), &json!("assumed")));
    drop((first, second));
    let _other = clients.meet("a", "2", &[]);
    let rows = clients.report();
    assert_eq!((rows.len(), &rows[0]["version"], &rows[1]["connections"]), (2, &json!("2"), &json!(0)));
}

#[test]
fn made_up_names_take_no_more_than_their_room() {
    let clients = clients();
    let long = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let kept = clients.meet(&long, "\n", &[]);
    for number in 0..2 * SEEN {
        clients.meet(&number.to_string(), "", &[]);
    }
    let rows = clients.report();
    assert_eq!(rows.len(), SEEN);
    let name = rows.iter().find(|row| row["connections"] == 1).unwrap()["name"].as_str().unwrap();
    assert_eq!((name.len(), name.starts_with("?[2J")), (NAME_CHARACTERS, true), "who is connected stays");
    drop(kept);
}

#[test]
fn who_gives_up_first_is_warned_of_once_for_each_version_whatever_limit_it_has() {
    let clients = clients();
    let (lines, _listening) = Lines::listen();
    let warned = |name, version, declared: &[Option<Duration>]| {
        drop(clients.meet(name, version, declared));
        lines.take().len()
    };
    assert_eq!(warned("claude-ai", "1", &[]), 1);
    assert_eq!(warned("claude-ai", "1", &[]), 0, "it came again");
    assert_eq!(warned("claude-ai", "1", &[Some(secs(20))]), 0, "with another limit");
    assert_eq!(warned("claude-ai", "2", &[]), 1, "another version");
    assert_eq!(warned("claude-ai", "3", &[Some(secs(271))]), 0, "it waits long enough");
    assert_eq!(warned("nobody knows me", "1", &[]), 0, "who gets progress may wait");
}

#[test]
fn one_that_says_the_same_words_again_is_known_by_them() {
    let clients = Clients::new(Duration::from_secs(60), Duration::from_secs(60));
    let words = r#"{"name":"a","version":"1"}"#;
    assert!(clients.met_again(words).is_none(), "never met");
    let first = clients.meet_in_words(words, "a", "1");
    let again = clients.met_again(words).unwrap();
    assert!(Arc::ptr_eq(&first.seen, &again.seen));
    assert_eq!(clients.report().len(), 1);
    let _silent = clients.meet("b", "1", &[]);
    assert!(clients.met_again("").is_none(), "no words are nobody's");
    let long = "x".repeat(WORDS_BYTES + 1);
    let _long = clients.meet_in_words(&long, "c", "1");
    assert!(clients.met_again(&long).is_none(), "long ones are not kept");
}
