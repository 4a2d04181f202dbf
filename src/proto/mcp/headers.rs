//! What MCP says of a request in HTTP headers, held against the request itself.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::proto::mcp::params::Params;
use crate::proto::mcp::{HANDSHAKE, STATELESS, UNSUPPORTED_VERSION};
use crate::proto::{Object, Str, jsonrpc, read_object};
use crate::provider::upstream::Mirrored;

/// Headers that do not say what the request says.
const HEADER_MISMATCH: i32 = -32020;
/// The client lacks something that the request needs.
pub(super) const MISSING_CAPABILITY: i32 = -32021;

/// The headers of one request.
#[derive(Debug, Default, Clone, Copy)]
pub struct Headers<'a> {
    /// `MCP-Protocol-Version`
    pub version: Option<&'a str>,
    /// `Mcp-Method`
    pub method: Option<&'a str>,
    /// `Mcp-Name`
    pub name: Option<&'a str>,
}

/// A message, read once: for what headers say of it, and for its dialect.
#[derive(Debug)]
pub struct Read<'a> {
    pub(super) text: &'a str,
    /// The id and the method of a well-formed request.
    pub(super) request: Option<(&'a str, Str<'a>)>,
    pub(super) params: Params<'a>,
}

impl<'a> Read<'a> {
    /// Reads it.
    pub fn at(text: &'a str) -> Self {
        let mut read = Self { text, request: None, params: Params::default() };
        read.request = jsonrpc::read_request(text, &mut read.params);
        read
    }

    /// What headers speak of.
    pub fn look(&self) -> Look<'_> {
        let params = &self.params;
        match &self.request {
            // The dialect takes the last of members that are there twice, and leaves a `uri` to whoever serves it.
            Some((id, method)) if !params.meta.repeats && method.0 != "resources/read" => Look {
                id: Some(id),
                method: Some(Cow::Borrowed(&method.0)),
                name: params.name.as_ref().map(|name| Cow::Borrowed(&*name.0)),
                uri: None,
                version: params.meta.version.as_ref().map(|version| Cow::Borrowed(&*version.0)),
                has_capabilities: params.meta.capabilities.is_some_and(|text| text != "null"),
            },
            Some(_) | None => Look::at(self.text),
        }
    }
}

/// As much of a message as headers speak of.
#[derive(Debug, Default)]
pub struct Look<'a> {
    id: Option<&'a str>,
    method: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
    has_capabilities: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Str<'a>>,
    #[serde(borrow, default)]
    params: Option<Object<Named<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    uri: Option<Str<'a>>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<Object<Meta<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Str<'a>>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
}

impl<'a> Look<'a> {
    /// Reads it; what is no such message is read as one that says nothing, and its dialect says what is wrong with it.
    fn at(text: &'a str) -> Self {
        let Message { id, method, params } = read_object(text).unwrap_or_default();
        let Named { name, uri, meta } = params.map(|Object(params)| params).unwrap_or_default();
        let Meta { version, capabilities } = meta.map(|Object(meta)| meta).unwrap_or_default();
        Self {
            id: id.map(RawValue::get),
            method: method.map(|Str(method)| method),
            name: name.map(|Str(name)| name),
            uri: uri.map(|Str(uri)| uri),
            version: version.map(|Str(version)| version),
            has_capabilities: capabilities.is_some(),
        }
    }

    /// Whether it brings all that is to be known of its client, and needs no session.
    pub fn is_stateless(&self) -> bool {
        self.version.is_some()
    }

    /// Whether it opens a session.
    pub fn opens(&self) -> bool {
        !self.is_stateless() && self.id.is_some() && self.method.as_deref() == Some("initialize")
    }

    /// The error response, where headers and request do not say the same.
    pub fn mismatch(&self, headers: Headers<'_>) -> Option<String> {
        let id = self.id.unwrap_or_default();
        let is_newer = self.is_stateless() || headers.version == Some(STATELESS);
        // A notification has nobody who could be told.
        if let Some(lacks) = self.lacks().filter(|_| is_newer && self.id.is_some()) {
            let text = format!("params._meta lacks {lacks}");
            return Some(jsonrpc::error_response(id, jsonrpc::INVALID_PARAMS, &text, None));
        }
        let why = if is_newer {
            self.stateless_mismatch(headers)
        } else {
            let unknown = headers.version.filter(|version| !HANDSHAKE.contains(version));
            unknown.map(|_| "MCP-Protocol-Version is none that is served".to_owned())
        };
        why.map(|why| jsonrpc::error_response(id, HEADER_MISMATCH, &why, None))
    }

    /// What a request of the newer era must bring, and this one does not.
    fn lacks(&self) -> Option<&'static str> {
        match (&self.version, self.has_capabilities) {
            (Some(_), true) => None,
            (Some(_), false) => Some("io.modelcontextprotocol/clientCapabilities"),
            (None, _) => Some("io.modelcontextprotocol/protocolVersion"),
        }
    }

    fn stateless_mismatch(&self, headers: Headers<'_>) -> Option<String> {
        let differs = |name: &str, header: Option<&str>, body: Option<&str>| match (header, body) {
            (Some(header), Some(body)) if is(header, body) => None,
            (None, _) => Some(format!("the header {name} is missing")),
            (Some(_), _) => Some(format!("the header {name} does not say what the request says")),
        };
        let method = self.method.as_deref();
        let version = differs("MCP-Protocol-Version", headers.version, self.version.as_deref());
        version.or_else(|| differs("Mcp-Method", headers.method, method)).or_else(|| {
            let named = match method? {
                "tools/call" | "prompts/get" => self.name.as_deref(),
                "resources/read" => self.uri.as_deref(),
                _ => None,
            };
            // One that the request lacks is told of by its dialect.
            named.and_then(|named| differs("Mcp-Name", headers.name, Some(named)))
        })
    }
}

/// The error response, where headers do not say what arguments say that are also sent as headers.
pub fn differs<'a>(
    id: &str,
    mirrored: &[Mirrored],
    arguments: &str,
    header: impl Fn(&str) -> Option<&'a [u8]>,
) -> Option<String> {
    let wrong = mirrored.iter().find(|each| match (header(each.header()), each.value(arguments)) {
        (None, None) => false,
        (Some(said), Some(value)) => !std::str::from_utf8(said).is_ok_and(|said| is(said, &value)),
        (Some(_), None) | (None, Some(_)) => true,
    })?;
    let why = format!("the header {} does not say what the arguments say", wrong.header());
    Some(jsonrpc::error_response(id, HEADER_MISMATCH, &why, None))
}

/// Whether a header says this: as it is, or in base64 with the marks that MCP gives it.
fn is(header: &str, text: &str) -> bool {
    let marked = header.strip_prefix("=?base64?").and_then(|marked| marked.strip_suffix("?="));
    match marked {
        Some(encoded) => decoded(encoded).is_some_and(|bytes| bytes == text.as_bytes()),
        None => header == text,
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (digits, padding) = text.split_at(text.find('=').unwrap_or(text.len()));
    if !text.len().is_multiple_of(4) || padding.len() > 2 || padding.bytes().any(|byte| byte != b'=') {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0_u32, 0_u32);
    for digit in digits.bytes() {
        bits = (bits << 6) | u32::from(value(digit)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// The HTTP status of a response that is an error of the protocol; 200 for every other.
pub fn status(response: &str, stateless: bool) -> u16 {
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        error: Option<Coded>,
    }
    #[derive(Deserialize)]
    struct Coded {
        code: i32,
    }
    // Only errors that came of reading are short.
    let code =
        read_object::<Response>(response).ok().and_then(|response| response.error).map(|error| error.code);
    match code {
        Some(jsonrpc::METHOD_NOT_FOUND) if stateless => 404,
        Some(
            HEADER_MISMATCH
            | MISSING_CAPABILITY
            | UNSUPPORTED_VERSION
            | jsonrpc::PARSE_ERROR
            | jsonrpc::INVALID_REQUEST,
        ) => 400,
        Some(_) | None => 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"grüß","arguments":{},
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    const HEAD: Headers<'_> = Headers {
        version: Some("2026-07-28"),
        method: Some("tools/call"),
        name: Some("=?base64?Z3LDvMOf?="),
    };

    fn why(text: &str, headers: Headers<'_>) -> Option<String> {
        let read = Read::at(text);
        let mismatch = read.look().mismatch(headers)?;
        assert!(mismatch.contains("\"code\":-32020"), "{mismatch}");
        Some(mismatch.split("\"message\":\"").nth(1)?.trim_end_matches("\"}}").to_owned())
    }

    #[test]
    fn headers_say_what_the_request_says() {
        assert_eq!(why(CALL, HEAD), None);
        let missing = |what: &str| Some(format!("the header {what} is missing"));
        let differs = |what: &str| Some(format!("the header {what} does not say what the request says"));
        assert_eq!(why(CALL, Headers { version: None, ..HEAD }), missing("MCP-Protocol-Version"));
        assert_eq!(
            why(CALL, Headers { version: Some("2025-11-25"), ..HEAD }),
            differs("MCP-Protocol-Version")
        );
        assert_eq!(why(CALL, Headers { method: None, ..HEAD }), missing("Mcp-Method"));
        assert_eq!(why(CALL, Headers { method: Some("Tools/call"), ..HEAD }), differs("Mcp-Method"));
        assert_eq!(why(CALL, Headers { name: None, ..HEAD }), missing("Mcp-Name"));
        assert_eq!(why(CALL, Headers { name: Some("other"), ..HEAD }), differs("Mcp-Name"));
        for odd in ["=?base64?!?=", "=?base64?Z3LDvMOf=?=", "=?base64?Z3LDvMO?=", "=?base64?Z3LDvM===?="] {
            assert_eq!(why(CALL, Headers { name: Some(odd), ..HEAD }), differs("Mcp-Name"), "{odd}");
        }
    }

    #[test]
    fn what_a_dialect_reads_otherwise_is_held_against_its_headers_as_ever() {
        let wrong = |text: &str| why(text, HEAD).is_some();
        let version = "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",";
        assert!(!wrong(CALL));
        assert!(wrong(&CALL.replace(version, &format!("{version}{version}"))), "a version twice");
        let reads = CALL.replace("tools/call", "resources/read").replace("\"name\"", "\"uri\"");
        let read = |text: &str| why(text, Headers { method: Some("resources/read"), ..HEAD });
        assert_eq!(read(&reads), None);
        assert!(read(&reads.replace("grüß", "other")).is_some());
        assert!(read(&reads.replace("\"grüß\"", "5")).is_some(), "a `uri` that is no string");
    }

    #[test]
    fn headers_say_what_arguments_say_that_are_marked() {
        let schema = serde_json::json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}, "n": {"type": "integer", "x-mcp-header": "N"},
        }});
        let mirrored = crate::provider::upstream::mirrored(&schema).unwrap();
        let differs = |arguments, region: Option<&'static str>, n: Option<&'static str>| {
            let header = |name: &str| if name == "mcp-param-n" { n } else { region }.map(str::as_bytes);
            super::differs("1", &mirrored, arguments, header).is_some_and(|error| error.contains("-32020"))
        };
        let both = r#"{"region":"Hello","n":7}"#;
        assert!(!differs(both, Some("Hello"), Some("7")));
        assert!(!differs(both, Some("=?base64?SGVsbG8=?="), Some("7")));
        assert!(!differs(r#"{"region":"=?base64?SGVsbG8="}"#, Some("=?base64?SGVsbG8="), None), "no marks");
        assert!(!differs(r#"{"n":null}"#, None, None));
        for (region, n) in [
            (None, Some("7")),
            (Some("Hello"), None),
            (Some("hello"), Some("7")),
            (Some("Hello"), Some("8")),
            (Some("=?base64?SGVsbG8?="), Some("7")),
            (Some("=?base64?SGVs!!!bG8=?="), Some("7")),
        ] {
            assert!(differs(both, region, n), "{region:?} {n:?}");
        }
        assert!(differs("{}", Some("Hello"), None), "it says what the arguments do not");
    }

    #[test]
    fn the_older_era_names_a_version_that_is_served_or_none() {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let version = |version| why(ping, Headers { version, ..Headers::default() });
        assert_eq!((version(None), version(Some("2025-06-18"))), (None, None));
        assert_eq!(
            version(Some("1999-01-01")).as_deref(),
            Some("MCP-Protocol-Version is none that is served")
        );
    }

    #[test]
    fn a_request_of_the_newer_era_brings_all_that_it_must() {
        let mismatch = |meta: &str| {
            let text =
                format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{{{meta}}}}}");
            Read::at(&text).look().mismatch(Headers { method: Some("tools/list"), ..HEAD })
        };
        let lacks = |what: &str| {
            Some(format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{{\"code\":-32602,\"message\":\"params._meta lacks io.modelcontextprotocol/{what}\"}}}}"
            ))
        };
        assert_eq!(mismatch(""), lacks("protocolVersion"));
        assert_eq!(mismatch("\"_meta\":{}"), lacks("protocolVersion"));
        let version = "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}";
        assert_eq!(mismatch(version), lacks("clientCapabilities"));
        let none = version.replace('}', ",\"io.modelcontextprotocol/clientCapabilities\":null}");
        assert_eq!(mismatch(&none), lacks("clientCapabilities"));
    }

    #[test]
    fn errors_of_the_protocol_have_a_status_and_results_have_200() {
        let error = |code| status(&jsonrpc::error_response("1", code, "x", None), true);
        assert_eq!(
            [-32601, -32600, -32700, -32020, -32022, -32602].map(error),
            [404, 400, 400, 400, 400, 200]
        );
        assert_eq!(status(&jsonrpc::error_response("1", -32601, "x", None), false), 200);
        assert_eq!(status("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", true), 200);
    }
}
