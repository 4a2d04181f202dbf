//! The prompt tools that come with the daemon: what each of them asks.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::model::{Model, Speaks};
use crate::support::op::{self, Op};
use crate::support::wire::Wire;

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

/// What reaches a provider for each tool.
#[tokio::test]
async fn each_prompt_tool_asks_as_an_expert_with_all_that_it_is_given() {
    let model = Model::open(Speaks::OpenAi).await;
    let keys = model.keys();
    let mut all: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.push(("TOOLS_FILE", BUILT_IN));
    let daemon = Daemon::offline(&all).await;
    let mut client = Op::connect(&daemon).await;
    let file = json!([{"name": "a.rs", "text": "fn a() {}\n"}]);
    let code = "\n\nFile: a.rs\n```\nfn a() {}\n```";
    for (tool, arguments, expert, question) in [
        (
            "codereview",
            json!({"code": "c", "context": "x", "focus": "f"}),
            "You review code",
            "c\n\nWhat it is for: x\n\nLook above all at: f",
        ),
        (
            "debug",
            json!({"problem": "p", "evidence": "e", "tried": "t"}),
            "You find root causes.",
            "p\n\nEvidence:\ne\n\nTried so far: t",
        ),
        (
            "thinkdeep",
            json!({"question": "q", "thinking": "t", "constraints": "c"}),
            "You are a careful thinker",
            "q\n\nWhat is thought so far:\nt\n\nBounds: c",
        ),
        (
            "planner",
            json!({"goal": "g", "context": "x", "constraints": "c", "plan": "p"}),
            "You plan work",
            "g\n\nWhere it starts:\nx\n\nBounds: c\n\nThe plan so far:\np",
        ),
    ] {
        let mut arguments = arguments;
        arguments["files"] = file.clone();
        let answer = client.ask("r", tool, &arguments).await;
        assert!(op::text(&answer).starts_with("answer "), "{answer}");
        let asked: Value = serde_json::from_str(&model.requests().last().unwrap().body).unwrap();
        let [system, user] = &asked["messages"].as_array().unwrap()[..] else { panic!("{asked}") };
        assert_eq!((&system["role"], &user["role"]), (&json!("system"), &json!("user")));
        assert!(system["content"].as_str().unwrap().starts_with(expert), "{system}");
        assert_eq!(user["content"], format!("{question}{code}"));
        let missing = client.ask("m", tool, &json!({"files": file})).await;
        assert_eq!(op::code(&missing), "VALIDATION_ERROR");
    }
}

/// Some clients hand schemas to services that take no choice at the top of one.
#[tokio::test]
async fn every_listed_schema_is_a_plain_object_with_described_members() {
    let daemon = Daemon::offline(&[("TOOLS_FILE", BUILT_IN)]).await;
    let mut client = Op { wire: Wire::open(daemon.address, "/", &[]).await.unwrap() };
    client.hello(&json!({"op": "hello"})).await;
    client.wire.send(&json!({"op": "list_tools", "request_id": "l"})).await;
    let listed = client.wire.find(|frame| frame["op"] == "list_tools_res").await;
    let tools = listed["tools"].as_array().unwrap();
    assert!(tools.len() >= 6);
    for tool in tools {
        let schema = tool.get("inputSchema").or(tool.get("input_schema")).unwrap();
        assert_eq!(schema["type"], "object", "{tool}");
        assert!(["oneOf", "anyOf", "allOf", "not"].iter().all(|word| schema.get(*word).is_none()), "{tool}");
        for (name, member) in schema["properties"].as_object().unwrap() {
            assert!(member["description"].as_str().is_some_and(|text| text.ends_with('.')), "{tool}: {name}");
        }
    }
}
