//! Resources, prompts and completions of servers, passed through.

use serde_json::{Value, json};

use crate::rig::{Client, Daemon, Setup, fake, fake_with};
use crate::sharing::{TOKENS, two_principals};

/// Two servers that serve everything, under other URIs.
fn two() -> Value {
    json!({"a": fake(&["--serves", "--own=a"]), "b": fake(&["--serves", "--own=b"])})
}

fn all(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let entries = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
    entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

async fn read(client: &mut Client, uri: &str) -> Value {
    client.ask("resources/read", &json!({"uri": uri})).await
}

#[tokio::test]
async fn what_servers_list_is_listed_verbatim_under_names_that_tell_whose_it_is() {
    let daemon = Daemon::with(two()).await;
    let mut client = daemon.client().await;
    let prompts = client.send("prompts/list", &json!({})).await;
    let raw = client.raw().await;
    let entry = "{\"name\":\"a__greet\",\"title\":\"T\",\"big\":18446744073709551616}";
    assert!(raw.contains(entry) && raw.contains(&entry.replace("a__", "b__")), "{prompts}: {raw}");
    let resources = client.ask("resources/list", &json!({})).await;
    // What both list is listed once; whoever is first answers for it.
    assert_eq!(all(&resources, "resources", "uri"), ["a://one", "both://here", "b://one"]);
    let templates = client.ask("resources/templates/list", &json!({})).await;
    assert_eq!(all(&templates, "resourceTemplates", "uriTemplate"), ["a://item/{id}", "b://item/{id}"]);
}

#[tokio::test]
async fn a_resource_is_read_at_whoever_has_it_verbatim() {
    let daemon = Daemon::with(two()).await;
    let mut client = daemon.client().await;
    for (uri, owner) in [("a://one", "a"), ("b://one", "b"), ("both://here", "a"), ("b://item/7", "b")] {
        let answer = read(&mut client, uri).await;
        assert_eq!(answer["result"]["contents"][0]["text"], format!("of {owner}"), "{answer}");
    }
    client.send("resources/read", &json!({"uri": "a://one"})).await;
    assert!(client.raw().await.contains("\"odd\":1.50e+07}]"));
    // Its own error comes under its own code; what nobody has is said by the daemon.
    assert_eq!(read(&mut client, "a://item/none").await["error"]["code"], -32002);
    assert_eq!(read(&mut client, "c://one").await["error"]["code"], -32002);
    for wrong in [json!({}), json!({"uri": 7}), json!({"name": "a__greet"})] {
        let answer = client.ask("resources/read", &wrong).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
}

#[tokio::test]
async fn prompts_and_completions_reach_their_server_under_its_own_names() {
    let daemon = Daemon::with(two()).await;
    let mut client = daemon.client().await;
    let asked = json!({"name": "b__greet", "arguments": {"who": "é"}, "_meta": {"progressToken": 7}});
    let answer = client.ask("prompts/get", &asked).await;
    let saw: Value = serde_json::from_str(answer["result"]["saw"].as_str().unwrap()).unwrap();
    assert_eq!(saw["method"], "prompts/get");
    assert_eq!(
        (&saw["params"]["name"], &saw["params"]["arguments"]),
        (&json!("greet"), &json!({"who": "é"}))
    );
    assert_ne!(saw["params"]["_meta"]["progressToken"], 7);
    for (reference, own) in [
        (json!({"type": "ref/prompt", "name": "a__greet"}), json!({"type": "ref/prompt", "name": "greet"})),
        (
            json!({"type": "ref/resource", "uri": "a://item/{id}"}),
            json!({"type": "ref/resource", "uri": "a://item/{id}"}),
        ),
    ] {
        let asked = json!({"ref": reference, "argument": {"name": "x", "value": "y"}});
        let answer = client.ask("completion/complete", &asked).await;
        let saw: Value = serde_json::from_str(answer["result"]["saw"].as_str().unwrap()).unwrap();
        assert_eq!((&saw["params"]["ref"], &saw["params"]["argument"]["value"]), (&own, &json!("y")));
    }
    let none = client.ask("prompts/get", &json!({"name": "greet"})).await;
    assert_eq!(none["error"]["code"], -32602);
}

#[tokio::test]
async fn two_principals_share_no_read_and_no_process_of_it() {
    let daemon = Daemon::start(json!({"fake": fake(&["--serves"])}), two_principals()).await.unwrap();
    let (mut a, mut b) = (daemon.client_as(Some(TOKENS[0])).await, daemon.client_as(Some(TOKENS[1])).await);
    let pid = |answer: &Value| answer["result"]["contents"][0]["pid"].as_u64().unwrap();
    assert_ne!(pid(&read(&mut a, "x://one").await), pid(&read(&mut b, "x://one").await));
    let uri = json!({"uri": "x://hold"});
    let held = [a.send("resources/read", &uri).await, b.send("resources/read", &uri).await];
    daemon.has_waiters(2).await;
    assert_eq!(daemon.hub.calls.flights().executions(), 2);
    a.cancel(held[0]).await;
    b.cancel(held[1]).await;
    daemon.has_waiters(0).await;
}

#[tokio::test]
async fn equal_reads_in_flight_are_one_and_a_server_never_has_more_than_it_may() {
    let server = fake_with(&["--serves"], &json!({"max_inflight": 1}));
    let daemon = Daemon::of(server).await;
    let (mut one, mut two) = (daemon.client().await, daemon.client().await);
    let uri = json!({"uri": "x://hold"});
    let held = [one.send("resources/read", &uri).await, two.send("resources/read", &uri).await];
    daemon.has_waiters(2).await;
    assert_eq!(daemon.hub.calls.flights().executions(), 1);
    // Another one waits in the server's queue, and its caller's own time ends it, typed.
    let late = json!({"uri": "x://one", "_meta": {"inflightd/timeout_ms": 50}});
    let late = one.ask("resources/read", &late).await;
    assert!(matches!(late["error"]["code"].as_i64(), Some(-32013 | -32012)), "{late}");
    assert_eq!(late["error"]["data"]["retryable"], true, "{late}");
    one.cancel(held[0]).await;
    two.cancel(held[1]).await;
    daemon.has_waiters(0).await;
    assert_eq!(read(&mut one, "x://one").await["result"]["contents"][0]["text"], "of x");
}

#[tokio::test]
async fn a_principal_sees_what_its_list_of_tools_allows() {
    let mut setup = two_principals();
    setup.toml =
        setup.toml.replacen("[principals.b]", "[principals.b]\ntools = [\"a__*\", \"b__echo\", \"c__*\"]", 1);
    let mut servers = two();
    servers["c"] = fake(&["--serves", "--own=c"]);
    let daemon = Daemon::start(servers, setup).await.unwrap();
    let mut client = daemon.client_as(Some(TOKENS[1])).await;
    let prompts = client.ask("prompts/list", &json!({})).await;
    assert_eq!(all(&prompts, "prompts", "name"), ["a__greet", "c__greet"]);
    assert_eq!(read(&mut client, "b://one").await["error"]["code"], -32002);
    let none = client.ask("prompts/get", &json!({"name": "b__greet"})).await;
    assert_eq!(none["error"]["code"], -32602);
    assert!(read(&mut client, "a://one").await["result"].is_object());
}

#[tokio::test]
async fn neither_a_tool_call_nor_a_list_of_tools_finds_a_method() {
    let daemon = Daemon::with(two()).await;
    let mut client = daemon.client().await;
    assert!(client.tools().await.iter().all(|name| !name.contains('/')));
    let answer = client.call("a__resources/read", json!({"uri": "a://one"})).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[tokio::test]
async fn both_eras_are_served_and_either_may_be_spoken_by_the_server() {
    for flags in [&["--serves"][..], &["--serves", "--stateless"]] {
        let daemon = Daemon::of(fake(flags)).await;
        let mut client = daemon.client().await;
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let found = client.ask("server/discover", &json!({"_meta": meta})).await;
        for served in ["prompts", "resources", "completions"] {
            assert!(found["result"]["capabilities"][served].is_object(), "{found}");
        }
        let answer = client.ask("resources/read", &json!({"uri": "x://one", "_meta": meta})).await;
        let result = &answer["result"];
        assert_eq!((&result["resultType"], &result["cacheScope"]), (&json!("complete"), &json!("private")));
        assert_eq!(result["ttlMs"], 0);
        assert_eq!(result["contents"][0]["text"], "of x");
        let list = client.ask("prompts/list", &json!({"_meta": meta})).await;
        assert_eq!(all(&list, "prompts", "name"), ["fake__greet"]);
        assert_eq!(list["result"]["cacheScope"], "private");
        let none = client.ask("resources/read", &json!({"uri": 1, "_meta": meta})).await;
        assert_eq!(none["error"]["code"], -32602);
        assert!(read(&mut client, "x://one").await["result"]["resultType"].is_null());
    }
}

#[tokio::test]
async fn a_server_that_dies_while_it_is_read_is_there_for_the_next_read() {
    let folder = crate::rig::Folder::new();
    let pids = folder.path("pids");
    let daemon = Daemon::of(fake(&["--serves", &format!("--pids={pids}")])).await;
    let mut client = daemon.client().await;
    let held = client.send("resources/read", &json!({"uri": "x://hold"})).await;
    daemon.has_waiters(1).await;
    // A read may be done again where its server has ended: then it is held there.
    crate::rig::kill(crate::rig::starts(&pids)[0]);
    daemon.server_shows("fake", "/instances/0/starts", |starts| starts.as_u64() >= Some(2)).await;
    client.cancel(held).await;
    daemon.has_waiters(0).await;
    assert_eq!(read(&mut client, "x://one").await["result"]["contents"][0]["text"], "of x");
}

#[tokio::test]
async fn without_servers_there_is_nothing_of_the_kind() {
    let daemon = Daemon::start(json!({}), Setup::default()).await.unwrap();
    let mut client = daemon.client().await;
    for method in ["prompts/list", "resources/list", "resources/read", "completion/complete"] {
        assert_eq!(client.ask(method, &json!({})).await["error"]["code"], -32601);
    }
}

#[tokio::test]
async fn lists_follow_the_servers() {
    let daemon = Daemon::of(fake(&["--serves"])).await;
    let mut client = daemon.client().await;
    client.text("fake__change", json!({"tools": 1})).await;
    daemon.server_shows("fake", "/prompts", |prompts| *prompts == 2).await;
    let seen = async |client: &mut Client| {
        let prompts = client.ask("prompts/list", &json!({})).await;
        all(&prompts, "prompts", "name")
    };
    assert_eq!(seen(&mut client).await, ["fake__greet", "fake__more_0"]);
}

#[tokio::test]
async fn every_client_that_initialized_is_told_when_lists_change_each_time() {
    let daemon = Daemon::of(fake(&["--serves"])).await;
    let (mut one, mut two) = (daemon.client().await, daemon.client().await);
    for change in 1..4 {
        one.text("fake__change", json!({"tools": change})).await;
        for client in [&mut one, &mut two] {
            for list in ["tools", "prompts", "resources"] {
                let wanted = format!("notifications/{list}/list_changed");
                client.wire.find(|message| message["method"] == *wanted).await;
            }
            let tools = client.tools().await;
            assert!(tools.contains(&format!("fake__extra_{}", change - 1)), "{tools:?}");
        }
    }
}
