//! What the shim says itself, when the daemon cannot.

use std::fmt;

use crate::client::{ConnectError, explain};

/// Answers a client's ping.
pub(super) fn pong(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

/// Text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Why the shim answers in the daemon's place; each has its code in the table of the protocol's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No daemon answers, or the one that did is gone: the request never ran.
    Away {
        /// Where it was looked for, and why it was not found.
        text: String,
    },
    /// The daemon does not let this client in.
    Unauthorized {
        /// What to do about it.
        text: String,
    },
    /// The connection went while a tool was at work.
    OutcomeUnknown,
    /// More than the shim holds.
    OverCapacity,
    /// A line that is longer than any message may be.
    TooLong {
        /// The most that a line may have.
        limit_bytes: usize,
    },
    /// A message that this daemon does not take.
    TooBig {
        /// How many it has.
        bytes: usize,
    },
    /// A line that no frame can carry.
    NotUtf8,
}

impl Refusal {
    /// Why there is no connection, in words that say what to do.
    pub(super) fn from_connect(url: &str, error: &ConnectError) -> Self {
        let text = explain(error);
        match error {
            ConnectError::Unauthorized | ConnectError::Forbidden => {
                Self::Unauthorized { text: format!("the daemon at {url} cannot be used: {text}") }
            }
            ConnectError::Busy | ConnectError::NotADaemon { .. } => {
                Self::Away { text: format!("the daemon at {url} cannot be used: {text}") }
            }
            ConnectError::Resolve(_)
            | ConnectError::Reach(_)
            | ConnectError::Silent
            | ConnectError::Handshake(_) => Self::Away {
                text: format!("no inflightd answers at {url} ({text}); start one with `inflightd serve`"),
            },
        }
    }

    /// The JSON-RPC error that answers the request with this id.
    pub(super) fn answer(&self, id: &str) -> String {
        let (code, name, retryable) = match self {
            Self::Away { .. } => (-32018, "SHUTTING_DOWN", true),
            Self::Unauthorized { .. } => (-32019, "UNAUTHORIZED", false),
            Self::OutcomeUnknown => (-32017, "OUTCOME_UNKNOWN", false),
            Self::OverCapacity => (-32010, "OVER_CAPACITY", true),
            Self::TooLong { .. } | Self::TooBig { .. } => (-32600, "VALIDATION_ERROR", false),
            Self::NotUtf8 => (-32700, "VALIDATION_ERROR", false),
        };
        let message = quoted(&self.to_string());
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message},"data":{{"code":"{name}","retryable":{retryable}}}}}}}"#
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away { text } | Self::Unauthorized { text } => f.write_str(text),
            Self::OutcomeUnknown => {
                f.write_str("the connection to the daemon was lost: the call may or may not have run")
            }
            Self::OverCapacity => f.write_str("too many requests wait for the daemon: try again later"),
            Self::TooLong { limit_bytes } => write!(f, "a message may have {limit_bytes} bytes at most"),
            Self::TooBig { bytes } => {
                write!(f, "the message has {bytes} bytes, more than the daemon takes (MAX_FRAME_BYTES there)")
            }
            Self::NotUtf8 => f.write_str("a message must be UTF-8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_typed_json_rpc_error() {
        let answer: serde_json::Value =
            serde_json::from_str(&Refusal::OutcomeUnknown.answer("\"a\"")).unwrap();
        assert_eq!(answer["id"], "a");
        assert_eq!(answer["error"]["code"], -32017);
        assert_eq!(
            answer["error"]["data"],
            serde_json::json!({"code": "OUTCOME_UNKNOWN", "retryable": false})
        );
    }

    #[test]
    fn a_missing_daemon_is_named_with_the_way_to_start_one() {
        let error = ConnectError::Reach(std::io::ErrorKind::ConnectionRefused.into());
        let text = Refusal::from_connect("ws://h:1", &error).to_string();
        assert!(text.contains("ws://h:1") && text.contains("inflightd serve"), "{text}");
    }

    #[test]
    fn a_wrong_token_says_which_setting_to_change() {
        let refusal = Refusal::from_connect("ws://h:1", &ConnectError::Unauthorized);
        assert!(refusal.answer("1").contains("INFLIGHTD_TOKEN"));
        assert!(refusal.answer("1").contains("-32019"));
    }
}
