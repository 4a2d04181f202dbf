//! Keys that belong to one provider.

use super::{COUNT, Default, Group, Key, Kind, follows, key, unset};

const CHAT: &str = "Where `/chat/completions` lives; any OpenAI-compatible service will do.";
const SERVES: &str =
    "Where `/chat/completions` lives. Once it is set, the provider is offered; it needs no key.";
const OWN_TIMEOUT: &str =
    "How long one request may take, never longer than the tool. Unset, it is cut to the tool's timeout.";
const CLASS_TIMEOUT: &str = "How long one request may take, never longer than the tool. Unset, STREAMING_TIMEOUT_SECS \
    and CONTINUATION_TIMEOUT_SECS hold, cut to the tool's timeout.";
const MODEL: &str = "The model where neither caller nor tool names one.";

/// The five keys of a provider preset: its key, address, model, permits and timeout.
macro_rules! provider {
    ($name:literal, $prefix:literal, $key_help:expr, $url:expr, $model:expr, $max:literal, $timeout:expr) => {
        Group {
            heading: concat!("Provider `", $name, "`"),
            keys: &[
                unset(concat!($prefix, "_API_KEY"), Kind::Secret, $key_help),
                Key { name: concat!($prefix, "_API_URL"), ..$url },
                Key { name: concat!($prefix, "_MODEL"), kind: Kind::Text, default: $model, help: MODEL },
                key(concat!($prefix, "_MAX_INFLIGHT"), COUNT, $max, "Requests to it at once."),
                Key { name: concat!($prefix, "_TIMEOUT_SECS"), ..$timeout },
            ],
        }
    };
}

/// A provider that is offered once it has a key.
macro_rules! keyed {
    ($name:literal, $prefix:literal, $url:expr, $model:literal, $max:literal, $timeout:expr) => {
        provider!(
            $name,
            $prefix,
            "Its key. Without one it is not offered.",
            $url,
            Default::Value($model),
            $max,
            $timeout
        )
    };
}

const fn at(url: &'static str, help: &'static str) -> Key {
    key("", Kind::Url, url, help)
}

const fn own_timeout(secs: &'static str) -> Key {
    key("", Kind::Seconds, secs, OWN_TIMEOUT)
}

/// Cut to the tool's timeout, a streamed answer has as long as the tool.
const BY_CLASS: Key = follows("", "180", CLASS_TIMEOUT);
const KEYLESS: &str = "A key to send, where it asks for one.";

/// Presets in the order in which they are preferred, then `offline`.
pub(super) static GROUPS: &[Group] = &[
    keyed!("kimi", "KIMI", at("https://api.moonshot.ai/v1", CHAT), "kimi-k2.6", "6", own_timeout("180")),
    keyed!("glm", "GLM", at("https://open.bigmodel.cn/api/paas/v4", CHAT), "glm-4.6", "4", own_timeout("30")),
    keyed!("openai", "OPENAI", at("https://api.openai.com/v1", CHAT), "gpt-5-mini", "8", BY_CLASS),
    keyed!(
        "anthropic",
        "ANTHROPIC",
        at("https://api.anthropic.com/v1", "Where `/messages` lives."),
        "claude-sonnet-4-5",
        "8",
        BY_CLASS
    ),
    keyed!(
        "gemini",
        "GEMINI",
        at(
            "https://generativelanguage.googleapis.com/v1beta",
            "Where `/models/…:streamGenerateContent` lives."
        ),
        "gemini-2.5-flash",
        "8",
        BY_CLASS
    ),
    keyed!(
        "openrouter",
        "OPENROUTER",
        at("https://openrouter.ai/api/v1", CHAT),
        "openrouter/auto",
        "8",
        BY_CLASS
    ),
    keyed!("deepseek", "DEEPSEEK", at("https://api.deepseek.com/v1", CHAT), "deepseek-chat", "8", BY_CLASS),
    provider!(
        "ollama",
        "OLLAMA",
        KEYLESS,
        unset("", Kind::Url, SERVES),
        Default::Value("llama3.2"),
        "8",
        BY_CLASS
    ),
    provider!("vllm", "VLLM", KEYLESS, unset("", Kind::Url, SERVES), Default::Unset, "8", BY_CLASS),
    Group {
        heading: "Provider `offline`",
        keys: &[
            key("OFFLINE_LATENCY_MS", Kind::Milliseconds, "0", "How long each of its answers takes."),
            key(
                "OFFLINE_FAULT",
                Kind::Choice(&[
                    "none",
                    "error",
                    "rate_limit",
                    "hang",
                    "drip",
                    "reset",
                    "garbage",
                    "endless",
                    "tls",
                ]),
                "none",
                "The bad day that it plays, for trying clients: it answers HTTP 500 or 429, never, or a byte a second; breaks off in the middle of its answer; answers with garbage, or without end; or fails the TLS handshake.",
            ),
            key(
                "OFFLINE_FAULT_EVERY",
                COUNT,
                "1",
                "Each so-manieth of its calls meets the fault; the others are answered.",
            ),
            key("OFFLINE_RETRY_AFTER_SECS", Kind::Seconds, "2", "The `Retry-After` of its HTTP 429."),
            key("OFFLINE_MAX_INFLIGHT", COUNT, "8", "Calls to it at once."),
        ],
    },
];
