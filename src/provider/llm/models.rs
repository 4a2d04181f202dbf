//! The models that a provider lists.

use serde::Deserialize;

use crate::config::Wire;
use crate::provider::llm::answer::Nonsense;

/// Behind the base URL.
pub(super) fn path(wire: Wire) -> &'static str {
    match wire {
        Wire::OpenAi => "/models",
        Wire::Anthropic => "/models?limit=1000",
        Wire::Gemini => "/models?pageSize=1000",
    }
}

/// OpenAI's list and Anthropic's.
#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// Gemini's.
#[derive(Deserialize)]
struct Gemini {
    models: Vec<GeminiEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiEntry {
    name: String,
    #[serde(default)]
    supported_generation_methods: Vec<String>,
}

/// Their ids, in the order of the list.
pub(super) fn read(wire: Wire, body: &[u8]) -> Result<Vec<String>, Nonsense> {
    match wire {
        Wire::OpenAi | Wire::Anthropic => {
            let list: List = serde_json::from_slice(body).map_err(|_| Nonsense::Whole)?;
            Ok(list.data.into_iter().map(|entry| entry.id).collect())
        }
        Wire::Gemini => {
            let list: Gemini = serde_json::from_slice(body).map_err(|_| Nonsense::Whole)?;
            let answers = |entry: &GeminiEntry| {
                entry.supported_generation_methods.iter().any(|method| method == "generateContent")
            };
            let id = |entry: GeminiEntry| entry.name.trim_start_matches("models/").to_owned();
            Ok(list.models.into_iter().filter(answers).map(id).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wire_lists_ids() {
        let list = br#"{"object":"list","data":[{"id":"a","object":"model"},{"id":"b:free"}]}"#;
        assert_eq!(read(Wire::OpenAi, list).unwrap(), ["a", "b:free"]);
        assert_eq!(read(Wire::Anthropic, list).unwrap(), ["a", "b:free"]);
        let list = br#"{"models":[{"name":"models/g","supportedGenerationMethods":["generateContent"]},{"name":"models/embeds"}]}"#;
        assert_eq!(read(Wire::Gemini, list).unwrap(), ["g"]);
        assert!(read(Wire::OpenAi, b"{}").is_err());
    }
}
