//! The model providers: presets that need no more than a key, and one's own in `[providers.NAME]`.

use std::time::Duration;

use super::Secret;
use super::keys::{Kind, MANY};
use super::ladder::{Ladder, Rung};
use super::parse::{self, Wrong};
use super::principals;
use super::problem::{Origin, Problem, Shown};
use super::tables::{self, Member, Table};
use super::values::Values;

/// The section of one's own.
pub(super) const TABLE: &str = "providers";

/// The provider that is always there; no other may have its name.
pub(super) const OFFLINE: &str = "offline";

/// Calls at once to a provider of one's own that does not say how many.
const OWN_MAX_INFLIGHT: usize = 8;

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI's `/chat/completions`, and whoever speaks like it.
    OpenAi,
    /// Anthropic's `/messages`.
    Anthropic,
    /// Gemini's `generateContent`.
    Gemini,
}

/// One provider that is offered.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The name users call it by.
    pub name: Box<str>,
    /// How it is spoken to.
    pub wire: Wire,
    /// Where the wire's paths begin, without a trailing slash.
    pub base_url: String,
    /// Its key, where it asks for one.
    pub api_key: Option<Secret>,
    /// The model when the caller names none.
    pub model: String,
    /// Permits.
    pub max_inflight: usize,
    /// The innermost rung: how long one request may take.
    pub timeout: Duration,
    /// The same for a call that goes on with a conversation.
    pub follow_up_timeout: Duration,
    /// Whether it is asked to send its answer as it is made.
    pub stream: bool,
    /// What the bound on an answer's tokens is called on its wire, where it has a choice of names.
    pub newer_max_tokens: bool,
}

/// How long one request may take where the provider has no timeout of its own, before the tool's cuts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Classes {
    /// An answer that comes whole.
    pub(super) normal: Duration,
    /// An answer that comes as it is made.
    pub(super) streaming: Duration,
    /// One that goes on with a conversation.
    pub(super) continuation: Duration,
}

/// What is known of a provider before anybody configures it.
struct PresetEntry {
    name: &'static str,
    prefix: &'static str,
    wire: Wire,
    /// Whether it is offered as soon as it has an address, be it without a key.
    keyless: bool,
    /// Whether it has a timeout of its own in the table of keys.
    own_timeout: bool,
}

const fn preset(name: &'static str, prefix: &'static str, wire: Wire) -> PresetEntry {
    PresetEntry { name, prefix, wire, keyless: false, own_timeout: false }
}

/// The presets, in the order in which they are preferred, with the prefix of their keys.
const PRESETS: [PresetEntry; 9] = [
    PresetEntry { own_timeout: true, ..preset("kimi", "KIMI", Wire::OpenAi) },
    PresetEntry { own_timeout: true, ..preset("glm", "GLM", Wire::OpenAi) },
    preset("openai", "OPENAI", Wire::OpenAi),
    preset("anthropic", "ANTHROPIC", Wire::Anthropic),
    preset("gemini", "GEMINI", Wire::Gemini),
    preset("openrouter", "OPENROUTER", Wire::OpenAi),
    preset("deepseek", "DEEPSEEK", Wire::OpenAi),
    PresetEntry { keyless: true, ..preset("ollama", "OLLAMA", Wire::OpenAi) },
    PresetEntry { keyless: true, ..preset("vllm", "VLLM", Wire::OpenAi) },
];

/// The presets by name, with what makes each be offered, in the order in which they are preferred.
pub fn provider_presets() -> impl Iterator<Item = (&'static str, String)> {
    PRESETS.iter().map(|preset| {
        let key = if preset.keyless { "API_URL" } else { "API_KEY" };
        (preset.name, format!("{}_{key}", preset.prefix))
    })
}

/// What one provider may take of the permits over all.
pub(super) struct Share {
    pub(super) key: String,
    pub(super) max: usize,
    pub(super) set: bool,
    pub(super) offered: bool,
}

impl Share {
    /// Only where somebody set one of the two, and for a provider that could take them.
    pub(super) fn warning(&self, global: usize, global_set: bool) -> Option<String> {
        let Self { key, max, .. } = self;
        let meant = self.set || global_set && self.offered;
        (meant && *max >= global).then(|| {
            let enough = max.saturating_mul(2);
            format!(
                "{key}={max} is not below GLOBAL_MAX_INFLIGHT={global}: one provider can take every permit; \
                 GLOBAL_MAX_INFLIGHT={enough} would leave some to the others"
            )
        })
    }
}

/// A provider preset as it was read: one that is not offered is checked too, and then left out.
pub(super) struct Preset {
    config: ProviderConfig,
    offered: bool,
    max_key: String,
    max_set: bool,
    own_timeout: bool,
    pub(super) rung: Rung,
}

impl Preset {
    pub(super) fn share(&self) -> Share {
        Share {
            key: self.max_key.clone(),
            max: self.config.max_inflight,
            set: self.max_set,
            offered: self.offered,
        }
    }

    pub(super) fn offered(
        self,
        timeout: Duration,
        classes: &Classes,
        ladder: &Ladder,
    ) -> Option<ProviderConfig> {
        let own = self.own_timeout || self.rung.set.is_some();
        let follow_up_timeout = if own { timeout } else { classes.continuation.min(ladder.tool()) };
        self.offered.then_some(ProviderConfig { timeout, follow_up_timeout, ..self.config })
    }
}

/// Reads every preset.
pub(super) fn presets(values: &mut Values, classes: &Classes) -> Vec<Preset> {
    PRESETS.iter().map(|entry| read_preset(values, entry, classes)).collect()
}

fn read_preset(values: &mut Values, entry: &PresetEntry, classes: &Classes) -> Preset {
    let PresetEntry { name, prefix, wire, keyless, own_timeout } = *entry;
    let (api_key, key_set) = values.secret(&format!("{prefix}_API_KEY"), parse::secret);
    let url_key = format!("{prefix}_API_URL");
    let (base_url, url_set) = if keyless {
        values.optional_url(&url_key).map_or((String::new(), false), |url| (url, true))
    } else {
        values.url(&url_key)
    };
    if !keyless && url_set && !key_set {
        values.warnings.push(format!(
            "{prefix}_API_URL is set and {prefix}_API_KEY is not: {name} is not offered; a service that asks for \
             no key takes any"
        ));
    }
    if keyless && key_set && !url_set {
        values.warnings.push(format!(
            "{prefix}_API_KEY is set and {prefix}_API_URL is not: {name} is not offered; say where it is"
        ));
    }
    let offered = if keyless { url_set } else { api_key.is_some() };
    let model = values.text(&format!("{prefix}_MODEL"));
    if offered && model.is_empty() {
        values.problems.push(Problem::Value {
            setting: Shown::without_value(&url_key, Origin::Process),
            wrong: Wrong::NoModel,
            remedy: format!("set {prefix}_MODEL to the name under which it serves one"),
        });
    }
    let max_key = format!("{prefix}_MAX_INFLIGHT");
    let (max_inflight, max_set) = values.count(&max_key);
    let mut rung = values.rung(&format!("{prefix}_TIMEOUT_SECS"));
    if !own_timeout {
        rung.usual = classes.streaming;
    }
    let config = ProviderConfig {
        name: name.into(),
        wire,
        base_url,
        api_key,
        model,
        max_inflight,
        timeout: rung.usual,
        follow_up_timeout: rung.usual,
        stream: true,
        newer_max_tokens: name == "openai",
    };
    Preset { config, offered, max_key, max_set, own_timeout, rung }
}

/// The members of `[providers.NAME]`.
pub(super) const MEMBERS: [Member; 7] = [
    Member {
        name: "url",
        example: "\"http://127.0.0.1:8000/v1\"",
        help: "Where the wire's paths begin: `/chat/completions`, `/messages` or `/models/…` is put behind it.",
    },
    Member {
        name: "wire",
        example: "\"openai\"",
        help: "How it is spoken to: openai (unset, this), anthropic or gemini.",
    },
    Member { name: "api_key", example: "\"…\"", help: "Its key. Unset, none is sent." },
    Member {
        name: "model",
        example: "\"my-model\"",
        help: "The model where neither caller nor tool names one.",
    },
    Member { name: "max_inflight", example: "8", help: "Requests to it at once. Unset, 8." },
    Member {
        name: "timeout_secs",
        example: "60",
        help: "How long one request may take, never longer than the tool. Unset, the classes under Timeouts hold.",
    },
    Member {
        name: "stream",
        example: "false",
        help: "Whether it is asked to send its answer as it is made. Unset, true; false for a service that cannot.",
    },
];

/// Reads one's own providers.
pub(super) fn own(
    said: Option<&toml::Value>,
    classes: &Classes,
    ladder: &Ladder,
    problems: &mut Vec<Problem>,
) -> Vec<ProviderConfig> {
    let remedy =
        "[providers.mine] with url = \"http://127.0.0.1:8000/v1\" and model = \"my-model\" below it would do";
    let mut read = Vec::new();
    for (name, members) in tables::each(TABLE, said, remedy, problems) {
        let taken = name == OFFLINE || PRESETS.iter().any(|preset| preset.name == name);
        if let Err(wrong) = if taken { Err(Wrong::NameTaken) } else { principals::name(name) } {
            let setting = Shown::without_value(&format!("{TABLE}.{}", tables::shown(name)), Origin::Toml);
            problems.push(Problem::Value { setting, wrong, remedy: "[providers.mine] would do".into() });
            continue;
        }
        let mut table = Table::new(format!("{TABLE}.{name}"), members, &MEMBERS, problems);
        read.extend(one(name, &mut table, classes, ladder));
    }
    read
}

fn one(name: &str, table: &mut Table<'_>, classes: &Classes, ladder: &Ladder) -> Option<ProviderConfig> {
    let base_url = table.need("url", Kind::Url, parse::url);
    let model = table.need("model", Kind::Text, tables::text);
    let wire = table.get("wire", Kind::Text, |text| {
        Ok(match parse::choice(text, &["openai", "anthropic", "gemini"])? {
            "anthropic" => Wire::Anthropic,
            "gemini" => Wire::Gemini,
            _ => Wire::OpenAi,
        })
    });
    let api_key = table.get("api_key", Kind::Secret, |text| parse::secret(text).map(Secret::new));
    let max_inflight = table.get("max_inflight", Kind::Count { most: MANY }, |text| parse::count(text, MANY));
    let own_timeout = table.get("timeout_secs", Kind::Seconds, parse::seconds);
    let stream = table.switch("stream").unwrap_or(true);
    let class = if stream { classes.streaming } else { classes.normal };
    Some(ProviderConfig {
        name: name.into(),
        wire: wire.unwrap_or(Wire::OpenAi),
        base_url: base_url?,
        api_key,
        model: model?.into(),
        max_inflight: max_inflight.unwrap_or(OWN_MAX_INFLIGHT),
        timeout: own_timeout.unwrap_or(class).min(ladder.tool()),
        follow_up_timeout: own_timeout.unwrap_or(classes.continuation).min(ladder.tool()),
        stream,
        newer_max_tokens: false,
    })
}

#[cfg(test)]
mod tests;
