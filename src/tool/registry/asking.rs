//! Who is asked: providers and models by the names that callers and aliases give them, and the question for them.

use std::sync::Arc;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{ContinuationId, PrincipalId};
use crate::provider::catalog::ProviderEntry;
use crate::provider::chat::{ChatRequest, ChatRole, Message, Meter};
use crate::provider::conversation::{Found, Partner};
use crate::tool::consensus::{self, Asked};
use crate::tool::place::{LaneId, Place};
use crate::tool::prompt::thread::{self, Thread};
use crate::tool::prompt::{self, Ask, Bill, Other};
use crate::tool::registry::{Prepared, Registry, mixed};
use crate::tool::{Asked as Asking, Misfit, PromptTool, Tool};

/// Who answers.
struct Answerer<'a> {
    /// Its place in the catalogue.
    place: usize,
    entry: &'a ProviderEntry,
    model: Arc<str>,
    /// Who is asked where that one fails, with which models.
    fallbacks: Vec<(&'a ProviderEntry, Arc<str>)>,
}

impl Registry {
    /// A question to a model, perhaps in a conversation.
    pub(super) fn ask(
        &self,
        tool: &Tool,
        prompt: &PromptTool,
        asked: Asking<'_>,
    ) -> Result<Prepared, Misfit> {
        let Asking { arguments, text, principal, is_child, .. } = asked;
        let goes_on = self.conversation(prompt, &arguments, principal)?;
        let before = goes_on.as_ref().map(|(_, found)| found);
        let Answerer { place, entry, model, fallbacks } =
            self.answerer(&arguments, before.map(|found| &found.partner))?;
        let own_system = arguments.get("system").and_then(Value::as_str);
        let own_system = own_system.map(|text| Arc::new(Message::text(ChatRole::System, text)));
        let own_system = own_system.or_else(|| before?.partner.system.clone());
        let system = own_system.clone();
        let system = system.unwrap_or_else(|| Arc::new(Message::text(ChatRole::System, prompt.system())));
        let question = Arc::new(prompt.question(&arguments));
        let mut messages = Vec::with_capacity(2 + before.map_or(0, |found| found.said.len()));
        messages.extend(Some(system).filter(|system| !system.text.is_empty()));
        messages.extend(before.into_iter().flat_map(|found| found.said.iter().cloned()));
        messages.push(Arc::clone(&question));
        let turn = before.map(|found| found.turn);
        let told = prompt.converses() && arguments.get(thread::ARGUMENT).is_some();
        // What a composite asks on the way would crowd out what its caller means to go on with.
        let thread = (told || prompt.converses() && !is_child).then(|| Thread {
            id: goes_on.as_ref().map_or_else(ContinuationId::mint, |(id, _)| *id),
            turn,
            told,
            partner: Partner {
                provider: Arc::clone(&entry.name),
                model: Arc::clone(&model),
                system: own_system,
            },
            question,
        });
        let definition = definition_at(tool, entry, &model);
        let definition = fallbacks
            .iter()
            .fold(definition, |so_far, (entry, model)| mixed([so_far, definition_at(tool, entry, model)]));
        let definition =
            goes_on.as_ref().map_or(definition, |(id, found)| at_turn(definition, *id, found.turn));
        let parameters = prompt::parameters(&arguments, text)?;
        let request =
            ChatRequest { model: Arc::clone(&model), messages, parameters, meter: Meter::default() };
        let bill = Bill {
            books: Arc::clone(self.catalog.books()),
            principal,
            provider: Arc::clone(&entry.name),
            model: Arc::clone(&model),
        };
        let other = |(entry, model): (&ProviderEntry, Arc<str>)| Other {
            chat: Arc::clone(&entry.chat),
            provider: Arc::clone(&entry.name),
            model,
            timeout: if turn.is_some() { entry.follow_up_timeout } else { entry.timeout },
        };
        let fallbacks = fallbacks.into_iter().map(other).collect();
        Ok(Prepared {
            place: Place::Lane(LaneId(place)),
            definition,
            // A conversation moves on.
            is_settled: goes_on.is_none(),
            limit: turn.map(|_| entry.follow_up_timeout),
            job: Box::new(Ask { provider: Arc::clone(&entry.chat), request, bill, thread, fallbacks }),
            model: Some(model),
        })
    }

    /// The conversation that a call goes on with.
    fn conversation(
        &self,
        prompt: &PromptTool,
        arguments: &Value,
        who: PrincipalId,
    ) -> Result<Option<(ContinuationId, Found)>, Misfit> {
        let named = arguments.get(thread::ARGUMENT).and_then(Value::as_str);
        let Some(named) = named.filter(|named| prompt.converses() && *named != thread::NEW) else {
            return Ok(None);
        };
        let id = ContinuationId::parse(named);
        let found = id.and_then(|id| Some((id, self.catalog.books().conversations.find(who, id)?)));
        found.map(Some).ok_or_else(|| Misfit {
            path: thread::ARGUMENT.into(),
            message:
                "no such conversation of yours is kept any more; leave it out, or say \"new\", to begin one"
                    .into(),
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
            let answerer = self.answerer(&named, None).map_err(|misfit| Misfit {
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

    /// The provider and model that the arguments name, or else those that the conversation had; every other name of a
    /// model than an alias is taken as it is.
    fn answerer(&self, arguments: &Value, before: Option<&Partner>) -> Result<Answerer<'_>, Misfit> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let (provider, model) = (text("provider"), text("model"));
        let alias = model.and_then(|model| self.catalog.alias(model, provider));
        let stands_for = alias.and_then(|alias| alias.provider.as_deref());
        let before_or_preferred = || {
            let before = before.and_then(|partner| self.catalog.find(&partner.provider));
            before.or_else(|| self.catalog.preferred())
        };
        let asked = provider.or(stands_for);
        let found = asked.map_or_else(before_or_preferred, |name| self.catalog.find(name));
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
        let model = alias.map(|alias| &*alias.model).or(model).map(Arc::from);
        let is_named = provider.is_some() || model.is_some();
        let partner = before.filter(|partner| partner.provider == entry.name).map(|partner| &partner.model);
        let model = model.unwrap_or_else(|| Arc::clone(partner.unwrap_or(&entry.model)));
        // Who names a provider or a model of its own gets that or an error, and goes on with it.
        let is_ours = || before.is_none() || place == 0 && model == entry.model;
        let chain = match alias {
            Some(alias) => provider.is_none().then_some(&*alias.name),
            None => (!is_named && is_ours()).then_some(&*entry.name),
        };
        let fallbacks = chain.map_or_else(Vec::new, |chain| self.catalog.fallbacks(chain));
        Ok(Answerer { place, entry, model, fallbacks })
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

/// The same at a turn of a conversation: equal questions at two turns are two questions.
fn at_turn(definition: u64, id: ContinuationId, turn: usize) -> u64 {
    let [base, fork] = id.bits();
    mixed([definition, base, fork, u64::try_from(turn).unwrap_or(u64::MAX)])
}
