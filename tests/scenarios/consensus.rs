//! `consensus` over real sockets: several models are asked, each answer is shown.

use serde_json::json;

use crate::support::daemon::{API_KEY, Daemon};
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};

/// The tools that come with the daemon.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

/// A daemon with two providers: `kimi`, and `glm`.
async fn daemon(kimi: &Provider, glm: &Provider, keys: &[(&str, &str)]) -> Daemon {
    let url = glm.url();
    let mut all = vec![("TOOLS_FILE", BUILT_IN), ("GLM_API_KEY", API_KEY), ("GLM_API_URL", &*url)];
    all.extend(keys);
    Daemon::start(kimi, &all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_configured_provider_is_asked_and_each_answer_is_shown() {
    let (kimi, glm) = (Provider::open().await, Provider::open().await);
    glm.plays(Play::Refuse(401));
    let daemon = daemon(&kimi, &glm, &[]).await;
    let mut client = Mcp::connect(&daemon).await;
    client.call(1, "consensus", &json!({"prompt": "which"}), &json!({})).await;
    let answer = client.answer(json!(1)).await;
    let result = &answer["result"];
    let answers = &result["structuredContent"]["answers"];
    assert_eq!(
        (&answers[0]["provider"], &answers[1]["provider"]),
        (&json!("kimi"), &json!("glm")),
        "{answer}"
    );
    assert_eq!(answers[0]["text"], "answer 1 to which");
    assert_eq!(answers[1]["error"]["code"], "PROVIDER_ERROR");
    assert_eq!(
        (&result["structuredContent"]["partial"], &result["structuredContent"]["answered"]),
        (&json!(true), &json!(1))
    );
    assert!(mcp::text(&answer).starts_with("Partial: 1 of 2 answered.\n\n## kimi: "), "{answer}");
    assert!(mcp::text(&answer).contains("\n\n## glm: glm-4.6\n\nNo answer: PROVIDER_ERROR: "), "{answer}");
    assert_ne!(result["isError"], true);
    assert_eq!((kimi.requests(), glm.requests()), (1, 1));
    let mut by_op = Op::connect(&daemon).await;
    let answer = by_op.ask("r", "consensus", &json!({"prompt": "which"})).await;
    assert_eq!((&answer["metadata"]["partial"], answer.get("is_error")), (&json!(true), None));
    assert_eq!(glm.requests(), 2, "what is partial answers nobody later");
    kimi.plays(Play::Refuse(401));
    let answer = by_op.ask("r", "consensus", &json!({"prompt": "none"})).await;
    assert_eq!((answer["metadata"].get("partial"), &answer["is_error"]), (None, &json!(true)));
    assert_eq!(daemon.stat("/sessions/partial_sessions"), 2);
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_limits_at_1_eight_at_once_all_finish() {
    let (kimi, glm) = (Provider::open().await, Provider::open().await);
    let keys = [
        ("GLOBAL_MAX_INFLIGHT", "1"),
        ("SESSION_MAX_INFLIGHT", "1"),
        ("KIMI_MAX_INFLIGHT", "1"),
        ("GLM_MAX_INFLIGHT", "1"),
        ("OFFLINE_MAX_INFLIGHT", "1"),
        ("CONSENSUS_MAX_INFLIGHT", "1"),
    ];
    let daemon = daemon(&kimi, &glm, &keys).await;
    let mut client = Op::connect(&daemon).await;
    for number in 0..8 {
        client.call(&number.to_string(), "consensus", &json!({"prompt": format!("q{number}")})).await;
    }
    for number in 0..8 {
        let answer = client.answer(&number.to_string()).await;
        let text = op::text(&answer);
        assert_eq!(text.matches(&format!(" to q{number}")).count(), 2, "{answer}");
    }
    assert_eq!((kimi.requests(), glm.requests(), kimi.most_at_once(), glm.most_at_once()), (8, 8, 1, 1));
    assert_eq!(daemon.stat("/permits/consensus/limit"), 1);
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_of_three_is_three_requests_and_their_tokens_are_summed() {
    let kimi = Provider::held().await;
    let daemon = Daemon::start(&kimi, &[("TOOLS_FILE", BUILT_IN)]).await;
    let mut client = Op::connect(&daemon).await;
    client.call("one", "chat", &json!({"prompt": "p"})).await;
    kimi.started(1).await;
    kimi.go();
    let one = client.answer("one").await["metadata"]["usage"]["prompt_tokens"].as_u64();
    client.call("three", "consensus", &json!({"prompt": "p", "models": [{}, {}, {}]})).await;
    let three = client.answer("three").await;
    assert_eq!(kimi.requests(), 4);
    assert_eq!(three["metadata"]["usage"]["prompt_tokens"].as_u64(), one.map(|one| 3 * one), "{three}");
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_cancelled_hangs_up_on_every_provider() {
    let (kimi, glm) = (Provider::held().await, Provider::held().await);
    let daemon = daemon(&kimi, &glm, &[]).await;
    let mut client = Op::connect(&daemon).await;
    client.call("r", "consensus", &json!({"prompt": "p"})).await;
    kimi.started(1).await;
    glm.started(1).await;
    client.cancel("r").await;
    kimi.sees_hang_up(1).await;
    glm.sees_hang_up(1).await;
    daemon.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_is_a_numbered_step_for_every_waiter_on_every_door() {
    let (kimi, glm) = (Provider::held().await, Provider::held().await);
    let daemon = daemon(&kimi, &glm, &[]).await;
    let (mut mcp, mut op) = (Mcp::connect(&daemon).await, Op::connect(&daemon).await);
    mcp.call(1, "consensus", &json!({"prompt": "which"}), &json!({"progressToken": "t"})).await;
    kimi.started(1).await;
    op.call("r", "consensus", &json!({"prompt": "which"})).await;
    glm.started(1).await;
    daemon.has_waiters(4).await;
    glm.go();
    let step = mcp.wire.find(|message| message["method"] == "notifications/progress").await;
    let params = &step["params"];
    assert_eq!(
        (&params["progressToken"], &params["progress"], &params["total"]),
        (&json!("t"), &json!(1), &json!(2))
    );
    assert_eq!(params["message"], "1 of 2 answered");
    let step = op.wire.find(|frame| frame["op"] == "progress").await;
    assert_eq!((&step["request_id"], &step["progress"], &step["total"]), (&json!("r"), &json!(1), &json!(2)));
    kimi.go();
    mcp.answer(json!(1)).await;
    daemon.at_rest().await;
}
