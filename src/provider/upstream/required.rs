//! Results of the newer era that ask instead of answering: what is asked, and how the call goes on with the answers.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::ids::PrincipalId;
use crate::provider::asking::{Ask, Can, Method, QUESTION_BYTES, Question, Said};
use crate::provider::push_json_string;
use crate::provider::upstream::message::Refusal;

/// Questions of one result.
const QUESTIONS: usize = 16;
/// States that are remembered.
const STATES: usize = 1024;

/// What goes on with a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Continued {
    /// Its server's own state.
    pub state: Option<Box<str>>,
    /// What is said to its questions, as JSON text.
    pub responses: Option<Box<str>>,
}

/// What a server asks by a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Required {
    questions: Vec<(Box<str>, Arc<Question>)>,
    /// What it wants back.
    pub(super) state: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    result_type: Cow<'a, str>,
    #[serde(borrow, default)]
    input_requests: Option<Requests<'a>>,
    #[serde(borrow, default)]
    request_state: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// In the order in which they were written.
struct Requests<'a>(Vec<(Box<str>, Asked<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Requests<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Requests<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of questions")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some((name, asked)) = map.next_entry::<Box<str>, Asked<'de>>()? {
                    all.push((name, asked));
                }
                Ok(Requests(all))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Required {
    /// Reads a result that asks; `None`: it makes no sense, or asks for more than anybody can be asked for.
    pub(super) fn read(result: &str) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_str(result).ok()?;
        let asked = wire.input_requests.map_or_else(Vec::new, |requests| requests.0);
        if wire.result_type != "input_required" || asked.len() > QUESTIONS {
            return None;
        }
        let question = |(name, asked): (Box<str>, Asked<'_>)| {
            let params = asked.params.map(RawValue::get);
            let fits = params.is_none_or(|params| params.len() <= QUESTION_BYTES);
            let method = Method::parse(&asked.method).filter(|_| fits)?;
            Some((name, Arc::new(Question::new(method, params))))
        };
        let questions = asked.into_iter().map(question).collect::<Option<_>>()?;
        Some(Self { questions, state: wire.request_state.map(Into::into) })
    }

    /// What whoever is asked all of it must have declared.
    pub(super) fn needs(&self) -> Can {
        self.questions.iter().fold(Can::NOTHING, |all, (_, question)| all.and(question.needs))
    }

    /// Asks all of it at once.
    ///
    /// # Errors
    /// What somebody said instead of a result: only results go back.
    pub(super) async fn ask(self, ask: &Arc<dyn Ask>) -> Result<Continued, Refusal> {
        let each = self.questions.iter().map(|(_, question)| ask.ask(Arc::clone(question)));
        let said = join_all(each).await;
        let mut responses = String::from("{");
        for ((name, question), said) in self.questions.iter().zip(said) {
            let result = match said.unwrap_or_else(|_| question.nobody()) {
                Said::Result(result) => result,
                Said::Error(error) => return Err(super::message::refusal(&error)),
            };
            if responses.len() > 1 {
                responses.push(',');
            }
            push_json_string(&mut responses, name);
            responses.push(':');
            responses.push_str(&result);
        }
        responses.push('}');
        Ok(Continued { state: self.state, responses: Some(responses.into()) })
    }
}

/// To whom states of a server were given that several principals share: none goes on with another's call.
#[derive(Default)]
pub(super) struct Given {
    states: Mutex<VecDeque<(u128, PrincipalId)>>,
}

impl Given {
    /// One is handed on.
    pub(super) fn to(&self, principal: PrincipalId, state: &str) {
        let mut states = self.states.lock();
        if states.len() >= STATES {
            states.pop_front();
        }
        states.push_back((xxh3_128(state.as_bytes()), principal));
    }

    /// Whether somebody may come back with it. One that is not remembered is left to its server.
    pub(super) fn is_of(&self, principal: PrincipalId, state: &str) -> bool {
        let digest = xxh3_128(state.as_bytes());
        let states = self.states.lock();
        let mut owners = states.iter().filter(|(given, _)| *given == digest).peekable();
        owners.peek().is_none() || owners.any(|(_, owner)| *owner == principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_result_asks_is_read_in_its_order() {
        let result = r#"{"resultType":"input_required","inputRequests":{"b":{"method":"roots/list"},
            "a":{"method":"elicitation/create","params":{"n":18446744073709551616}}},"requestState":"s\u0041"}"#;
        let required = Required::read(result).unwrap();
        assert_eq!(required.state.as_deref(), Some("sA"));
        assert_eq!(required.needs(), Can::ROOTS.and(Can::FORMS));
        let names: Vec<_> = required.questions.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(required.questions[1].1.params.as_deref(), Some(r#"{"n":18446744073709551616}"#));
        let only_state = Required::read(r#"{"resultType":"input_required","requestState":"x"}"#).unwrap();
        assert!(only_state.questions.is_empty() && only_state.needs() == Can::NOTHING);
    }

    #[test]
    fn what_makes_no_sense_asks_nothing() {
        let many: Vec<_> = (0..17).map(|n| format!("\"{n}\":{{\"method\":\"roots/list\"}}")).collect();
        for result in [
            r#"{"resultType":"task"}"#,
            r#"{"resultType":"input_required","inputRequests":[]}"#,
            r#"{"resultType":"input_required","inputRequests":{"a":{"method":"tools/call"}}}"#,
            r#"{"resultType":"input_required","inputRequests":{"a":7}}"#,
            &format!("{{\"resultType\":\"input_required\",\"inputRequests\":{{{}}}}}", many.join(",")),
        ] {
            assert_eq!(Required::read(result), None, "{result}");
        }
    }

    #[test]
    fn a_state_is_its_principals_own_where_it_is_remembered() {
        let (given, [a, b]) = (Given::default(), [1, 2].map(PrincipalId));
        assert!(given.is_of(b, "s"), "nothing is known of it");
        given.to(a, "s");
        assert!(given.is_of(a, "s") && !given.is_of(b, "s"));
        given.to(b, "s");
        assert!(given.is_of(a, "s") && given.is_of(b, "s"), "a server may give the same to both");
        (0..STATES).for_each(|n| given.to(a, &n.to_string()));
        assert_eq!(given.states.lock().len(), STATES);
        assert!(given.is_of(b, "s"));
    }
}
