//! Questions to whoever calls: by requests in the older era, by results in the newer one.

use serde_json::{Map, Value, json};

use crate::{Call, No};

/// One question: the key of its answer, its method and its parameters.
pub(crate) type Question = (&'static str, &'static str, Value);

/// A form with these properties, all of them required.
pub(crate) fn form(key: &'static str, message: &str, properties: &Value) -> Question {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    (key, "elicitation/create", json!({"message": message, "requestedSchema": schema}))
}

/// What a model is to say to this.
pub(crate) fn sample(key: &'static str, text: &str, tokens: u64) -> Question {
    let messages = json!([{"role": "user", "content": {"type": "text", "text": text}}]);
    (key, "sampling/createMessage", json!({"messages": messages, "maxTokens": tokens}))
}

pub(crate) fn roots(key: &'static str) -> Question {
    (key, "roots/list", json!({}))
}

impl Call {
    /// Asks, and gives the answers by their keys. In the newer era there are none before the call comes again with them;
    /// `state` is then what it brings back.
    pub(crate) fn ask(&self, questions: &[Question], state: Option<&str>) -> Result<Map<String, Value>, No> {
        if self.is_newer {
            return self.ask_by_result(questions, state);
        }
        let ask =
            |(key, method, params): &Question| Ok(((*key).to_owned(), self.server.ask(method, params)?));
        questions.iter().map(ask).collect()
    }

    fn ask_by_result(&self, questions: &[Question], state: Option<&str>) -> Result<Map<String, Value>, No> {
        let responses = self.responses();
        let said = |key: &str| responses.and_then(|all| all.get(key)).filter(|said| said.is_object());
        if questions.iter().all(|(key, ..)| said(key).is_some()) {
            let answers = questions.iter().map(|(key, ..)| ((*key).to_owned(), said(key).unwrap().clone()));
            return Ok(answers.collect());
        }
        let requests: Map<_, _> = questions
            .iter()
            .map(|(key, method, params)| ((*key).to_owned(), json!({"method": method, "params": params})))
            .collect();
        let mut result = json!({"resultType": "input_required", "inputRequests": requests});
        if let Some(state) = state {
            result["requestState"] = json!(signed(state));
        }
        Err(No::Ask(result))
    }

    /// The state that a call brings back; one that was changed on the way is refused.
    pub(crate) fn state(&self) -> Result<Option<&str>, No> {
        let Some(text) = self.params["requestState"].as_str() else { return Ok(None) };
        let state = text.rsplit_once('.').map(|(state, _)| state);
        let is_ours = state.is_some_and(|state| signed(state) == text);
        if is_ours { Ok(state) } else { Err(No::params("requestState was changed on its way")) }
    }
}

/// What the suite does to a state, this notices (FNV-1a); it keeps nobody out.
fn signed(state: &str) -> String {
    let sum = state
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{state}.{sum:016x}")
}
