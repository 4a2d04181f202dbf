//! How often a principal may call.

use std::time::Duration;

use tokio::time::Instant;

use crate::call::tests::rig::{Rig, code, end, error, pass, secs, text};
use crate::call::tests::stage::Order;
use crate::call::{Answer, Call, Caller, ClientSession, Code, Options, Principal, Submitted};
use crate::config::PrincipalConfig;
use crate::config::principals::RateLimit;
use crate::ids::{ClientSessionId, PrincipalId};

/// A caller of `principal`, which may make `per_minute` calls, over session `session`.
pub(super) fn callers(per_minute: u32, burst: u32, sessions: u64) -> Vec<Caller> {
    let rate = Some(RateLimit { per_minute, burst });
    let config = PrincipalConfig { rate, ..PrincipalConfig::plain("ci") };
    let principal = std::sync::Arc::new(Principal::new(PrincipalId(7), &config, 9));
    let caller = |session| {
        let session = ClientSession::new(ClientSessionId(session), 99, 99).into();
        Caller { principal: std::sync::Arc::clone(&principal), session, attachment: None }
    };
    (0..sessions).map(caller).collect()
}

fn call(rig: &Rig, caller: &Caller, tool: &str, arguments: &str) -> Option<Answer> {
    let call = Call { id: None, tool, arguments, extra: None, options: Options::default() };
    match rig.calls.submit(caller, call) {
        Submitted::Answered(answer) => Some(answer),
        Submitted::Waiting(_) => None,
    }
}

fn echo(rig: &Rig, caller: &Caller, text: u32) -> Answer {
    call(rig, caller, "echo", &format!("{{\"text\":\"{text}\"}}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn of_ten_calls_a_minute_the_eleventh_is_refused_with_the_exact_time_to_wait() {
    let rig = Rig::new(&[]);
    let sessions = callers(10, 10, 3);
    let began = Instant::now();
    for (number, caller) in (0..10).zip(sessions.iter().cycle()) {
        assert_eq!(code(&echo(&rig, caller, number)), None, "call {number}");
    }
    pass(Duration::from_millis(1500)).await;
    let refused = echo(&rig, &sessions[1], 11);
    assert_eq!(code(&refused), Some(Code::RateLimited));
    assert!(error(&refused).retryable());
    assert_eq!(
        error(&refused).to_string(),
        "Rate limit reached: ci may make 10 calls a minute; the next one in 4.500s"
    );
    assert_eq!(error(&refused).retry_after_ms(), Some(4500));
    pass(Duration::from_millis(4499)).await;
    assert_eq!(code(&echo(&rig, &sessions[2], 12)), Some(Code::RateLimited));
    pass(Duration::from_millis(1)).await;
    assert_eq!((code(&echo(&rig, &sessions[0], 13)), began.elapsed()), (None, secs(6)));
    let stats = crate::tool::Insight::server_stats(&*rig.calls);
    assert_eq!(stats["rate_limited"], serde_json::json!({"ci": 2}));
    assert_eq!(stats["sessions"]["rejected"]["rate_limited"], 2);
    assert_eq!(code(&echo(&rig, &rig.caller(1, 1), 1)), None, "another principal has no limit");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_none_and_the_daemons_own_tools_take_nothing_of_the_rate() {
    let rig = Rig::new(&[]);
    let [caller] = &callers(1, 1, 1)[..] else { panic!("one") };
    for _ in 0..3 {
        assert_eq!(code(&call(&rig, caller, "health", "{}").unwrap()), None);
        assert_eq!(code(&call(&rig, caller, "echo", "{}").unwrap()), Some(Code::ValidationError));
        assert_eq!(code(&call(&rig, caller, "ehco", "{}").unwrap()), Some(Code::ToolNotFound));
    }
    assert_eq!(code(&echo(&rig, caller, 1)), None);
    assert_eq!(code(&echo(&rig, caller, 2)), Some(Code::RateLimited));
    assert_eq!(code(&call(&rig, caller, "health", "{}").unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_composite_take_nothing_of_their_callers_rate() {
    let rig = Rig::new(&[]);
    let [caller] = &callers(1, 1, 1)[..] else { panic!("one") };
    let models =
        r#"{"prompt":"p","models":[{"provider":"second"},{"provider":"second"},{"provider":"offline"}]}"#;
    let options = Options::default();
    let Submitted::Waiting(mut waiter) = rig.submit(caller, "consensus", models, options) else {
        panic!("it asks three")
    };
    crate::call::tests::rig::settle().await;
    while rig.stage.running().contains(&"p".to_owned()) {
        rig.stage.order(rig.stage.find("p"), Order::answer("one of two"));
        crate::call::tests::rig::settle().await;
    }
    assert!(text(&end(&mut waiter).await).contains("one of two"));
    assert_eq!(code(&echo(&rig, caller, 2)), Some(Code::RateLimited), "its own call was the one");
}
