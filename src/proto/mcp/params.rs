//! Parameters of MCP requests, borrowed from their frame: one struct for all methods, one pass.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use crate::call::Priority;
use crate::proto::fill::{self, Fill, Into};
use crate::proto::{Str, read_object};
use crate::provider::{Level, push_json_string};
use crate::tool::Dedup;

/// What any method may bring.
#[derive(Debug, Default)]
pub(super) struct Params<'a> {
    pub(super) name: Option<Str<'a>>,
    pub(super) arguments: Option<&'a RawValue>,
    pub(super) level: Option<Str<'a>>,
    pub(super) cursor: Option<Str<'a>>,
    pub(super) input_responses: Option<&'a RawValue>,
    pub(super) request_state: Option<Str<'a>>,
    pub(super) protocol_version: Option<Str<'a>>,
    pub(super) capabilities: Option<&'a RawValue>,
    pub(super) client_info: Option<&'a RawValue>,
    pub(super) meta: Meta<'a>,
    /// Which of them came, a bit for each.
    pub(super) came: u16,
}

impl<'de> Fill<'de> for Params<'de> {
    const WHAT: &'static str = "an object";

    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let (bit, known) = match name {
            "name" => (0, "name"),
            "arguments" => (1, "arguments"),
            "level" => (2, "level"),
            "cursor" => (3, "cursor"),
            "inputResponses" => (4, "inputResponses"),
            "requestState" => (5, "requestState"),
            "protocolVersion" => (6, "protocolVersion"),
            "capabilities" => (7, "capabilities"),
            "clientInfo" => (8, "clientInfo"),
            "_meta" => (9, "_meta"),
            _ => return map.next_value::<IgnoredAny>().map(drop),
        };
        if self.came & (1 << bit) != 0 {
            return Err(A::Error::duplicate_field(known));
        }
        self.came |= 1 << bit;
        match known {
            "name" => self.name = map.next_value()?,
            "arguments" => self.arguments = map.next_value()?,
            "level" => self.level = map.next_value()?,
            "cursor" => self.cursor = map.next_value()?,
            "inputResponses" => self.input_responses = map.next_value()?,
            "requestState" => self.request_state = map.next_value()?,
            "protocolVersion" => self.protocol_version = map.next_value()?,
            "capabilities" => self.capabilities = map.next_value()?,
            "clientInfo" => self.client_info = map.next_value()?,
            _ => map.next_value_seed(Into(&mut self.meta))?,
        }
        Ok(())
    }
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
    /// A member that headers speak of, or depend on, is there twice: the last one counts.
    pub(super) repeats: bool,
}

/// Reads parameters; the error is a text for the client.
pub(super) fn read(params: Option<&str>) -> Result<Params<'_>, String> {
    let Some(params) = params else { return Ok(Params::default()) };
    if !params.starts_with('{') {
        return Err("params must be an object".into());
    }
    // serde_json's texts name members and types, never values of the arguments: those are not looked into here.
    let mut read = Params::default();
    fill::read(params, &mut read).map_err(|error| format!("params: {}", without_place(&error)))?;
    Ok(read)
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

impl<'de> Fill<'de> for Meta<'de> {
    const WHAT: &'static str = "an object as _meta";

    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "progressToken" => {
                let token: &'de RawValue = map.next_value()?;
                self.progress = Some(token.get());
            }
            "io.modelcontextprotocol/protocolVersion" => {
                self.repeats |= self.version.is_some();
                self.version = Some(map.next_value()?);
            }
            "io.modelcontextprotocol/clientCapabilities" => {
                let capabilities: &'de RawValue = map.next_value()?;
                self.repeats |= self.capabilities.is_some();
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

    fn done(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.push('}');
        }
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
