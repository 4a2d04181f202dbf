//! `inflightd flow`, which asks no daemon.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The flows that come along.
const SAMPLES: [&str; 3] = ["single", "diamond", "best-of-3"];

fn sample(name: &str) -> PathBuf {
    format!("{}/docker/flows/{name}.json", env!("CARGO_MANIFEST_DIR")).into()
}

fn flow(command: &str, file: &PathBuf) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inflightd")).args(["flow", command]).arg(file).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_flows_that_come_along_have_no_problem() {
    let said = SAMPLES.map(|name| {
        let output = flow("check", &sample(name));
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        text(&output.stdout).to_owned()
    });
    assert_eq!(
        said,
        [
            "3 nodes, 2 connections, at most 1 call: no problem\n",
            "5 nodes, 6 connections, at most 3 calls: no problem\n",
            "8 nodes, 10 connections, at most 4 calls: no problem\n",
        ]
    );
}

#[test]
fn check_says_every_problem_on_a_line_of_its_own_and_ends_with_1() {
    let file = std::env::temp_dir().join(format!("inflightd-wrong-flow-{}.json", std::process::id()));
    std::fs::write(
        &file,
        r#"{"nodes": {"a": {"type_": "x"}, "b": 1}, "connections": [{"out": ["q", "text"]}]}"#,
    )
    .unwrap();
    let (checked, drawn) = (flow("check", &file), flow("draw", &file));
    std::fs::remove_file(&file).unwrap();
    let problems = [
        "Node 'a' has the unknown type 'x'.",
        "Node 'b' is not an object.",
        "Connection #1 has an 'in' end that is no pair of node and port.",
        "Connection #1 references missing node 'q'.",
    ];
    assert_eq!(text(&checked.stdout).lines().collect::<Vec<_>>(), problems);
    assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(1), ""));
    assert_eq!((drawn.status.code(), text(&drawn.stdout)), (Some(1), ""));
    assert!(text(&drawn.stderr).contains(problems[3]));
}

#[test]
fn draw_shows_each_node_behind_those_it_waits_for() {
    let output = flow("draw", &sample("diamond"));
    let expected = "\
context  ContextOutputNode  Context
  -> bold.text
  -> careful.text
  -> best.context
bold  OpenAICompatibleNode  A bold answer  model choose
  -> best.candidate1
careful  OpenAICompatibleNode  A careful answer  model choose
  -> best.candidate2
best  BestOfNNode  The better of both  model choose
  -> file.text
file  FileWriteNode  Kept  path answers/best.md
";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_file_that_is_not_there_is_said_on_stderr() {
    let output = flow("check", &"/no/such/flow.json".into());
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true));
    assert!(text(&output.stderr).contains("could not read /no/such/flow.json"));
}
