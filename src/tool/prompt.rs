//! Prompt tools: a question to a model, declared in TOML that users copy and change.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::provider::chat::{ChatProvider, ChatRequest, ChatRole};
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::{Dedup, Effect, Worth};

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
}

impl PromptTool {
    /// The tool's way to ask.
    pub fn new(declaration: &Declaration) -> Self {
        Self { system: Arc::from(&*declaration.system), message: declaration.message.clone().into() }
    }

    /// Answers of models are paid for.
    pub const WORTH: Worth = Worth::Paid;

    /// Makes a question to `model` from arguments that fit the tool's schema.
    pub fn question(&self, model: Arc<str>, arguments: &Value) -> ChatRequest {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let system = text("system").unwrap_or(&self.system);
        let mut messages = Vec::with_capacity(2);
        if !system.is_empty() {
            messages.push((ChatRole::System, system.to_owned()));
        }
        let mut question =
            self.message.iter().filter_map(|part| fill(part, arguments)).collect::<Vec<_>>().join("\n\n");
        for file in arguments.get("files").and_then(Value::as_array).into_iter().flatten() {
            push_file(&mut question, file);
        }
        messages.push((ChatRole::User, question));
        let temperature = arguments.get("temperature").and_then(Value::as_number).cloned();
        ChatRequest { model, messages, temperature }
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
    for piece in ["\n\nFile: ", name, "\n", &fence, "\n", text, newline, &fence] {
        question.push_str(piece);
    }
}

/// A question that is ready to be asked.
pub struct Ask {
    /// Whom.
    pub provider: Arc<dyn ChatProvider>,
    /// What.
    pub request: ChatRequest,
}

impl Job for Ask {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        self.provider.chat(self.request, context)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(message: &[&str]) -> PromptTool {
        PromptTool {
            system: Arc::from("be brief"),
            message: message.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    fn question(message: &[&str], arguments: &Value) -> String {
        tool(message).question(Arc::from("m"), arguments).messages.pop().unwrap().1
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
    fn the_callers_system_prompt_stands_in_for_the_tools() {
        let messages =
            tool(&["{prompt}"]).question(Arc::from("m"), &json!({"prompt": "p", "system": "s"})).messages;
        assert_eq!(messages.first().unwrap(), &(ChatRole::System, "s".to_owned()));
    }

    #[test]
    fn the_built_in_file_is_sound() {
        let names: Vec<_> = parse(BUILT_IN).unwrap().into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["chat", "analyze"]);
    }
}
