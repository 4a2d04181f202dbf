//! Who shares a server with whom.

use serde_json::json;

use crate::rig::{Daemon, Setup, fake, fake_with, starts};

pub const TOKENS: [&str; 2] = ["alpha-token-0123456789", "bravo-token-0123456789"];

pub fn two_principals() -> Setup {
    let hash = |token| format!("blake3:{}", blake3::hash(str::as_bytes(token)).to_hex());
    let toml = format!(
        "[principals.a]\ntoken_hash = \"{}\"\n[principals.b]\ntoken_hash = \"{}\"\n",
        hash(TOKENS[0]),
        hash(TOKENS[1])
    );
    Setup { toml, ..Setup::default() }
}

#[tokio::test]
async fn ten_clients_share_one_process() {
    let folder = crate::rig::Folder::new();
    let pids = folder.path("pids");
    let daemon = Daemon::of(fake(&[&format!("--pids={pids}")])).await;
    for _ in 0..10 {
        let mut client = daemon.client().await;
        let pid: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
        assert_eq!(starts(&pids), [pid]);
    }
}

#[tokio::test]
async fn two_principals_share_neither_a_process_nor_an_answer() {
    let daemon = Daemon::start(json!({"fake": fake(&[])}), two_principals()).await.unwrap();
    let (mut a, mut b) = (daemon.client_as(Some(TOKENS[0])).await, daemon.client_as(Some(TOKENS[1])).await);
    let mut again = daemon.client_as(Some(TOKENS[0])).await;
    let pid = a.text("fake__pid", json!({})).await;
    assert_ne!(pid, b.text("fake__pid", json!({})).await);
    assert_eq!(pid, again.text("fake__pid", json!({})).await);
    // Equal calls of theirs never meet.
    let (one, two) =
        (a.begin("fake__hold", json!({"key": "k"})).await, b.begin("fake__hold", json!({"key": "k"})).await);
    daemon.has_waiters(2).await;
    assert_eq!(again.text("fake__release", json!({"key": "k"})).await, "1");
    assert_eq!(crate::rig::text(&a.answer(one).await), "released k");
    daemon.has_waiters(1).await;
    b.cancel(two).await;
    daemon.has_waiters(0).await;
    // What lists the tools is a third one: what one principal does shows to nobody else.
    assert_eq!(daemon.server("fake")["instances"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn everybody_may_share_one_process_where_the_operator_says_so() {
    let setup = two_principals();
    let shared = fake_with(&[], &json!({"share": "all"}));
    let daemon = Daemon::start(json!({"fake": shared}), setup).await.unwrap();
    let (mut a, mut b) = (daemon.client_as(Some(TOKENS[0])).await, daemon.client_as(Some(TOKENS[1])).await);
    assert_eq!(a.text("fake__pid", json!({})).await, b.text("fake__pid", json!({})).await);
    // The process is one; their equal calls still are two.
    let (one, two) =
        (a.begin("fake__hold", json!({"key": "k"})).await, b.begin("fake__hold", json!({"key": "k"})).await);
    daemon.has_waiters(2).await;
    assert_eq!(daemon.hub.calls.flights().executions(), 2);
    assert_eq!(b.text("fake__release", json!({"key": "k"})).await, "2");
    for (client, id) in [(&mut a, one), (&mut b, two)] {
        assert_eq!(crate::rig::text(&client.answer(id).await), "released k");
    }
}

#[tokio::test]
async fn each_session_has_its_own_process_where_the_operator_says_so() {
    let daemon = Daemon::of(fake_with(&[], &json!({"share": "session"}))).await;
    let (mut one, mut two) = (daemon.client().await, daemon.client().await);
    let pid = one.text("fake__pid", json!({})).await;
    assert_ne!(pid, two.text("fake__pid", json!({})).await);
    assert_eq!(pid, one.text("fake__pid", json!({})).await);
    // Neither does a read join another session's.
    let held = [
        one.begin("fake__hold", json!({"key": "k"})).await,
        two.begin("fake__hold", json!({"key": "k"})).await,
    ];
    daemon.has_waiters(2).await;
    assert_eq!(daemon.hub.calls.flights().executions(), 2);
    one.cancel(held[0]).await;
    two.cancel(held[1]).await;
    daemon.has_waiters(0).await;
    // It ends with its session.
    drop(one);
    let pid: u32 = pid.parse().unwrap();
    crate::support::until("its end", || !crate::rig::lives(pid)).await;
}

#[tokio::test]
async fn a_server_gets_what_it_needs_of_the_environment_and_no_key_of_the_daemon() {
    let server = fake_with(&[], &json!({"env": {"GIVEN": "yes ${TENANT}"}}));
    let setup = Setup { keys: vec![("KIMI_API_KEY", "sk-secret-of-ours".into())], ..Setup::default() };
    let daemon = Daemon::start(json!({"fake": server}), setup).await.unwrap();
    let mut client = daemon.client().await;
    for (name, value) in
        [("GIVEN", "yes t1"), ("PATH", "/usr/bin:/bin"), ("KIMI_API_KEY", ""), ("TENANT", "")]
    {
        assert_eq!(client.text("fake__env", json!({"name": name})).await, value, "{name}");
    }
}
