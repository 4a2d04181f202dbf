//! What each type of node does.

use serde_json::{Value, json};

use crate::model::Model;
use crate::rig::{Rig, graph, node, single, told};
use crate::support::mcp::text;

fn context() -> Value {
    node("ContextOutputNode", &json!({}))
}

fn ask(custom: &Value) -> Value {
    let mut custom = custom.clone();
    custom.as_object_mut().unwrap().entry("model").or_insert(json!("m"));
    custom.as_object_mut().unwrap().entry("model_mode").or_insert(json!("choose"));
    node("OpenRouterNode", &custom)
}

fn display() -> Value {
    node("OutputDisplayNode", &json!({}))
}

#[tokio::test]
async fn a_chat_node_sends_its_inputs_and_properties_and_trims_them() {
    let model = Model::new(|asked| Ok(format!("to {}", asked.question()))).await;
    let rig = Rig::asking(&model, &[]).await;
    let custom = json!({"model": "some/model\n", "model_mode": "choose\n", "provider": "openrouter\n",
        "base_url": "https://openrouter.ai/api/v1\n", "temperature": "0.25", "top_p": 0.5, "unknown": [1]});
    let nodes = [
        ("ctx", context()),
        ("sys", ask(&json!({}))),
        ("ask", node("OpenRouterNode", &custom)),
        ("out", display()),
    ];
    let flow = graph(
        &nodes,
        &["ctx.text -> sys.text", "sys.text -> ask.system", "ctx.text -> ask.text", "ask.text -> out.text"],
    );
    rig.flow("a.json", &flow);
    let answer = rig.run("a.json", "hello").await;
    assert_eq!(text(&answer), "to hello");
    let asked = model.asked();
    assert_eq!(asked[0].key, "Bearer sk-configured");
    let (usual, said) = (&asked[0].body, &asked[1].body);
    assert_eq!((&usual["temperature"], &usual["top_p"]), (&json!(0.7), &json!(1.0)), "the defaults");
    assert_eq!((&said["temperature"], &said["top_p"]), (&json!(0.25), &json!(0.5)));
    assert_eq!(said["model"], "some/model");
    let messages = json!([{"role": "system", "content": "to hello"}, {"role": "user", "content": "hello"}]);
    assert_eq!(said["messages"], messages);
}

#[tokio::test]
async fn a_nodes_own_key_wins_and_is_never_echoed() {
    let model =
        Model::new(|asked| if asked.question() == "refuse" { Err(401) } else { Ok("fine".into()) }).await;
    let rig = Rig::asking(&model, &[]).await;
    rig.flow("a.json", &single(&json!({"model": "m", "model_mode": "choose", "api_key": "sk-of-the-node"})));
    assert_eq!(text(&rig.run("a.json", "hello").await), "fine");
    let refused = rig.run("a.json", "refuse").await;
    assert_eq!(refused["result"]["isError"], true);
    assert!(text(&refused).starts_with("Error: Flow produced no output: Node 'ask': "), "{refused}");
    assert_eq!(told(&refused, "ask")["state"], "failed");
    assert!(!refused.to_string().contains("sk-"), "{refused}");
    assert!(model.asked().iter().all(|asked| asked.key == "Bearer sk-of-the-node"));
    assert!(!rig.daemon.stats().to_string().contains("sk-"));
}

#[tokio::test]
async fn a_configured_key_never_goes_to_an_address_that_a_node_names() {
    let (configured, named) = (Model::new(|_| Ok("a".into())).await, Model::new(|_| Ok("b".into())).await);
    let rig = Rig::asking(&configured, &[]).await;
    let custom = |more: &Value| {
        let mut custom = json!({"model": "m", "model_mode": "choose", "base_url": named.url()});
        custom.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        custom
    };
    rig.flow("plain.json", &single(&custom(&json!({}))));
    rig.flow("own.json", &single(&custom(&json!({"api_key": "sk-node"}))));
    rig.flow(
        "wrong.json",
        &single(&json!({"model": "m", "model_mode": "choose", "base_url": "file:///etc/passwd"})),
    );
    assert_eq!(text(&rig.run("plain.json", "hello").await), "b");
    assert_eq!(text(&rig.run("own.json", "hello").await), "b");
    let keys: Vec<_> = named.asked().into_iter().map(|asked| asked.key).collect();
    assert_eq!(keys, ["", "Bearer sk-node"]);
    assert!(configured.asked().is_empty());
    assert!(text(&rig.run("wrong.json", "hello").await).contains("base_url"));
}

#[tokio::test]
async fn random_picks_from_the_providers_list_and_random_free_from_what_is_free() {
    let list = json!({"data": [{"id": "dear"}, {"id": "gift:free"}]}).to_string();
    let model =
        Model::new(move |asked| Ok(if asked.line.starts_with("GET") { list.clone() } else { "fine".into() }))
            .await;
    let rig = Rig::asking(&model, &[]).await;
    // Nothing said is random_free, for this type.
    rig.flow("free.json", &single(&json!({"model": "dear"})));
    rig.flow("any.json", &single(&json!({"model_mode": "random"})));
    let mut picked = std::collections::BTreeSet::new();
    for round in 0..40 {
        assert_eq!(text(&rig.run("free.json", &format!("free {round}")).await), "fine");
        assert_eq!(text(&rig.run("any.json", &format!("any {round}")).await), "fine");
    }
    for asked in model.asked() {
        if asked.line.starts_with("GET") {
            assert_eq!((&*asked.line, &*asked.key), ("GET /v1/models", "Bearer sk-configured"));
        } else if asked.question().starts_with("free") {
            assert_eq!(asked.body["model"], "gift:free");
        } else {
            picked.insert(asked.body["model"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(picked.into_iter().collect::<Vec<_>>(), ["dear", "gift:free"]);
}

#[tokio::test]
async fn a_provider_that_nobody_configured_is_an_error_of_the_node() {
    let model = Model::new(|_| Ok("fine".into())).await;
    let rig = Rig::asking(&model, &[]).await;
    let nodes = [("ctx", context()), ("ask", node("OpenAINode", &json!({"model": "m"}))), ("out", display())];
    rig.flow("a.json", &graph(&nodes, &["ctx.text -> ask.text", "ask.text -> out.text"]));
    let answer = rig.run("a.json", "hello").await;
    assert!(told(&answer, "ask")["error"].as_str().unwrap().contains("openai is not configured"), "{answer}");
    assert!(model.asked().is_empty());
}

#[tokio::test]
async fn the_judge_gets_one_message_with_candidates_numbered_anew() {
    let model = Model::new(|asked| match asked.question() {
        "c" => Ok(String::new()),
        question if question.contains("Candidate") => Ok("the best".into()),
        question => Ok(format!("answer to {question}")),
    })
    .await;
    let rig = Rig::asking(&model, &[]).await;
    let best = node("BestOfNNode", &json!({"extra_prompt": "Be kind.", "model": "judge"}));
    let nodes = [
        ("ctx", context()),
        ("two", ask(&json!({"temperature": 0.1}))),
        ("four", ask(&json!({"temperature": 0.9}))),
        ("best", best),
        ("out", display()),
    ];
    let links = [
        "ctx.text -> two.text",
        "ctx.text -> four.text",
        "four.text -> best.candidate4",
        "two.text -> best.candidate2",
        "ctx.text -> best.context",
        "best.text -> out.text",
    ];
    rig.flow("a.json", &graph(&nodes, &links));
    assert_eq!(text(&rig.run("a.json", "hello").await), "the best");
    let asked = model.asked();
    let judged = asked.last().unwrap();
    assert_eq!(judged.body["messages"].as_array().unwrap().len(), 1);
    assert_eq!(judged.body["model"], "judge");
    let expected = "Be kind.\n\n## Original context\n\nhello\n\n## Candidate 1\n\nanswer to hello\n\n## Candidate 2\n\nanswer to hello";
    assert!(judged.question().ends_with(expected), "{}", judged.question());
}

#[tokio::test]
async fn nothing_to_ask_makes_no_call() {
    let model = Model::new(|_| Ok("answered".into())).await;
    let rig = Rig::asking(&model, &[]).await;
    let nodes = [
        ("ctx", context()),
        ("ask", ask(&json!({}))),
        ("alone", ask(&json!({}))),
        ("best", node("BestOfNNode", &json!({"model": "m"}))),
    ];
    rig.flow(
        "a.json",
        &graph(&nodes, &["ctx.text -> ask.text", "ctx.text -> best.context", "ask.text -> best.candidate3"]),
    );
    let answer = rig.run("a.json", " \n").await;
    for id in ["ask", "alone", "best"] {
        assert_eq!(told(&answer, id)["state"], "skipped", "{answer}");
    }
    assert!(model.asked().is_empty());
}

#[tokio::test]
async fn empty_input_leaves_an_existing_file_as_it_was() {
    let rig = Rig::offline(&[]).await;
    let folder = crate::support::program::Folder::new();
    folder.write("kept.md", "as it was");
    let rig = {
        drop(rig);
        Rig::offline(&[("FLOWS_WRITE_DIRS", folder.path("").trim_end_matches('/'))]).await
    };
    let nodes = [
        ("ctx", context()),
        ("file", node("FileWriteNode", &json!({"path": folder.path("kept.md") + "\n"}))),
    ];
    rig.flow("a.json", &graph(&nodes, &["ctx.text -> file.text"]));
    let answer = rig.run("a.json", "").await;
    assert_eq!(text(&answer), "Error: Flow produced no output");
    assert_eq!(std::fs::read_to_string(folder.path("kept.md")).unwrap(), "as it was");
    let answer = rig.run("a.json", "new").await;
    assert_eq!(std::fs::read_to_string(folder.path("kept.md")).unwrap(), "new");
    let artifacts = &answer["result"]["structuredContent"]["artifacts"];
    assert_eq!(artifacts, &json!([{"name": folder.path("kept.md"), "bytes": 3}]));
}

#[tokio::test]
async fn a_path_that_leads_out_is_an_error_of_the_node_and_pays_for_nothing() {
    let model = Model::new(|_| Ok("answered".into())).await;
    let rig = Rig::asking(&model, &[]).await;
    for path in ["/tmp/inflightd-nobody-writes-this", "../out.md", "a/../../out.md", "~/../out.md"] {
        let nodes = [
            ("ctx", context()),
            ("ask", ask(&json!({"output_file": path}))),
            ("file", node("FileWriteNode", &json!({"path": path}))),
        ];
        rig.flow("a.json", &graph(&nodes, &["ctx.text -> file.text", "ctx.text -> ask.text"]));
        let answer = rig.run("a.json", "hello").await;
        for id in ["file", "ask"] {
            assert_eq!(told(&answer, id)["state"], "failed", "{path}: {answer}");
        }
        assert!(!std::path::Path::new("/tmp/inflightd-nobody-writes-this").exists());
    }
    assert!(model.asked().is_empty());
    rig.at_rest().await;
}

#[tokio::test]
async fn what_a_flow_writes_comes_back_as_artifacts() {
    let model = Model::new(|_| Ok("answered".into())).await;
    let rig = Rig::asking(&model, &[]).await;
    let nodes = [
        ("ctx", context()),
        ("ask", ask(&json!({"output_file": "~/Downloads/answer.md\n"}))),
        ("file", node("FileWriteNode", &json!({}))),
        ("clip", node("ClipboardNode", &json!({}))),
    ];
    rig.flow(
        "a.json",
        &graph(&nodes, &["ctx.text -> ask.text", "ask.text -> file.text", "ctx.text -> clip.text"]),
    );
    let answer = rig.run("a.json", "hello").await;
    let mut artifacts = answer["result"]["structuredContent"]["artifacts"].as_array().unwrap().clone();
    artifacts.sort_by_key(|artifact| artifact["name"].to_string());
    let expected = json!([
        {"name": ".aicp/context_block.md", "bytes": 8, "text": "answered"},
        {"name": "Downloads/answer.md", "bytes": 8, "text": "answered"},
        {"name": "clipboard", "bytes": 5, "text": "hello"},
    ]);
    assert_eq!(Value::from(artifacts), expected);
    assert_eq!(text(&answer), "answered", "a file before the clipboard");
    rig.at_rest().await;
}

#[tokio::test]
async fn the_output_is_displays_in_the_order_of_connections_then_files_then_clipboards_then_sinks() {
    let rig = Rig::offline(&[]).await;
    let one = |id: &'static str, type_: &str| {
        (id, node(type_, &json!({"provider": "offline", "path": format!("{id}.md")})))
    };
    let output = |flow: Value| {
        rig.flow("a.json", &flow);
        let run = rig.run("a.json", "context");
        async move { text(&run.await).to_owned() }
    };
    let base = [
        one("ctx", "ContextOutputNode"),
        one("ask", "OpenAINode"),
        one("file", "FileWriteNode"),
        one("clip", "ClipboardNode"),
    ];
    let links = ["ctx.text -> ask.text", "ask.text -> clip.text", "ctx.text -> file.text"];
    assert_eq!(output(graph(&base, &links)).await, "context", "files before clipboards");
    assert!(output(graph(&base, &links[..2])).await.starts_with("[offline"), "then the clipboard");
    assert!(output(graph(&base[..2], &links[..1])).await.starts_with("[offline"), "then what nobody reads");
    let mut nodes = base.to_vec();
    nodes.extend([one("a", "OutputDisplayNode"), one("b", "OutputDisplayNode")]);
    let mut links = links.to_vec();
    links.extend(["ctx.text -> b.text", "ask.text -> a.text", "ctx.text -> b.text"]);
    let shown = output(graph(&nodes, &links)).await;
    assert!(shown.starts_with("context\n\n[offline"), "displays first, in the order of connections: {shown}");
}

#[tokio::test]
async fn disabled_nodes_are_skipped_and_an_input_takes_its_first_source() {
    let rig = Rig::offline(&[]).await;
    let mut off = node("ContextOutputNode", &json!({}));
    off["disabled"] = json!(true);
    let nodes = [("off", off), ("on", context()), ("a", display()), ("b", node("ClipboardNode", &json!({})))];
    rig.flow(
        "a.json",
        &graph(
            &nodes,
            &["off.text -> a.text", "on.text -> a.text", "on.text -> b.text", "off.text -> b.text"],
        ),
    );
    let answer = rig.run("a.json", "context").await;
    assert_eq!(told(&answer, "off")["state"], "skipped");
    assert_eq!(told(&answer, "a")["state"], "skipped", "its first source made nothing");
    assert_eq!(text(&answer), "context");
}
