//! Every key of the configuration, once: name, kind, default, unit and help.
//!
//! `.env.example`, `docs/configuration.md` and the long help of `serve` are written from this table, and tests
//! hold them to it. A default stands here and nowhere else.

mod flows;
mod modules;
mod providers;

pub use super::render::{env_example, help, markdown};

/// The prefix of names that nobody but us should use.
pub const PREFIX: &str = "INFLIGHTD_";

/// Where the shim and the client commands find the daemon. It is no key of the daemon, which only knows the name.
pub const CLIENT_URL: &str = "INFLIGHTD_URL";

/// The most that a count may say: far above what one machine serves, far below what a semaphore can count.
pub(super) const MANY: usize = 1_000_000;
/// More threads than the runtime takes would be a panic at start.
const MOST_THREADS: usize = 1024;
/// 1 GiB: what one message may never exceed, since it is held in memory whole.
const MOST_BYTES: usize = 1 << 30;

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// A length of time in seconds, to the millisecond.
    Seconds,
    /// A length of time in milliseconds; zero is one.
    Milliseconds,
    /// A whole number from 1 to `most`.
    Count {
        /// The highest that is taken.
        most: usize,
    },
    /// The same, or `auto`: what suits the machine.
    CountOrAuto {
        /// The highest that is taken.
        most: usize,
    },
    /// A number of bytes from 1 to `most`.
    Bytes {
        /// The highest that is taken.
        most: usize,
    },
    /// An IP address, or `localhost`, with a port.
    Address,
    /// An `http` or `https` URL.
    Url,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file, taken from the working folder.
    Path,
    /// Texts with commas between; an array of strings in TOML.
    List,
}

impl Kind {
    /// The unit or form of a value, in a word or two.
    pub fn unit(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Secret => "secret".to_owned(),
            Self::Seconds => "seconds".to_owned(),
            Self::Milliseconds => "milliseconds".to_owned(),
            Self::Count { .. } => "count".to_owned(),
            Self::CountOrAuto { .. } => "count, auto".to_owned(),
            Self::Bytes { .. } => "bytes".to_owned(),
            Self::Address => "address:port".to_owned(),
            Self::Url => "URL".to_owned(),
            Self::Choice(words) => words.join(", "),
            Self::Path => "file".to_owned(),
            Self::List => "list".to_owned(),
        }
    }
}

/// What holds when nobody says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// This value.
    Value(&'static str),
    /// What its neighbours make of it: this value as long as they are at theirs.
    Follows(&'static str),
    /// Nothing.
    Unset,
}

impl Default {
    /// The value to show, empty where there is none.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Value(text) | Self::Follows(text) => text,
            Self::Unset => "",
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the environment; in TOML the same in lower case.
    pub name: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// What holds when nobody says anything.
    pub default: Default,
    /// What it is for.
    pub help: &'static str,
}

/// Keys that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The heading over them.
    pub heading: &'static str,
    /// The keys, in the order in which they are shown.
    pub keys: &'static [Key],
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// All groups, in the order of the table.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().chain(modules::GROUPS).chain(flows::GROUPS).chain(providers::GROUPS)
}

/// Every key, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Key> {
    groups().flat_map(|group| group.keys)
}

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default: Default::Value(default), help }
}

const fn follows(name: &'static str, usual: &'static str, help: &'static str) -> Key {
    Key { name, kind: Kind::Seconds, default: Default::Follows(usual), help }
}

const fn unset(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, default: Default::Unset, help }
}

const COUNT: Kind = Kind::Count { most: MANY };
const BYTES: Kind = Kind::Bytes { most: MOST_BYTES };

/// The table, all but what belongs to one provider.
static GROUPS: &[Group] = &[
    Group {
        heading: "Daemon",
        keys: &[
            key(
                "INFLIGHTD_LISTEN",
                Kind::Address,
                "127.0.0.1:8079",
                "The one address of all doors. One that is not loopback needs a token.",
            ),
            unset(
                "INFLIGHTD_TOKEN",
                Kind::Secret,
                "The token of the principal `local`, at least 16 characters: `openssl rand -hex 32` makes a good one. Once any token is set, every caller must bring one.",
            ),
            key(
                "INFLIGHTD_CONFIG",
                Kind::Path,
                "inflightd.toml",
                "The TOML file with these keys in lower case. The default may be missing, a file named here may not.",
            ),
            unset(
                "ALLOWED_ORIGINS",
                Kind::List,
                "Origins of web pages that may connect, beside the daemon's own: `https://app.example.com`.",
            ),
            unset(
                "TOOLS_FILE",
                Kind::Path,
                "A TOML file with prompt tools, which takes the place of the built-in ones.",
            ),
            unset(
                "MCP_SERVERS_FILE",
                Kind::Path,
                "A JSON file with the `mcpServers` object of upstream MCP servers, as clients write it; comments are taken. See docs/upstream.md.",
            ),
            key(
                "MCP_SERVERS_WAIT_SECS",
                Kind::Seconds,
                "5",
                "How long the daemon waits at its start for upstream servers to list their tools. Later ones come when they come.",
            ),
            unset(
                "WORKER_THREADS",
                Kind::Count { most: MOST_THREADS },
                "Threads of the runtime. Unset, one for each processor.",
            ),
            key("HEALTH_INTERVAL_SECS", Kind::Seconds, "30", "Between two looks of the health task."),
            key("DRAIN_TIMEOUT_SECS", Kind::Seconds, "30", "What a shutdown waits for calls at work."),
        ],
    },
    Group {
        heading: "Log",
        keys: &[
            key(
                "LOG_FORMAT",
                Kind::Choice(&["text", "json"]),
                "text",
                "A readable line, or a JSON object, an event.",
            ),
            key(
                "LOG_LEVEL",
                Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
                "info",
                "Which events are written; `info` has one for each call.",
            ),
        ],
    },
    Group {
        heading: "Limits",
        keys: &[
            key("GLOBAL_MAX_INFLIGHT", COUNT, "24", "Calls at work over all providers."),
            key(
                "SESSION_MAX_INFLIGHT",
                COUNT,
                "8",
                "Calls at work for each client session; the next one waits.",
            ),
            key(
                "CONSENSUS_MAX_INFLIGHT",
                COUNT,
                "8",
                "Calls of `consensus` at work. They hold no other place; the questions that each asks are calls of their own.",
            ),
            key(
                "QUEUE_MAX",
                COUNT,
                "100",
                "Calls that wait for one provider, in one session, or for `consensus`.",
            ),
            key("EXECUTIONS_MAX", COUNT, "200", "Calls in all, waiting or at work."),
            unset(
                "RATE_LIMIT_PER_MINUTE",
                COUNT,
                "Calls a minute of each principal that says nothing of its own; more are `RATE_LIMITED`. It is not for `local`, which is bounded by its own table only. Unset, no limit.",
            ),
            unset("RATE_LIMIT_BURST", COUNT, "How many of them may come at once. Unset, all."),
            key("CONNECTIONS_MAX", COUNT, "10000", "Connections served; above, the answer is 503."),
            key("WAITERS_MAX", COUNT, "1000", "Callers that wait for one and the same flight."),
            key("MAX_FRAME_BYTES", BYTES, "33554432", "One WebSocket message, or one HTTP body."),
            key("MAX_RESULT_BYTES", BYTES, "33554432", "One result."),
            key(
                "RESULT_CACHE_BYTES",
                BYTES,
                "67108864",
                "Results kept for each principal, of tools with a cache_ttl_secs and for the guard window.",
            ),
            key("WRITE_QUEUE_BYTES", BYTES, "8388608", "What waits to be written to one slow reader."),
        ],
    },
    Group {
        heading: "Timeouts",
        keys: &[
            key(
                "WORKFLOW_TOOL_TIMEOUT_SECS",
                Kind::Seconds,
                "180",
                "One call of a plain tool. Unset, it gives way to longer providers and to shorter outer timeouts.",
            ),
            key(
                "EXPERT_ANALYSIS_TIMEOUT_SECS",
                Kind::Seconds,
                "180",
                "One call of a tool that asks for an expert's analysis, as `analyze` does. Unset, it gives way likewise.",
            ),
            key(
                "QUEUE_TIMEOUT_SECS",
                Kind::Seconds,
                "60",
                "Waiting for a session slot and a provider, together. Unset, never longer than the tool.",
            ),
            key(
                "CONNECT_TIMEOUT_SECS",
                Kind::Seconds,
                "10",
                "Opening a connection to a provider; cut to the tool's timeout.",
            ),
            follows(
                "DAEMON_TIMEOUT_SECS",
                "270",
                "When the daemon gives up. Unset, the longer of 1.5 × tool and tool + queue.",
            ),
            follows("SHIM_TIMEOUT_SECS", "360", "When the shim gives up. Unset, 4/3 of the daemon's."),
            follows("CLIENT_TIMEOUT_SECS", "450", "When the client gives up. Unset, 5/3 of the daemon's."),
            key(
                "UNKNOWN_CLIENT_LIMIT_SECS",
                Kind::Seconds,
                "60",
                "When a client gives up that says nothing of its limit, is not known by name, and hears no progress: \
                 5 s before, its call is answered with how to collect the outcome. Above DAEMON_TIMEOUT_SECS: never.",
            ),
            key(
                "GUARD_WINDOW_MS",
                Kind::Milliseconds,
                "100",
                "How long the outcome of a guarded call also answers a twin from the same session; 0: not at all.",
            ),
            key(
                "REATTACH_SECS",
                Kind::Seconds,
                "60",
                "How long a paid-for call is kept for a caller that lost its connection.",
            ),
        ],
    },
    Group {
        heading: "Providers",
        keys: &[
            key(
                "PROVIDER_IDLE_CONNECTIONS",
                COUNT,
                "5",
                "Connections to each provider that are kept open while nobody uses them.",
            ),
            key(
                "NORMAL_TIMEOUT_SECS",
                Kind::Seconds,
                "30",
                "One request to a provider without a timeout of its own that sends its answer whole (`stream = false`); \
                 cut to the tool's timeout, as the next two are.",
            ),
            key(
                "STREAMING_TIMEOUT_SECS",
                Kind::Seconds,
                "300",
                "The same where the answer comes as it is made, as every preset sends it.",
            ),
            key(
                "CONTINUATION_TIMEOUT_SECS",
                Kind::Seconds,
                "120",
                "The same for a call that goes on with a conversation.",
            ),
            key(
                "CONVERSATIONS_MAX",
                COUNT,
                "100",
                "Conversations kept for each principal; the one that was not used for longest makes room.",
            ),
            key("CONVERSATION_BYTES", BYTES, "16777216", "What all conversations of a principal may take."),
            key(
                "CONVERSATION_SECS",
                Kind::Seconds,
                "10800",
                "How long a conversation is kept since it was used.",
            ),
        ],
    },
    Group {
        heading: "Providers that fail",
        keys: &[
            key(
                "RETRY_ATTEMPTS",
                Kind::Count { most: 10 },
                "3",
                "How often a call is attempted at one provider, where its fault may pass and a second attempt does no harm; 1: once.",
            ),
            key(
                "RETRY_BACKOFF_MS",
                Kind::Milliseconds,
                "250",
                "What the second attempt waits at most; a later one twice as long as the one before. At least half of it, the rest by chance.",
            ),
            key(
                "BREAKER_FAILURE_PERCENT",
                Kind::Count { most: 100 },
                "50",
                "Of a provider's calls within the window, so many that failed by its own fault open its breaker.",
            ),
            key("BREAKER_MIN_CALLS", COUNT, "6", "Fewer calls than this within the window open none."),
            key("BREAKER_WINDOW_SECS", Kind::Seconds, "60", "Over which calls are counted."),
            key(
                "BREAKER_OPEN_SECS",
                Kind::Seconds,
                "15",
                "How long an open breaker answers every call at once, before one is sent as a probe.",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_key_stands_twice() {
        let names: BTreeSet<_> = all().map(|key| key.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn every_help_is_a_sentence() {
        for key in all() {
            assert!(key.help.ends_with(['.', '`']), "{}: {}", key.name, key.help);
        }
    }
}
