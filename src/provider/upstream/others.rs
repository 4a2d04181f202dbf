//! What a server lists beside its tools: prompts, resources and templates of resources, each as it wrote it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::provider::push_json_string;
use crate::provider::upstream::instance::Live;
use crate::provider::upstream::link::{Param, Request};
use crate::provider::upstream::listing::{MOST, MOST_BYTES, PAGE, PAGES, members_but};
use crate::provider::upstream::pipe::Failed;

/// A method that a server does not know.
const UNKNOWN_METHOD: i64 = -32601;

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The member that it is found by: name, URI or template.
    pub key: Box<str>,
    /// The others, as they were written.
    rest: Box<str>,
}

/// What there is beside tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// By their names.
    pub prompts: Vec<Entry>,
    /// By their URIs.
    pub resources: Vec<Entry>,
    /// By their URI templates.
    pub templates: Vec<Entry>,
}

/// A list of a server's.
struct List {
    method: &'static str,
    member: &'static str,
    key: &'static str,
}

const PROMPTS: List = List { method: "prompts/list", member: "prompts", key: "name" };
const RESOURCES: List = List { method: "resources/list", member: "resources", key: "uri" };
const TEMPLATES: List =
    List { method: "resources/templates/list", member: "resourceTemplates", key: "uriTemplate" };

impl Entry {
    /// It in a list of ours, found by this member.
    pub fn push(&self, out: &mut String, member: &str, key: &str) {
        out.push_str("{\"");
        out.push_str(member);
        out.push_str("\":");
        push_json_string(out, key);
        if !self.rest.is_empty() {
            out.push(',');
            out.push_str(&self.rest);
        }
        out.push('}');
    }

    fn read(raw: &RawValue, key: &str) -> Option<Self> {
        let members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(raw.get()).ok()?;
        let name: String = serde_json::from_str(members.get(key)?.get()).ok()?;
        let rest = members_but(key, raw.get()).unwrap_or_default().into();
        Some(Self { key: name.into(), rest })
    }
}

/// Asks for all of it. A list that cannot be had is empty, and told in `left_out`.
pub(super) async fn others(live: &Live, left_out: &mut Vec<String>) -> Others {
    let serves = live.greeting.serves;
    let mut others = Others::default();
    let lists = [
        (PROMPTS, serves.prompts, &mut others.prompts),
        (RESOURCES, serves.resources, &mut others.resources),
        (TEMPLATES, serves.resources, &mut others.templates),
    ];
    for (list, _, into) in lists.into_iter().filter(|(_, serves, _)| *serves) {
        match all(live, &list, into).await {
            // Many have resources and no templates, and do not know the question.
            Ok(()) | Err(Some(Failed::Refused(_))) if into.is_empty() => {}
            Ok(()) => {}
            Err(None) => left_out.push(format!("{}: it lists more than {MOST}", list.method)),
            Err(Some(Failed::Refused(refusal))) if refusal.code == UNKNOWN_METHOD => {}
            Err(Some(_)) => left_out.push(format!("it does not answer {}", list.method)),
        }
    }
    others
}

/// `Err(None)`: there is more than is taken.
async fn all(live: &Live, list: &List, into: &mut Vec<Entry>) -> Result<(), Option<Failed>> {
    let senseless = || Some(Failed::Broken("its list makes no sense"));
    let (mut cursor, mut bytes): (Option<String>, usize) = (None, 0);
    for _ in 0..PAGES {
        let params = cursor.as_deref().map(|cursor| ("cursor", Param::Text(cursor)));
        let request = Request::new(list.method, params.as_slice());
        let answer = Deadline::after(PAGE).limit(live.link.ask(request, live.greeting.era)).await;
        let text = answer.unwrap_or(Err(Failed::Broken("it does not answer"))).map_err(Some)?;
        bytes += text.len();
        let page: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(&text).map_err(|_| senseless())?;
        let entries = page.get(list.member).ok_or_else(senseless)?.get();
        let entries: Vec<&RawValue> = serde_json::from_str(entries).map_err(|_| senseless())?;
        for raw in entries {
            if into.len() >= MOST || bytes > MOST_BYTES {
                return Err(None);
            }
            into.extend(Entry::read(raw, list.key));
        }
        let next: Option<String> =
            page.get("nextCursor").and_then(|next| serde_json::from_str(next.get()).ok());
        match next {
            Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
            Some(_) | None => return Ok(()),
        }
    }
    Err(None)
}
