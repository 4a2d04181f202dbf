//! Starting: what is said, what is refused, and whose word counts.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::http::request;
use crate::support::op::Op;
use crate::support::program::{Folder, Program, refused};
use crate::support::until;
use crate::support::wire::Wire;

#[tokio::test]
async fn the_ladder_is_told_in_the_exact_words() {
    let program = Program::start(&[("LOG_FORMAT", "json")]).await;
    let log = program.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["message"], "Validating timeout hierarchy...");
    assert_eq!(lines[1]["message"], "Timeout hierarchy validated: daemon=270s, tool=180.0s (ratio=1.50x)");
    let program = Program::start(&[]).await;
    let log = program.log();
    let mut lines = log.lines();
    assert!(lines.next().unwrap().ends_with(" INFO Validating timeout hierarchy..."), "{log}");
    let second = lines.next().unwrap();
    assert!(
        second.ends_with(" INFO Timeout hierarchy validated: daemon=270s, tool=180.0s (ratio=1.50x)"),
        "{log}"
    );
}

#[tokio::test]
async fn a_ratio_below_one_and_a_half_warns() {
    let keys =
        [("DAEMON_TIMEOUT_SECS", "240"), ("WORKFLOW_TOOL_TIMEOUT_SECS", "180"), ("QUEUE_TIMEOUT_SECS", "30")];
    let program = Program::start(&keys).await;
    let log = program.log();
    assert!(log.contains("daemon=240s, tool=180.0s (ratio=1.33x)"), "{log}");
    assert!(log.contains("WARN") && log.contains("less than 1.5"), "{log}");
}

#[tokio::test]
async fn an_inverted_ladder_is_refused_with_every_violation() {
    let keys = [
        ("KIMI_TIMEOUT_SECS", "500"),
        ("WORKFLOW_TOOL_TIMEOUT_SECS", "400"),
        ("DAEMON_TIMEOUT_SECS", "300"),
        ("SHIM_TIMEOUT_SECS", "300"),
        ("CLIENT_TIMEOUT_SECS", "200"),
    ];
    let ended = refused(&Folder::new(), &keys).await;
    assert_eq!(ended.code, Some(78), "{}", ended.log);
    for (key, value) in keys {
        assert!(ended.log.contains(&format!("{key}={value}")), "{key}: {}", ended.log);
    }
    let violations = ended.log.lines().filter(|line| line.contains("would do")).count();
    assert!(violations >= 4, "each violation with a value that would do: {}", ended.log);
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let keys = [
        ("QUEUE_MAX", "0"),
        ("LOG_FORMAT", "xml"),
        ("INFLIGHTD_LISTEN", "nowhere"),
        ("KIMI_API_URL", "ftp://x"),
    ];
    let ended = refused(&Folder::new(), &keys).await;
    assert_eq!(ended.code, Some(78));
    for (key, _) in keys {
        assert!(ended.log.contains(key), "{key}: {}", ended.log);
    }
}

#[tokio::test]
async fn a_short_token_is_refused_and_never_shown() {
    let ended = refused(&Folder::new(), &[("INFLIGHTD_TOKEN", "tooshorttoken15")]).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.log.contains("INFLIGHTD_TOKEN") && ended.log.contains("openssl rand"), "{}", ended.log);
    assert!(!ended.log.contains("tooshorttoken15"), "{}", ended.log);
}

#[tokio::test]
async fn an_address_for_all_without_a_token_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let ended = refused(&Folder::new(), &[("INFLIGHTD_LISTEN", address)]).await;
        assert_eq!(ended.code, Some(78), "{address}");
        assert!(ended.log.contains("INFLIGHTD_TOKEN"), "{}", ended.log);
    }
}

#[tokio::test]
async fn an_address_in_use_says_who_holds_it() {
    let daemon = Daemon::offline(&[]).await;
    let address = daemon.address.to_string();
    let ended = refused(&Folder::new(), &[("INFLIGHTD_LISTEN", &address)]).await;
    assert_eq!(ended.code, Some(1));
    let holder = format!("listen on {address}: inflightd {} holds it", env!("CARGO_PKG_VERSION"));
    assert!(ended.log.contains(&holder), "{}", ended.log);
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let ended = refused(&Folder::new(), &[("INFLIGHTD_LISTEN", &address)]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains("another program holds it"), "{}", ended.log);
}

#[tokio::test]
async fn a_tools_file_that_is_none_is_refused_with_its_name() {
    let folder = Folder::new();
    folder.write("mine.toml", "[[tool]]\nname = 7\n");
    let ended = refused(&folder, &[("TOOLS_FILE", "mine.toml")]).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.log.contains("mine.toml"), "{}", ended.log);
}

#[tokio::test]
async fn dotenv_is_read_from_the_working_folder_and_the_process_environment_wins() {
    let folder = Folder::new();
    folder
        .write(".env", "WORKFLOW_TOOL_TIMEOUT_SECS=100\nEXPERT_ANALYSIS_TIMEOUT_SECS=100\nLOG_FORMAT=json\n");
    let program = Program::start_in(folder, &[("EXPERT_ANALYSIS_TIMEOUT_SECS", "120")]).await;
    let mut client = Op { wire: Wire::open(program.address, "/", &[]).await.unwrap() };
    let ack = client.hello(&json!({"op": "hello"})).await;
    assert_eq!(ack["timeouts"]["tool_secs"], 120);
    assert!(program.log().starts_with('{'), "{}", program.log());
}

#[tokio::test]
async fn a_broken_dotenv_is_refused_by_its_line_and_without_its_text() {
    let folder = Folder::new();
    folder.write(".env", "LOG_LEVEL=info\nKIMI_API_KEY=\"sk-secret-that-is-left-open\n");
    let ended = refused(&folder, &[]).await;
    assert_eq!(ended.code, Some(78));
    assert!(ended.log.contains(".env") && !ended.log.contains("sk-secret"), "{}", ended.log);
}

#[tokio::test]
async fn a_daemon_that_says_it_listens_is_ready() {
    let program = Program::start(&[]).await;
    let ready = request(program.address, "GET", "/readyz", &[], "").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    let alive = request(program.address, "GET", "/healthz", &[], "").await.json();
    assert_eq!((&alive["status"], &alive["name"]), (&json!("ok"), &json!("inflightd")));
    let body = r#"{"tool":"analyze","arguments":{"text":"test"}}"#;
    let answer = crate::support::http::execute(program.address, body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("[offline]"), "{}", answer.body);
}

#[tokio::test]
async fn the_health_task_tells_all_it_sees_in_one_line() {
    let program = Program::start(&[("HEALTH_INTERVAL_SECS", "0.05"), ("GLM_API_KEY", "k")]).await;
    let line = " INFO Semaphore health: global=0/24 glm=0/4 offline=0/8 consensus=0/8 queued=0 inflight=0 waiters=0 oldest_ms=0";
    until("a look of the health task", || program.log().contains(line)).await;
}
