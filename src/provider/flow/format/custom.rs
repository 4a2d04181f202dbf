//! A node's properties: what is known is taken, what is not is ignored, what is missing has its default.

use serde_json::value::RawValue;

use super::{object, text};
use crate::config::Secret;
use crate::provider::flow::kind::ModelMode;

/// A sampling parameter: absent, a number, or something that is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Nobody said anything.
    Unset,
    /// So much.
    Number(f64),
    /// What was said is no number.
    NoNumber,
}

/// The properties of a node that mean anything here. Texts are trimmed, and empty ones say nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Custom {
    /// Where to write.
    pub path: Option<String>,
    /// Where to write a model's answer, too.
    pub output_file: Option<String>,
    /// Whom to ask.
    pub provider: Option<String>,
    /// Where to ask.
    pub base_url: Option<String>,
    /// As whom to ask.
    pub api_key: Option<Secret>,
    /// How to find the model.
    pub model_mode: Option<ModelMode>,
    /// Which model.
    pub model: Option<String>,
    /// What a judge of candidates is told.
    pub extra_prompt: Option<String>,
    /// The sampling temperature.
    pub temperature: Sampling,
    /// The share of probability that is sampled from.
    pub top_p: Sampling,
}

impl Default for Custom {
    fn default() -> Self {
        Self {
            path: None,
            output_file: None,
            provider: None,
            base_url: None,
            api_key: None,
            model_mode: None,
            model: None,
            extra_prompt: None,
            temperature: Sampling::Unset,
            top_p: Sampling::Unset,
        }
    }
}

/// Reads `custom`: an object, or a JSON string that holds one. `None` for anything else.
pub(super) fn read(value: Option<&RawValue>) -> Option<Custom> {
    let Some(value) = value else { return Some(Custom::default()) };
    // Once only: a string in a string is no object.
    match text(value) {
        Some(inner) => {
            let inner: &RawValue = serde_json::from_str(&inner).ok()?;
            take(inner)
        }
        None => take(value),
    }
}

fn take(value: &RawValue) -> Option<Custom> {
    let mut custom = Custom::default();
    for (name, value) in object(value)? {
        let said = || trimmed(value);
        match &*name {
            "path" => custom.path = said(),
            "output_file" => custom.output_file = said(),
            "provider" => custom.provider = said().map(|name| name.to_ascii_lowercase()),
            "base_url" => custom.base_url = said().map(|url| url.trim_end_matches('/').to_owned()),
            "api_key" => custom.api_key = said().map(Secret::new),
            "model_mode" => {
                custom.model_mode = said().and_then(|mode| ModelMode::parse(&mode.to_ascii_lowercase()));
            }
            "model" => custom.model = said(),
            "extra_prompt" => {
                custom.extra_prompt = text(value).filter(|prompt| !prompt.trim().is_empty()).map(Into::into);
            }
            "temperature" => custom.temperature = sampling(value),
            "top_p" => custom.top_p = sampling(value),
            _ => {}
        }
    }
    Some(custom)
}

fn trimmed(value: &RawValue) -> Option<String> {
    let text = text(value)?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number, or a string that is one.
fn sampling(value: &RawValue) -> Sampling {
    let quoted = text(value);
    let written = quoted.as_deref().unwrap_or_else(|| value.get()).trim();
    if written.is_empty() || written == "null" {
        return Sampling::Unset;
    }
    match written.parse::<f64>() {
        Ok(number) if number.is_finite() => Sampling::Number(number),
        _ => Sampling::NoNumber,
    }
}
