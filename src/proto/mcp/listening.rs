//! What a client wants to be told of, in both eras: a request for each resource and all lists, or one subscription that names
//! what it wants and is named on all that it is told.

use serde::Deserialize;

use super::params::Params;
use super::serving::{self, Routed};
use super::{Asked, Mcp, SERVER_INFO, Who};
use crate::proto::jsonrpc::{self, INVALID_PARAMS, Message};
use crate::proto::unasked::{List, Lists, RESOURCES, Unasked, Wanted};
use crate::proto::{Request, Str, View, read_object};
use crate::provider::push_json_string;
use crate::tool::upstream::methods::Method;

#[derive(Deserialize)]
struct Listen<'a> {
    #[serde(borrow)]
    notifications: Filter<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter<'a> {
    #[serde(default)]
    tools_list_changed: bool,
    #[serde(default)]
    prompts_list_changed: bool,
    #[serde(default)]
    resources_list_changed: bool,
    #[serde(borrow, default)]
    resource_subscriptions: Vec<Str<'a>>,
}

#[derive(Deserialize)]
struct Uri<'a> {
    #[serde(borrow)]
    uri: Str<'a>,
}

impl<'a> Asked<'a> {
    /// Opens a subscription: to what of it is offered here.
    pub(super) fn listen(&self, text: &'a str, view: &View<'_>) -> Request<'a> {
        let refuse =
            |text: &str| Request::Reply(jsonrpc::error_response(self.id, INVALID_PARAMS, text, None));
        let filter = match jsonrpc::read(text) {
            Message::Request { params: Some(raw), .. } => read_object::<Listen<'_>>(raw).ok(),
            _ => None,
        };
        let Some(Listen { notifications: filter }) = filter else {
            return refuse("subscriptions/listen needs notifications: which of them you want");
        };
        if filter.resource_subscriptions.len() > RESOURCES {
            return refuse(&format!("resourceSubscriptions: at most {RESOURCES}"));
        }
        let registry = view.calls.registry();
        // Without a server nothing changes but with a configuration that brings one.
        let change = !registry.servers().is_empty();
        let lists = Lists {
            tools: filter.tools_list_changed && change,
            prompts: filter.prompts_list_changed && change,
            resources: filter.resources_list_changed && change,
        };
        let found = filter.resource_subscriptions.into_iter().filter_map(|Str(uri)| {
            let server = serving::server_of(&registry, view.principal, &uri)?;
            Some((server, uri.into()))
        });
        let wanted = Wanted { lists, resources: found.collect() };
        let acknowledged = acknowledged(self.id, &wanted);
        Request::Listen { id: self.id, wanted, acknowledged }
    }

    /// To be told of one resource, in the older era.
    pub(super) fn watch(self, params: Params<'a>, text: &'a str, who: Who, view: &View<'_>) -> Request<'a> {
        let routed = match self.route(Method::Subscribe, text, view) {
            Ok(routed) => routed,
            Err(refusal) => return Request::Reply(refusal),
        };
        match (self.pass_to(&routed, Method::Subscribe, params, who, view), routed) {
            (Request::Call(frame), Routed { server, uri: Some(uri), .. }) => {
                Request::Watch { server, uri: uri.into(), frame }
            }
            (refused, _) => refused,
        }
    }

    /// To be told of it no more.
    pub(super) fn unwatch(&self, text: &'a str) -> Request<'a> {
        let uri = match jsonrpc::read(text) {
            Message::Request { params: Some(raw), .. } => read_object::<Uri<'_>>(raw).ok(),
            _ => None,
        };
        let Some(Uri { uri: Str(uri) }) = uri else {
            let text = "params must name one resource";
            return Request::Reply(jsonrpc::error_response(self.id, INVALID_PARAMS, text, None));
        };
        Request::Unwatch { uri, text: jsonrpc::open_result(self.id, 2) + "}}" }
    }
}

impl Mcp {
    pub(super) fn told(&self, what: Unasked<'_>, of: Option<&str>) -> Option<String> {
        if let (Unasked::Ended, Some(id)) = (what, of) {
            let mut out = jsonrpc::open_result(id, 256);
            out.push_str("\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
            out.push_str(SERVER_INFO);
            out.push(',');
            push_subscription(&mut out, id);
            out.push_str("}}}");
            return Some(out);
        }
        let (method, uri) = match what {
            // In the older era all who were told that lists may change are told when they do.
            Unasked::Changed(_) if of.is_none() && !self.told_of_changes => return None,
            Unasked::Ended => return None,
            Unasked::Changed(List::Tools) => ("tools/list_changed", None),
            Unasked::Changed(List::Prompts) => ("prompts/list_changed", None),
            Unasked::Changed(List::Resources) => ("resources/list_changed", None),
            Unasked::Updated(uri) => ("resources/updated", Some(uri)),
        };
        let mut out = notification(method);
        if uri.is_some() || of.is_some() {
            out.push_str(",\"params\":{");
            if let Some(id) = of {
                out.push_str("\"_meta\":{");
                push_subscription(&mut out, id);
                out.push('}');
            }
            if let Some(uri) = uri {
                out.push_str(if of.is_some() { ",\"uri\":" } else { "\"uri\":" });
                push_json_string(&mut out, uri);
            }
            out.push('}');
        }
        out.push('}');
        Some(out)
    }
}

/// Up to its parameters.
fn notification(method: &str) -> String {
    let mut out = String::with_capacity(192);
    out.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/");
    out.push_str(method);
    out.push('"');
    out
}

fn push_subscription(out: &mut String, id: &str) {
    out.push_str("\"io.modelcontextprotocol/subscriptionId\":");
    out.push_str(id);
}

/// What of a subscription is kept: the first that is said of it.
fn acknowledged(id: &str, wanted: &Wanted) -> String {
    let mut out = notification("subscriptions/acknowledged");
    out.push_str(",\"params\":{\"_meta\":{");
    push_subscription(&mut out, id);
    out.push_str("},\"notifications\":{");
    let lists = [
        (List::Tools, "\"toolsListChanged\":true,"),
        (List::Prompts, "\"promptsListChanged\":true,"),
        (List::Resources, "\"resourcesListChanged\":true,"),
    ];
    for (_, text) in lists.into_iter().filter(|(list, _)| wanted.lists.has(*list)) {
        out.push_str(text);
    }
    for (at, (_, uri)) in wanted.resources.iter().enumerate() {
        out.push_str(if at == 0 { "\"resourceSubscriptions\":[" } else { "," });
        push_json_string(&mut out, uri);
    }
    if !wanted.resources.is_empty() {
        out.push(']');
    } else if out.ends_with(',') {
        out.pop();
    }
    out.push_str("}}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_names_its_subscription_where_it_has_a_name() {
        let mut mcp = Mcp { told_of_changes: true, ..Mcp::default() };
        let list = Unasked::Changed(List::Tools);
        let told = |mcp: &Mcp, what, of| mcp.told(what, of).unwrap();
        assert_eq!(
            told(&mcp, list, None),
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#
        );
        assert_eq!(
            told(&mcp, Unasked::Updated("a:\"b\""), None),
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:\"b\""}}"#
        );
        assert_eq!(
            told(&mcp, Unasked::Updated("a:b"), Some("7")),
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7},"uri":"a:b"}}"#
        );
        let ended: serde_json::Value =
            serde_json::from_str(&told(&mcp, Unasked::Ended, Some("\"x\""))).unwrap();
        assert_eq!(ended["id"], "x");
        assert_eq!(ended["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "x");
        mcp.told_of_changes = false;
        assert!(mcp.told(list, None).is_none() && mcp.told(list, Some("1")).is_some());
    }

    #[test]
    fn an_acknowledgement_says_what_of_it_is_kept() {
        let said = |lists| acknowledged("1", &Wanted { lists, resources: Vec::new() });
        assert!(said(Lists::default()).ends_with("\"notifications\":{}}}"));
        let lists = Lists { tools: true, resources: true, prompts: false };
        assert!(said(lists).ends_with("{\"toolsListChanged\":true,\"resourcesListChanged\":true}}}"));
    }
}
