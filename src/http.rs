//! The plain HTTP doors: one call for scripts, and what monitors look at.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::call::{Answer, Call, CallError, Caller, Code, Principal, Submitted};
use crate::deadline::Deadline;
use crate::door::Hub;
use crate::proto::op::{self, Execute};
use crate::proto::{push_error, read_object};
use crate::tool::{Builtin, Insight};

mod listening;
mod mcp;
mod sessions;
mod under_way;

pub use sessions::Sessions;

/// An answer's body: whole, or one that comes as it is made.
pub type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// An answer.
pub type Answered = Response<Body>;

/// A body that is there.
pub fn whole(body: Bytes) -> Body {
    Body::Left(Full::new(body))
}

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_mins(1);

/// Answers one request of an admitted caller.
///
/// Dropping the future is leaving because the connection went.
pub async fn route(
    hub: &Arc<Hub>,
    sessions: &Sessions,
    peer: IpAddr,
    principal: &Arc<Principal>,
    request: Request<Incoming>,
) -> Answered {
    let method = request.method().clone();
    match request.uri().path() {
        "/healthz" | "/readyz" => health(hub, request.uri().path()),
        // Both tell of everybody's calls: who may not ask the tool may not look here.
        "/api/v1/stats" | "/api/v1/doctor" if method == Method::GET && !principal.allows(Builtin::ServerStats.name()) => {
            refused(StatusCode::NOT_FOUND, &hub.view(principal).no_such_tool(Builtin::ServerStats.name()))
        }
        "/api/v1/stats" if method == Method::GET => json(StatusCode::OK, hub.calls.server_stats().to_string()),
        "/api/v1/doctor" if method == Method::GET => json(StatusCode::OK, hub.doctor().to_string()),
        "/api/v1/execute" if method == Method::POST => execute(hub, hub.caller_at(Arc::clone(principal), peer), request).await,
        "/mcp" => mcp::route(hub, sessions, peer, principal, request).await,
        "/api/v1/stats" | "/api/v1/doctor" => not_allowed("GET"),
        "/api/v1/execute" => not_allowed("POST"),
        _ => refused(
            StatusCode::NOT_FOUND,
            &CallError::Invalid(
                "nothing here: there are POST /mcp, POST /api/v1/execute, GET /api/v1/stats, GET /api/v1/doctor, /healthz, /readyz, and WebSocket upgrades".into(),
            ),
        ),
    }
}

/// Whether the daemon lives, and whether it should be given work. Needs no token.
pub fn health(hub: &Hub, path: &str) -> Answered {
    let version = env!("CARGO_PKG_VERSION");
    if path == "/healthz" {
        return json(
            StatusCode::OK,
            json!({"status": "ok", "name": "inflightd", "version": version}).to_string(),
        );
    }
    let mut reasons = Vec::new();
    if hub.calls.watch().lifecycle().draining() {
        reasons.push("draining: the daemon is going down");
    }
    if hub.health.broken() {
        reasons.push("an invariant is broken: see the log");
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, json!({"ready": reasons.is_empty(), "reasons": reasons, "version": version}).to_string())
}

/// A request's body, whole; else the refusal.
async fn body_of(hub: &Hub, body: Incoming) -> Result<Bytes, Answered> {
    let limit = hub.limits.frame_bytes;
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        // Before any of it is read, or its client is told to go on.
        let mut response = too_large(limit);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Err(response);
    }
    let invalid = |status, text: &str| refused(status, &CallError::Invalid(text.into()));
    match Deadline::after(BODY).limit(Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(_)) => Err(invalid(StatusCode::BAD_REQUEST, "the body was cut")),
        Err(_) => Err(invalid(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
    }
}

/// One call, answered when it has ended.
async fn execute(hub: &Hub, caller: Caller, request: Request<Incoming>) -> Answered {
    let body = match body_of(hub, request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let invalid = |text: String| refused(StatusCode::BAD_REQUEST, &CallError::Invalid(text));
    let Ok(text) = std::str::from_utf8(&body) else { return invalid("the body is not UTF-8".into()) };
    let execute: Execute<'_> = match read_object(text) {
        Ok(execute) => execute,
        Err(error) if error.is_data() => {
            let text = "the body must be {\"tool\":\"…\",\"arguments\":{…},\"priority\"?,\"timeout_secs\"?,\"dedup\"?}";
            return invalid(text.into());
        }
        Err(_) => return invalid("the body is not valid JSON".into()),
    };
    let arguments = execute.arguments.map_or("{}", serde_json::value::RawValue::get);
    if !arguments.starts_with('{') {
        return invalid("`arguments` must be an object".into());
    }
    let options = match execute.options() {
        Ok(options) => options,
        Err(text) => return invalid(text),
    };
    let call = Call { id: None, tool: &execute.tool.0, arguments, extra: None, options };
    let answer = match hub.calls.submit(&caller, call) {
        Submitted::Answered(answer) => answer,
        Submitted::Waiting(mut waiter) => waiter.answer().await,
    };
    answered(&answer)
}

fn too_large(limit: usize) -> Answered {
    let text = format!("the body has more than {limit} bytes");
    refused(StatusCode::PAYLOAD_TOO_LARGE, &CallError::Invalid(text))
}

fn answered(answer: &Answer) -> Answered {
    let mut body = String::from("{");
    op::push_answer(&mut body, answer);
    body.push('}');
    match &answer.outcome {
        Ok(_) => json(StatusCode::OK, body),
        Err(error) => with_retry(json(status(error.code()), body), error),
    }
}

/// The HTTP status of an error.
fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest | Code::ValidationError => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::ToolNotFound => StatusCode::NOT_FOUND,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::ProviderError | Code::OutcomeUnknown => StatusCode::BAD_GATEWAY,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::OverCapacity | Code::QueueTimeout | Code::ProviderUnavailable | Code::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A request that made no call.
pub fn refused(status: StatusCode, error: &CallError) -> Answered {
    let mut body = String::from("{\"error\":");
    push_error(&mut body, error);
    body.push('}');
    with_retry(json(status, body), error)
}

/// Adds `Retry-After` where the status speaks of waiting: in whole seconds, a second at least.
fn with_retry(mut response: Answered, error: &CallError) -> Answered {
    if matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        let seconds = error.retry_after_ms().map_or(1, |ms| ms.div_ceil(1000));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn not_allowed(allowed: &'static str) -> Answered {
    let error = CallError::Invalid(format!("use {allowed} here"));
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &error);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// An answer of JSON that nobody may keep.
pub fn json(status: StatusCode, body: String) -> Answered {
    let mut response = Response::new(whole(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
    response.headers_mut().insert(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Full;
    use crate::call::tests::rig::Rig;
    use crate::health::Health;

    #[tokio::test]
    async fn a_broken_invariant_makes_it_unready_and_says_so() {
        let rig = Rig::new(&[]);
        let health = Arc::new(Health::default());
        let hub = Hub::new(&rig.config, Arc::clone(&rig.calls), Arc::clone(&health), rig.tasks.clone());
        let ready = async || {
            let answered = self::health(&hub, "/readyz");
            let status = answered.status().as_u16();
            let body = answered.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(ready().await.0, 200);
        let lost = rig.lost_flight();
        health.look(&rig.calls).await;
        let (status, body) = ready().await;
        assert!(status == 503 && body.contains("an invariant is broken"), "{body}");
        assert_eq!(self::health(&hub, "/healthz").status(), StatusCode::OK, "it lives");
        drop(lost);
        health.look(&rig.calls).await;
        assert_eq!(ready().await.0, 200);
    }

    #[test]
    fn each_code_has_the_status_of_the_specification() {
        for (status_of, codes) in [
            (400, vec![Code::InvalidRequest, Code::ValidationError]),
            (401, vec![Code::Unauthorized]),
            (404, vec![Code::ToolNotFound]),
            (429, vec![Code::RateLimited]),
            (499, vec![Code::Cancelled]),
            (500, vec![Code::InternalError]),
            (502, vec![Code::ProviderError, Code::OutcomeUnknown]),
            (
                503,
                vec![Code::OverCapacity, Code::QueueTimeout, Code::ProviderUnavailable, Code::ShuttingDown],
            ),
            (504, vec![Code::Timeout]),
        ] {
            for code in codes {
                assert_eq!(status(code).as_u16(), status_of, "{code:?}");
            }
        }
    }

    #[test]
    fn whoever_is_to_wait_is_told_so_in_whole_seconds_and_never_too_few() {
        let after = |retry_after| CallError::Full { full: Full::Executions { limit: 1 }, retry_after };
        for (error, code, seconds) in [
            (after(Some(Duration::from_millis(1001))), StatusCode::SERVICE_UNAVAILABLE, Some("2")),
            (after(None), StatusCode::SERVICE_UNAVAILABLE, Some("1")),
            (CallError::ShuttingDown, StatusCode::SERVICE_UNAVAILABLE, Some("1")),
            (after(Some(Duration::from_secs(60))), StatusCode::TOO_MANY_REQUESTS, Some("60")),
            (CallError::Lost, StatusCode::INTERNAL_SERVER_ERROR, None),
        ] {
            let response = refused(code, &error);
            let told = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(told, seconds, "{error}");
        }
    }
}
