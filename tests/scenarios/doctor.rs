//! `inflightd doctor` against a daemon that runs.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::daemon::Daemon;
use crate::support::op::Op;
use crate::support::program::Program;
use crate::support::provider::Provider;
use crate::support::wire::Wire;
use crate::support::{http, within};

const TOKEN: &str = "0123456789abcdef";

async fn doctor(url: &str, token: Option<&str>, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
    command.arg("doctor").args(flags).env_clear().env("INFLIGHTD_URL", url).stdin(Stdio::null());
    if let Some(token) = token {
        command.env("INFLIGHTD_TOKEN", token);
    }
    within("the end of the command", command.output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_daemon_without_problems_is_exit_code_0_and_keys_are_never_shown() {
    let provider = Provider::open().await;
    let keys = [("INFLIGHTD_TOKEN", TOKEN), ("GLM_API_KEY", "very-secret-glm")];
    let daemon = Daemon::start(&provider, &keys).await;
    let url = format!("ws://{}", daemon.address);
    let output = doctor(&url, Some(TOKEN), &[]).await;
    let shown = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{shown}");
    for line in [
        "  tool              180 s, 90 s below the next",
        "  glm         has a key; connections: 0 active, 0 idle, 0 failed so far",
        "  openai      is not offered: set OPENAI_API_KEY to offer it",
        "  offline     needs no key",
    ] {
        assert!(shown.lines().any(|each| each.starts_with(line)), "{line}\n{shown}");
    }
    assert!(shown.ends_with("Problems\n  none\n"), "{shown}");
    let json = doctor(&url, Some(TOKEN), &["--json"]).await;
    let found: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&found["problems"], &found["version"]), (&json!([]), &json!(env!("CARGO_PKG_VERSION"))));
    for secret in [TOKEN, "very-secret-glm"] {
        assert!(!shown.contains(secret) && !found.to_string().contains(secret));
    }
}

#[tokio::test]
async fn nobody_is_told_without_the_token() {
    let daemon = Daemon::offline(&[("INFLIGHTD_TOKEN", TOKEN)]).await;
    let refused = http::request(daemon.address, "GET", "/api/v1/doctor", &[], "").await;
    assert_eq!(refused.status, 401);
    let output = doctor(&format!("http://{}", daemon.address), None, &[]).await;
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("INFLIGHTD_TOKEN"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn without_a_daemon_it_is_exit_code_69_and_says_how_to_start_one() {
    let output = doctor("ws://127.0.0.1:1", None, &[]).await;
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("inflightd serve"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_client_that_gives_up_first_is_warned_about_once_and_is_exit_code_1() {
    let program = Program::start(&[]).await;
    let hello = json!({"op": "hello", "clientInfo": {"name": "hasty", "version": "3"}, "timeouts": {"client_secs": 60}});
    for _ in 0..3 {
        let mut client = Op { wire: Wire::open(program.address, "/", &[]).await.unwrap() };
        assert_eq!(client.hello(&hello).await["ok"], true);
    }
    let output = doctor(&format!("ws://{}", program.address), None, &[]).await;
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("the client hasty 3 gives up after 60s, before the daemon does after 270s"),
        "{shown}"
    );
    program.terminate();
    let log = program.ended().await.log;
    assert_eq!(log.matches("a client gives up before the daemon does").count(), 1, "{log}");
}
