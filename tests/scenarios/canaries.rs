//! A canary in the place of every secret there is, and none of them in anything that the daemon shows, by whichever
//! door or command, on good days and bad ones.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use crate::support::http::request;
use crate::support::mcp::{Mcp, OFFER};
use crate::support::model::{Does, Model, Speaks};
use crate::support::op::{self, Op};
use crate::support::program::{Folder, Program, refused};
use crate::support::wire::Wire;
use crate::support::within;

const CANARY: &str = "canary";
const TOKEN: &str = "canary-token-of-the-daemon";
const CI_TOKEN: &str = "canary-token-of-a-principal-0123456789";

fn is_silent(what: &str, text: &str) {
    if let Some(line) = text.lines().find(|line| line.to_lowercase().contains(CANARY)) {
        panic!("{what} shows a secret: {line}");
    }
}

/// A secret in every member of the files that can hold one. The program and the service are not there, so that both
/// are told of.
fn write_files(folder: &Folder) {
    let hash = blake3::hash(CI_TOKEN.as_bytes()).to_hex();
    let toml = format!(
        "[principals.ci]\ntoken_hash = \"blake3:{hash}\"\n\n\
         [providers.lab]\nurl = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\napi_key = \"canary-lab\"\n\n\
         [providers.outside]\nurl = \"https://models.invalid/v1\"\nmodel = \"m\"\napi_key = \"canary-outside\"\n"
    );
    folder.write("inflightd.toml", &toml);
    let servers = json!({"mcpServers": {
        "child": {"command": "no-such-program", "args": ["--api-key", "canary-argument"], "env": {"KEY": "canary-env"}},
        "far": {"url": "http://127.0.0.1:9/mcp?key=canary-query", "headers": {"Authorization": "Bearer ${FAR_TOKEN}"}},
    }});
    folder.write("servers.json", &servers.to_string());
}

/// What a command of ours says, on both streams.
async fn says(program: &Program, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
    command.args(words).env_clear().stdin(Stdio::null());
    command.env("INFLIGHTD_URL", format!("ws://{}", program.address)).env("INFLIGHTD_TOKEN", TOKEN);
    let output = within("the end of the command", command.output()).await.unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

/// Asks every provider on every kind of day, over every door.
async fn ask_everybody(program: &Program, models: &[Model]) {
    let mut by_op = Op { wire: Wire::open(program.address, "/", &[]).await.unwrap() };
    by_op.hello(&json!({"op": "hello", "token": TOKEN})).await;
    let mut by_mcp =
        Mcp { wire: Wire::open(program.address, &format!("/?token={TOKEN}"), &[OFFER]).await.unwrap() };
    let info = json!({"name": "c", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
    by_mcp.request(json!(0), "initialize", &hello).await;
    by_mcp.answer(json!(0)).await;
    let bearer = format!("Bearer {CI_TOKEN}");
    let days = [
        Does::Refuse(401, None),
        Does::Refuse(500, None),
        Does::Garbage,
        Does::GarbageStream,
        Does::Cut,
        Does::Error,
        Does::Answer,
    ];
    for does in days {
        for model in models {
            model.does(does);
        }
        for provider in ["openai", "anthropic", "gemini", "lab", "outside"] {
            let arguments = json!({"prompt": format!("{does:?}"), "provider": provider, "model": "m"});
            let answer = by_op.ask("r", "chat", &arguments).await;
            is_silent(&format!("{provider} on a day of {does:?}"), &answer.to_string());
            by_mcp.call(1, "chat", &arguments, &json!({})).await;
            is_silent("an answer over MCP", &by_mcp.answer(json!(1)).await.to_string());
            let body = json!({"tool": "chat", "arguments": arguments}).to_string();
            let posted =
                request(program.address, "POST", "/api/v1/execute", &[("authorization", &bearer)], &body)
                    .await;
            is_silent("an answer over HTTP", &posted.body);
        }
    }
    for tool in ["get_server_stats", "list_active_requests", "health", "listmodels", "version"] {
        is_silent(tool, &by_op.tell(tool, &json!({})).await.to_string());
    }
    let ended = by_op.ask("r", "echo", &json!({"text": "x"})).await;
    let id = &ended["metadata"]["request_id"];
    is_silent("get_request", &by_op.tell("get_request", &json!({"request_id": id})).await.to_string());
    assert_eq!(op::code(&by_op.ask("r", "child__x", &json!({})).await), "TOOL_NOT_FOUND");
}

/// Everything that can be asked of a daemon from outside, by whom it knows and by whom it does not.
async fn look_everywhere(program: &Program) {
    let wrong = format!("Bearer {TOKEN}-wrong");
    let right = format!("Bearer {TOKEN}");
    for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/stats", "/api/v1/doctor", "/no/such/path"] {
        for bearer in [&right, &wrong] {
            let seen = request(program.address, "GET", path, &[("authorization", bearer)], "").await;
            is_silent(path, &seen.body);
        }
    }
    for words in [
        &["doctor"][..],
        &["doctor", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["tools"],
        &["call", "chat", r#"{"prompt":"p","provider":"outside"}"#],
        &["healthcheck"],
        &["call", "--help"],
        &["serve", "--help"],
    ] {
        let said = says(program, words).await;
        assert!(!said.is_empty(), "{words:?}");
        is_silent(&words.join(" "), &said);
    }
    #[cfg(target_os = "linux")]
    is_silent(
        "its command line",
        &std::fs::read_to_string(format!("/proc/{}/cmdline", program.id())).unwrap(),
    );
}

async fn no_secret_is_shown(format: &str) {
    let folder = Folder::new();
    write_files(&folder);
    let mut models = Vec::new();
    for speaks in Speaks::ALL {
        models.push(Model::open(speaks).await);
    }
    let urls: Vec<_> = models.iter().map(Model::url).collect();
    let servers = folder.path("servers.json");
    let program = Program::start_in(
        folder,
        &[
            ("LOG_LEVEL", "trace"),
            ("LOG_FORMAT", format),
            ("INFLIGHTD_TOKEN", TOKEN),
            ("OPENAI_API_KEY", "canary-openai"),
            ("OPENAI_API_URL", &urls[0]),
            ("ANTHROPIC_API_KEY", "canary-anthropic"),
            ("ANTHROPIC_API_URL", &urls[1]),
            ("GEMINI_API_KEY", "canary-gemini"),
            ("GEMINI_API_URL", &urls[2]),
            ("MCP_SERVERS_FILE", &servers),
            ("FAR_TOKEN", "canary-header"),
            ("HTTPS_PROXY", "http://user:canary-proxy@127.0.0.1:9"),
            ("RETRY_BACKOFF_MS", "1"),
            ("BREAKER_MIN_CALLS", "1000"),
            ("HEALTH_INTERVAL_SECS", "0.05"),
        ],
    )
    .await;
    ask_everybody(&program, &models).await;
    look_everywhere(&program).await;
    for (model, name) in models.iter().zip(["openai", "anthropic", "gemini"]) {
        let key = format!("canary-{name}");
        assert!(model.requests().iter().all(|request| request.head.contains(&key)), "{name} got its key");
    }
    #[cfg(unix)]
    {
        program.terminate();
        let ended = program.ended().await;
        assert!(ended.log.contains("outcome"), "{}", ended.log);
        is_silent("the log", &ended.log);
    }
    #[cfg(not(unix))]
    is_silent("the log", &program.log());
}

#[tokio::test]
async fn no_secret_is_shown_by_any_door_command_or_text_log() {
    no_secret_is_shown("text").await;
}

#[tokio::test]
async fn no_secret_is_shown_by_any_door_command_or_json_log() {
    no_secret_is_shown("json").await;
}

/// Each is wrong in its own way, and the daemon says so without saying what it is.
#[tokio::test]
async fn a_secret_that_is_refused_is_not_shown() {
    for (key, wrong) in [
        ("INFLIGHTD_TOKEN", "canary"),
        ("INFLIGHTD_TOKEN", "canary with spaces in it"),
        ("OPENAI_API_KEY", "canary\nof two lines"),
        ("OPENAI_API_KEY", "canary-\u{fc}"),
        ("OPENAI_API_URL", "https://user:canary@models.invalid/v1"),
        ("OPENAI_API_URL", "https://models.invalid/v1?key=canary"),
        ("INFLIGHTD_TOKEN_FILE", "no-such-file"),
    ] {
        let ended = refused(&Folder::new(), &[("INFLIGHTD_LISTEN", "127.0.0.1:0"), (key, wrong)]).await;
        assert_eq!(ended.code, Some(78), "{key}: {}", ended.log);
        assert!(ended.log.contains(key), "{key}: {}", ended.log);
        is_silent(key, &ended.log);
    }
    for toml in [
        "[providers.lab]\nurl = \"http://127.0.0.1:9/v1\"\napi_key = [\"canary\"]\n",
        "[providers.lab]\nurl = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\napi_key = \"canary\nof two lines\"\n",
        "[principals.ci]\ntoken_hash = \"canary-in-place-of-its-hash\"\n",
        "INFLIGHTD_TOKEN = 'canary'\n",
        "[mcp_servers.far]\nurl = \"no url ?key=canary\"\nheaders = { Authorization = \"Bearer canary\" }\n",
        "[mcp_servers.child]\ncommand = \"x\"\nenv = { KEY = [\"canary\"] }\n",
    ] {
        let folder = Folder::new();
        folder.write("inflightd.toml", toml);
        let ended = refused(&folder, &[("INFLIGHTD_LISTEN", "127.0.0.1:0")]).await;
        assert_eq!(ended.code, Some(78), "{toml}: {}", ended.log);
        is_silent(toml, &ended.log);
    }
}
