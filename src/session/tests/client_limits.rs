//! Clients that give up before the daemon does.

use super::*;

/// An MCP client of this name that has initialized.
async fn named(name: &str) -> Client {
    let mut client = Client::connect(Mcp::default()).await;
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": name, "version": "7"}});
    client.say(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await;
    assert_eq!(client.hear().await["id"], 0);
    client
}

/// An op client whose hello has these members, and which has called `look`.
async fn greeting(hello: Value) -> Client {
    let mut client = Client::op().await;
    client.say(&hello).await;
    assert_eq!(client.hear().await["ok"], true);
    client.look("1").await;
    client
}

/// The answer, past progress.
async fn answer(client: &mut Client) -> Value {
    loop {
        let heard = client.hear().await;
        if heard["op"] != "progress" && heard["method"] != "notifications/progress" {
            return heard;
        }
    }
}

fn request_id(result: &Value) -> String {
    result["_meta"]["inflightd/request_id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_mcp_client_without_a_token_is_answered_after_55_seconds_and_collects_the_outcome() {
    let mut client = named("nobody").await;
    tools_call(&mut client, 1, None).await;
    let early = answer(&mut client).await;
    assert_eq!(client.opened.elapsed(), secs(55));
    let result = &early["result"];
    assert_eq!(
        (&early["id"], &result["isError"]),
        (&json!(1), &Value::Null),
        "a call that goes on has not failed"
    );
    assert_eq!(result["_meta"]["inflightd/still_running"], true);
    assert!(result["_meta"].get("inflightd/error").is_none(), "{result}");
    let (id, text) = (request_id(result), result["content"][0]["text"].as_str().unwrap().to_owned());
    assert!(text.contains(&id) && text.contains("get_request"), "{text}");
    client.rig.stage.order(client.rig.stage.find("1"), Order::answer("in the end"));
    settle().await;
    tokio::time::advance(Duration::from_mins(50)).await;
    let params = json!({"name": "get_request", "arguments": {"request_id": id}});
    client.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})).await;
    let collected = answer(&mut client).await["result"].to_string();
    assert!(collected.contains("in the end"), "{collected}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_mcp_client_that_gets_progress_waits_as_long_as_the_daemon() {
    let mut client = named("nobody").await;
    tools_call(&mut client, 1, Some("t")).await;
    let late = answer(&mut client).await;
    assert_eq!(client.opened.elapsed(), client.hub.ladder.tool(), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_client_known_for_a_limit_that_progress_does_not_reset_is_answered_before_it_all_the_same() {
    let mut client = named("claude-ai").await;
    tools_call(&mut client, 1, Some("t")).await;
    let early = answer(&mut client).await;
    assert_eq!(client.opened.elapsed(), secs(55));
    assert_eq!(early["result"]["_meta"]["inflightd/still_running"], true);
}

#[tokio::test(start_paused = true)]
async fn our_own_commands_have_no_limit() {
    let mut client = named(crate::ids::CLI_NAME).await;
    tools_call(&mut client, 1, None).await;
    let late = answer(&mut client).await;
    assert_eq!(client.opened.elapsed(), client.hub.ladder.tool(), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_stateless_request_is_bounded_by_who_it_says_it_is() {
    let mut client = Client::connect(Mcp::default()).await;
    for (id, name) in [(1, crate::ids::CLI_NAME), (2, "claude-ai"), (3, "claude-ai")] {
        let meta = json!({"io.modelcontextprotocol/clientInfo": {"name": name, "version": "7"},
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": id});
        let params = json!({"name": "look", "arguments": {"k": id.to_string()}, "_meta": meta});
        client.say(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await;
    }
    let mut early = [answer(&mut client).await, answer(&mut client).await];
    early.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!((client.opened.elapsed(), &early[0]["id"], &early[1]["id"]), (secs(55), &json!(2), &json!(3)));
    assert_eq!(client.hub.clients.report().len(), 2);
    assert_eq!(answer(&mut client).await["id"], 1);
    assert_eq!(client.opened.elapsed(), client.hub.ladder.tool());
}

#[tokio::test(start_paused = true)]
async fn an_op_client_is_answered_before_the_shorter_limit_that_it_declares() {
    let hello = json!({"op": "hello", "timeouts": {"shim_secs": 30, "client_secs": 40}});
    let mut client = greeting(hello).await;
    let early = answer(&mut client).await;
    assert_eq!(client.opened.elapsed(), secs(25));
    assert_eq!((&early["op"], &early["still_running"]), (&json!("call_tool_res"), &json!(true)));
    let id = early["metadata"]["request_id"].as_str().unwrap();
    assert!(early["outputs"][0]["text"].as_str().unwrap().contains(id), "{early}");
    assert!(early.get("error").is_none(), "{early}");
}

#[tokio::test(start_paused = true)]
async fn an_op_client_that_declares_nothing_gets_progress_and_waits_as_long_as_the_daemon() {
    for timeouts in
        [json!(null), json!({}), json!("soon"), json!({"client_secs": -1}), json!({"client_secs": 450})]
    {
        let mut client = greeting(json!({"op": "hello", "timeouts": timeouts})).await;
        answer(&mut client).await;
        assert_eq!(client.opened.elapsed(), client.hub.ladder.tool(), "{timeouts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gives_up_first_is_a_problem_with_a_remedy_and_others_are_none() {
    let client = named("nobody").await;
    assert_eq!(client.hub.doctor()["problems"], json!([]));
    drop(client);
    let client = named("claude-ai").await;
    let found = client.hub.doctor();
    let problem = found["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("claude-ai 7 gives up after 60"), "{problem}");
    assert!(found["problems"][0]["remedy"].as_str().unwrap().contains("get_request"));
    assert_eq!(found["clients"][0]["connections"], 1);
    let hops: Vec<_> =
        found["ladder"].as_array().unwrap().iter().map(|hop| hop["hop"].as_str().unwrap()).collect();
    assert!(hops.ends_with(&["tool", "daemon", "shim", "client"]), "{hops:?}");
}
