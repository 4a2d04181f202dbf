//! Questions of upstream servers to a client of the older era: requests of ours, under ids of ours.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::QuestionId;
use crate::proto::{Request, Str, read_object};
use crate::provider::asking::{Can, QUESTION_BYTES, Question, Said, one_line};

/// What a client of the newer era can be asked for, by results.
pub(super) fn by_results(capabilities: Option<&str>) -> Can {
    let can = capabilities.filter(|text| *text != "{}").map_or(Can::NOTHING, Can::declared);
    if can == Can::NOTHING { can } else { can.and(Can::BY_RESULTS) }
}

/// The request that asks it.
pub(super) fn question(id: QuestionId, question: &Question) -> String {
    let (method, params) = (question.method.name(), question.params.as_deref().unwrap_or("{}"));
    format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"{method}\",\"params\":{params}}}")
}

/// Takes it back.
pub(super) fn withdrawn(id: QuestionId) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":\"{id}\",\
         \"reason\":\"nobody needs an answer any more\"}}}}"
    )
}

/// What a client says to a question of ours; whatever else it answers was never asked.
pub(super) fn said(text: &str) -> Request<'static> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        id: Str<'a>,
        #[serde(borrow, default)]
        result: Option<&'a RawValue>,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    let Ok(response) = read_object::<Response<'_>>(text) else { return Request::Nothing };
    let Some(id) = QuestionId::parse(&response.id.0) else { return Request::Nothing };
    let said = match (response.result, response.error) {
        (Some(result), None) => Said::Result(one_line(result.get())),
        (_, Some(error)) => Said::Error(one_line(error.get())),
        (None, None) => return Request::Said(id, unfit("an answer has a result or an error")),
    };
    let (Said::Result(body) | Said::Error(body)) = &said;
    if body.len() > QUESTION_BYTES {
        return Request::Said(id, unfit("the answer is too large"));
    }
    if !body.starts_with('{') {
        return Request::Said(id, unfit("the answer is not an object"));
    }
    Request::Said(id, said)
}

/// What the server is told instead of an answer that cannot be handed on.
fn unfit(why: &str) -> Said {
    Said::Error(format!("{{\"code\":-32603,\"message\":\"{why}\"}}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::asking::Method;

    #[test]
    fn a_question_goes_under_an_id_of_ours_and_keeps_its_text() {
        let id = QuestionId::mint();
        let asked = Question::new(Method::Sample, Some("{\"n\":18446744073709551616}"));
        assert_eq!(
            question(id, &asked),
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"sampling/createMessage\",\"params\":{{\"n\":18446744073709551616}}}}"
            )
        );
    }

    #[test]
    fn what_is_said_to_it_is_read_and_nothing_else_is() {
        let id = QuestionId::mint();
        let read = |rest: &str| match said(&format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\"{rest}}}")) {
            Request::Said(read, said) if read == id => Some(said),
            _ => None,
        };
        assert_eq!(read(",\"result\":{\"n\": 1e2}"), Some(Said::Result("{\"n\": 1e2}".into())));
        assert_eq!(read(",\"error\":{\"code\":-1}"), Some(Said::Error("{\"code\":-1}".into())));
        for odd in ["", ",\"result\":7", ",\"error\":[]"] {
            assert!(matches!(read(odd), Some(Said::Error(text)) if text.contains("-32603")), "{odd}");
        }
        let large = format!(",\"result\":{{\"x\":\"{}\"}}", "x".repeat(QUESTION_BYTES));
        assert!(matches!(read(&large), Some(Said::Error(text)) if text.contains("too large")));
        for stranger in
            [r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, r#"{"jsonrpc":"2.0","id":"q_7","result":{}}"#]
        {
            assert!(matches!(said(stranger), Request::Nothing), "{stranger}");
        }
    }
}
