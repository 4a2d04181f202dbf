//! Servers that end, and callers that go.

use serde_json::json;

use crate::rig::{Daemon, code, fake, fake_with, kill, lives, starts, text};
use crate::support::until;

#[tokio::test]
async fn a_killed_server_is_restarted_and_the_next_call_succeeds() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    for _ in 0..3 {
        let pid: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
        let read = client.begin("fake__hold", json!({"key": "a"})).await;
        let write = client.begin("fake__put", json!({"key": "a"})).await;
        daemon.has_waiters(2).await;
        kill(pid);
        // At once, not at their deadline; and a write may have been done.
        let answer = client.answer(read).await;
        assert_eq!(code(&answer), "PROVIDER_ERROR");
        assert_eq!(answer["result"]["_meta"]["inflightd/error"]["retryable"], true);
        assert_eq!(code(&client.answer(write).await), "OUTCOME_UNKNOWN");
        let next: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
        assert_ne!(next, pid);
    }
    assert_eq!(daemon.server("fake")["instances"][0]["last_end"], "it was killed by signal 9");
}

#[tokio::test]
async fn the_opener_goes_and_the_others_get_the_answer() {
    let daemon = Daemon::of(fake(&[])).await;
    let (mut opener, mut other) = (daemon.client().await, daemon.client().await);
    opener.begin("fake__hold", json!({"key": "a"})).await;
    daemon.has_waiters(1).await;
    let waiting = other.begin("fake__hold", json!({"key": "a"})).await;
    daemon.has_waiters(2).await;
    drop(opener);
    daemon.has_waiters(1).await;
    let mut third = daemon.client().await;
    assert_eq!(third.text("fake__release", json!({"key": "a"})).await, "1");
    let answer = other.answer(waiting).await;
    assert_eq!(
        (text(&answer), &answer["result"]["_meta"]["inflightd/role"]),
        ("released a", &json!("follower"))
    );
    // The next identical call runs.
    let again = other.begin("fake__hold", json!({"key": "a"})).await;
    daemon.has_waiters(1).await;
    assert_eq!(third.text("fake__release", json!({"key": "a"})).await, "1");
    assert_eq!(text(&other.answer(again).await), "released a");
}

#[tokio::test]
async fn servers_end_with_the_daemon_and_with_all_that_they_started() {
    let daemon = Daemon::with(json!({"good": fake(&[]), "stays": fake(&["--stays"])})).await;
    let mut client = daemon.client().await;
    let mut pids = Vec::new();
    for name in ["good", "stays"] {
        pids.push(client.text(&format!("{name}__pid"), json!({})).await.parse::<u32>().unwrap());
    }
    assert!(pids.iter().all(|pid| lives(*pid)));
    daemon.ended().await;
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[tokio::test]
async fn one_that_is_not_to_be_restarted_stays_down() {
    let daemon = Daemon::of(fake_with(&[], &json!({"restart": "never", "effect": "read"}))).await;
    let mut client = daemon.client().await;
    let died = client.call("fake__die", json!({})).await;
    assert_eq!(code(&died), "PROVIDER_ERROR");
    daemon.server_shows("fake", "/instances/0/state", |state| state == "down").await;
    let down = client.call("fake__echo", json!({"text": "x"})).await;
    assert_eq!(text(&down), "fake is down: it exited with 7");
    let doctor = daemon.hub.doctor();
    let problems = doctor["problems"].to_string();
    assert!(
        problems.contains("the server fake (for principal 0) is down, started 1 times: it exited with 7"),
        "{problems}"
    );
}

#[tokio::test]
async fn one_that_ends_at_once_for_ever_is_started_seldom_and_seen_in_doctor() {
    let folder = crate::rig::Folder::new();
    let pids = folder.path("pids");
    let flags = ["--exit=3".to_owned(), format!("--pids={pids}")];
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::with(json!({"bad": fake(&flags), "good": fake(&[])})).await;
    let mut client = daemon.client().await;
    // It lists nothing, and its neighbour is as good as ever.
    assert_eq!(client.text("good__echo", json!({"text": "x"})).await, "x");
    assert!(!client.tools().await.iter().any(|name| name.starts_with("bad__")));
    until("a pause", || daemon.server("bad")["instances"][0]["state"] == "waiting").await;
    let problems = daemon.hub.doctor()["problems"].to_string();
    assert!(problems.contains("it exited with 3"), "{problems}");
    assert!(problems.contains("it said: I do not like it here"), "{problems}");
    // Two at once, each asked in both eras; then with pauses of a second and more.
    assert!(starts(&pids).len() <= 10, "{:?}", starts(&pids));
}
