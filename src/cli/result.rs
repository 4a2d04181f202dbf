//! A tool's result, as far as a command shows it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The members that a command looks at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ToolResult {
    #[serde(default)]
    content: Vec<Block>,
    #[serde(default, rename = "structuredContent")]
    structured: Option<Value>,
    #[serde(default, rename = "isError")]
    is_error: bool,
    #[serde(default, rename = "_meta")]
    meta: Meta,
}

#[derive(Debug, Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Meta {
    #[serde(default, rename = "inflightd/error")]
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: String,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl ToolResult {
    /// Reads a result.
    pub(super) fn read(raw: &RawValue) -> Result<Self, serde_json::Error> {
        serde_json::from_str(raw.get())
    }

    /// The tool failed; its text says why.
    pub(super) fn is_error(&self) -> bool {
        self.is_error
    }

    /// All text of the result; without any, its structured content.
    pub(super) fn text(&self) -> String {
        let texts: Vec<&str> = self.content.iter().filter_map(|block| block.text.as_deref()).collect();
        match &self.structured {
            Some(structured) if texts.is_empty() => structured.to_string(),
            _ => texts.join("\n"),
        }
    }

    /// What [`ToolResult::text`] leaves out, such as `image, audio`.
    pub(super) fn unseen(&self) -> Option<String> {
        let kinds: Vec<&str> = self
            .content
            .iter()
            .filter(|block| block.text.is_none())
            .map(|block| block.kind.as_str())
            .collect();
        (!kinds.is_empty()).then(|| kinds.join(", "))
    }

    /// The result's data: its structured content, or its text if that is JSON.
    pub(super) fn data(&self) -> Option<Value> {
        self.structured.clone().or_else(|| serde_json::from_str(&self.text()).ok())
    }

    /// The failure's code, and whether and when to try again.
    pub(super) fn advice(&self) -> Option<String> {
        let Failure { code, retryable, retry_after_ms } = self.meta.error.as_ref()?;
        Some(match (retryable, retry_after_ms) {
            (false, _) => format!("{code}; trying again will not help"),
            (true, None) => format!("{code}; it may work when tried again"),
            (true, Some(ms)) => {
                let wait = Duration::from_millis(*ms).as_secs_f64();
                format!("{code}; try again in {wait:.1} s")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ToolResult {
        ToolResult::read(&RawValue::from_string(text.to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn text_is_shown_and_what_is_none_is_named() {
        let result = read(
            r#"{"content":[{"type":"text","text":"a"},{"type":"image","data":""},{"type":"text","text":"b"}]}"#,
        );
        assert_eq!(result.text(), "a\nb");
        assert_eq!(result.unseen().as_deref(), Some("image"));
        assert!(!result.is_error());
    }

    #[test]
    fn a_failure_says_when_to_try_again() {
        let result = read(
            r#"{"isError":true,"_meta":{"inflightd/error":{"code":"OVER_CAPACITY","retryable":true,"retry_after_ms":1200}}}"#,
        );
        assert_eq!(result.advice().as_deref(), Some("OVER_CAPACITY; try again in 1.2 s"));
    }

    #[test]
    fn data_is_found_where_it_is() {
        assert_eq!(read(r#"{"structuredContent":{"a":1}}"#).data().unwrap()["a"], 1);
        assert_eq!(read(r#"{"content":[{"type":"text","text":"{\"a\":1}"}]}"#).data().unwrap()["a"], 1);
    }
}
