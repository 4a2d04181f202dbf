//! JSON texts, with comments or without, that are changed in one place and stay as they are in every other.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::jsonc;

/// Why a text cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    /// It is broken.
    #[error("is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// One of two would be lost, and nobody knows which one counts.
    #[error("has `{0}` twice in one object")]
    Twice(String),
    /// Something else stands where an object has to.
    #[error("has a `{0}` that is not an object")]
    NotObject(String),
}

/// An object in a text.
#[derive(Debug)]
pub(super) struct Object {
    /// From its opening brace to behind the closing one.
    pub(super) span: Range<usize>,
    pub(super) members: Vec<Member>,
}

/// A member of an object, and where its value stands.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) value: Range<usize>,
}

/// A text that is JSON but for comments and trailing commas.
pub(super) struct Document<'a> {
    text: &'a str,
    /// The same without them, each byte in its place.
    plain: String,
}

/// What is to be changed in an object.
#[derive(Default)]
pub(super) struct Change<'a> {
    /// Members that go.
    pub(super) remove: &'a [&'a str],
    /// Members that come, by name and JSON.
    pub(super) add: &'a [(&'a str, String)],
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, plain: jsonc::plain(text) }
    }

    /// Its text from here to there.
    pub(super) fn text(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The same as plain JSON.
    pub(super) fn plain(&self, span: &Range<usize>) -> &str {
        self.plain.get(span.clone()).unwrap_or_default()
    }

    /// The object that is reached by these names; `None` where there is none of such a name.
    pub(super) fn object(&self, path: &[&str]) -> Result<Option<Object>, DocumentError> {
        let mut object = self.object_at(0..self.plain.len(), "text")?;
        for name in path {
            let Some(member) = object.members.iter().find(|member| member.name == *name) else {
                return Ok(None);
            };
            object = self.object_at(member.value.clone(), name)?;
        }
        Ok(Some(object))
    }

    /// The object that stands here.
    pub(super) fn object_at(&self, span: Range<usize>, name: &str) -> Result<Object, DocumentError> {
        let text = self.plain(&span);
        let inner = text.trim();
        if !inner.starts_with('{') {
            // What is broken is broken, whatever it begins with.
            serde_json::from_str::<&RawValue>(inner).map_err(DocumentError::NotJson)?;
            return Err(DocumentError::NotObject(name.to_owned()));
        }
        let start = span.start + (text.len() - text.trim_start().len());
        let mut json = serde_json::Deserializer::from_str(inner);
        let pairs = json.deserialize_map(Pairs).map_err(DocumentError::NotJson)?;
        json.end().map_err(DocumentError::NotJson)?;
        let mut members: Vec<Member> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            if members.iter().any(|member| member.name == *name) {
                return Err(DocumentError::Twice(name.into_owned()));
            }
            let from = start + (value.get().as_ptr().addr() - inner.as_ptr().addr());
            members.push(Member { name: name.into_owned(), value: from..from + value.get().len() });
        }
        Ok(Object { span: start..start + inner.len(), members })
    }

    /// The whole text with a change in the object that is reached by these names. An object that is not there is made,
    /// in one that is.
    pub(super) fn changed(&self, path: &[&str], change: &Change<'_>) -> Result<String, DocumentError> {
        let Some(object) = self.object(path)? else {
            let Some((name, above)) = path.split_last() else { return Ok(self.text.to_owned()) };
            let inside: Vec<_> =
                change.add.iter().map(|(name, json)| format!("{}: {json}", quoted(name))).collect();
            let made = [(*name, format!("{{{}}}", inside.join(", ")))];
            return self.changed(above, &Change { remove: &[], add: &made });
        };
        let mut out = self.text(&(0..object.span.start)).to_owned();
        self.push_object(&mut out, &object, change);
        out.push_str(self.text(&(object.span.end..self.text.len())));
        Ok(out)
    }

    fn push_object(&self, out: &mut String, object: &Object, change: &Change<'_>) {
        let mut inside = String::new();
        let mut from = object.span.start + 1;
        for (at, member) in object.members.iter().enumerate() {
            // What stands before a member goes with it: a comment, the line break, the indentation.
            let region = from..member.value.end;
            from = member.value.end;
            if change.remove.contains(&&*member.name) {
                continue;
            }
            let text = self.text(&region);
            match self.plain(&region).split_once(',').filter(|_| at > 0 && inside.is_empty()) {
                // Nothing is left before it.
                Some((before, _)) => {
                    let (head, rest) = text.split_at(before.len());
                    inside.push_str(head);
                    inside.push_str(rest.strip_prefix(',').unwrap_or(rest));
                }
                None => inside.push_str(text),
            }
        }
        let break_before = self.break_before(object);
        for (name, json) in change.add {
            if !inside.is_empty() {
                inside.push(',');
            }
            for part in [&*break_before, &quoted(name), ": ", json] {
                inside.push_str(part);
            }
        }
        let tail = from..object.span.end;
        out.push('{');
        out.push_str(&inside);
        if object.members.is_empty() && !inside.is_empty() && !self.text(&tail).contains('\n') {
            // `{}` has no line of its own for the closing brace.
            let outer = self.indentation(object.span.start);
            out.push_str(self.text(&(tail.start..tail.end - 1)));
            out.push('\n');
            out.push_str(outer);
            out.push('}');
        } else if inside.is_empty() {
            // The last comma would have nothing before it.
            out.push_str(self.plain(&tail));
        } else {
            out.push_str(self.text(&tail));
        }
    }

    /// What separates members of this object.
    fn break_before(&self, object: &Object) -> String {
        match object.members.first() {
            Some(first) => {
                let before = self.plain(&(object.span.start + 1..first.value.start));
                let space: String = before.chars().take_while(char::is_ascii_whitespace).collect();
                // Blanked comments are spaces: only the last line of it is an indentation.
                match space.rsplit_once('\n') {
                    Some((_, indentation)) => format!("\n{indentation}"),
                    None => space.chars().take(1).collect(),
                }
            }
            None => format!("\n{}  ", self.indentation(object.span.start)),
        }
    }

    /// What the line of this place begins with.
    fn indentation(&self, place: usize) -> &str {
        let before = self.plain(&(0..place));
        let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
        let text = line.trim_start_matches([' ', '\t']);
        line.get(..line.len() - text.len()).unwrap_or_default()
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Members in their order, doubles and all.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            pairs.push((Cow::Owned(name), map.next_value()?));
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, path: &[&str], remove: &[&str], add: &[(&str, &str)]) -> String {
        let add: Vec<_> = add.iter().map(|(name, json)| (*name, (*json).to_owned())).collect();
        Document::new(text).changed(path, &Change { remove, add: &add }).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_byte_for_byte() {
        let text = "\u{feff}// top\r\n{\r\n\t\"a\": 1.0e0, // é\r\n\t\"m\": { \"x\": {} , /* y, */ \"y\": [1,], },\r\n}\r\n";
        assert_eq!(changed(text, &["m"], &[], &[]), text);
        assert_eq!(changed(text, &[], &[], &[]), text);
        let without = changed(text, &["m"], &["x"], &[]);
        assert_eq!(without, text.replace("\"x\": {} , /* y, */", " /* y, */"));
    }

    #[test]
    fn members_come_as_their_neighbours_stand() {
        let text = "{\n    \"m\": {\n        \"x\": 1\n    }\n}\n";
        let added = changed(text, &["m"], &[], &[("n", "2")]);
        assert_eq!(added, "{\n    \"m\": {\n        \"x\": 1,\n        \"n\": 2\n    }\n}\n");
        assert_eq!(changed(&added, &["m"], &["n"], &[]), text);
        assert_eq!(changed("{\"m\":{}}", &["m"], &[], &[("n", "2")]), "{\"m\":{\n  \"n\": 2\n}}");
        assert_eq!(changed("{}", &["m"], &[], &[("n", "2")]), "{\n  \"m\": {\"n\": 2}\n}");
    }

    #[test]
    fn whatever_goes_and_comes_it_stays_json() {
        for text in [
            "{\"m\": {\"a\": 1, \"b\": {\"c\": []}}}",
            "{\"m\": {\"a\": 1, \"b\": 2,}}",
            "{\"m\": {\n\"a\": 1, // one\n\"b\": 2, // two\n}\n}",
            "{\"m\": {/* , */\"a\": 1 /* } */ , \"b\": 2 //,\n}}",
        ] {
            for remove in [&[][..], &["a"], &["b"], &["a", "b"]] {
                for add in [&[][..], &[("n", "7")]] {
                    let out = changed(text, &["m"], remove, add);
                    let json: serde_json::Value =
                        serde_json::from_str(&jsonc::plain(&out)).unwrap_or_else(|e| panic!("{e}: {out}"));
                    let names: Vec<_> = json["m"].as_object().unwrap().keys().map(String::as_str).collect();
                    let kept = ["a", "b"].into_iter().filter(|name| !remove.contains(name));
                    let wanted: Vec<_> = kept.chain(add.iter().map(|(name, _)| *name)).collect();
                    assert_eq!(names, wanted, "{out}");
                }
            }
        }
    }

    #[test]
    fn what_is_broken_or_double_is_left_alone() {
        let object = |text| Document::new(text).object(&["m"]).map(|object| object.is_some());
        assert!(matches!(object("{\"m\": {"), Err(DocumentError::NotJson(_))));
        assert!(matches!(object("{\"m\": {}} x"), Err(DocumentError::NotJson(_))));
        assert!(matches!(object(""), Err(DocumentError::NotJson(_))));
        assert!(matches!(object("{\"m\": {}, \"m\": {}}"), Err(DocumentError::Twice(_))));
        assert!(matches!(object("{\"m\": {\"a\": 1, \"a\": 2}}"), Err(DocumentError::Twice(_))));
        assert!(matches!(object("{\"m\": [1]}"), Err(DocumentError::NotObject(_))));
        assert!(matches!(object("[]"), Err(DocumentError::NotObject(_))));
        assert!(!object("{}").unwrap());
    }
}
