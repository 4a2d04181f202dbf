//! Being told when a resource changes: in both eras, on both doors, from servers of both eras.

use serde_json::{Value, json};

use crate::asking::door::Http;
use crate::rig::{Client, Daemon, Folder, fake, fake_with, kill, starts};
use crate::sharing::{TOKENS, two_principals};
use crate::support::until;

const ERAS: [&[&str]; 2] = [&["--tells"], &["--tells", "--stateless"]];

fn newer() -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}})
}

/// What the server says that it tells of.
async fn watched(client: &mut Client) -> Value {
    let about = client.text("fake__about", json!({})).await;
    serde_json::from_str::<Value>(&about).unwrap()["watched"].clone()
}

async fn watches(client: &mut Client, wanted: &Value) {
    crate::support::within("what is watched", async { while watched(client).await != *wanted {} }).await;
}

async fn updated(client: &mut Client) -> Value {
    client.wire.find(|message| message["method"] == "notifications/resources/updated").await["params"].clone()
}

async fn touch(client: &mut Client, uri: &str) {
    client.text("fake__touch", json!({"uri": uri})).await;
}

#[tokio::test]
async fn who_subscribes_is_told_until_it_does_not_want_to_be() {
    for flags in ERAS {
        let daemon = Daemon::of(fake(flags)).await;
        let (mut one, mut two) = (daemon.client().await, daemon.client().await);
        let uri = json!({"uri": "x://one"});
        for client in [&mut one, &mut two] {
            let answer = client.ask("resources/subscribe", &uri).await;
            assert!(answer["result"].is_object() && answer["result"]["content"].is_null(), "{answer}");
        }
        watches(&mut one, &json!(["x://one"])).await;
        touch(&mut one, "x://other").await;
        touch(&mut one, "x://one").await;
        assert_eq!(updated(&mut one).await, json!({"uri": "x://one"}));
        assert_eq!(updated(&mut two).await, json!({"uri": "x://one"}));
        // The server is told only when nobody wants to hear any more.
        assert_eq!(one.ask("resources/unsubscribe", &uri).await["result"], json!({}));
        touch(&mut two, "x://one/part").await;
        assert_eq!(updated(&mut two).await, json!({"uri": "x://one/part"}));
        assert_eq!(watched(&mut one).await, json!(["x://one"]));
        drop(two);
        watches(&mut one, &json!([])).await;
        assert!(one.wire.unasked().is_empty(), "{:?}", one.wire.unasked());
    }
}

#[tokio::test]
async fn a_server_that_does_not_tell_says_so() {
    for flags in ERAS {
        let daemon = Daemon::of(fake(flags)).await;
        let mut client = daemon.client().await;
        let refused = client.ask("resources/subscribe", &json!({"uri": "x://item/none"})).await;
        assert!(refused["error"]["code"].is_i64(), "{refused}");
        // One refusal is not kept.
        assert!(client.ask("resources/subscribe", &json!({"uri": "x://one"})).await["result"].is_object());
    }
    let daemon = Daemon::of(fake(&["--serves"])).await;
    let mut client = daemon.client().await;
    let refused = client.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    assert_eq!(refused["error"]["code"], -32601, "{refused}");
    for params in [json!({}), json!({"uri": 1})] {
        for method in ["resources/subscribe", "resources/unsubscribe"] {
            assert_eq!(client.ask(method, &params).await["error"]["code"], -32602);
        }
    }
    let refused = client.ask("resources/subscribe", &json!({"uri": "x://one", "_meta": newer()})).await;
    assert_eq!(refused["error"]["code"], -32601, "the newer era has no such method");
}

#[tokio::test]
async fn a_subscription_of_the_newer_era_tells_what_it_names_under_its_name() {
    for flags in ERAS {
        let daemon = Daemon::of(fake(flags)).await;
        let mut client = daemon.client().await;
        let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": ["x://one"]});
        let id =
            client.send("subscriptions/listen", &json!({"notifications": wanted, "_meta": newer()})).await;
        let told = client.wire.find(|message| message["method"].is_string()).await;
        assert_eq!(told["method"], "notifications/subscriptions/acknowledged");
        let name = json!({"io.modelcontextprotocol/subscriptionId": id});
        assert_eq!(told["params"], json!({"_meta": name, "notifications": wanted}));
        watches(&mut client, &json!(["x://one"])).await;
        touch(&mut client, "x://one").await;
        assert_eq!(updated(&mut client).await, json!({"_meta": name, "uri": "x://one"}));
        client.text("fake__change", json!({"tools": 1})).await;
        let changed = |message: &Value| message["params"]["_meta"] == name;
        let told = client.wire.find(changed).await;
        assert_eq!(told["method"], "notifications/tools/list_changed");
        client.cancel(id).await;
        watches(&mut client, &json!([])).await;
        let mine = client.wire.unasked().iter().filter(|message| message["params"]["_meta"] == name);
        assert_eq!(mine.count(), 0, "nothing else was asked for: {:?}", client.wire.unasked());
    }
}

#[tokio::test]
async fn a_subscription_ends_with_an_answer_when_the_daemon_does() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let mut client = daemon.client().await;
    let listen = json!({"notifications": {"toolsListChanged": true}, "_meta": newer()});
    let id = client.send("subscriptions/listen", &listen).await;
    client.wire.find(|message| message["method"] == "notifications/subscriptions/acknowledged").await;
    daemon.ended().await;
    let ended = client.answer(id).await;
    assert_eq!(ended["result"]["resultType"], "complete");
    assert_eq!(ended["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
}

#[tokio::test]
async fn nonsense_and_too_much_is_refused() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let mut client = daemon.client().await;
    let many: Vec<String> = (0..257).map(|n| format!("x://item/{n}")).collect();
    for notifications in
        [json!(null), json!(1), json!({"toolsListChanged": "yes"}), json!({"resourceSubscriptions": many})]
    {
        let params = json!({"notifications": notifications, "_meta": newer()});
        let refused = client.ask("subscriptions/listen", &params).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    let params = json!({"notifications": {}, "_meta": newer()});
    for _ in 0..32 {
        client.send("subscriptions/listen", &params).await;
    }
    let refused = client.ask("subscriptions/listen", &params).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("32 subscriptions"), "{refused}");
    for uri in &many[..256] {
        assert!(client.ask("resources/subscribe", &json!({"uri": uri})).await["result"].is_object());
    }
    let refused = client.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("256 resources"), "{refused}");
}

#[tokio::test]
async fn what_is_watched_is_watched_again_once_the_server_was_killed() {
    for flags in ERAS {
        let folder = Folder::new();
        let pids = folder.path("pids");
        let daemon = Daemon::of(fake(&[flags, &[&*format!("--pids={pids}")]].concat())).await;
        let mut client = daemon.client().await;
        client.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
        kill(starts(&pids)[0]);
        until("its restart", || starts(&pids).len() == 2).await;
        watches(&mut client, &json!(["x://one"])).await;
        touch(&mut client, "x://one").await;
        assert_eq!(updated(&mut client).await["uri"], "x://one");
    }
}

#[tokio::test]
async fn what_is_watched_stays_so_when_the_server_is_configured_anew() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let mut client = daemon.client().await;
    client.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    daemon.write(&json!({"fake": fake(&["--tells", "--another"])}));
    daemon.hang_up.try_send(()).unwrap();
    client.wire.find(|message| message["method"] == "notifications/resources/list_changed").await;
    watches(&mut client, &json!(["x://one"])).await;
    touch(&mut client, "x://one").await;
    assert_eq!(updated(&mut client).await["uri"], "x://one");
}

#[tokio::test]
async fn two_principals_never_share_a_subscription() {
    let daemon = Daemon::start(json!({"fake": fake(&["--tells"])}), two_principals()).await.unwrap();
    let (mut a, mut b) = (daemon.client_as(Some(TOKENS[0])).await, daemon.client_as(Some(TOKENS[1])).await);
    a.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    watches(&mut a, &json!(["x://one"])).await;
    assert_eq!(watched(&mut b).await, json!([]));
    b.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    touch(&mut a, "x://one").await;
    updated(&mut a).await;
    // Had it been told of that, it would come before this.
    touch(&mut b, "x://one").await;
    updated(&mut b).await;
    assert!(b.wire.unasked().is_empty(), "{:?}", b.wire.unasked());
}

#[tokio::test]
async fn each_session_has_its_own_where_the_operator_says_so() {
    let daemon = Daemon::of(fake_with(&["--tells"], &json!({"share": "session"}))).await;
    let (mut one, mut two) = (daemon.client().await, daemon.client().await);
    one.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    watches(&mut one, &json!(["x://one"])).await;
    assert_eq!(watched(&mut two).await, json!([]));
}

#[tokio::test]
async fn a_storm_of_changes_is_bounded_and_loses_nothing_of_what_is_watched() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let mut client = daemon.client().await;
    client.ask("resources/subscribe", &json!({"uri": "x://one"})).await;
    let id = client.begin("fake__touch", json!({"uri": "x://one", "times": 20_000})).await;
    client.answer(id).await;
    client.ask("resources/subscribe", &json!({"uri": "x://item/last"})).await;
    touch(&mut client, "x://item/last").await;
    client.wire.find(|message| message["params"]["uri"] == "x://item/last").await;
    let told = client.wire.unasked().iter().filter(|message| message["params"]["uri"].is_string());
    assert!((1..=20_001).contains(&told.count()));
}

#[tokio::test]
async fn a_session_over_http_is_told_on_its_stream_and_the_last_one_that_was_opened_has_it() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let (client, mut other) = (Http::initialized(&daemon).await, daemon.client().await);
    let uri = json!({"uri": "x://one"});
    assert!(client.ask(1, "resources/subscribe", &uri).await["result"].is_object());
    watches(&mut other, &json!(["x://one"])).await;
    // What happens before there is a stream is told on the first.
    touch(&mut other, "x://one").await;
    let mut stream = client.stream().await;
    assert_eq!(stream.next().await["params"], uri);
    touch(&mut other, "x://one").await;
    assert_eq!(stream.next().await["params"], uri);
    other.text("fake__change", json!({"tools": 1})).await;
    for list in ["tools", "prompts", "resources"] {
        assert_eq!(stream.next().await["method"], format!("notifications/{list}/list_changed"));
    }
    let mut another = client.stream().await;
    touch(&mut other, "x://one/part").await;
    assert_eq!(another.next().await["params"]["uri"], "x://one/part");
    assert_eq!(client.ask(2, "resources/unsubscribe", &uri).await["result"], json!({}));
    watches(&mut other, &json!([])).await;
    daemon.ended().await;
    assert!(stream.ends().await && another.ends().await);
}

#[tokio::test]
async fn a_subscription_over_http_is_its_stream() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let (client, mut other) = (Http::new(&daemon), daemon.client().await);
    let wanted = json!({"promptsListChanged": true, "resourceSubscriptions": ["x://one"]});
    let (mut stream, gone) = (client.listen(&wanted).await, client.listen(&wanted).await);
    let name = json!({"io.modelcontextprotocol/subscriptionId": "a \"name\""});
    let told = stream.next().await;
    assert_eq!(told["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(told["params"], json!({"_meta": name, "notifications": wanted}));
    drop(gone);
    watches(&mut other, &json!(["x://one"])).await;
    touch(&mut other, "x://one").await;
    assert_eq!(stream.next().await["params"], json!({"_meta": name, "uri": "x://one"}));
    other.text("fake__change", json!({"tools": 1})).await;
    let told = stream.next().await;
    assert_eq!(
        (&told["method"], &told["params"]),
        (&json!("notifications/prompts/list_changed"), &json!({"_meta": name}))
    );
    daemon.ended().await;
    let ended = stream.next().await;
    assert_eq!((&ended["id"], &ended["result"]["resultType"]), (&json!("a \"name\""), &json!("complete")));
    assert!(stream.ends().await);
}

#[tokio::test]
async fn closing_the_stream_ends_the_subscription() {
    let daemon = Daemon::of(fake(&["--tells"])).await;
    let (client, mut other) = (Http::new(&daemon), daemon.client().await);
    let mut stream = client.listen(&json!({"resourceSubscriptions": ["x://one"]})).await;
    stream.next().await;
    watches(&mut other, &json!(["x://one"])).await;
    drop(stream);
    watches(&mut other, &json!([])).await;
}
