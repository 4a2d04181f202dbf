//! The mark of a request that is sent again: the shim's only change to a frame.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

const MARK: &str = "\"inflightd/resume\":true";

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    params: &'a RawValue,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta", deserialize_with = "present")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default, rename = "inflightd/resume", deserialize_with = "present")]
    resume: Option<IgnoredAny>,
}

/// A member that is `null` is there.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The request with `_meta["inflightd/resume"]: true` in its parameters, and every other byte as it was. A request
/// that has no place for the mark, or has one already, stays as it is: the daemon says what is wrong with it.
pub(super) fn resume(line: &str) -> String {
    marked(line).unwrap_or_else(|| line.to_owned())
}

fn marked(line: &str) -> Option<String> {
    let params = serde_json::from_str::<Request<'_>>(line).ok()?.params.get();
    let meta = serde_json::from_str::<Params<'_>>(params).ok()?.meta.map(RawValue::get);
    let (into, text) = match meta {
        Some(meta) if serde_json::from_str::<Meta>(meta).ok()?.resume.is_some() => return None,
        Some(meta) => (meta, MARK.to_owned()),
        None => (params, format!("\"_meta\":{{{MARK}}}")),
    };
    let inside = into.strip_prefix('{')?;
    // The innermost text is a part of the line itself.
    let at = inside.as_ptr().addr().checked_sub(line.as_ptr().addr())?;
    let (before, behind) = line.split_at_checked(at)?;
    let comma = if inside.trim_start().starts_with('}') { "" } else { "," };
    Some([before, &text, comma, behind].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_the_only_change() {
        let cases = [
            (
                r#" {"id" : 1e2,"params": { "name":"x" , "n":18446744073709551616,"_meta": { "a/b":1 } }, "z":"\u00e9" } "#,
                r#" {"id" : 1e2,"params": {"_meta MARK" "name":"x" , "n":18446744073709551616,"_meta": {"inflightd/resume":true, "a/b":1 } }, "z":"\u00e9" } "#,
            ),
            (r#"{"params":{"_meta":{}}}"#, r#"{"params":{"_meta":{"inflightd/resume":true}}}"#),
            (r#"{"params":{"_meta":{ }}}"#, r#"{"params":{"_meta":{"inflightd/resume":true }}}"#),
            (r#"{"params":{ }}"#, r#"{"params":{"_meta":{"inflightd/resume":true} }}"#),
            (r#"{"params":{"a":"_meta"}}"#, r#"{"params":{"_meta":{"inflightd/resume":true},"a":"_meta"}}"#),
            (
                r#"{"params":{"arguments":{"_meta":{}},"\u005fmeta":{"x":{}}}}"#,
                r#"{"params":{"arguments":{"_meta":{}},"\u005fmeta":{"inflightd/resume":true,"x":{}}}}"#,
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(resume(line), expected.replace("\"_meta MARK\"", ""));
        }
    }

    #[test]
    fn what_has_no_place_for_the_mark_stays_as_it_is() {
        for line in [
            "nonsense",
            "{}",
            r#"{"params":[]}"#,
            r#"{"params":null}"#,
            r#"{"params":{"_meta":7}}"#,
            r#"{"params":{"_meta":null}}"#,
            r#"{"params":{"_meta":{},"_meta":{}}}"#,
            r#"{"params":{"_meta":{"inflightd/resume":false}}}"#,
            r#"{"params":{"_meta":{"inflightd/resume":null}}}"#,
        ] {
            assert_eq!(resume(line), line);
        }
    }
}
