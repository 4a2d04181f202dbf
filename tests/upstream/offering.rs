//! What is offered: names, collisions, and tools that come and go.

use inflightd::tool::Insight;
use serde_json::json;

use crate::rig::{Daemon, Setup, fake, fake_with};

#[tokio::test]
async fn tools_are_allowed_denied_and_renamed() {
    let tools =
        json!({"tools": {"allow": ["e*", "put", "hold"], "deny": ["env"], "rename": {"hold": "keep"}}});
    let daemon = Daemon::of(fake_with(&[], &tools)).await;
    let mut client = daemon.client().await;
    let mut theirs: Vec<_> =
        client.tools().await.into_iter().filter(|name| name.starts_with("fake__")).collect();
    theirs.sort();
    assert_eq!(theirs, ["fake__echo", "fake__keep", "fake__put"]);
    let held = client.begin("fake__keep", json!({"key": "a"})).await;
    daemon.has_waiters(1).await;
    client.cancel(held).await;
    daemon.has_waiters(0).await;
}

#[tokio::test]
async fn a_single_server_may_go_without_its_name() {
    let ours = json!({"prefix": false, "tools": {"allow": ["raw", "pid"]}});
    let daemon = Daemon::of(fake_with(&[], &ours)).await;
    let tools = daemon.client().await.tools().await;
    assert!(["raw", "pid"].iter().all(|name| tools.iter().any(|tool| tool == name)), "{tools:?}");
}

#[tokio::test]
async fn two_tools_of_one_name_are_refused_at_the_start_with_both_owners() {
    let refused = |servers| async move {
        match Daemon::start(servers, Setup::default()).await {
            Ok(_) => panic!("it started"),
            Err(error) => inflightd_error(&error),
        }
    };
    let bare = fake_with(&[], &json!({"prefix": false}));
    let text = refused(json!({"fake": bare})).await;
    assert_eq!(text, "two tools are named `echo`: one of the daemon itself, one of server fake");
    let twice = fake_with(&[], &json!({"tools": {"rename": {"echo": "same", "raw": "same"}}}));
    let text = refused(json!({"fake": twice})).await;
    assert_eq!(text, "two tools are named `fake__same`: one of server fake, one of server fake");
}

fn inflightd_error(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[tokio::test]
async fn tools_come_and_go_while_calls_run() {
    let daemon = Daemon::of(fake(&["--tools=1"])).await;
    let mut client = daemon.client().await;
    let held = client.begin("fake__hold", json!({"key": "a"})).await;
    daemon.has_waiters(1).await;
    let before = daemon.hub.calls.generation();
    client.call("fake__change", json!({"tools": 3})).await;
    crate::support::until("another offer", || daemon.hub.calls.generation() > before).await;
    let tools = client.tools().await;
    assert!(tools.iter().any(|name| name == "fake__extra_2"), "{tools:?}");
    let stale = client.ask("tools/list", &json!({"cursor": format!("tools:{before}:1")})).await;
    assert_eq!(stale["error"]["code"], -32602, "{stale}");
    // What began under the old definition ends under it; the same call begins anew under the new one.
    let other = client.begin("fake__hold", json!({"key": "a"})).await;
    daemon.has_waiters(2).await;
    assert_eq!(daemon.hub.calls.server_stats()["dedup"]["joined"], 0);
    assert_eq!(client.text("fake__release", json!({"key": "a"})).await, "2");
    for id in [held, other] {
        assert_eq!(crate::rig::text(&client.answer(id).await), "released a");
    }
}

#[tokio::test]
async fn effects_are_the_operators_word_then_the_servers_hint_then_write() {
    let ours = json!({"effect": {"hold": "write", "p*": "read"}});
    let daemon = Daemon::of(fake_with(&[], &ours)).await;
    let registry = daemon.hub.calls.registry();
    let effect = |name: &str| registry.find(&format!("fake__{name}")).unwrap().effect.label();
    assert_eq!(["hold", "put", "echo", "release"].map(effect), ["write", "read", "read", "write"]);
}

#[tokio::test]
async fn a_name_that_no_client_could_carry_is_left_out_and_told_of() {
    let long = "x".repeat(60);
    let daemon = Daemon::of(fake_with(&[], &json!({"tools": {"rename": {"echo": long}}}))).await;
    let tools = daemon.client().await.tools().await;
    assert!(tools.iter().any(|name| name == "fake__raw") && !tools.iter().any(|name| name.contains(&long)));
    let problems = daemon.hub.doctor()["problems"].to_string();
    assert!(problems.contains("the server fake: the tool name `fake__xxx"), "{problems}");
}
