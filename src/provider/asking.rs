//! What a server asks of whoever called it, while it works for the call: to fill in a form, to have a model say
//! something, to name its roots. Questions and answers pass as they were written.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::provider::Reply;

/// The longest question, and the longest answer: both are kept in memory while somebody thinks.
pub const QUESTION_BYTES: usize = 1024 * 1024;

/// What a caller can be asked for, as its client declared it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Can(u8);

impl Can {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// To fill in a form.
    pub const FORMS: Self = Self(1);
    /// To open an address.
    pub const URLS: Self = Self(2);
    /// To have a model say something.
    pub const SAMPLING: Self = Self(4);
    /// To let that model call tools.
    pub const SAMPLING_TOOLS: Self = Self(8);
    /// To name its roots.
    pub const ROOTS: Self = Self(16);
    /// It is asked by the result of its call, and calls again with the answer.
    pub const BY_RESULTS: Self = Self(32);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of this is there.
    pub fn covers(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// All of this but that.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The same as a client's capabilities, as JSON text.
    pub fn capabilities(self) -> Cow<'static, str> {
        if self.without(Self::BY_RESULTS) == Self::NOTHING {
            return Cow::Borrowed("{}");
        }
        let has = |what| self.covers(what);
        let both = |parts: [(bool, &str); 2]| {
            let there = parts.into_iter().filter(|(is_there, _)| *is_there);
            there.map(|(_, name)| format!("\"{name}\":{{}}")).collect::<Vec<_>>().join(",")
        };
        let mut all = Vec::new();
        if has(Self::FORMS) || has(Self::URLS) {
            let parts = both([(has(Self::FORMS), "form"), (has(Self::URLS), "url")]);
            all.push(format!("\"elicitation\":{{{parts}}}"));
        }
        if has(Self::ROOTS) {
            all.push("\"roots\":{}".to_owned());
        }
        if has(Self::SAMPLING) {
            all.push(format!(
                "\"sampling\":{{{}}}",
                both([(has(Self::SAMPLING_TOOLS), "tools"), (false, "")])
            ));
        }
        Cow::Owned(format!("{{{}}}", all.join(",")))
    }

    /// What a client's capabilities declare, read from their JSON text. What has no form declares nothing.
    pub fn declared(capabilities: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Declared<'a> {
            #[serde(borrow, default)]
            elicitation: Option<&'a RawValue>,
            #[serde(borrow, default)]
            sampling: Option<&'a RawValue>,
            #[serde(borrow, default)]
            roots: Option<&'a RawValue>,
        }
        #[derive(Default, Deserialize)]
        struct Parts<'a> {
            #[serde(borrow, default)]
            form: Option<&'a RawValue>,
            #[serde(borrow, default)]
            url: Option<&'a RawValue>,
            #[serde(borrow, default)]
            tools: Option<&'a RawValue>,
        }
        fn parts(part: Option<&RawValue>) -> Option<Parts<'_>> {
            read(part?.get())
        }
        let declared = read::<Declared<'_>>(capabilities).unwrap_or_default();
        let mut can = Self::NOTHING;
        if let Some(parts) = parts(declared.elicitation) {
            // An empty object is of a time when there were only forms.
            let forms = parts.form.is_some() || parts.url.is_none();
            can = can.and(if forms { Self::FORMS } else { Self::NOTHING });
            can = can.and(if parts.url.is_some() { Self::URLS } else { Self::NOTHING });
        }
        if let Some(parts) = parts(declared.sampling) {
            can = can.and(Self::SAMPLING);
            can = can.and(if parts.tools.is_some() { Self::SAMPLING_TOOLS } else { Self::NOTHING });
        }
        if parts(declared.roots).is_some() {
            can = can.and(Self::ROOTS);
        }
        can
    }
}

/// Reads an object; nothing else is one.
fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_ascii_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A form to fill in, or an address to open.
    Elicit,
    /// A model's words.
    Sample,
    /// The roots.
    Roots,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Elicit, Self::Sample, Self::Roots];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Elicit => "elicitation/create",
            Self::Sample => "sampling/createMessage",
            Self::Roots => "roots/list",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub method: Method,
    /// Its parameters, as JSON text on one line.
    pub params: Option<Box<str>>,
    /// What whoever is asked must have declared.
    pub needs: Can,
}

impl Question {
    /// A question as its server wrote it.
    pub fn new(method: Method, params: Option<&str>) -> Self {
        #[derive(Default, Deserialize)]
        struct Kind<'a> {
            #[serde(borrow, default)]
            mode: Option<&'a RawValue>,
            #[serde(borrow, default)]
            tools: Option<&'a RawValue>,
            #[serde(borrow, default, rename = "toolChoice")]
            choice: Option<&'a RawValue>,
        }
        let kind = params.and_then(read::<Kind<'_>>).unwrap_or_default();
        let needs = match method {
            Method::Elicit if kind.mode.is_some_and(|mode| mode.get() == "\"url\"") => Can::URLS,
            Method::Elicit => Can::FORMS,
            Method::Sample if kind.tools.is_some() || kind.choice.is_some() => {
                Can::SAMPLING.and(Can::SAMPLING_TOOLS)
            }
            Method::Sample => Can::SAMPLING,
            Method::Roots => Can::ROOTS,
        };
        Self { method, params: params.map(one_line), needs }
    }

    /// What a server is told whose question nobody can be asked.
    pub fn nobody(&self) -> Said {
        match self.method {
            Method::Elicit => Said::Result("{\"action\":\"decline\"}".into()),
            Method::Sample | Method::Roots => {
                let what = self.method.name();
                Said::Error(
                    format!(
                        "{{\"code\":-32601,\"message\":\"no client that waits for this declared {what}\"}}"
                    )
                    .into(),
                )
            }
        }
    }
}

/// JSON text without ends of lines: outside of a string they say what a space says, and inside there are none.
pub fn one_line(json: &str) -> Box<str> {
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
        return json.into();
    }
    json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).collect::<String>().into()
}

impl Reply {
    /// A result that asks whoever called: members of the object, without braces.
    pub fn asking(members: String) -> Self {
        Self { asks: true, ..Self::spliced(members, 0..0, false) }
    }
}

/// What was said to a question, as JSON text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A result.
    Result(Box<str>),
    /// An error of JSON-RPC.
    Error(Box<str>),
}

impl Said {
    /// The member of a response that says it: `"result":…` or `"error":…`.
    pub fn member(&self) -> String {
        match self {
            Self::Result(result) => format!("\"result\":{result}"),
            Self::Error(error) => format!("\"error\":{error}"),
        }
    }
}

/// There is nobody left who waits for the work and could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody is there who could answer")]
pub struct Nobody;

/// Asks those who wait for a piece of work, one after the other: the earliest who can answer, and the next where that
/// one leaves.
pub trait Ask: Send + Sync {
    /// What those who wait now can be asked for, each for some of it.
    fn can(&self) -> Can;

    /// Whether all who wait now can be asked for this, each by the result of its own call.
    fn all_by_results(&self, needs: Can) -> bool;

    /// Whether anybody waits now; else those who waited may come back.
    fn is_there(&self) -> bool;

    /// Asks. Dropping what is returned withdraws the question.
    fn ask(&self, question: Arc<Question>) -> BoxFuture<'static, Result<Said, Nobody>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_declare_is_read_in_every_form() {
        let (all, both) = (Can::FORMS.and(Can::URLS), Can::SAMPLING.and(Can::SAMPLING_TOOLS));
        for (capabilities, can) in [
            ("{}", Can::NOTHING),
            ("7", Can::NOTHING),
            ("[{}]", Can::NOTHING),
            (r#"{"elicitation":null,"sampling":true,"roots":7}"#, Can::NOTHING),
            (r#"{"elicitation":{}}"#, Can::FORMS),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, all),
            (r#"{"elicitation":{"url":{}}}"#, Can::URLS),
            (r#"{"sampling":{}}"#, Can::SAMPLING),
            (r#"{"sampling":{"tools":{}},"x":[1]}"#, both),
            (r#"{"roots":{"listChanged":true}}"#, Can::ROOTS),
        ] {
            assert_eq!(Can::declared(capabilities), can, "{capabilities}");
        }
    }

    #[test]
    fn what_is_declared_reads_back() {
        let all = Can::FORMS.and(Can::URLS).and(Can::SAMPLING).and(Can::SAMPLING_TOOLS).and(Can::ROOTS);
        for can in [all, Can::FORMS, Can::URLS, Can::SAMPLING, Can::ROOTS.and(Can::SAMPLING), Can::NOTHING] {
            assert_eq!(Can::declared(&can.capabilities()), can, "{}", can.capabilities());
        }
        assert_eq!(Can::BY_RESULTS.capabilities(), "{}");
    }

    #[test]
    fn a_question_says_what_it_needs() {
        let needs = |method, params| Question::new(method, params).needs;
        assert_eq!(needs(Method::Elicit, Some(r#"{"mode":"url"}"#)), Can::URLS);
        assert_eq!(needs(Method::Elicit, Some(r#"{"mode":"form"}"#)), Can::FORMS);
        assert_eq!(needs(Method::Elicit, None), Can::FORMS);
        assert_eq!(needs(Method::Roots, None), Can::ROOTS);
        let tools = needs(Method::Sample, Some(r#"{"tools":[]}"#));
        assert!(tools.covers(Can::SAMPLING_TOOLS) && !Can::SAMPLING.covers(tools));
        assert!(!Can::NOTHING.covers(Can::ROOTS) && Can::ROOTS.covers(Can::NOTHING));
    }

    #[test]
    fn a_question_keeps_its_text_and_stays_on_one_line() {
        let question =
            Question::new(Method::Sample, Some("{\"n\": 18446744073709551616,\r\n \"s\": \"a\\nb\"}"));
        assert_eq!(question.params.as_deref(), Some("{\"n\": 18446744073709551616,   \"s\": \"a\\nb\"}"));
    }
}
