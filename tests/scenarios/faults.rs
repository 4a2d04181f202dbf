//! Whatever fails, everybody is answered with a type, the key is free, and the next call runs afresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use inflightd::provider::{Context, Fault, Job, Reply};
use inflightd::tool::{Effect, PlainWork, Worth};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::op::{self, Op};
use crate::support::provider::{Play, Provider};

/// A failure is told as it comes, and not tried to be mended.
const ONCE: (&str, &str) = ("RETRY_ATTEMPTS", "1");

/// Two clients wait for one call that fails so; then the provider is well again.
async fn fails(tool: &str, play: Play) -> Value {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[ONCE]).await;
    provider.plays(play);
    let mut client = Op::connect(&daemon).await;
    client.question("a", tool, "p").await;
    provider.started(1).await;
    let twins = tool == "ask";
    let mut twin = Mcp::connect(&daemon).await;
    if twins {
        twin.call(1, tool, &json!({"prompt": "p"}), &json!({})).await;
        daemon.has_waiters(2).await;
    }
    provider.let_pass(1);
    let answer = client.answer("a").await;
    if twins {
        assert_eq!(mcp::code(&twin.answer(json!(1)).await), op::code(&answer));
    }
    assert_eq!(provider.requests(), 1, "nobody has asked again");
    daemon.at_rest().await;
    provider.plays(Play::Answer);
    provider.go();
    let again = client.ask("a", tool, &json!({"prompt": "p"})).await;
    assert_eq!(op::text(&again), "answer 2 to p", "a failure is never kept");
    answer["error"].clone()
}

#[tokio::test]
async fn a_provider_that_fails_is_a_typed_error_that_says_whether_to_retry() {
    for (play, retryable, text) in [
        (Play::Refuse(500), true, "kimi refused the request with HTTP 500 (on_purpose)"),
        (Play::Refuse(429), true, "kimi refused the request with HTTP 429 (on_purpose)"),
        (Play::Refuse(400), false, "kimi refused the request with HTTP 400 (on_purpose)"),
        (Play::Refuse(401), false, "kimi refused the request with HTTP 401 (on_purpose)"),
        (Play::Garbage, true, "kimi broke off its answer: the answer is not JSON"),
        (Play::CutStream, true, "kimi broke off its answer: the stream ended early"),
        (Play::HangUp, true, "kimi broke off its answer: no answer to the request"),
    ] {
        let error = fails("ask", play).await;
        assert_eq!(error["code"], "PROVIDER_ERROR", "{play:?}");
        assert_eq!(error["retryable"], retryable, "{play:?}");
        assert_eq!(error["message"], text, "{play:?}");
    }
}

#[tokio::test]
async fn a_provider_that_says_when_to_come_back_is_believed() {
    for status in [429, 503] {
        assert_eq!(fails("ask", Play::LaterBy(status, 1)).await["retry_after_ms"], 1000);
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_a_typed_error() {
    let provider = Provider::open().await;
    let daemon = Daemon::start(&provider, &[("KIMI_API_URL", &Provider::nobody().await), ONCE]).await;
    let mut client = Op::connect(&daemon).await;
    for tool in ["ask", "put", "post"] {
        let answer = client.ask("r", tool, &json!({"prompt": "p"})).await;
        assert_eq!(op::code(&answer), "PROVIDER_ERROR", "{tool}: the work was surely not begun");
        assert_eq!(answer["error"]["retryable"], true);
    }
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_write_that_may_have_been_done_says_so() {
    for play in [Play::Refuse(500), Play::Garbage, Play::CutStream, Play::HangUp] {
        let error = fails("post", play).await;
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!("OUTCOME_UNKNOWN"), &json!(false)),
            "{play:?}"
        );
    }
}

#[tokio::test]
async fn a_write_that_was_surely_not_done_says_that() {
    for (play, retryable) in
        [(Play::Refuse(400), false), (Play::Refuse(429), true), (Play::Refuse(503), true)]
    {
        let error = fails("post", play).await;
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!("PROVIDER_ERROR"), &json!(retryable)),
            "{play:?}"
        );
    }
}

#[tokio::test]
async fn an_idempotent_call_that_fails_is_a_provider_error() {
    for play in [Play::Refuse(500), Play::CutStream] {
        assert_eq!(fails("put", play).await["code"], "PROVIDER_ERROR");
    }
}

#[tokio::test]
async fn work_past_its_rung_is_cut_off_and_says_who_and_when() {
    let provider = Provider::held().await;
    let daemon = Daemon::start(&provider, &[("KIMI_TIMEOUT_SECS", "0.2")]).await;
    let mut client = Op::connect(&daemon).await;
    let answer = client.ask("r", "ask", &json!({"prompt": "p"})).await;
    assert_eq!(op::code(&answer), "TIMEOUT");
    let session = answer["metadata"]["session_id"].as_str().unwrap();
    assert_eq!(answer["error"]["message"], format!("kimi provider timeout after 0.2s (session: {session})"));
    provider.sees_hang_up(1).await;
    let answer = client.ask("w", "post", &json!({"prompt": "p"})).await;
    assert_eq!(op::code(&answer), "OUTCOME_UNKNOWN", "a write that began may have been done");
    daemon.at_rest().await;
    assert_eq!((daemon.stat("/calls/timeout"), daemon.stat("/calls/error")), (1, 1));
    provider.go();
    let answer = client.ask("r", "ask", &json!({"prompt": "p"})).await;
    assert_eq!(op::text(&answer), "answer 3 to p");
}

/// Waits for "go", then panics, as often as it was told to.
#[derive(Debug, Clone)]
struct Panics {
    left: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl PlainWork for Panics {
    fn job(&self, _arguments: &Value) -> Box<dyn Job> {
        Box::new(self.clone())
    }
}

impl Job for Panics {
    fn run(self: Box<Self>, _context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            self.gate.acquire().await.unwrap().forget();
            let panics = self
                .left
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
                .is_ok();
            assert!(!panics, "on purpose");
            Ok(Reply::text("well again"))
        }
        .boxed()
    }
}

/// A daemon with a tool of this effect that panics `times`, each after a pass of the gate.
async fn panicking(effect: Effect, times: usize, passes: usize) -> (Daemon, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(passes));
    let work = Panics { left: Arc::new(AtomicUsize::new(times)), gate: Arc::clone(&gate) };
    let add = |registry: &mut inflightd::tool::Registry, ladder: &_| {
        registry.add_custom("panics", effect, Worth::Cheap, Box::new(work), ladder)
    };
    (Daemon::start_with(None, &[], add).await, gate)
}

#[tokio::test]
async fn a_panicking_tool_answers_all_who_wait_and_frees_the_key() {
    let (daemon, gate) = panicking(Effect::Read, 1, 0).await;
    let (mut one, mut other) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    one.call("a", "panics", &json!({})).await;
    one.call("b", "panics", &json!({})).await;
    other.call(1, "panics", &json!({}), &json!({})).await;
    daemon.has_waiters(3).await;
    gate.add_permits(1);
    for id in ["a", "b"] {
        let answer = one.answer(id).await;
        assert_eq!((op::code(&answer), &answer["error"]["retryable"]), ("INTERNAL_ERROR", &json!(true)));
        assert!(!answer.to_string().contains("on purpose"), "a panic's text is not for clients: {answer}");
    }
    assert_eq!(mcp::code(&other.answer(json!(1)).await), "INTERNAL_ERROR");
    daemon.at_rest().await;
    gate.add_permits(1);
    let answer = one.ask("c", "panics", &json!({})).await;
    assert_eq!((op::text(&answer), &answer["metadata"]["role"]), ("well again", &json!("leader")));
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_tool_that_panics_at_its_first_poll_is_answered_too() {
    let (daemon, _gate) = panicking(Effect::Read, 1, 2).await;
    let mut client = Op::connect(&daemon).await;
    assert_eq!(op::code(&client.ask("a", "panics", &json!({})).await), "INTERNAL_ERROR");
    assert_eq!(op::text(&client.ask("b", "panics", &json!({})).await), "well again");
    daemon.at_rest().await;
}

#[tokio::test]
async fn panics_take_no_permit_with_them() {
    let (daemon, _gate) = panicking(Effect::Write, 30, 40).await;
    let mut client = Op::connect(&daemon).await;
    for _ in 0..30 {
        assert!(client.ask("a", "panics", &json!({})).await.get("error").is_some());
    }
    assert_eq!(op::text(&client.ask("a", "panics", &json!({})).await), "well again");
    daemon.at_rest().await;
}
