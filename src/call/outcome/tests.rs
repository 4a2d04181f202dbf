use super::*;

#[test]
fn texts_are_those_of_the_specification() {
    let full = CallError::Full { full: Full::Executions { limit: 200 }, retry_after: None };
    assert_eq!(full.to_string(), "Maximum concurrent sessions (200) reached. Active sessions: 200");
    let execution = ExecutionId::mint();
    let late = CallError::ProviderTimeout {
        provider: Arc::from("kimi"),
        after: Duration::from_secs(180),
        execution,
    };
    assert_eq!(late.to_string(), format!("kimi provider timeout after 180s (session: {execution})"));
    assert_eq!(
        CallError::ShuttingDown.to_string(),
        "Session manager is shutting down, cannot create new sessions"
    );
}

#[test]
fn a_wait_worth_waiting_is_never_zero() {
    let full = Full::Queue { name: Arc::from("glm"), limit: 1 };
    let error = CallError::Full { full, retry_after: Some(Duration::from_micros(3)) };
    assert_eq!(error.retry_after_ms(), Some(1));
}
