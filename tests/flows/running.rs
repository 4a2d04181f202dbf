//! One run: what it answers, and that nothing is left of it.

use serde_json::json;

use crate::rig::{Rig, told};
use crate::support::mcp::text;

const SAMPLES: [&str; 3] = ["single", "diamond", "best-of-3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flows_that_come_along_run_on_a_fresh_machine() {
    let samples = format!("{}/docker/flows", env!("CARGO_MANIFEST_DIR"));
    let rig = Rig::offline(&[("FLOWS_DIRS", &samples)]).await;
    for name in SAMPLES {
        for path in [format!("{name}.json"), format!("{samples}/{name}.json")] {
            let answer = rig.run(&path, "What is a flow?").await;
            assert_ne!(answer["result"]["isError"], true, "{answer}");
            let structure = &answer["result"]["structuredContent"];
            assert_eq!(structure["output"], text(&answer), "{answer}");
            let id = structure["execution_id"].as_str().unwrap();
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            let nodes = structure["nodes"].as_array().unwrap();
            assert!(nodes.iter().all(|node| node["state"] == "succeeded" && node["error"].is_null()));
        }
    }
    let answer = rig.run("diamond.json", "What is a flow?").await;
    let artifacts = &answer["result"]["structuredContent"]["artifacts"];
    assert_eq!(artifacts[0]["name"], "answers/best.md");
    assert_eq!(artifacts[0]["text"], text(&answer));
    assert_eq!(told(&answer, "best")["type"], json!("aicp.flow.BestOfNNode"));
    rig.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_of_ten_thousand_nodes_runs() {
    let rig = Rig::offline(&[]).await;
    let mut nodes = serde_json::Map::new();
    let mut links = Vec::new();
    nodes.insert("n0".into(), json!({"type_": "aicp.flow.ContextOutputNode"}));
    for number in 1..10_000 {
        let type_ = if number % 2 == 0 { "OutputDisplayNode" } else { "FileWriteNode" };
        let custom = json!({"path": format!("deep/{number}.md")});
        nodes.insert(format!("n{number}"), json!({"type_": format!("aicp.flow.{type_}"), "custom": custom}));
        links.push(json!({"out": ["n0", "text"], "in": [format!("n{number}"), "text"]}));
    }
    rig.flow("many.json", &json!({"nodes": nodes, "connections": links}));
    let answer = rig.run("many.json", "x").await;
    assert_eq!(text(&answer).len(), 4999 + 2 * 4998);
    assert_eq!(answer["result"]["structuredContent"]["artifacts"].as_array().unwrap().len(), 5000);
    rig.at_rest().await;
}

#[tokio::test]
async fn a_file_of_fifty_megabytes_is_no_flow() {
    let rig = Rig::offline(&[]).await;
    std::fs::File::create(rig.folder.path("flows/large.json")).unwrap().set_len(50_000_000).unwrap();
    let answer = rig.run("large.json", "x").await;
    let expected = "Error: Failed to load graph session: large.json: The file has 50000000 bytes; 16777216 are the most.";
    assert_eq!((text(&answer), &answer["result"]["isError"]), (expected, &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_of_properties_and_of_outputs_end_typed() {
    let rig = Rig::offline(&[]).await;
    let deep = "[".repeat(200_000);
    for (custom, is_flow) in [
        (deep.clone(), false),
        (format!("\"{deep}\""), false),
        // Sound JSON, however deep, of which nothing is known: it is skipped.
        (format!("{{\"x\":{deep}{}}}", "]".repeat(200_000)), true),
    ] {
        rig.folder.write(
            "flows/bomb.json",
            &format!(r#"{{"nodes":{{"a":{{"type_":"aicp.flow.ContextOutputNode","custom":{custom}}}}}}}"#),
        );
        let answer = rig.run("bomb.json", "x").await;
        let expected = if is_flow { "x" } else { "Error: Failed to load graph session: bomb.json: " };
        assert!(text(&answer).starts_with(expected), "{answer}");
        assert_eq!(answer["result"]["isError"] == true, !is_flow, "{answer}");
    }
    // Each display shows the whole context: no answer can hold them all.
    let mut nodes =
        serde_json::Map::from_iter([("ctx".into(), json!({"type_": "aicp.flow.ContextOutputNode"}))]);
    let mut links = Vec::new();
    for number in 0..5000 {
        nodes.insert(format!("n{number}"), json!({"type_": "aicp.flow.OutputDisplayNode"}));
        links.push(json!({"out": ["ctx", "text"], "in": [format!("n{number}"), "text"]}));
    }
    rig.flow("echo.json", &json!({"nodes": nodes, "connections": links}));
    let answer = rig.run("echo.json", &"x".repeat(1_000_000)).await;
    assert_eq!(crate::support::mcp::code(&answer), "OVER_CAPACITY");
    rig.at_rest().await;
}
