//! Arguments that are also sent as headers: properties of a tool's schema with `x-mcp-header` (2026-07-28).

use serde_json::Value;
use serde_json::value::RawValue;

/// One argument, and the header it is sent as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    path: Vec<String>,
    header: String,
}

/// How deep a schema is looked into.
const DEEPEST: usize = 64;

/// Which arguments of this schema are; or why a mark in it makes no sense, so that the tool cannot be offered.
pub fn of(schema: &Value) -> Result<Vec<Mirrored>, String> {
    let mut found = Vec::new();
    walk(schema, Some(&mut Vec::new()), &mut found, 0)?;
    Ok(found)
}

/// `path`: the properties down to here; none behind whatever else than `properties`.
fn walk(
    schema: &Value,
    mut path: Option<&mut Vec<String>>,
    found: &mut Vec<Mirrored>,
    depth: usize,
) -> Result<(), String> {
    let Some(members) = schema.as_object() else { return Ok(()) };
    if depth > DEEPEST {
        return Err("its schema nests too deep".into());
    }
    if let Some(mark) = members.get("x-mcp-header") {
        let Some(path) = path.as_deref().filter(|path| !path.is_empty()) else {
            return Err("an x-mcp-header is not on a property".into());
        };
        found.push(marked(mark, members.get("type"), path, found)?);
    }
    for (keyword, value) in members {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    if let Some(path) = path.as_deref_mut() {
                        path.push(name.clone());
                        walk(property, Some(path), found, depth + 1)?;
                        path.pop();
                    } else {
                        walk(property, None, found, depth + 1)?;
                    }
                }
            }
            ("patternProperties" | "dependentSchemas" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values().try_for_each(|schema| walk(schema, None, found, depth + 1))?;
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| walk(schema, None, found, depth + 1))?;
            }
            (
                "items"
                | "contains"
                | "unevaluatedItems"
                | "additionalProperties"
                | "propertyNames"
                | "unevaluatedProperties"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contentSchema",
                schema,
            ) => walk(schema, None, found, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}

fn marked(
    mark: &Value,
    kind: Option<&Value>,
    path: &[String],
    found: &[Mirrored],
) -> Result<Mirrored, String> {
    let place = path.join(".");
    let wrong = |what: &str| Err(format!("the x-mcp-header of `{place}` {what}"));
    let is_token = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(fits)
    };
    let Some(name) = mark.as_str().filter(|name| is_token(name)) else {
        return wrong("is not the name of a header");
    };
    if !matches!(kind.and_then(Value::as_str), Some("string" | "integer" | "boolean")) {
        return wrong("is not on a string, an integer or a boolean");
    }
    let header = format!("mcp-param-{}", name.to_ascii_lowercase());
    if found.iter().any(|other| other.header == header) {
        return wrong("stands twice");
    }
    Ok(Mirrored { path: path.to_vec(), header })
}

/// The headers of a call with these arguments.
pub(super) fn headers(mirrored: &[Mirrored], arguments: &str) -> Vec<(String, String)> {
    let header = |each: &Mirrored| Some((each.header.clone(), each.value(arguments)?));
    mirrored.iter().filter_map(header).collect()
}

impl Mirrored {
    /// The header, in small letters.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// What it says for these arguments; `None`: nothing.
    pub fn value(&self, arguments: &str) -> Option<String> {
        let mut here = serde_json::from_str::<&RawValue>(arguments).ok()?;
        for name in &self.path {
            let members: std::collections::BTreeMap<String, &RawValue> =
                serde_json::from_str(here.get()).ok()?;
            here = members.get(name).copied()?;
        }
        match here.get() {
            "null" => None,
            text if text.starts_with('"') => serde_json::from_str(text).ok(),
            text if text.starts_with(['{', '[']) => None,
            text => Some(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marked_arguments_become_headers() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "on": {"type": "boolean", "x-mcp-header": "On"},
        }});
        let mirrored = of(&schema).unwrap();
        let arguments = r#"{"region": "us\u002dwest", "deep": {"n": 18446744073709551616}, "on": null}"#;
        let mut headers = headers(&mirrored, arguments);
        headers.sort();
        let expected = [("mcp-param-n", "18446744073709551616"), ("mcp-param-region", "us-west")];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_mark_that_makes_no_sense_is_told() {
        for (schema, why) in [
            (json!({"x-mcp-header": "A"}), "an x-mcp-header is not on a property"),
            (
                json!({"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}}),
                "is not the name of a header",
            ),
            (json!({"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}), "is not on a string"),
            (
                json!({"items": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}}),
                "is not on a property",
            ),
            (
                json!({"properties": {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}}),
                "stands twice",
            ),
        ] {
            assert!(of(&schema).unwrap_err().contains(why), "{schema}");
        }
        assert_eq!(of(&json!({"default": {"x-mcp-header": 1}})), Ok(vec![]));
    }
}
