//! Parameters of MCP requests, borrowed from their frame: one struct for all methods, one pass.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::call::Priority;
use crate::proto::{Str, read_object};
use crate::provider::{Level, push_json_string};
use crate::tool::Dedup;

/// What any method may bring.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) level: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) cursor: Option<Str<'a>>,
    #[serde(borrow, default, rename = "inputResponses")]
    pub(super) input_responses: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestState")]
    pub(super) request_state: Option<Str<'a>>,
    #[serde(borrow, default, rename = "protocolVersion")]
    pub(super) protocol_version: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "clientInfo")]
    pub(super) client_info: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Meta<'a>,
}

/// A request's `_meta`.
#[derive(Debug, Default)]
pub(super) struct Meta<'a> {
    /// The protocol version of a stateless request.
    pub(super) version: Option<Str<'a>>,
    /// What the client can do, as JSON text.
    pub(super) capabilities: Option<&'a str>,
    /// From which level on the caller wants to read the log of the work.
    pub(super) log: Option<Level>,
    /// Who calls, as JSON text.
    pub(super) client_info: Option<&'a str>,
    /// The progress token, as JSON text.
    pub(super) progress: Option<&'a str>,
    /// `inflightd/priority`
    pub(super) priority: Priority,
    /// `inflightd/timeout_ms`
    pub(super) timeout: Option<Duration>,
    /// `inflightd/dedup`
    pub(super) dedup: Option<Dedup>,
    /// `inflightd/resume`
    pub(super) resume: bool,
    /// Members that are not known to be inert, as one JSON object: part of the call's key.
    pub(super) extra: Option<String>,
}

/// Reads parameters; the error is a text for the client.
pub(super) fn read(params: Option<&str>) -> Result<Params<'_>, String> {
    let Some(params) = params else { return Ok(Params::default()) };
    if !params.starts_with('{') {
        return Err("params must be an object".into());
    }
    // serde_json's texts name members and types, never values of the arguments: those are not looked into here.
    serde_json::from_str(params).map_err(|error| format!("params: {}", without_place(&error)))
}

/// The parser's text without its line and column, which count from the wrong start here.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// The id of the request that a `notifications/cancelled` names, as JSON text.
pub(super) fn cancelled(params: Option<&str>) -> Option<&str> {
    #[derive(Deserialize)]
    struct Cancelled<'a> {
        #[serde(borrow, rename = "requestId")]
        request_id: &'a RawValue,
    }
    read_object::<Cancelled<'_>>(params?).ok().map(|cancelled| cancelled.request_id.get())
}

impl<'de: 'a, 'a> Deserialize<'de> for Meta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Meta<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object as _meta")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut meta = Meta::default();
                while let Some(name) = map.next_key::<Str<'de>>()? {
                    meta.take(&name.0, &mut map)?;
                }
                if let Some(extra) = &mut meta.extra {
                    extra.push('}');
                }
                Ok(meta)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de> Meta<'de> {
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "progressToken" => {
                let token: &'de RawValue = map.next_value()?;
                self.progress = Some(token.get());
            }
            "io.modelcontextprotocol/protocolVersion" => self.version = Some(map.next_value()?),
            "io.modelcontextprotocol/clientCapabilities" => {
                let capabilities: &'de RawValue = map.next_value()?;
                self.capabilities = Some(capabilities.get());
            }
            // They say who calls and how it is traced, not what is asked.
            "io.modelcontextprotocol/clientInfo" => {
                let client: &'de RawValue = map.next_value()?;
                self.client_info = Some(client.get());
            }
            "io.modelcontextprotocol/logLevel" => {
                let name: Str<'de> = map.next_value()?;
                self.log = Some(Level::parse(&name.0).ok_or_else(|| A::Error::custom(super::NO_LEVEL))?);
            }
            "traceparent" | "tracestate" | "baggage" => {
                map.next_value::<&'de RawValue>()?;
            }
            "inflightd/priority" => {
                let name: Str<'de> = map.next_value()?;
                self.priority = Priority::parse(&name.0)
                    .ok_or_else(|| A::Error::custom("inflightd/priority must be high, medium or low"))?;
            }
            "inflightd/timeout_ms" => {
                let ms: u64 = map.next_value()?;
                if ms == 0 {
                    return Err(A::Error::custom("inflightd/timeout_ms must be at least 1"));
                }
                self.timeout = Some(Duration::from_millis(ms));
            }
            "inflightd/dedup" => {
                let name: Str<'de> = map.next_value()?;
                self.dedup = Some(
                    Dedup::parse(&name.0)
                        .ok_or_else(|| A::Error::custom("inflightd/dedup must be read, guard or off"))?,
                );
            }
            "inflightd/resume" => self.resume = map.next_value()?,
            _ if name.starts_with("inflightd/") => {
                return Err(A::Error::custom(
                    "there are inflightd/priority, inflightd/timeout_ms, inflightd/dedup and inflightd/resume",
                ));
            }
            _ => {
                let value: &'de RawValue = map.next_value()?;
                let extra = self.extra.get_or_insert_default();
                extra.push(if extra.is_empty() { '{' } else { ',' });
                push_json_string(extra, name);
                extra.push(':');
                extra.push_str(value.get());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_known_to_be_inert_counts() {
        let inert = r#"{"_meta":{"progressToken":7,"traceparent":"x","inflightd/priority":"high","inflightd/timeout_ms":5,"inflightd/resume":true}}"#;
        let params = read(Some(inert)).unwrap();
        assert_eq!(
            (params.meta.extra, params.meta.progress, params.meta.priority),
            (None, Some("7"), Priority::High)
        );
        let other = read(Some(r#"{"_meta":{"acme/tenant":{"a": 1},"b":2}}"#)).unwrap();
        assert_eq!(other.meta.extra.as_deref(), Some(r#"{"acme/tenant":{"a": 1},"b":2}"#));
    }

    #[test]
    fn wrong_options_say_what_would_do() {
        let text = |params| read(Some(params)).unwrap_err();
        assert_eq!(
            text(r#"{"_meta":{"inflightd/priority":"urgent"}}"#),
            "params: inflightd/priority must be high, medium or low"
        );
        assert!(text(r#"{"_meta":{"inflightd/timeout_ms":0}}"#).contains("at least 1"));
        assert!(text(r#"{"_meta":{"inflightd/prio":"high"}}"#).contains("inflightd/dedup"));
        assert!(text(r#"{"name":"a","name":"b"}"#).contains("duplicate"));
        assert_eq!(text("[]"), "params must be an object");
    }
}
