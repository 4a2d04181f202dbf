//! JSON taken apart one level at a time: what is not asked for is skipped, however deep it nests.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::MOST_CONNECTIONS;

/// The most members or items that are kept of one object or array: what lies beyond is counted only, since a byte or two
/// of a file would take twenty times as much memory each.
const MOST_KEPT: usize = MOST_CONNECTIONS;

/// Members of an object, in the order of the file.
pub(super) type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The first of its members, and how many there are.
pub(super) struct Object<'a>(pub(super) Members<'a>, pub(super) usize);

/// The first of its items, and how many there are.
pub(super) struct Array<'a>(pub(super) Vec<&'a RawValue>, pub(super) usize);

/// The member of this name; of several the last one.
pub(super) fn member<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// The members of a JSON object; of nothing else, and of none with more than can mean anything.
pub(super) fn object(value: &RawValue) -> Option<Members<'_>> {
    all_of(value).filter(|all| all.1 <= MOST_KEPT).map(|all| all.0)
}

/// A JSON object; nothing else.
pub(super) fn all_of(value: &RawValue) -> Option<Object<'_>> {
    value.get().starts_with('{').then(|| serde_json::from_str(value.get()).ok())?
}

/// A JSON array; nothing else.
pub(super) fn array(value: &RawValue) -> Option<Array<'_>> {
    value.get().starts_with('[').then(|| serde_json::from_str(value.get()).ok())?
}

/// A JSON string; nothing else.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// Borrows where nothing is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AllMembers)
    }
}

impl<'de> Deserialize<'de> for Array<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AllItems)
    }
}

struct AllMembers;
struct AllItems;

impl<'de> Visitor<'de> for AllMembers {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut seen) = (Vec::new(), 0);
        while let Some((Text(name), value)) = access.next_entry()? {
            seen += 1;
            if seen <= MOST_KEPT {
                members.push((name, value));
            }
        }
        Ok(Object(members, seen))
    }
}

impl<'de> Visitor<'de> for AllItems {
    type Value = Array<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut items, mut seen) = (Vec::new(), 0);
        while let Some(value) = access.next_element()? {
            seen += 1;
            if seen <= MOST_KEPT {
                items.push(value);
            }
        }
        Ok(Array(items, seen))
    }
}
