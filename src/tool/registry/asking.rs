//! Who is asked: providers and models by the names that callers and aliases give them, and the question for them.

use std::sync::Arc;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::provider::catalog::ProviderEntry;
use crate::provider::chat::{ChatRequest, ChatRole, Message, Meter};
use crate::tool::consensus::{self, Asked};
use crate::tool::place::{LaneId, Place};
use crate::tool::prompt::{self, Ask, Bill};
use crate::tool::registry::{Prepared, Registry, mixed};
use crate::tool::{Asked as Asking, Misfit, PromptTool, Tool};

/// Who answers.
struct Answerer<'a> {
    /// Its place in the catalogue.
    place: usize,
    entry: &'a ProviderEntry,
    model: Arc<str>,
}

impl Registry {
    /// A question to a model.
    pub(super) fn ask(
        &self,
        tool: &Tool,
        prompt: &PromptTool,
        asked: Asking<'_>,
    ) -> Result<Prepared, Misfit> {
        let Asking { arguments, text, principal, .. } = asked;
        let Answerer { place, entry, model } = self.answerer(&arguments)?;
        let mut messages = Vec::with_capacity(2);
        let system = arguments.get("system").and_then(Value::as_str).unwrap_or(prompt.system());
        if !system.is_empty() {
            messages.push(Arc::new(Message::text(ChatRole::System, system)));
        }
        messages.push(Arc::new(prompt.question(&arguments)));
        let parameters = prompt::parameters(&arguments, text)?;
        let request =
            ChatRequest { model: Arc::clone(&model), messages, parameters, meter: Meter::default() };
        let bill = Bill {
            books: Arc::clone(self.catalog.books()),
            principal,
            provider: Arc::clone(&entry.name),
            model: Arc::clone(&model),
        };
        Ok(Prepared {
            place: Place::Lane(LaneId(place)),
            definition: definition_at(tool, entry, &model),
            job: Box::new(Ask { provider: Arc::clone(&entry.chat), request, bill }),
            model: Some(model),
        })
    }

    /// Whom `consensus` asks. Each counts in its definition, as it does in that of the call to it.
    pub(super) fn all_asked(&self, arguments: &Value, definition: &mut u64) -> Result<Vec<Asked>, Misfit> {
        let models = arguments.get("models").and_then(Value::as_array).cloned();
        let named = models.unwrap_or_else(|| {
            let entries = self.catalog.entries();
            // The last one is `offline`: it stands in where nobody is configured.
            let configured = entries.len().saturating_sub(1).clamp(1, consensus::MOST);
            entries.iter().take(configured).map(|entry| json!({"provider": &*entry.name})).collect()
        });
        let mut asked = Vec::with_capacity(named.len());
        for (place, named) in named.into_iter().enumerate() {
            let answerer = self.answerer(&named).map_err(|misfit| Misfit {
                path: format!("models/{place}/{}", misfit.path),
                message: misfit.message,
            })?;
            let Answerer { entry, model, .. } = answerer;
            if let Some(tool) = self.find(consensus::ASKS) {
                *definition = definition.rotate_left(7) ^ definition_at(tool, entry, &model);
            }
            asked.push(Asked { provider: Arc::clone(&entry.name), model, named });
        }
        Ok(asked)
    }

    /// The provider and model that the arguments name; every other name of a model than an alias is taken as it is.
    fn answerer(&self, arguments: &Value) -> Result<Answerer<'_>, Misfit> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let (provider, model) = (text("provider"), text("model"));
        let alias = model.and_then(|model| self.catalog.alias(model, provider));
        let stands_for = alias.and_then(|alias| alias.provider.as_deref());
        let found = match provider.or(stands_for) {
            Some(name) => self.catalog.find(name),
            None => self.catalog.preferred(),
        };
        let (place, entry) = found.ok_or_else(|| {
            let names: Vec<_> = self.catalog.entries().iter().map(|entry| &*entry.name).collect();
            let names = names.join(", ");
            match (provider, stands_for) {
                (None, Some(name)) => Misfit {
                    path: "model".into(),
                    message: format!(
                        "it stands for a model of {name}, which is not configured here; there are: {names}"
                    ),
                },
                _ => Misfit {
                    path: "provider".into(),
                    message: format!("no such provider is configured here; there are: {names}"),
                },
            }
        })?;
        let model = alias.map(|alias| &*alias.model).or(model);
        Ok(Answerer { place, entry, model: model.map_or_else(|| Arc::clone(&entry.model), Arc::from) })
    }
}

/// The definition's hash with whoever answers: 8 bytes each, so no text can stand for another.
fn definition_at(tool: &Tool, entry: &ProviderEntry, model: &str) -> u64 {
    mixed([
        tool.definition,
        xxh3_64(entry.name.as_bytes()),
        xxh3_64(entry.place.as_bytes()),
        xxh3_64(model.as_bytes()),
    ])
}
