//! Prompt tools: a question to a model, declared in TOML that users copy and change.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::config::Price;
use crate::ids::PrincipalId;
use crate::provider::catalog::Books;
use crate::provider::chat::{ChatProvider, ChatRequest, ChatRole, Image, Message, Meter, Parameters};
use crate::provider::{Context, Elsewhere, Fault, Job, NotAsked, Reply, Usage};
use crate::tool::{Dedup, Effect, Misfit, Worth};

pub mod thread;

pub use thread::Thread;

/// The tools that come with the daemon.
pub const BUILT_IN: &str = include_str!("tools.toml");

/// Which of the ladder's tool timeouts holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeoutClass {
    /// `WORKFLOW_TOOL_TIMEOUT_SECS`
    Workflow,
    /// `EXPERT_ANALYSIS_TIMEOUT_SECS`
    Expert,
}

/// One `[[tool]]` of a tools file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// What a model chooses it by.
    pub description: String,
    /// What calling it does to the world; a question to a model changes nothing.
    #[serde(default = "read")]
    pub effect: Effect,
    /// Who may share one execution, if others than the effect says.
    #[serde(default)]
    pub dedup: Option<Dedup>,
    /// How long its results answer equal calls, in seconds; not at all, where nothing is said.
    #[serde(default)]
    pub cache_ttl_secs: Option<u32>,
    /// Which timeout holds.
    pub class: TimeoutClass,
    /// The system prompt, where the caller brings none.
    #[serde(default)]
    pub system: String,
    /// The parts of the question. A part whose `{argument}` is absent is left out.
    pub message: Vec<String>,
    /// The JSON Schema of its arguments.
    pub input_schema: Map<String, Value>,
}

fn read() -> Effect {
    Effect::Read
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tool: Vec<Declaration>,
}

/// Reads a tools file.
pub fn parse(text: &str) -> Result<Vec<Declaration>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.tool)
}

/// The part of a prompt tool that makes a question of its arguments.
#[derive(Debug, Clone)]
pub struct PromptTool {
    system: Arc<str>,
    message: Arc<[String]>,
    converses: bool,
}

impl PromptTool {
    /// The tool's way to ask.
    pub fn new(declaration: &Declaration) -> Self {
        let properties = declaration.input_schema.get("properties");
        Self {
            system: Arc::from(&*declaration.system),
            message: declaration.message.clone().into(),
            converses: properties.is_some_and(|members| members.get(thread::ARGUMENT).is_some()),
        }
    }

    /// Answers of models are paid for.
    pub const WORTH: Worth = Worth::Paid;

    /// The instructions that hold where the caller brings none.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// Whether its schema lets callers go on with a conversation.
    pub fn converses(&self) -> bool {
        self.converses
    }

    /// The question that arguments which fit the tool's schema ask.
    pub fn question(&self, arguments: &Value) -> Message {
        let mut text =
            self.message.iter().filter_map(|part| fill(part, arguments)).collect::<Vec<_>>().join("\n\n");
        let items = |name: &str| arguments.get(name).and_then(Value::as_array).into_iter().flatten();
        for file in items("files") {
            push_file(&mut text, file);
        }
        Message { role: ChatRole::User, text, images: items("images").filter_map(image).collect() }
    }
}

/// What stands beside the question, by the literal text that the caller wrote.
///
/// # Errors
/// A member of `parameters` that the daemon sets itself.
pub fn parameters(arguments: &Value, text: &str) -> Result<Parameters, Misfit> {
    if !["temperature", "max_tokens", "parameters"].iter().any(|name| arguments.get(name).is_some()) {
        return Ok(Parameters::default());
    }
    // The text was read as a document before: it is one, and its numbers are numbers.
    let literal: Literal<'_> = serde_json::from_str(text).unwrap_or_default();
    let own = |value: Option<&RawValue>| value.map(ToOwned::to_owned);
    let mut more = Vec::new();
    if let Some(settings) = literal.parameters {
        let settings: std::collections::BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(settings.get()).unwrap_or_default();
        if let Some(taken) = settings.keys().find(|name| is_taken(name)) {
            return Err(Misfit {
                path: format!("parameters/{}", taken.chars().take(64).collect::<String>()),
                message: "it is set by the daemon, or an argument of its own".into(),
            });
        }
        more.extend(settings);
    }
    Ok(Parameters { temperature: own(literal.temperature), max_tokens: own(literal.max_tokens), more })
}

#[derive(Default, Deserialize)]
struct Literal<'a> {
    #[serde(borrow)]
    temperature: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

/// Names that one wire or another gives to what the daemon sets.
fn is_taken(name: &str) -> bool {
    matches!(
        name,
        "model"
            | "messages"
            | "contents"
            | "system"
            | "systemInstruction"
            | "stream"
            | "stream_options"
            | "temperature"
            | "max_tokens"
            | "max_completion_tokens"
            | "maxOutputTokens"
    )
}

fn image(said: &Value) -> Option<Image> {
    let text = |name: &str| said.get(name).and_then(Value::as_str).map(Box::from);
    match (text("url"), text("mime_type"), text("data")) {
        (Some(url), _, _) => Some(Image::Url(url)),
        (None, Some(mime_type), Some(data)) => Some(Image::Data { mime_type, data }),
        _ => None,
    }
}

/// Puts arguments in the place of their `{name}`s; `None` when one is absent. What an argument holds is never
/// searched for further names.
fn fill(part: &str, arguments: &Value) -> Option<String> {
    let mut filled = String::with_capacity(part.len());
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let named = after
            .split_once('}')
            .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let Some((name, behind)) = named else {
            filled.push('{');
            rest = after;
            continue;
        };
        match arguments.get(name)? {
            Value::String(text) => filled.push_str(text),
            other => filled.push_str(&other.to_string()),
        }
        rest = behind;
    }
    filled.push_str(rest);
    Some(filled)
}

/// Appends a file under a fence that is longer than any run of backticks in it.
fn push_file(question: &mut String, file: &Value) {
    let part = |name: &str| file.get(name).and_then(Value::as_str).unwrap_or_default();
    let (name, text) = (part("name"), part("text"));
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let gap = if question.is_empty() { "" } else { "\n\n" };
    for piece in [gap, "File: ", name, "\n", &fence, "\n", text, newline, &fence] {
        question.push_str(piece);
    }
}

/// Who pays for a question.
#[derive(Clone)]
pub struct Bill {
    /// Where it is written down.
    pub books: Arc<Books>,
    /// Who asks.
    pub principal: PrincipalId,
    /// Who is asked.
    pub provider: Arc<str>,
    /// Which model.
    pub model: Arc<str>,
}

/// A question that is ready to be asked.
pub struct Ask {
    /// Whom.
    pub provider: Arc<dyn ChatProvider>,
    /// What.
    pub request: ChatRequest,
    /// At whose cost.
    pub bill: Bill,
    /// In which conversation, if it is one.
    pub thread: Option<Thread>,
    /// Who is asked where that one fails.
    pub fallbacks: Vec<Other>,
}

/// Another that a question may be asked.
#[derive(Clone)]
pub struct Other {
    /// What asks it.
    pub chat: Arc<dyn ChatProvider>,
    /// Its name.
    pub provider: Arc<str>,
    /// Which model of it.
    pub model: Arc<str>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Ask {
    /// The same question to somebody else.
    fn to(&self, other: &Other) -> Self {
        let Other { chat, provider, model, .. } = other;
        Self {
            provider: Arc::clone(chat),
            request: ChatRequest { model: Arc::clone(model), ..self.request.clone() },
            bill: Bill { provider: Arc::clone(provider), model: Arc::clone(model), ..self.bill.clone() },
            thread: self.thread.clone(),
            fallbacks: Vec::new(),
        }
    }
}

impl Job for Ask {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let Self { provider, mut request, bill, thread, fallbacks: _ } = *self;
        let begun = bill.books.ledger.may_spend(bill.principal).map_err(NotAsked::Spent);
        let begun = begun.and_then(|()| thread.map(|thread| thread.begin(&bill)).transpose());
        let spoken = match begun {
            Ok(spoken) => spoken,
            Err(why) => return std::future::ready(Err(Fault::NotAsked(why))).boxed(),
        };
        // Each attempt is counted by itself.
        request.meter = Meter::default();
        let price = bill.books.prices.find(&bill.provider, &bill.model);
        let mut charge = Charge { bill, price, meter: request.meter.clone() };
        async move {
            let mut reply = provider.chat(request, context).await?;
            if let (None, Some(model)) = (charge.price, &reply.model) {
                charge.price = charge.bill.books.prices.find(&charge.bill.provider, model);
            }
            reply.usage = reply.usage.map(|usage| charge.priced(usage));
            Ok(match spoken {
                Some(spoken) => spoken.answered(&charge.bill, reply),
                None => reply,
            })
        }
        .boxed()
    }

    fn again(&self) -> Option<Box<dyn Job>> {
        let Self { provider, request, bill, thread, fallbacks: _ } = self;
        let (provider, request, bill) = (Arc::clone(provider), request.clone(), bill.clone());
        Some(Box::new(Self { provider, request, bill, thread: thread.clone(), fallbacks: Vec::new() }))
    }

    fn fallbacks(&self) -> Vec<Elsewhere> {
        let elsewhere = |other: &Other| Elsewhere {
            provider: Arc::clone(&other.provider),
            timeout: other.timeout,
            job: Box::new(self.to(other)),
        };
        self.fallbacks.iter().map(elsewhere).collect()
    }
}

/// Writes down what was counted, however the call ends.
struct Charge {
    bill: Bill,
    price: Option<Price>,
    meter: Meter,
}

impl Charge {
    fn priced(&self, usage: Usage) -> Usage {
        let cost = self.price.map(|price| price.of(usage.prompt_tokens, usage.completion_tokens));
        Usage { cost, ..usage }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(usage) = self.meter.read() {
            let answerer = (Arc::clone(&self.bill.provider), Arc::clone(&self.bill.model));
            self.bill.books.ledger.counted(self.bill.principal, answerer, self.priced(usage));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_needs_an_expert_may_take_as_long_as_one() {
        let classes = parse(BUILT_IN).unwrap().into_iter().map(|tool| (tool.name, tool.class));
        let classes: Vec<_> = classes.collect();
        let is = |name: &str, class| classes.contains(&(name.to_owned(), class));
        for name in ["analyze", "codereview", "debug", "thinkdeep"] {
            assert!(is(name, TimeoutClass::Expert), "{name}");
        }
        for name in ["chat", "planner"] {
            assert!(is(name, TimeoutClass::Workflow), "{name}");
        }
        assert_eq!(classes.len(), 6);
    }

    fn tool(message: &[&str]) -> PromptTool {
        PromptTool {
            system: Arc::from("be brief"),
            message: message.iter().map(|part| (*part).to_owned()).collect(),
            converses: false,
        }
    }

    fn question(message: &[&str], arguments: &Value) -> String {
        tool(message).question(arguments).text
    }

    #[test]
    fn a_part_without_its_argument_is_left_out() {
        let parts = ["{text}", "Question: {question}"];
        assert_eq!(question(&parts, &json!({"text": "t"})), "t");
        assert_eq!(question(&parts, &json!({"text": "t", "question": "q"})), "t\n\nQuestion: q");
    }

    #[test]
    fn an_argument_is_never_searched_for_names() {
        assert_eq!(question(&["{a} {b}"], &json!({"a": "{b}", "b": "{a"})), "{b} {a");
        assert_eq!(question(&["open { brace {a}"], &json!({"a": 1})), "open { brace 1");
    }

    #[test]
    fn a_file_cannot_close_its_own_fence() {
        let files = json!({"prompt": "p", "files": [{"name": "a.md", "text": "```\ncode\n````\n"}]});
        assert_eq!(question(&["{prompt}"], &files), "p\n\nFile: a.md\n`````\n```\ncode\n````\n`````");
    }

    #[test]
    fn a_parameter_keeps_its_literal_text_and_none_is_taken_from_the_daemon() {
        let set = |text: &str| parameters(&serde_json::from_str(text).unwrap(), text);
        let found = set(
            r#"{"temperature": 0.70, "max_tokens":1e3, "parameters": {"top_p":1.0,"seed":18446744073709551617}}"#,
        );
        let found = found.unwrap();
        assert_eq!(found.temperature.unwrap().get(), "0.70");
        assert_eq!(found.max_tokens.unwrap().get(), "1e3");
        let more: Vec<_> = found.more.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(more, [("seed", "18446744073709551617"), ("top_p", "1.0")]);
        assert_eq!(set(r#"{"parameters":{"stream":false}}"#).unwrap_err().path, "parameters/stream");
    }

    #[test]
    fn the_built_in_file_is_sound() {
        let names: Vec<_> = parse(BUILT_IN).unwrap().into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["chat", "analyze", "codereview", "debug", "thinkdeep", "planner"]);
    }
}
