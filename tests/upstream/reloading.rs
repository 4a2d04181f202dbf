//! The configuration changes while calls run.

use serde_json::json;

use crate::rig::{Daemon, fake, fake_with, lives, text};
use crate::support::until;

#[tokio::test]
async fn servers_come_go_and_change_and_what_runs_ends_on_what_it_began_with() {
    let daemon = Daemon::with(json!({"stays": fake(&[]), "goes": fake(&[]), "changes": fake(&[])})).await;
    let mut client = daemon.client().await;
    let stays = client.text("stays__pid", json!({})).await;
    let goes: u32 = client.text("goes__pid", json!({})).await.parse().unwrap();
    let changes: u32 = client.text("changes__pid", json!({})).await.parse().unwrap();
    let gate = daemon.folder.path("gate");
    let mut running = Vec::new();
    for name in ["goes", "changes"] {
        running.push(client.begin(&format!("{name}__wait_for"), json!({"path": gate})).await);
    }
    daemon.has_waiters(2).await;
    let before = daemon.hub.calls.generation();
    let anew = fake_with(&["--tools=1"], &json!({"max_inflight": 3}));
    daemon.write(&json!({"stays": fake(&[]), "changes": anew, "comes": fake(&[])}));
    daemon.hang_up.send(()).await.unwrap();
    until("another offer", || daemon.hub.calls.generation() > before).await;
    let tools = client.tools().await;
    let has = |name: &str| tools.iter().any(|tool| tool == name);
    assert!(
        has("stays__pid") && has("comes__pid") && has("changes__extra_0") && !has("goes__pid"),
        "{tools:?}"
    );
    assert_eq!(client.text("stays__pid", json!({})).await, stays);
    assert_ne!(client.text("changes__pid", json!({})).await, changes.to_string());
    assert!(lives(goes) && lives(changes), "calls still run there");
    daemon.folder.write("gate", "");
    for id in running {
        assert_eq!(text(&client.answer(id).await), "it is there");
    }
    until("their ends", || !lives(goes) && !lives(changes)).await;
}

#[tokio::test]
async fn a_file_that_changes_is_seen_without_a_signal() {
    let daemon = Daemon::with(json!({})).await;
    let mut client = daemon.client().await;
    daemon.write(&json!({"new": fake(&[])}));
    until("its tools", || daemon.hub.calls.registry().find("new__echo").is_some()).await;
    assert_eq!(client.text("new__echo", json!({"text": "x"})).await, "x");
}

#[tokio::test]
async fn a_configuration_that_does_not_hold_changes_nothing() {
    let daemon = Daemon::of(fake(&[])).await;
    let mut client = daemon.client().await;
    let pid = client.text("fake__pid", json!({})).await;
    for broken in ["{\"mcpServers\": {", "{\"mcpServers\": {\"fake\": {\"command\": 7}}}"] {
        daemon.folder.write("servers.json", broken);
        daemon.hang_up.send(()).await.unwrap();
        // The second is taken when the first has been followed.
        daemon.hang_up.send(()).await.unwrap();
        daemon.hang_up.send(()).await.unwrap();
        assert_eq!(client.text("fake__pid", json!({})).await, pid);
    }
    daemon.write(&json!({"other": fake(&[])}));
    daemon.hang_up.send(()).await.unwrap();
    until("the next one that holds", || daemon.hub.calls.registry().find("other__echo").is_some()).await;
}
