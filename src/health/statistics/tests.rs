use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::*;
use crate::call::{
    Answer, Call, CallError, Caller, Calls, ClientSession, Code, Options, Principal, Submitted,
};
use crate::call::{METADATA_BYTES, Waiter};
use crate::config::{PrincipalConfig, Sources, resolve};
use crate::ids::{ClientSessionId, PrincipalId, RequestId};
use crate::lifecycle::Lifecycle;
use crate::provider::catalog::Catalog;
use crate::provider::{Context, Fault, Job, Reply};
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::CallLog;
use crate::tool::{Effect, Insight, PlainWork, Registry, Worth};

/// Does what its argument `do` says: tell and wait for the gate, wait for ever, or panic.
#[derive(Debug, Clone, Default)]
struct Act(Arc<Notify>);

struct Acting(Act, Option<String>);

impl PlainWork for Act {
    fn job(&self, arguments: &Value) -> Box<dyn Job> {
        Box::new(Acting(self.clone(), arguments.get("do").and_then(Value::as_str).map(Into::into)))
    }
}

impl Job for Acting {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            match self.1.as_deref() {
                Some("hang") => pending().await,
                Some("panic") => panic!("as asked"),
                Some(_) | None => {
                    context.tell.text("a");
                    self.0.0.notified().await;
                    Ok(Reply::text("done"))
                }
            }
        }
        .boxed()
    }
}

struct Rig {
    calls: Arc<Calls>,
    act: Act,
    caller: Caller,
}

impl Rig {
    fn new(keys: &[(&str, &str)]) -> Self {
        let flags = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = resolve(Sources { flags, ..Sources::default() }).unwrap().config;
        let mut registry = Registry::new(Catalog::new(&config).unwrap(), &[], &config.ladder).unwrap();
        let act = Act::default();
        registry
            .add_custom("act", Effect::Read, Worth::Cheap, Box::new(act.clone()), &config.ladder)
            .unwrap();
        let lifecycle = Arc::new(Lifecycle::new(CallLog::off()));
        let calls = Arc::new(Calls::new(&config, registry, lifecycle, Tasks::default()));
        let session = ClientSession::new(ClientSessionId(1), config.limits.session, config.limits.queue);
        let principal = Arc::new(Principal::new(PrincipalId(0), &PrincipalConfig::plain("local"), 1));
        Self { calls, act, caller: Caller { principal, session: Arc::new(session), attachment: None } }
    }

    fn submit(&self, arguments: &str, extra: Option<&str>) -> Submitted {
        self.calls.submit(
            &self.caller,
            Call { id: None, tool: "act", arguments, extra, options: Options::default() },
        )
    }

    fn wait(&self, arguments: &str) -> Waiter {
        match self.submit(arguments, None) {
            Submitted::Waiting(waiter) => waiter,
            Submitted::Answered(answer) => panic!("{:?}", answer.outcome),
        }
    }

    fn refused(&self, arguments: &str, extra: Option<&str>) -> Arc<CallError> {
        match self.submit(arguments, extra) {
            Submitted::Waiting(_) => panic!("it waits"),
            Submitted::Answered(answer) => answer.outcome.unwrap_err(),
        }
    }

    fn shown(&self, waiter: &Waiter) -> Value {
        self.told(waiter.request())
    }

    fn told(&self, request: RequestId) -> Value {
        self.calls.request(PrincipalId(0), request).unwrap().about
    }

    /// Lets who waits at the gate through.
    fn open(&self) {
        self.act.0.notify_one();
    }

    fn sessions(&self) -> Value {
        self.calls.server_stats()["sessions"].clone()
    }
}

async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn statistics_of_an_idle_daemon_are_zeros() {
    let stats = Rig::new(&[]).calls.server_stats();
    for name in [
        "total_requests",
        "active_requests",
        "completed_requests",
        "avg_duration_ms",
        "min_duration_ms",
        "max_duration_ms",
        "p50_duration_ms",
        "p95_duration_ms",
        "p99_duration_ms",
        "total_events",
    ] {
        assert_eq!(stats[name].as_f64(), Some(0.0), "{name}");
    }
    let mut sessions = stats["sessions"].as_object().unwrap().clone();
    let rejected = sessions.remove("rejected").unwrap();
    let figures = sessions.values().chain(rejected.as_object().unwrap().values());
    assert!(figures.clone().count() > 12 && figures.into_iter().all(|each| each.as_f64() == Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_allocated_then_processing_then_completed() {
    let rig = Rig::new(&[("SESSION_MAX_INFLIGHT", "1")]);
    let first = rig.submit("{\"k\":1}", Some("{\"acme/tenant\":7}"));
    let Submitted::Waiting(mut first) = first else { panic!("it is answered") };
    tokio::time::advance(Duration::from_millis(500)).await;
    let mut second = rig.wait("{\"k\":2}");
    settle().await;
    let (working, queued) = (rig.shown(&first), rig.shown(&second));
    assert_eq!([&working["session"]["state"], &queued["session"]["state"]], ["processing", "allocated"]);
    assert_eq!(working["session"]["metadata"]["acme/tenant"], 7);
    assert_eq!(
        (&working["session"]["timeout"], &working["session"]["completed_at"]),
        (&json!(180.0), &Value::Null)
    );
    assert!(working["session"]["started_at"].is_string() && queued["session"]["started_at"].is_null());
    assert_eq!(rig.calls.active(PrincipalId(0))["active_requests"], json!([working.clone(), queued]));
    tokio::time::advance(Duration::from_millis(1000)).await;
    rig.open();
    first.answer().await.outcome.unwrap();
    let ended = rig.shown(&first);
    assert_eq!((&ended["state"], &ended["session"]["state"]), (&json!("completed"), &json!("completed")));
    for same in ["session_id", "request_id", "provider", "created_at", "started_at", "timeout"] {
        assert_eq!(ended["session"][same], working["session"][same], "{same}");
    }
    assert!(ended["session"]["completed_at"].as_str() > ended["session"]["started_at"].as_str());
    assert_eq!(ended["phases_ms"]["session_released"], 1500.0);
    rig.open();
    second.answer().await.outcome.unwrap();
    let sessions = rig.sessions();
    assert_eq!(
        (&sessions["completed_sessions"], &sessions["peak_concurrent_sessions"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(sessions["success_rate"], 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_counted_as_a_timeout_and_as_nothing_else() {
    let rig = Rig::new(&[]);
    let Answer { request, outcome, .. } = rig.wait("{\"do\":\"hang\"}").answer().await;
    assert_eq!(outcome.unwrap_err().code(), Code::Timeout);
    let stats = rig.calls.server_stats();
    let calls = json!({"total": 1, "completed": 0, "error": 0, "timeout": 1, "cancelled": 0, "rejected": 0});
    assert_eq!(stats["calls"], calls);
    let sessions = &stats["sessions"];
    let ends = ["total", "active", "completed", "error", "timeout", "cancelled"]
        .map(|end| sessions[format!("{end}_sessions")].as_u64().unwrap());
    assert_eq!(ends, [1, 0, 0, 0, 1, 0]);
    let rates = ["success_rate", "error_rate", "timeout_rate"].map(|rate| sessions[rate].clone());
    assert_eq!(rates, [json!(0.0), json!(0.0), json!(1.0)]);
    let lately = ["total_executions", "successful", "failed", "active_executions", "queue_size"];
    assert_eq!(lately.map(|member| stats[member].as_u64().unwrap()), [1, 0, 1, 0, 0]);
    assert_eq!(stats["average_duration_seconds"], 180.0);
    let told = rig.told(request);
    assert_eq!((&told["state"], &told["session"]["state"]), (&json!("timeout"), &json!("timeout")));
    assert_eq!(
        (stats["p99_duration_ms"].as_f64(), stats["avg_duration_ms"].as_f64()),
        (Some(180_000.0), Some(180_000.0))
    );
}

#[tokio::test(start_paused = true)]
async fn joining_and_the_first_text_are_noted_and_every_event_is_counted() {
    let rig = Rig::new(&[]);
    let mut leader = rig.wait("{}");
    settle().await;
    tokio::time::advance(Duration::from_millis(40)).await;
    let mut follower = rig.wait("{}");
    assert_eq!(rig.shown(&leader)["notes_ms"], json!({"first_byte": 0.0}));
    assert_eq!(rig.shown(&follower)["notes_ms"], json!({"joined": 40.0, "first_byte": 0.0}));
    rig.open();
    let answers = [leader.answer().await, follower.answer().await];
    let told = answers.map(|answer| rig.told(answer.request));
    assert_eq!(told[0]["session"]["session_id"], told[1]["session"]["session_id"]);
    assert_eq!(told[1]["notes_ms"], json!({"joined": 40.0, "first_byte": 0.0}));
    assert_eq!(told[1]["phases_ms"].as_object().unwrap().len(), 7);
    // Seven phases and the first text of the Execution, received and completed once more, joined, completed.
    assert_eq!(rig.calls.server_stats()["total_events"], 7 + 1 + 1 + 2 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_run_is_lost_ends_once_as_an_error() {
    let rig = Rig::new(&[]);
    let Submitted::Answered(answer) = rig.submit("{\"do\":\"panic\"}", None) else { panic!("it waits") };
    assert_eq!(answer.outcome.unwrap_err().code(), Code::InternalError);
    let sessions = rig.sessions();
    assert_eq!((&sessions["error_sessions"], &sessions["active_sessions"]), (&json!(1), &json!(0)));
    let told = rig.told(answer.request);
    assert_eq!(told["session"]["state"], "error");
    assert!(told["session"]["completed_at"].is_string() && told["phases_ms"]["session_released"].is_f64());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_waits_for_any_more_is_cancelled() {
    let rig = Rig::new(&[]);
    let mut waiter = rig.wait("{\"do\":\"hang\"}");
    waiter.cancel_handle().cancel();
    assert_eq!(waiter.answer().await.outcome.unwrap_err().code(), Code::Cancelled);
    settle().await;
    assert_eq!(rig.sessions()["cancelled_sessions"], 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_counted_by_their_reason_and_open_no_session() {
    let rig = Rig::new(&[("EXECUTIONS_MAX", "2")]);
    let _both = [rig.wait("{\"k\":1}"), rig.wait("{\"k\":2}")];
    let full = rig.refused("{\"k\":3}", None);
    assert_eq!(full.to_string(), "Maximum concurrent sessions (2) reached. Active sessions: 2");
    let metadata = format!("{{\"acme/a\":\"{}\"}}", "x".repeat(METADATA_BYTES));
    let large = rig.refused("{}", Some(&metadata));
    let text = format!("Metadata size ({} bytes) exceeds limit (10240 bytes)", metadata.len());
    assert_eq!((large.code(), large.to_string()), (Code::ValidationError, text));
    rig.calls.start_draining();
    assert_eq!(rig.refused("{}", None).code(), Code::ShuttingDown);
    let sessions = rig.sessions();
    let rejected = json!({"invalid": 0, "metadata_size": 1, "rate_limited": 0, "max_sessions": 1, "queue_full": 0,
        "max_waiters": 0, "provider_unavailable": 0, "shutting_down": 1});
    assert_eq!((&sessions["rejected"], &sessions["total_sessions"]), (&rejected, &json!(2)));
    assert_eq!(sessions["active_sessions"], 2);
}

#[tokio::test(start_paused = true)]
async fn metadata_of_exactly_the_limit_is_taken() {
    let rig = Rig::new(&[]);
    let empty = "{\"acme/a\":\"\"}".len();
    let metadata = format!("{{\"acme/a\":\"{}\"}}", "x".repeat(METADATA_BYTES - empty));
    assert!(matches!(rig.submit("{}", Some(&metadata)), Submitted::Waiting(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_callers_all_finish_while_statistics_are_read_all_the_time() {
    const CALLERS: u64 = 100;
    const EACH: u64 = 50;
    let rig = Arc::new(Rig::new(&[("SESSION_MAX_INFLIGHT", "100"), ("QUEUE_MAX", "1000")]));
    let tasks = Tasks::default();
    for caller in 0..CALLERS {
        let rig = Arc::clone(&rig);
        tasks.spawn(TaskKind::Session, async move {
            for nth in 0..EACH {
                let arguments = format!("{{\"text\":\"{caller} {nth}\"}}");
                let call = Call {
                    id: None,
                    tool: "echo",
                    arguments: &arguments,
                    extra: None,
                    options: Options::default(),
                };
                let answer = match rig.calls.submit(&rig.caller, call) {
                    Submitted::Answered(answer) => answer,
                    Submitted::Waiting(mut waiter) => waiter.answer().await,
                };
                answer.outcome.unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    let over = Arc::new(AtomicBool::new(false));
    let read = || {
        let (rig, over) = (Arc::clone(&rig), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut reads = 0_u64;
            while !over.load(Ordering::Acquire) {
                let stats = rig.calls.server_stats();
                assert!(stats["total_requests"].as_u64().unwrap() <= CALLERS * EACH);
                assert!(rig.calls.active(PrincipalId(0))["active_requests"].is_array());
                reads += 1;
            }
            reads
        })
    };
    let readers = [read(), read()];
    let all = crate::deadline::Deadline::after(Duration::from_secs(60));
    let drained = tasks.drained(TaskKind::Session, all).await;
    over.store(true, Ordering::Release);
    drained.unwrap_or_else(|_| panic!("held up: {}", tasks.left()));
    assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    let stats = rig.calls.server_stats();
    assert_eq!(
        (&stats["completed_requests"], &stats["active_requests"]),
        (&json!(CALLERS * EACH), &json!(0))
    );
    assert_eq!(stats["sessions"]["completed_sessions"], CALLERS * EACH);
    // Each call has its seven phases and its end.
    assert_eq!(stats["total_events"], CALLERS * EACH * 8);
}
