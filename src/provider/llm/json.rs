//! Pieces of JSON that the wires share. Bodies are written by hand: so a number reaches the wire by its literal text,
//! and pictures of megabytes are copied once.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::provider::chat::Parameters;
use crate::provider::push_json_string;

/// Appends `,"name":value`.
pub(super) fn push_raw(body: &mut String, name: &str, value: &RawValue) {
    body.push(',');
    push_json_string(body, name);
    body.push(':');
    body.push_str(value.get());
}

/// Appends `,"name":value` where there is one.
pub(super) fn push_some(body: &mut String, name: &str, value: Option<&RawValue>) {
    if let Some(value) = value {
        push_raw(body, name, value);
    }
}

/// Appends the provider's own settings.
pub(super) fn push_more(body: &mut String, parameters: &Parameters) {
    for (name, value) in &parameters.more {
        push_raw(body, name, value);
    }
}

/// Writes an item for each of `all`, with commas between.
pub(super) fn push_each<T>(
    body: &mut String,
    all: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    for (place, each) in all.into_iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        write(body, each);
    }
}

/// The machine-readable name of a provider's error.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<WireError>(body).ok().and_then(|error| error.error.short_code())
}

#[derive(Deserialize)]
struct WireError {
    error: WireErrorBody,
}

/// OpenAI has `code` and `type`, Anthropic `type`, Gemini `status` and a number as `code`.
#[derive(Deserialize)]
struct WireErrorBody {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default, rename = "type")]
    kind: serde_json::Value,
    #[serde(default)]
    status: serde_json::Value,
}

impl WireErrorBody {
    /// Only what has the form of a name: free text may quote the prompt.
    fn short_code(&self) -> Option<String> {
        let is_name = |name: &&str| {
            !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() && !byte.is_ascii_uppercase()
                        || matches!(byte, b'_' | b'.' | b'-')
                })
        };
        let status = self.status.as_str().map(str::to_ascii_lowercase);
        [self.code.as_str(), self.kind.as_str(), status.as_deref()]
            .into_iter()
            .flatten()
            .find(is_name)
            .map(String::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_kept_of_a_providers_error() {
        let code = |json: &str| error_code(json.as_bytes());
        assert_eq!(
            code(r#"{"error":{"code":"context_length_exceeded","message":"my prompt"}}"#).as_deref(),
            Some("context_length_exceeded")
        );
        assert_eq!(code(r#"{"error":{"code":1301,"type":"rate_limit"}}"#).as_deref(), Some("rate_limit"));
        assert_eq!(
            code(r#"{"error":{"code":429,"message":"p","status":"RESOURCE_EXHAUSTED"}}"#).as_deref(),
            Some("resource_exhausted")
        );
        assert_eq!(
            code(r#"{"type":"error","error":{"type":"overloaded_error","message":"p"}}"#).as_deref(),
            Some("overloaded_error")
        );
        assert_eq!(code(r#"{"error":{"code":"You said: my prompt"}}"#), None);
        assert_eq!(code("so it goes {"), None);
    }
}
