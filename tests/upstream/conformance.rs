//! The server of the conformance suite, behind the daemon as the suite has it: what is new to clients and servers of each era.

use serde_json::{Value, json};

use crate::rig::{Client, Daemon, example, text};

fn server(flags: &[&str]) -> Value {
    let command = example("conformance", "conformance/main.rs");
    json!({"command": command, "args": flags, "share": "session", "prefix": false})
}

/// A client of the older era that can be asked for everything.
async fn older(daemon: &Daemon) -> Client {
    daemon.client_that(None, &json!({"elicitation": {}, "sampling": {}, "roots": {}})).await
}

/// A request of the newer era, with this beside what it must bring.
async fn newer(
    client: &mut Client,
    method: &str,
    mut params: Value,
    capabilities: Value,
    more: &Value,
) -> u64 {
    let mut meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities});
    meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params["_meta"] = meta;
    client.send(method, &params).await
}

/// What is told before the answer, by its method, and the answer.
async fn told(client: &mut Client, id: u64, method: &str) -> (Vec<Value>, Value) {
    let mut told = Vec::new();
    loop {
        let message = client.wire.find(|message| message["method"] == method || message["id"] == id).await;
        if message["id"] == id {
            return (told, message);
        }
        told.push(message["params"].clone());
    }
}

#[tokio::test]
async fn the_last_step_comes_before_the_answer() {
    let daemon = Daemon::of(server(&[])).await;
    let mut client = daemon.client().await;
    let params = json!({"name": "test_tool_with_progress", "_meta": {"progressToken": 1}});
    let id = client.send("tools/call", &params).await;
    let (steps, answer) = told(&mut client, id, "notifications/progress").await;
    assert_eq!(steps.last().unwrap()["progress"], 100.0, "{steps:?} {answer}");
}

#[tokio::test]
async fn a_prompt_asks_an_older_client_by_a_request_and_a_newer_one_by_its_result() {
    let prompt = json!({"name": "test_input_required_result_prompt"});
    let said = json!({"action": "accept", "content": {"context": "here"}});
    for flags in [&[][..], &["--older"]] {
        let daemon = Daemon::of(server(flags)).await;
        let mut client = older(&daemon).await;
        let id = client.send("prompts/get", &prompt).await;
        let question = client.wire.find(|message| message["method"] == "elicitation/create").await;
        client.wire.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": said})).await;
        let text = "In the context \"here\".";
        assert_eq!(client.answer(id).await["result"]["messages"][0]["content"]["text"], text, "{flags:?}");
        // What is asked twice so soon is answered once.
        let prompt = json!({"name": prompt["name"], "arguments": {"another": "time"}});
        let id =
            newer(&mut client, "prompts/get", prompt.clone(), json!({"elicitation": {}}), &json!({})).await;
        let asked = client.answer(id).await["result"].clone();
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        let questions = asked["inputRequests"].as_object().unwrap();
        let responses: serde_json::Map<_, _> =
            questions.keys().map(|key| (key.clone(), said.clone())).collect();
        let mut params = prompt.clone();
        params["inputResponses"] = Value::Object(responses);
        if let Some(state) = asked.get("requestState") {
            params["requestState"] = state.clone();
        }
        let id = newer(&mut client, "prompts/get", params, json!({"elicitation": {}}), &json!({})).await;
        let answer = client.answer(id).await;
        assert_eq!(answer["result"]["messages"][0]["content"]["text"], text, "{flags:?} {answer}");
    }
}

#[tokio::test]
async fn what_a_server_needs_of_its_client_is_its_own_error() {
    let daemon = Daemon::of(server(&[])).await;
    let mut client = daemon.client().await;
    let call = json!({"name": "test_missing_capability"});
    let id = newer(&mut client, "tools/call", call.clone(), json!({}), &json!({})).await;
    let error = client.answer(id).await["error"].clone();
    assert_eq!(
        (&error["code"], &error["data"]),
        (&json!(-32021), &json!({"requiredCapabilities": {"sampling": {}}}))
    );
    let id = newer(&mut client, "tools/call", call.clone(), json!({"sampling": {}}), &json!({})).await;
    assert_eq!(text(&client.answer(id).await), "The client can sample.");
    // An older client has no such error.
    let answer = client.ask("tools/call", &call).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
}

#[tokio::test]
async fn a_server_logs_to_whoever_wants_to_read_it_while_it_calls() {
    let logging = json!({"name": "test_tool_with_logging"});
    let texts = |told: &[Value]| told.iter().map(|params| params["data"].clone()).collect::<Vec<_>>();
    let all = ["Tool execution started", "Tool processing data", "Tool execution completed"].map(Value::from);
    for flags in [&[][..], &["--older"]] {
        let daemon = Daemon::of(server(flags)).await;
        let mut client = daemon.client().await;
        let id = client.send("tools/call", &logging).await;
        assert!(told(&mut client, id, "notifications/message").await.0.is_empty(), "nobody asked for it");
        let wrong = client.ask("logging/setLevel", &json!({"level": "loud"})).await;
        assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
        let set = client.ask("logging/setLevel", &json!({"level": "info"})).await;
        assert_eq!(set["result"], json!({}));
        let id = client.send("tools/call", &logging).await;
        assert_eq!(texts(&told(&mut client, id, "notifications/message").await.0), all, "{flags:?}");
        client.ask("logging/setLevel", &json!({"level": "error"})).await;
        let id = client.send("tools/call", &logging).await;
        assert!(told(&mut client, id, "notifications/message").await.0.is_empty(), "{flags:?}");
        // In the newer era each call says it.
        for (more, expected) in [
            (json!({"io.modelcontextprotocol/logLevel": "debug"}), &all[..]),
            (json!({"io.modelcontextprotocol/logLevel": "warning"}), &[]),
            (json!({}), &[]),
        ] {
            let id = newer(&mut client, "tools/call", logging.clone(), json!({}), &more).await;
            let (logged, answer) = told(&mut client, id, "notifications/message").await;
            assert_eq!(texts(&logged), expected, "{flags:?} {more} {answer}");
        }
    }
}
