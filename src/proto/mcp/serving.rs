//! What upstream servers serve beside tools: lists of it, and requests that are passed to one of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::params::Params;
use super::{Asked, PAGE, Who, open};
use crate::call::{CallError, Code, Principal};
use crate::proto::jsonrpc::{self, INVALID_PARAMS, INVALID_REQUEST, Message};
use crate::proto::{Request, Serves, Str, View, push_retry, read_object};
use crate::provider::asking::Can;
use crate::provider::upstream::{Others, Server};
use crate::provider::{Fault, push_json_string};
use crate::tool::Registry;
use crate::tool::upstream::methods::{Method, prompt_name};

/// What a resource that is not there is answered with in the older era.
const NO_RESOURCE: i32 = -32002;
/// A fault of ours.
const INTERNAL: i32 = -32603;

/// What a client is told that there is.
pub(super) fn capabilities(registry: &Registry) -> &'static str {
    if registry.servers().is_empty() {
        return "{\"tools\":{}}";
    }
    "{\"tools\":{\"listChanged\":true},\"prompts\":{\"listChanged\":true},\
     \"resources\":{\"subscribe\":true,\"listChanged\":true},\"completions\":{},\"logging\":{}}"
}

/// The server whose resource that is, for this principal, if it may watch it.
pub fn server_of(registry: &Registry, principal: &Principal, uri: &str) -> Option<Arc<Server>> {
    Seen { registry, principal, method: Method::Subscribe }.of_resource(uri).cloned()
}

/// One of the methods that are served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    Prompts,
    Resources,
    Templates,
    Passed(Method),
}

impl Served {
    /// The method of that name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "prompts/list" => Some(Self::Prompts),
            "resources/list" => Some(Self::Resources),
            "resources/templates/list" => Some(Self::Templates),
            _ => Method::PASSED.into_iter().find(|method| method.name() == name).map(Self::Passed),
        }
    }
}

/// Those parameters that say whose a request is.
#[derive(Default, Deserialize)]
struct Which<'a> {
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    uri: Option<Str<'a>>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<Reference<'a>>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    uri: Option<Str<'a>>,
}

/// Whose a request is.
pub(super) struct Routed<'a> {
    /// Who serves what it names.
    pub server: Arc<Server>,
    /// The resource that it names, where it is one.
    pub uri: Option<Cow<'a, str>>,
    /// Its parameters, as they were written.
    raw: &'a str,
}

impl<'a> Asked<'a> {
    /// Passes a request on to the server that it is for; `text` is its whole frame.
    pub(super) fn pass(
        self,
        method: Method,
        params: Params<'a>,
        text: &'a str,
        who: Who,
        view: &View<'_>,
    ) -> Request<'a> {
        match self.route(method, text, view) {
            Ok(routed) => self.pass_to(&routed, method, params, who, view),
            Err(refusal) => Request::Reply(refusal),
        }
    }

    /// Whose a request is.
    ///
    /// # Errors
    /// The response, where it names nothing that is served here.
    pub(super) fn route(&self, method: Method, text: &'a str, view: &View<'_>) -> Result<Routed<'a>, String> {
        let refuse = |code, text: &str| Err(jsonrpc::error_response(self.id, code, text, None));
        let Message::Request { params: Some(raw), .. } = jsonrpc::read(text) else {
            return refuse(INVALID_PARAMS, "params must be an object");
        };
        let Ok(which) = read_object::<Which<'_>>(raw) else {
            return refuse(INVALID_PARAMS, "params: name, uri or ref is not what it has to be");
        };
        let registry = view.calls.registry();
        let servers = Seen { registry: &registry, principal: view.principal, method };
        let (prompt, uri) = match (method, which) {
            (Method::Get, Which { name: Some(name), .. }) => (Some(name), None),
            (Method::Read | Method::Subscribe, Which { uri: Some(uri), .. }) => (None, Some(uri)),
            (Method::Complete, Which { reference: Some(reference), .. }) => (reference.name, reference.uri),
            _ => (None, None),
        };
        let server = match (&prompt, &uri) {
            (Some(Str(name)), None) => servers.of_prompt(name),
            (None, Some(Str(uri))) => servers.of_resource(uri),
            _ => return refuse(INVALID_PARAMS, "params must name one prompt or one resource"),
        };
        let Some(server) = server else {
            let code = if uri.is_some() && !self.stateless { NO_RESOURCE } else { INVALID_PARAMS };
            let what = if uri.is_some() { "resource" } else { "prompt" };
            return refuse(code, &format!("there is no such {what} here"));
        };
        Ok(Routed { server: Arc::clone(server), uri: uri.map(|Str(uri)| uri), raw })
    }

    /// Passes a request on to there.
    pub(super) fn pass_to(
        self,
        routed: &Routed<'a>,
        method: Method,
        params: Params<'a>,
        who: Who,
        view: &View<'_>,
    ) -> Request<'a> {
        let Some(arguments) = arguments(routed.raw) else {
            let text = "params must be an object";
            return Request::Reply(jsonrpc::error_response(self.id, INVALID_PARAMS, text, None));
        };
        let tool = Some(Str(Cow::Owned(method.at(&routed.server))));
        let can = if method.may_ask() { who.can } else { Can::NOTHING };
        let params = Params { name: tool, arguments: None, ..params };
        let mut request = self.call(params, Who { can, ..who }, view);
        if let Request::Call(frame) = &mut request {
            frame.arguments = Cow::Owned(arguments);
            frame.options.method = true;
            frame.ticket.serves = if method == Method::Read { Serves::Resource } else { Serves::Other };
        }
        request
    }

    /// One page of what there is for a principal, good until it changes.
    pub(super) fn list_others(
        &self,
        list: Served,
        cursor: Option<&str>,
        view: &View<'_>,
    ) -> Request<'static> {
        let (registry, generation) = view.calls.offered();
        let (word, member, key, method) = match list {
            Served::Prompts => ("prompts", "prompts", "name", Method::Get),
            Served::Resources => ("resources", "resources", "uri", Method::Read),
            Served::Templates | Served::Passed(_) => {
                ("templates", "resourceTemplates", "uriTemplate", Method::Read)
            }
        };
        let seen = Seen { registry: &registry, principal: view.principal, method };
        let mut entries = Vec::new();
        let mut keys = HashSet::new();
        for server in seen.servers() {
            let Some(listing) = server.listing() else { continue };
            let Others { prompts, resources, templates } = &listing.others;
            let of = match list {
                Served::Prompts => prompts,
                Served::Resources => resources,
                Served::Templates | Served::Passed(_) => templates,
            };
            for entry in of {
                let shown = match list {
                    Served::Prompts => prompt_name(server, &entry.key),
                    Served::Resources | Served::Templates | Served::Passed(_) => entry.key.to_string(),
                };
                // Whoever is asked for it is the first that lists it.
                if keys.insert(shown.clone()) {
                    let mut text = String::new();
                    entry.push(&mut text, key, &shown);
                    entries.push(text);
                }
            }
        }
        let place = |cursor: &str| cursor.strip_prefix(&format!("{word}:{generation}:"))?.parse().ok();
        let from = cursor.map_or(Some(0), place);
        let Some(from) = from.filter(|from: &usize| *from == 0 || *from < entries.len()) else {
            let text = "the cursor is not one of this list as it is now: begin again without one";
            return Request::Reply(jsonrpc::error_response(self.id, INVALID_PARAMS, text, None));
        };
        let mut out = open(self.id, self.stateless, 4096);
        out.push('"');
        out.push_str(member);
        out.push_str("\":[");
        let page: Vec<_> = entries.iter().skip(from).take(PAGE).map(String::as_str).collect();
        out.push_str(&page.join(","));
        out.push(']');
        if from + PAGE < entries.len() {
            out.push_str(",\"nextCursor\":");
            push_json_string(&mut out, &format!("{word}:{generation}:{}", from + PAGE));
        }
        self.close_list(out)
    }
}

/// What is asked, as it was written: without what speaks of the caller's connection, and of an earlier request.
fn arguments(params: &str) -> Option<String> {
    const OTHERS: [&str; 3] = ["_meta", "inputResponses", "requestState"];
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(params).ok()?;
    let mut out = String::with_capacity(params.len());
    for (name, value) in members.iter().filter(|(name, _)| !OTHERS.contains(&&***name)) {
        out.push(if out.is_empty() { '{' } else { ',' });
        push_json_string(&mut out, name);
        out.push(':');
        out.push_str(value.get());
    }
    out.push_str(if out.is_empty() { "{}" } else { "}" });
    Some(out)
}

/// The servers that a principal may ask by a method.
struct Seen<'a> {
    registry: &'a Registry,
    principal: &'a Principal,
    method: Method,
}

impl<'a> Seen<'a> {
    fn servers(&self) -> impl Iterator<Item = &'a Arc<Server>> {
        let (principal, method) = (self.principal, self.method);
        self.registry.servers().iter().filter(move |server| principal.allows(&method.at(server)))
    }

    fn of_prompt(&self, name: &str) -> Option<&'a Arc<Server>> {
        self.servers().find(|server| {
            let listing = server.listing();
            let prompts = listing.iter().flat_map(|listing| &listing.others.prompts);
            prompts.into_iter().any(|prompt| prompt_name(server, &prompt.key) == name)
        })
    }

    /// Whoever lists it; else whoever has the template that fits it best; else the only one that has resources at all.
    fn of_resource(&self, uri: &str) -> Option<&'a Arc<Server>> {
        let mut best = None;
        let mut having = Vec::new();
        for server in self.servers() {
            let Some(listing) = server.listing() else { continue };
            let Others { resources, templates, .. } = &listing.others;
            if resources.iter().any(|resource| &*resource.key == uri) {
                return Some(server);
            }
            if !resources.is_empty() || !templates.is_empty() {
                having.push(server);
            }
            let fits = templates.iter().filter_map(|template| fits(&template.key, uri)).max();
            if fits > best.map(|(fits, _)| fits) {
                best = fits.map(|fits| (fits, server));
            }
        }
        let only = if having.len() == 1 { having.pop() } else { None };
        best.map(|(_, server)| server).or(only)
    }
}

/// How much of a template is plain text, where a URI, or the template itself, begins and ends as it does.
fn fits(template: &str, uri: &str) -> Option<usize> {
    let (head, _) = template.split_once('{')?;
    let (_, tail) = template.rsplit_once('}')?;
    let inside = uri.strip_prefix(head)?;
    inside.ends_with(tail).then_some(head.len() + tail.len())
}

/// How a request that was passed on fails; `None`: it was cancelled, which is not answered.
pub(super) fn refusal(id: &str, stateless: bool, error: &CallError) -> Option<String> {
    if let CallError::Provider(Fault::Answered { code, message, data, .. }) = error {
        // Its own words, under its own code: whoever asked knows what they mean.
        let code = match i32::try_from(*code).unwrap_or(INTERNAL) {
            // As its era has it.
            NO_RESOURCE if stateless => INVALID_PARAMS,
            code => code,
        };
        return Some(jsonrpc::error_response(id, code, message, data.as_deref()));
    }
    let code = match error.code() {
        Code::Cancelled => return None,
        Code::ToolNotFound | Code::ValidationError => INVALID_PARAMS,
        Code::InvalidRequest => INVALID_REQUEST,
        Code::OverCapacity => -32010,
        Code::RateLimited => -32011,
        Code::QueueTimeout => -32012,
        Code::Timeout => -32013,
        Code::ProviderError => -32015,
        Code::ProviderUnavailable => -32016,
        Code::OutcomeUnknown => -32017,
        Code::ShuttingDown => -32018,
        Code::Unauthorized => -32019,
        Code::InternalError => INTERNAL,
    };
    let mut data = format!("{{\"code\":\"{}\"", error.code().label());
    push_retry(&mut data, error);
    data.push('}');
    Some(jsonrpc::error_response(id, code, &error.to_string(), Some(&data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_fits_what_begins_and_ends_as_it_does() {
        assert_eq!(fits("demo://text/{id}", "demo://text/7"), Some(12));
        assert_eq!(fits("demo://{a}/x", "demo://7/x"), Some(9));
        assert_eq!(fits("demo://text/{id}", "demo://text/{id}"), Some(12));
        assert_eq!(fits("demo://{a}/x", "demo://7/y"), None);
        assert_eq!(fits("demo://plain", "demo://plain"), None);
    }
}
