//! What is answered instead of a run: each text of the table, in the order of what finding it out costs.

use serde_json::{Value, json};

use crate::model::Model;
use crate::rig::{Rig, call, graph, node, single};
use crate::support::mcp::text;

const RATE: &str = "Error: Rate limit exceeded. Please try again later.";
const CAPACITY: &str = "Error: Server is at capacity. Please try again later.";

fn refusal(answer: &Value) -> &str {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    text(answer)
}

#[tokio::test]
async fn a_file_that_is_not_there_or_no_flow_is_said_word_for_word() {
    let rig = Rig::offline(&[]).await;
    rig.folder.write("flows/list.json", "[]");
    let wrong =
        json!({"nodes": {"a": {"type_": "x"}}, "connections": [{"out": ["a", "text"], "in": ["q", "text"]}]});
    rig.flow("wrong.json", &wrong);
    let circle = [("x", node("OpenAINode", &json!({}))), ("y", node("OpenAINode", &json!({})))];
    rig.flow("circle.json", &graph(&circle, &["x.text -> y.text", "y.text -> x.text"]));
    let refusals = [
        ("nothing.json", "Error: Graph file not found at 'nothing.json'".to_owned()),
        (
            "list.json",
            "Error: Failed to load graph session: list.json: The top level is not an object.".into(),
        ),
        (
            "wrong.json",
            "Error: Failed to load graph session: wrong.json: Node 'a' has the unknown type 'x'.; \
             Connection #1 references missing node 'q'."
                .into(),
        ),
        (
            "circle.json",
            "Error: Failed to load graph session: circle.json: Flow contains a cycle: x -> y -> x".into(),
        ),
        ("../work", "Error: '../work' lies in no flows folder".into()),
        ("/etc/hostname", "Error: '/etc/hostname' lies in no flows folder".into()),
    ];
    for (path, expected) in refusals {
        assert_eq!(refusal(&rig.run(path, "context").await), expected);
    }
    rig.at_rest().await;
}

#[tokio::test]
async fn the_eleventh_call_of_a_minute_is_refused_before_anything_else() {
    let model = Model::held(|_| Ok("late".into())).await;
    let keys = [("FLOWS_PER_MINUTE", "10"), ("MAX_WORKERS", "1"), ("MAX_QUEUE", "1")];
    let rig = Rig::asking(&model, &keys).await;
    rig.flow("single.json", &single(&json!({"model": "m", "model_mode": "choose"})));
    let mut client = rig.client().await;
    for id in 0..2 {
        call(&mut client, id, "single.json", &format!("context {id}")).await;
    }
    model.started(1).await;
    // Neither a place nor a file is looked for before those that come first allow it.
    for id in 2..10 {
        call(&mut client, id, "nothing.json", "context").await;
        assert_eq!(
            refusal(&client.answer(json!(id)).await),
            CAPACITY,
            "capacity is looked at before the file"
        );
    }
    call(&mut client, 10, "nothing.json", "context").await;
    assert_eq!(refusal(&client.answer(json!(10)).await), RATE, "and the rate before capacity");
    model.all();
    for id in 0..2 {
        assert_eq!(text(&client.answer(json!(id)).await), "late");
    }
    rig.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_at_once_five_run_twenty_wait_and_the_others_are_told() {
    let model = Model::held(|asked| Ok(asked.question().to_owned())).await;
    let rig = Rig::asking(&model, &[]).await;
    rig.flow("single.json", &single(&json!({"model": "m", "model_mode": "choose"})));
    let mut client = rig.client().await;
    for id in 0..100 {
        call(&mut client, id, "single.json", &format!("context {id}")).await;
    }
    model.started(5).await;
    client.ping().await;
    let slots = |rig: &Rig| {
        let composites = rig.daemon.hub.calls.composites();
        composites.into_iter().find(|(name, _)| &**name == "execute_flow").unwrap().1
    };
    let view = slots(&rig);
    assert_eq!((view.in_use, view.queued, rig.folders().len()), (5, 20, 5));
    model.all();
    let (mut ran, mut refused) = (0, 0);
    for id in 0..100 {
        let answer = client.answer(json!(id)).await;
        if answer["result"]["isError"] == true {
            assert_eq!(refusal(&answer), CAPACITY);
            refused += 1;
        } else {
            assert_eq!(text(&answer), format!("context {id}"));
            ran += 1;
        }
    }
    assert_eq!((ran, refused, model.asked().len()), (25, 75, 25));
    assert!(model.most_at_once() <= 5);
    rig.at_rest().await;
    assert_eq!((slots(&rig).in_use, slots(&rig).queued), (0, 0));
}

#[tokio::test]
async fn arguments_are_held_to_the_schema_and_tools_lists_it() {
    let rig = Rig::offline(&[]).await;
    let mut client = rig.client().await;
    client.request(json!("tools"), "tools/list", &json!({})).await;
    let tools = client.answer(json!("tools")).await;
    let tools = tools["result"]["tools"].as_array().unwrap();
    let tool = tools.iter().find(|tool| tool["name"] == "execute_flow").unwrap();
    assert_eq!(tool["inputSchema"]["required"], json!(["graph_path", "context_text"]));
    assert!(!tools.iter().any(|tool| tool["name"].as_str().unwrap().contains("execute_flow.")));
    // What only flows call, nobody else does.
    client.call(1, "execute_flow.chat", &json!({}), &json!({})).await;
    assert_eq!(client.answer(json!(1)).await["error"]["code"], -32602);
    client.call(2, "execute_flow", &json!({"graph_path": "a.json"}), &json!({})).await;
    let answer = client.answer(json!(2)).await;
    assert!(answer.to_string().contains("context_text"), "{answer}");
}

#[tokio::test]
async fn without_a_flows_folder_there_are_no_flows() {
    let rig = Rig::offline(&[("FLOWS_DIRS", "")]).await;
    let mut client = rig.client().await;
    client.request(json!("tools"), "tools/list", &json!({})).await;
    assert!(!client.answer(json!("tools")).await.to_string().contains("execute_flow"));
}
