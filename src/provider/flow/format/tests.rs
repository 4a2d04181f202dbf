use serde_json::{Value, json};

use super::*;
use crate::provider::flow::kind::ModelMode;

fn of(file: &Value) -> Result<Flow, Vec<Problem>> {
    parse(file.to_string().as_bytes())
}

fn problems(file: &Value) -> Vec<String> {
    of(file).unwrap_err().iter().map(ToString::to_string).collect()
}

fn custom(custom: &Value) -> Custom {
    let flow = of(&json!({"nodes": {"n": {"type_": "aicp.flow.OpenAINode", "custom": custom}}})).unwrap();
    flow.nodes()[0].custom.clone()
}

fn context() -> Value {
    json!({"type_": "aicp.flow.ContextOutputNode"})
}

fn write() -> Value {
    json!({"type_": "aicp.flow.FileWriteNode"})
}

#[test]
fn every_problem_is_found_at_once() {
    let file = json!({
        "graph": {},
        "nodes": {
            "a": context(),
            "b": 7,
            "c": {"name": "no type"},
            "d": {"type_": "aicp.flow.SurpriseNode"},
            "e": {"type_": "aicp.flow.FileWriteNode", "custom": [1]},
            "w": write(),
        },
        "connections": [
            {"out": ["a", "text"], "in": ["w", "text"]},
            {"out": ["x", "text"], "in": ["w", "text"]},
            "no object",
            {"out": ["a"], "in": ["w", "text"]},
            {"out": ["a", "text"]},
            {"out": ["a", "output"], "in": ["w", "candidate1"]},
            {"out": ["w", "text"], "in": ["a", "text"]},
            {"out": ["a", 1], "in": {"w": "text"}},
            {"out": ["b", "text"], "in": ["c", "text"]},
        ],
    });
    assert_eq!(
        problems(&file),
        [
            "Node 'b' is not an object.",
            "Node 'c' has no 'type_'.",
            "Node 'd' has the unknown type 'aicp.flow.SurpriseNode'.",
            "Node 'e' has a 'custom' that is not an object.",
            "Connection #2 references missing node 'x'.",
            "Connection #3 is not an object.",
            "Connection #4 has an 'out' end that is no pair of node and port.",
            "Connection #5 has an 'in' end that is no pair of node and port.",
            "Connection #6 references out port 'output', which node 'a' (aicp.flow.ContextOutputNode) lacks.",
            "Connection #6 references in port 'candidate1', which node 'w' (aicp.flow.FileWriteNode) lacks.",
            "Connection #7 references out port 'text', which node 'w' (aicp.flow.FileWriteNode) lacks.",
            "Connection #7 references in port 'text', which node 'a' (aicp.flow.ContextOutputNode) lacks.",
            "Connection #8 has an 'out' end that is no pair of node and port.",
            "Connection #8 has an 'in' end that is no pair of node and port.",
        ]
    );
}

#[test]
fn what_is_no_flow_at_all_is_said_in_a_line() {
    let said = |bytes: &[u8]| parse(bytes).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(b"\xff"), ["The file is not UTF-8."]);
    assert_eq!(said(b"{\n \"nodes\": x"), ["The file is not JSON: line 2, column 11."]);
    assert_eq!(said(b""), ["The file is not JSON: line 1, column 0."]);
    assert_eq!(said(b"[]"), ["The top level is not an object."]);
    assert_eq!(said(b"{}"), ["'nodes' is empty."]);
    assert_eq!(said(br#"{"nodes": {}}"#), ["'nodes' is empty."]);
    assert_eq!(
        said(br#"{"nodes": [], "connections": {}}"#),
        ["'nodes' is not an object.", "'connections' is not an array."]
    );
    assert_eq!(
        problems(&json!({"nodes": {"a": context()}, "connections": null})),
        ["'connections' is not an array."]
    );
}

#[test]
fn a_cycle_is_named_node_by_node() {
    let chat = json!({"type_": "aicp.flow.OpenAINode"});
    let link = |from: &str, to: &str| json!({"out": [from, "text"], "in": [to, "text"]});
    let file = json!({"nodes": {"x": chat, "y": chat, "z": chat}, "connections": [link("x", "y"), link("y", "x"), link("z", "z")]});
    assert_eq!(problems(&file), ["Flow contains a cycle: x -> y -> x", "Flow contains a cycle: z -> z"]);
    // What else is wrong is told as well.
    let file = json!({"nodes": {"x": chat, "y": chat}, "connections": [link("x", "y"), link("y", "x"), link("y", "q")]});
    assert_eq!(
        problems(&file),
        ["Connection #3 references missing node 'q'.", "Flow contains a cycle: x -> y -> x"]
    );
}

#[test]
fn connections_may_be_absent_doubled_and_in_either_order() {
    assert!(of(&json!({"nodes": {"a": context()}})).unwrap().links().is_empty());
    let text = r#"{"nodes": {"a": {"type_": "aicp.flow.ContextOutputNode"}, "w": {"type_": "aicp.flow.FileWriteNode"}},
        "connections": [{"in": ["w", "text"], "out": ["a", "text"]}, {"out": ["a", "text"], "in": ["w", "text"]}]}"#;
    let flow = parse(text.as_bytes()).unwrap();
    let link = Link { from: 0, to: 1, port: Port::Text };
    assert_eq!((flow.links(), flow.inputs(1)), ([link, link].as_slice(), [(Port::Text, 0)].as_slice()));
    assert_eq!(flow.in_order(), [0, 1]);
}

#[test]
fn custom_and_subgraph_session_may_be_strings_of_json() {
    let node = json!({
        "type_": "aicp.flow.OpenAINode", "name": "N", "disabled": true, "subgraph_session": "{\"nodes\": {}}",
        "color": [1, 2], "custom": "{\"model\": \"m\\n\", \"surprise\": [[]]}",
    });
    let flow = of(&json!({"nodes": {"n": node}})).unwrap();
    let node = &flow.nodes()[0];
    assert_eq!((node.custom.model.as_deref(), &*node.name, node.disabled), (Some("m"), "N", true));
    for wrong in [json!("[]"), json!("no json"), json!("\"{}\""), json!(null), json!(1), json!([])] {
        let file = json!({"nodes": {"n": {"type_": "aicp.flow.OpenAINode", "custom": wrong}}});
        assert_eq!(problems(&file), ["Node 'n' has a 'custom' that is not an object."]);
    }
}

#[test]
fn properties_are_trimmed_unknown_ones_ignored_and_missing_ones_left_to_their_defaults() {
    assert_eq!(custom(&json!({})), Custom::default());
    assert_eq!(
        custom(&json!({"surprise": 1, "model": 5, "path": null, "output_file": " \n", "model_mode": "?"})),
        Custom::default()
    );
    let said = custom(&json!({
        "model": "m\n", "model_mode": "random\n", "provider": "OpenAI\n", "base_url": "http://host/v1/\n",
        "path": "a b.md\n", "output_file": "o.md\n", "api_key": " k ", "extra_prompt": "p\n",
    }));
    let texts =
        [&said.model, &said.provider, &said.base_url, &said.path, &said.output_file, &said.extra_prompt];
    let texts = texts.map(|text| text.as_deref().unwrap());
    assert_eq!(texts, ["m", "openai", "http://host/v1", "a b.md", "o.md", "p\n"]);
    assert_eq!(said.model_mode, Some(ModelMode::Random));
    assert_eq!(said.api_key.as_ref().unwrap().reveal(), "k");
    assert!(!format!("{said:?}").contains("\"k\""));
}

#[test]
fn temperature_and_top_p_are_numbers_or_strings_that_are() {
    let said = custom(&json!({"temperature": "0.25", "top_p": 1}));
    assert_eq!((said.temperature, said.top_p), (Sampling::Number(0.25), Sampling::Number(1.0)));
    let said = custom(&json!({"temperature": "hot", "top_p": ""}));
    assert_eq!((said.temperature, said.top_p), (Sampling::NoNumber, Sampling::Unset));
    assert_eq!(custom(&json!({"temperature": "inf"})).temperature, Sampling::NoNumber);
    assert_eq!(custom(&json!({"temperature": [1]})).temperature, Sampling::NoNumber);
    assert_eq!(custom(&json!({"temperature": null})).temperature, Sampling::Unset);
}

#[test]
fn a_graph_of_ten_thousand_nodes_is_read_and_one_more_is_a_problem() {
    let chain = |nodes: usize| {
        let mut file = json!({"nodes": {}, "connections": []});
        for place in 0..nodes {
            file["nodes"][format!("n{place}")] = json!({"type_": "aicp.flow.OpenAINode"});
            if place > 0 {
                let link =
                    json!({"out": [format!("n{}", place - 1), "text"], "in": [format!("n{place}"), "text"]});
                file["connections"].as_array_mut().unwrap().push(link);
            }
        }
        file
    };
    let flow = of(&chain(10_000)).unwrap();
    let order: Vec<&str> = flow.in_order().into_iter().map(|place| &*flow.nodes()[place].id).collect();
    assert_eq!((order.len(), order[9_999]), (10_000, "n9999"));
    assert_eq!(problems(&chain(10_001))[0], "The flow has 10001 nodes; 10000 are the most.");
}

#[test]
fn bombs_are_typed_and_do_not_grow() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let file = format!(
        r#"{{"nodes": {{"n": {{"type_": "aicp.flow.OpenAINode", "custom": {{"x": {deep}}}, "y": {deep}}}}}}}"#
    );
    assert!(parse(file.as_bytes()).is_ok());
    let custom = format!(r#"{{"nodes": {{"n": {{"type_": "aicp.flow.OpenAINode", "custom": {deep}}}}}}}"#);
    assert!(parse(custom.as_bytes()).is_err());
    let open = format!(r#"{{"nodes": {}"#, "[".repeat(200_000));
    assert!(matches!(parse(open.as_bytes()).unwrap_err()[..], [Problem::NotJson { .. }]));
    let many = format!(r#"{{"nodes": {{"a": 1}}, "connections": [{}0]}}"#, "0,".repeat(200_000));
    let told = parse(many.as_bytes()).unwrap_err();
    assert_eq!(told[1].to_string(), "The flow has 200001 connections; 100000 are the most.");
    let many = format!(r#"{{"nodes": {{{}"b": 0}}}}"#, r#""a":0,"#.repeat(200_000));
    let told = parse(many.as_bytes()).unwrap_err();
    assert_eq!(told[0].to_string(), "The flow has 200001 nodes; 10000 are the most.");
    // A string in a string in a string… is decoded once.
    let nested = (0..12).fold("{}".to_owned(), |inner, _| Value::from(inner).to_string());
    let file = format!(r#"{{"nodes": {{"n": {{"type_": "aicp.flow.OpenAINode", "custom": {nested}}}}}}}"#);
    assert!(matches!(parse(file.as_bytes()).unwrap_err()[..], [Problem::CustomNoObject(_)]));
}

#[test]
fn of_a_name_that_stands_twice_the_last_one_counts() {
    let file = r#"{"nodes": {"n": 1, "m": {"type_": "aicp.flow.ContextOutputNode"},
        "n": {"type_": "aicp.flow.FileWriteNode", "type_": "aicp.flow.ClipboardNode"}}}"#;
    let flow = parse(file.as_bytes()).unwrap();
    let kinds: Vec<_> = flow.nodes().iter().map(|node| (&*node.id, node.kind)).collect();
    assert_eq!(kinds, [("m", NodeKind::ContextOutput), ("n", NodeKind::Clipboard)]);
}
