//! The commands: what is printed where, and with which exit code they end.

use std::process::{Output, Stdio};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::fake::{Daemon, Peer, command};

/// Runs a command against a daemon that plays `script` after the introduction.
fn run(args: &[&str], script: impl FnOnce(&mut Peer) + Send + 'static) -> Output {
    let daemon = Daemon::start();
    let mut program = command(args);
    program.env("INFLIGHTD_URL", daemon.url()).stdin(Stdio::null());
    let playing: JoinHandle<()> = std::thread::spawn(move || {
        let mut peer = daemon.accept();
        let hello = peer.json();
        assert_eq!(hello["method"], "initialize");
        peer.answer(&hello["id"], &json!({"protocolVersion": "2025-11-25"}));
        assert_eq!(peer.json()["method"], "notifications/initialized");
        script(&mut peer);
    });
    let output = program.output().unwrap();
    playing.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn result(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

#[test]
fn call_prints_the_result_on_stdout_and_progress_on_stderr() {
    let output = run(&["call", "echo", r#"{"n": 18446744073709551616}"#, "--timeout", "7"], |peer| {
        let call = peer.text();
        assert!(call.contains(r#""arguments":{"n": 18446744073709551616}"#), "{call}");
        let call: Value = serde_json::from_str(&call).unwrap();
        assert_eq!(call["params"]["_meta"]["inflightd/timeout_ms"], 7_000);
        let token = &call["params"]["_meta"]["progressToken"];
        let params = json!({"progressToken": token, "progress": 1, "total": 2, "message": "half"});
        peer.send(json!({"method": "notifications/progress", "params": params}).to_string());
        peer.answer(&call["id"], &result("done"));
    });
    assert_eq!(text(&output.stdout), "done\n");
    assert_eq!(text(&output.stderr), "1/2 half\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_failed_tool_is_exit_code_1_with_its_text_and_advice_on_stderr() {
    let output = run(&["call", "echo"], |peer| {
        let call = peer.json();
        let error = json!({"code": "OVER_CAPACITY", "retryable": true, "retry_after_ms": 1200});
        let mut failed = result("at capacity");
        failed["isError"] = json!(true);
        failed["_meta"] = json!({"inflightd/error": error});
        peer.answer(&call["id"], &failed);
    });
    assert!(output.stdout.is_empty());
    let stderr = text(&output.stderr);
    assert!(stderr.contains("at capacity") && stderr.contains("try again in 1.2 s"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn json_prints_the_result_as_the_daemon_sent_it() {
    const RESULT: &str = r#"{"z":1.0, "content":[],"n":18446744073709551616}"#;
    let output = run(&["call", "--json", "echo"], |peer| {
        let id = peer.json()["id"].to_string();
        peer.send(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{RESULT}}}"#));
    });
    assert_eq!(text(&output.stdout), format!("{RESULT}\n"));
}

#[test]
fn a_refused_request_says_why() {
    let output = run(&["call", "nope"], |peer| {
        let id = peer.json()["id"].clone();
        let error = json!({"code": -32602, "message": "unknown tool: nope"});
        peer.send(json!({"id": id, "error": error}).to_string());
    });
    assert!(text(&output.stderr).contains("unknown tool: nope"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn arguments_that_are_no_object_are_wrong_usage() {
    let output = command(&["call", "echo", "[1]"]).output().unwrap();
    assert!(text(&output.stderr).contains("must be a JSON object"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_missing_daemon_is_exit_code_69_with_the_way_to_start_one() {
    let daemon = Daemon::start();
    let url = daemon.url();
    drop(daemon);
    let output = command(&["tools", "--url", &url]).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&url) && stderr.contains("inflightd serve"), "{stderr}");
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn tools_lists_every_page() {
    let script = |peer: &mut Peer| {
        let first = peer.json();
        assert_eq!(first["params"].get("cursor"), None);
        let tools = json!([{"name": "a", "description": "First.\nMore."}]);
        peer.answer(&first["id"], &json!({"tools": tools, "nextCursor": "2"}));
        let second = peer.json();
        assert_eq!(second["params"]["cursor"], "2");
        peer.answer(&second["id"], &json!({"tools": [{"name": "bcd"}]}));
    };
    assert_eq!(text(&run(&["tools"], script).stdout), "a    First.\nbcd\n");
    let listed: Value = serde_json::from_slice(&run(&["tools", "--json"], script).stdout).unwrap();
    assert_eq!(listed, json!([{"name": "a", "description": "First.\nMore."}, {"name": "bcd"}]));
}

#[test]
fn stats_are_a_table_or_json() {
    let script = |peer: &mut Peer| {
        let call = peer.json();
        assert_eq!(call["params"]["name"], "get_server_stats");
        peer.answer(&call["id"], &json!({"structuredContent": {"calls": {"total": 3}}}));
    };
    assert_eq!(text(&run(&["stats"], script).stdout), "calls.total  3\n");
    assert_eq!(text(&run(&["stats", "--json"], script).stdout), "{\"calls\":{\"total\":3}}\n");
}

#[test]
fn healthcheck_is_one_word_or_exit_code_1() {
    let well = run(&["healthcheck"], |peer| {
        let call = peer.json();
        assert_eq!(call["params"]["name"], "health");
        peer.answer(&call["id"], &result("well"));
    });
    assert_eq!((text(&well.stdout), well.status.code()), ("ok\n", Some(0)));
    let ill = run(&["healthcheck"], |peer| {
        let call = peer.json();
        peer.answer(&call["id"], &json!({"isError": true, "content": [{"type": "text", "text": "ill"}]}));
    });
    assert!(text(&ill.stderr).contains("ill"));
    assert_eq!((ill.stdout.len(), ill.status.code()), (0, Some(1)));
}
