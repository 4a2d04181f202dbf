//! What a server lists, each entry as it wrote it.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::provider::push_json_string;
use crate::provider::upstream::instance::Live;
use crate::provider::upstream::link::{Param, Request};
use crate::provider::upstream::mirror::{self, Mirrored};
use crate::provider::upstream::others::Others;
use crate::provider::upstream::pipe::Failed;

/// Entries of one list. More would drown whoever must choose among them.
pub(super) const MOST: usize = 1000;
/// Bytes of one list.
pub(super) const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Pages of one list.
pub(super) const PAGES: usize = 200;
/// How long one page may take.
pub(super) const PAGE: Duration = Duration::from_secs(30);

/// One tool as its server lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its own name.
    pub name: Box<str>,
    /// What a model chooses it by.
    pub description: Box<str>,
    /// The schema of its arguments.
    pub schema: Value,
    /// It says that it changes nothing.
    pub says_read_only: bool,
    /// It says that doing it twice is doing it once.
    pub says_idempotent: bool,
    /// Arguments that are also sent as headers.
    pub mirrored: Vec<Mirrored>,
    /// Its members but the name, as they were written.
    rest: Box<str>,
    /// The schema, as it was written.
    schema_text: Box<str>,
}

/// What a list came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// The tools.
    pub tools: Vec<Listed>,
    /// What is wrong with those that are left out, one line each.
    pub left_out: Vec<String>,
    /// What there is beside tools.
    pub others: Others,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "nextCursor")]
    next: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input_schema: &'a RawValue,
    #[serde(default)]
    annotations: Option<Hints>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    #[serde(default)]
    read_only_hint: Option<bool>,
    #[serde(default)]
    idempotent_hint: Option<bool>,
}

impl Listed {
    /// Its entry in a list of ours, under another name.
    pub fn entry(&self, name: &str) -> String {
        let mut out = String::with_capacity(self.rest.len() + name.len() + 16);
        out.push_str("{\"name\":");
        push_json_string(&mut out, name);
        if !self.rest.is_empty() {
            out.push(',');
            out.push_str(&self.rest);
        }
        out.push('}');
        out
    }

    /// The same for clients of the op protocol: name, description and schema.
    pub fn plain_entry(&self, name: &str) -> String {
        let mut out = String::from("{\"name\":");
        push_json_string(&mut out, name);
        out.push_str(",\"description\":");
        push_json_string(&mut out, &self.description);
        out.push_str(",\"inputSchema\":");
        out.push_str(&self.schema_text);
        out.push('}');
        out
    }

    fn read(raw: &str) -> Result<Self, String> {
        let entry: Entry<'_> = serde_json::from_str(raw)
            .map_err(|_| "an entry is no tool: it has no name or no schema".to_owned())?;
        let name: String = entry.name.chars().take(128).collect();
        let schema: Value = serde_json::from_str(entry.input_schema.get())
            .map_err(|_| format!("{name}: its schema nests too deep"))?;
        if !schema.is_object() {
            return Err(format!("{name}: its schema is not an object"));
        }
        let mirrored = mirror::of(&schema).map_err(|why| format!("{name}: {why}"))?;
        let hints = entry.annotations.unwrap_or_default();
        let schema_text = entry.input_schema.get().into();
        Ok(Self {
            name: entry.name.into(),
            description: entry.description.unwrap_or_default().into(),
            schema,
            says_read_only: hints.read_only_hint == Some(true),
            says_idempotent: hints.idempotent_hint == Some(true),
            mirrored,
            rest: members_but("name", raw).unwrap_or_default().into(),
            schema_text,
        })
    }
}

/// All members but one, as they were written.
pub(super) fn members_but(name: &str, raw: &str) -> Option<String> {
    let quoted = format!("\"{name}\"");
    let Pairs(pairs) = serde_json::from_str(raw).ok()?;
    let rest = pairs.into_iter().filter(|(key, _)| key.get() != quoted);
    let rest: Vec<_> = rest.map(|(key, value)| format!("{}:{}", key.get(), value.get())).collect();
    Some(rest.join(","))
}

/// The members of an object, as they were written.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Asks for all its tools, page by page.
pub(super) async fn tools(live: &Live) -> Result<Listing, Failed> {
    let mut listing = Listing::default();
    if !live.greeting.serves.tools {
        return Ok(listing);
    }
    let (mut cursor, mut bytes): (Option<String>, usize) = (None, 0);
    for _ in 0..PAGES {
        let params = cursor.as_deref().map(|cursor| ("cursor", Param::Text(cursor)));
        let request = Request::new("tools/list", params.as_slice());
        let answer = Deadline::after(PAGE).limit(live.link.ask(request, live.greeting.era)).await;
        let text = answer.unwrap_or(Err(Failed::Broken("it does not answer tools/list")))?;
        bytes += text.len();
        let page: Page<'_> = serde_json::from_str(&text)
            .map_err(|_| Failed::Broken("its answer to tools/list makes no sense"))?;
        for raw in page.tools {
            if listing.tools.len() >= MOST || bytes > MOST_BYTES {
                listing.left_out.push(format!("it lists more than {MOST} tools: the others are not offered"));
                return Ok(listing);
            }
            match Listed::read(raw.get()) {
                Ok(tool) => listing.tools.push(tool),
                Err(why) if listing.left_out.len() < MOST => listing.left_out.push(why),
                Err(_) => {}
            }
        }
        match page.next {
            Some(next) if Some(&*next) != cursor.as_deref() => cursor = Some(next.into_owned()),
            Some(_) | None => return Ok(listing),
        }
    }
    listing.left_out.push(format!("its list has more than {PAGES} pages: the others are not read"));
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_every_member_and_takes_another_name() {
        let raw = r#"{"title":"T","name":"a","inputSchema":{"type":"object","maximum":18446744073709551616},"x":1.50,
            "annotations":{"readOnlyHint":true}}"#;
        let tool = Listed::read(raw).unwrap();
        assert!(tool.says_read_only && !tool.says_idempotent);
        assert_eq!(
            tool.entry("s__a"),
            r#"{"name":"s__a","title":"T","inputSchema":{"type":"object","maximum":18446744073709551616},"x":1.50,"annotations":{"readOnlyHint":true}}"#
        );
        assert!(tool.plain_entry("s__a").contains("18446744073709551616"));
    }

    #[test]
    fn what_is_no_tool_is_told() {
        for (raw, why) in [
            ("7", "an entry is no tool: it has no name or no schema"),
            (r#"{"name":"a"}"#, "an entry is no tool: it has no name or no schema"),
            (r#"{"name":"a","inputSchema":true}"#, "a: its schema is not an object"),
            (
                r#"{"name":"a","inputSchema":{"properties":{"p":{"type":"number","x-mcp-header":"P"}}}}"#,
                "a: the x-mcp-header of `p` is not on a string, an integer or a boolean",
            ),
        ] {
            assert_eq!(Listed::read(raw).unwrap_err(), why, "{raw}");
        }
    }
}
