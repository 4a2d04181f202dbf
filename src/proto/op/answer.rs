//! The end of a call, as objects say it: the op protocol and `POST /api/v1/execute`.

use crate::call::{Answer, CallError};
use crate::lifecycle::Role;
use crate::proto::op::push_secs;
use crate::proto::{push_error, push_ms, push_usage};
use crate::provider::{content, push_json_string};

/// Appends `"outputs":…,"metadata":…`, or `"error":…,"metadata":…`.
pub fn push_answer(out: &mut String, answer: &Answer) {
    match &answer.outcome {
        Ok(reply) => {
            out.push_str("\"outputs\":");
            out.push_str(reply.content());
        }
        // The call has not failed: an `error` might be taken for a reason to call again.
        Err(error) if matches!(**error, CallError::AnsweredEarly { .. }) => {
            out.push_str("\"outputs\":[");
            out.push_str(&content::text_block(&error.to_string()));
            out.push_str("],\"still_running\":true");
        }
        Err(error) => {
            out.push_str("\"error\":");
            push_error(out, error);
        }
    }
    push_metadata(out, answer);
}

/// Appends how the caller came to its result, and `,"metadata":…`.
pub(super) fn push_metadata(out: &mut String, answer: &Answer) {
    if let Ok(reply) = &answer.outcome {
        if reply.is_error {
            out.push_str(",\"is_error\":true");
        }
        match answer.role {
            Some(Role::Follower) => out.push_str(",\"from_inflight\":true"),
            Some(Role::Cache) => out.push_str(",\"from_cache\":true"),
            Some(Role::Leader) | None => {}
        }
    }
    out.push_str(",\"metadata\":{\"request_id\":\"");
    answer.request.write_to(out);
    if let Some(execution) = answer.execution {
        out.push_str("\",\"session_id\":\"");
        execution.write_to(out);
    }
    if let Some(role) = answer.role {
        out.push_str("\",\"role\":\"");
        out.push_str(role.label());
    }
    // A kept outcome may be found under an Execution that needed no work.
    let executed = answer.execution.is_some() && answer.role != Some(Role::Cache);
    out.push_str(if executed { "\",\"executed\":true" } else { "\",\"executed\":false" });
    push_latency(out, answer);
    if let Some(provider) = &answer.provider {
        out.push_str(",\"provider\":");
        push_json_string(out, provider);
    }
    if let Ok(reply) = &answer.outcome {
        if reply.is_partial {
            out.push_str(",\"partial\":true");
        }
        if let Some(model) = &reply.model {
            out.push_str(",\"model\":");
            push_json_string(out, model);
        }
        if let Some(usage) = reply.usage {
            out.push_str(",\"usage\":");
            push_usage(out, usage);
        }
        if let Some(id) = answer.continuation() {
            out.push_str(",\"continuation_id\":");
            push_json_string(out, &id.to_string());
        }
    }
    push_session(out, answer);
    out.push('}');
}

/// Appends `,"session":{"session_id","request_id","duration_seconds"}`: of every answer, even where no Execution was
/// needed.
fn push_session(out: &mut String, answer: &Answer) {
    out.push_str(",\"session\":{\"session_id\":");
    match answer.execution {
        Some(execution) => {
            out.push('"');
            execution.write_to(out);
            out.push('"');
        }
        None => out.push_str("null"),
    }
    out.push_str(",\"request_id\":\"");
    answer.request.write_to(out);
    out.push_str("\",\"duration_seconds\":");
    push_secs(out, answer.spent.total);
    out.push('}');
}

fn push_latency(out: &mut String, answer: &Answer) {
    let spent = &answer.spent;
    out.push_str(",\"latency\":{");
    let parts = [
        ("\"total_ms\":", spent.total),
        (",\"queue_ms\":", spent.queue),
        (",\"permit_ms\":", spent.permit),
        (",\"provider_ms\":", spent.provider),
        (",\"overhead_ms\":", spent.overhead()),
    ];
    for (name, span) in parts {
        out.push_str(name);
        push_ms(out, span);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::call::CallError;
    use crate::ids::{ExecutionId, RequestId};
    use crate::lifecycle::Spent;
    use crate::provider::Reply;

    #[test]
    fn every_answer_says_its_session_its_request_and_how_long_it_took() {
        let (request, execution) = (RequestId::mint(), ExecutionId::mint());
        let spent = Spent { total: Duration::from_micros(1_250_500), ..Spent::default() };
        let outcome = || Ok(Arc::new(Reply::text("a")));
        let worked = Answer {
            request,
            execution: Some(execution),
            role: Some(Role::Leader),
            provider: None,
            spent,
            outcome: outcome(),
        };
        let at_once =
            Answer { execution: None, outcome: Err(Arc::new(CallError::ShuttingDown)), ..worked.clone() };
        let session = |answer: &Answer| {
            let mut body = String::from("{");
            push_answer(&mut body, answer);
            body.push('}');
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            body["metadata"]["session"].clone()
        };
        let told = |session_id: Option<String>| {
            let request_id = request.to_string();
            serde_json::json!({"session_id": session_id, "request_id": request_id, "duration_seconds": 1.2505})
        };
        assert_eq!(session(&worked), told(Some(execution.to_string())));
        assert_eq!(session(&at_once), told(None));
    }

    #[test]
    fn what_was_kept_was_not_executed_whatever_it_was_found_under() {
        let told = |role| {
            let answer = Answer {
                request: RequestId::mint(),
                execution: Some(ExecutionId::mint()),
                role: Some(role),
                provider: None,
                spent: Spent::default(),
                outcome: Ok(Arc::new(Reply::text("kept"))),
            };
            let mut body = String::new();
            push_answer(&mut body, &answer);
            body
        };
        assert!(told(Role::Follower).contains(r#""executed":true"#));
        assert!(told(Role::Cache).contains(r#""executed":false"#));
    }
}
