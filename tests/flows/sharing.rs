//! Many runs at once: each for itself, none over its bounds, and nothing asked twice that need not be.

use serde_json::{Value, json};

use crate::model::Model;
use crate::rig::{Rig, call, graph, node, single, told};
use crate::support::mcp::{role, text};
use crate::support::program::{Folder, Program};
use crate::support::until;

fn best_of_3(custom: &Value) -> Value {
    let chat = |()| node("OpenRouterNode", custom);
    let [a, b, c] = [(); 3].map(chat);
    let nodes = [
        ("ctx", node("ContextOutputNode", &json!({}))),
        ("a", a),
        ("b", b),
        ("c", c),
        ("best", node("BestOfNNode", &json!({"model": "judge"}))),
        ("out", node("OutputDisplayNode", &json!({}))),
    ];
    let links = [
        "ctx.text -> a.text",
        "ctx.text -> b.text",
        "ctx.text -> c.text",
        "ctx.text -> best.context",
        "a.text -> best.candidate1",
        "b.text -> best.candidate2",
        "c.text -> best.candidate3",
        "best.text -> out.text",
    ];
    graph(&nodes, &links)
}

fn one_model() -> Value {
    json!({"model": "m", "model_mode": "choose"})
}

#[tokio::test]
async fn best_of_3_with_one_model_is_three_calls_and_so_are_two_equal_runs() {
    let model =
        Model::held(|asked| Ok(format!("{} messages", asked.body["messages"].as_array().unwrap().len())))
            .await;
    let rig = Rig::asking(&model, &[]).await;
    rig.flow("best.json", &best_of_3(&one_model()));
    // The same flow under another name: its calls are not equal, and neither are its runs; its nodes are.
    rig.flow("twin.json", &best_of_3(&one_model()));
    let mut client = rig.client().await;
    call(&mut client, 1, "best.json", "context").await;
    call(&mut client, 2, "twin.json", "context").await;
    model.started(3).await;
    until("six chat nodes that wait", || rig.daemon.stat("/waiters") == 8).await;
    assert_eq!(
        model.asked().len(),
        3,
        "the same node of two equal runs makes one call, two nodes of one run never"
    );
    model.all();
    assert_eq!(text(&client.answer(json!(1)).await), text(&client.answer(json!(2)).await));
    let judges = model.asked().iter().filter(|asked| asked.question().contains("Candidate 3")).count();
    assert!(judges <= 2 && model.asked().len() == 3 + judges);
    rig.at_rest().await;
}

#[tokio::test]
async fn equal_calls_are_one_run_until_the_file_changes() {
    let model = Model::held(|asked| Ok(asked.body["model"].as_str().unwrap().to_owned())).await;
    let rig = Rig::asking(&model, &[]).await;
    let mut client = rig.client().await;
    rig.flow("a.json", &single(&json!({"model": "old", "model_mode": "choose"})));
    call(&mut client, 1, "a.json", "context").await;
    call(&mut client, 2, "a.json", "context").await;
    model.started(1).await;
    client.ping().await;
    rig.flow("a.json", &single(&json!({"model": "new", "model_mode": "choose"})));
    call(&mut client, 3, "a.json", "context").await;
    model.started(2).await;
    model.all();
    let answers =
        [client.answer(json!(1)).await, client.answer(json!(2)).await, client.answer(json!(3)).await];
    assert_eq!([text(&answers[0]), text(&answers[1]), text(&answers[2])], ["old", "old", "new"]);
    assert_eq!([role(&answers[0]), role(&answers[1]), role(&answers[2])], ["leader", "follower", "leader"]);
    assert_eq!(model.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_limit_at_one_eight_flows_all_finish() {
    let model = Model::new(|asked| Ok(asked.question().to_owned())).await;
    let ones = ["GLOBAL_MAX_INFLIGHT", "OPENROUTER_MAX_INFLIGHT", "SESSION_MAX_INFLIGHT", "MAX_WORKERS"];
    let rig = Rig::asking(&model, &ones.map(|key| (key, "1"))).await;
    rig.flow("best.json", &best_of_3(&one_model()));
    let mut client = rig.client().await;
    for id in 0..8 {
        call(&mut client, id, "best.json", &format!("context {id}")).await;
    }
    for id in 0..8 {
        let answer = client.answer(json!(id)).await;
        assert!(text(&answer).contains(&format!("context {id}")), "{answer}");
    }
    assert_eq!(model.most_at_once(), 1);
    rig.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_flows_against_three_slots_all_answer_and_never_more_than_three_are_at_work() {
    let model = Model::held(|asked| Ok(asked.question().to_owned())).await;
    let rig = Rig::asking(&model, &[("MAX_WORKERS", "3")]).await;
    rig.flow("a.json", &single(&one_model()));
    let mut client = rig.client().await;
    for id in 0..10 {
        call(&mut client, id, "a.json", &format!("context {id}")).await;
    }
    for done in 0..10 {
        model.started((done + 3).min(10)).await;
        assert!(rig.folders().len() <= 3);
        model.go(1);
    }
    for id in 0..10 {
        assert_eq!(text(&client.answer(json!(id)).await), format!("context {id}"));
    }
    assert_eq!(model.most_at_once(), 3);
    rig.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_flows_that_write_the_same_relative_path_see_only_their_own() {
    let model = Model::held(|asked| Ok(asked.question().to_owned())).await;
    let rig = Rig::asking(&model, &[]).await;
    let nodes = [
        ("ctx", node("ContextOutputNode", &json!({}))),
        ("early", node("FileWriteNode", &json!({"path": "same.md"}))),
        ("ask", node("OpenRouterNode", &one_model())),
        ("late", node("FileWriteNode", &json!({"path": "other.md"}))),
    ];
    rig.flow(
        "a.json",
        &graph(&nodes, &["ctx.text -> early.text", "ctx.text -> ask.text", "ask.text -> late.text"]),
    );
    let mut client = rig.client().await;
    for id in 1..3 {
        call(&mut client, id, "a.json", &format!("context {id}")).await;
    }
    model.started(2).await;
    let mut seen: Vec<_> = rig
        .folders()
        .iter()
        .map(|run| {
            let read = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
            assert_eq!(read("same.md"), read("fullcode.txt"));
            assert!(read("flow.json").contains("same.md"));
            read("same.md")
        })
        .collect();
    seen.sort();
    assert_eq!(seen, ["context 1", "context 2"]);
    model.all();
    for id in 1..3 {
        let answer = client.answer(json!(id)).await;
        let artifacts = answer["result"]["structuredContent"]["artifacts"].as_array().unwrap();
        assert!(artifacts.len() == 2 && artifacts.iter().all(|each| each["text"] == format!("context {id}")));
        let run = answer["result"]["structuredContent"]["execution_id"].as_str().unwrap();
        assert_eq!(run.len(), 32);
    }
    rig.at_rest().await;
}

#[tokio::test]
async fn of_a_diamond_whose_one_side_fails_the_judge_gets_the_other_and_the_file_is_written() {
    let model = Model::new(|asked| match asked.body["model"].as_str().unwrap() {
        "bad" => Err(500),
        "judge" => Ok("judged".into()),
        _ => Ok("good answer".into()),
    })
    .await;
    let rig = Rig::asking(&model, &[]).await;
    let chat = |model: &str| node("OpenRouterNode", &json!({"model": model, "model_mode": "choose"}));
    let nodes = [
        ("ctx", node("ContextOutputNode", &json!({}))),
        ("a", chat("bad")),
        ("b", chat("good")),
        ("best", node("BestOfNNode", &json!({"model": "judge"}))),
        ("file", node("FileWriteNode", &json!({"path": "best.md"}))),
    ];
    let links = [
        "ctx.text -> a.text",
        "ctx.text -> b.text",
        "ctx.text -> best.context",
        "a.text -> best.candidate1",
        "b.text -> best.candidate2",
        "best.text -> file.text",
    ];
    rig.flow("a.json", &graph(&nodes, &links));
    let answer = rig.run("a.json", "the context").await;
    assert_eq!(text(&answer), "judged");
    assert_eq!(
        (&told(&answer, "a")["state"], &told(&answer, "file")["state"]),
        (&json!("failed"), &json!("succeeded"))
    );
    let asked = model.asked();
    let question = asked.last().unwrap().question();
    let expected = "## Original context\n\nthe context\n\n## Candidate 1\n\ngood answer";
    assert!(question.ends_with(expected), "{question}");
    let artifact = &answer["result"]["structuredContent"]["artifacts"][0];
    assert_eq!((&artifact["name"], &artifact["text"]), (&json!("best.md"), &json!("judged")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_when_what_it_waits_for_has_ended_and_five_are_at_work_at_most() {
    let model = Model::held(|asked| Ok(format!("{}'", asked.question()))).await;
    let rig = Rig::asking(&model, &[]).await;
    let mut nodes = vec![("ctx".to_owned(), node("ContextOutputNode", &json!({})))];
    let mut links = Vec::new();
    for number in 0..7 {
        let custom = json!({"model": format!("m{number}"), "model_mode": "choose"});
        nodes.push((format!("a{number}"), node("OpenRouterNode", &custom)));
        nodes.push((format!("b{number}"), node("OpenRouterNode", &custom)));
        links.push(format!("ctx.text -> a{number}.text"));
        links.push(format!("a{number}.text -> b{number}.text"));
    }
    let nodes: Vec<_> = nodes.iter().map(|(id, node)| (&**id, node.clone())).collect();
    let links: Vec<_> = links.iter().map(String::as_str).collect();
    rig.flow("a.json", &graph(&nodes, &links));
    let mut client = rig.client().await;
    call(&mut client, 1, "a.json", "x").await;
    model.started(5).await;
    assert_eq!(model.asked().len(), 5);
    // One level is not waited for: the sixth and seventh start as places come free, and then those behind the first.
    for done in 1..=14 {
        model.go(1);
        model.started((5 + done).min(14)).await;
    }
    let answer = client.answer(json!(1)).await;
    assert_eq!(text(&answer).split("\n\n").collect::<Vec<_>>(), ["x''"; 7]);
    assert_eq!(model.most_at_once(), 5);
    let progress: Vec<_> = client
        .wire
        .unasked()
        .iter()
        .filter(|each| each["method"] == "notifications/progress")
        .cloned()
        .collect();
    let last = &progress.last().unwrap()["params"];
    assert_eq!(last["total"], json!(15), "{last}");
    let steps: Vec<_> = progress.iter().map(|each| each["params"]["progress"].as_f64().unwrap()).collect();
    assert!(steps.is_sorted(), "{steps:?}");
}

#[tokio::test]
async fn a_cancel_stops_nodes_in_the_middle_of_their_call_and_takes_the_folder_away() {
    let model = Model::held(|_| Ok("late".into())).await;
    let rig = Rig::asking(&model, &[]).await;
    rig.flow("best.json", &best_of_3(&one_model()));
    let mut client = rig.client().await;
    call(&mut client, 1, "best.json", "context").await;
    model.started(3).await;
    assert_eq!(rig.folders().len(), 1);
    client.cancel(1).await;
    model.sees_hang_up(3).await;
    rig.at_rest().await;
    assert_eq!(model.asked().len(), 3);
}

#[tokio::test]
async fn a_flow_that_takes_too_long_leaves_no_folder() {
    let model = Model::held(|_| Ok("late".into())).await;
    let keys = [
        ("WORKFLOW_TOOL_TIMEOUT_SECS", "1"),
        ("EXPERT_ANALYSIS_TIMEOUT_SECS", "1"),
        ("QUEUE_TIMEOUT_SECS", "1"),
    ];
    let rig = Rig::asking(&model, &keys).await;
    rig.flow("a.json", &single(&one_model()));
    let answer = rig.run("a.json", "context").await;
    assert!(text(&answer).contains("TIMEOUT"), "the node ran into the flow's deadline: {answer}");
    assert_eq!(told(&answer, "ask")["state"], "failed");
    rig.at_rest().await;
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_gone_when_the_next_one_has_started() {
    let model = Model::held(|_| Ok("late".into())).await;
    let folder = Folder::new();
    std::fs::create_dir(folder.path("flows")).unwrap();
    folder.write("flows/a.json", &single(&one_model()).to_string());
    let (flows, work, url) = (folder.path("flows"), folder.path("work"), model.url());
    let keys = [
        ("FLOWS_DIRS", &*flows),
        ("FLOWS_WORK_DIR", &*work),
        ("OPENROUTER_API_KEY", "sk"),
        ("OPENROUTER_API_URL", &*url),
    ];
    let program = Program::start(&keys).await;
    let mut client = crate::rig::connect(program.address).await;
    call(&mut client, 1, "a.json", "context").await;
    model.started(1).await;
    let left = || std::fs::read_dir(&work).unwrap().count();
    assert_eq!(left(), 1);
    // A second daemon leaves alone what is in use.
    let second = Program::start(&keys).await;
    assert_eq!(left(), 1);
    let id = rustix::process::Pid::from_raw(i32::try_from(program.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    program.ended().await;
    assert_eq!(left(), 1);
    drop(second);
    let third = Program::start(&keys).await;
    assert_eq!(left(), 0);
    assert!(third.log().contains("folders of flows were left"), "{}", third.log());
}
