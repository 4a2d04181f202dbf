//! A flow as text: each node behind those it waits for, with where its text goes.

use std::fmt::Write as _;

use crate::provider::flow::graph::{Flow, Node};
use crate::provider::flow::problem::Shown;

/// Draws it. Keys are never shown.
pub fn draw(flow: &Flow) -> String {
    let mut drawn = String::new();
    let mut outgoing = vec![Vec::new(); flow.nodes().len()];
    for link in flow.links() {
        if let Some(outgoing) = outgoing.get_mut(link.from) {
            outgoing.push(link);
        }
    }
    for place in flow.in_order() {
        let Some(node) = flow.nodes().get(place) else { continue };
        // Writing to a String cannot fail.
        let _ = writeln!(drawn, "{}  {}{}", Shown::new(&node.id), node.kind.short(), told(node));
        for link in outgoing.get(place).into_iter().flatten() {
            if let Some(target) = flow.nodes().get(link.to) {
                let _ = writeln!(drawn, "  -> {}.{}", Shown::new(&target.id), link.port);
            }
        }
    }
    drawn
}

/// What tells nodes of one type apart.
fn told(node: &Node) -> String {
    let mut told = String::new();
    let mut add = |what: &str, text: Option<&str>| {
        if let Some(text) = text {
            let _ = write!(told, "  {what}{}", Shown::new(text));
        }
    };
    add("", Some(&node.name).filter(|name| ***name != *node.kind.short()).map(|name| &**name));
    if node.kind.chats() {
        match &node.custom.model {
            Some(model) => add("model ", Some(model)),
            None => add("model ", Some(node.custom.model_mode.unwrap_or(node.kind.model_mode()).label())),
        }
        add("at ", node.custom.base_url.as_deref().and_then(place).as_deref());
        add("writes ", node.custom.output_file.as_deref());
    } else {
        add("path ", node.custom.path.as_deref());
    }
    add("", node.disabled.then_some("disabled"));
    told
}

/// Host and path of a URL: what else stands in one may be a secret.
fn place(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}{port}{}", url.host_str()?, url.path()))
}

#[cfg(test)]
mod tests {
    use crate::provider::flow::format::parse;

    #[test]
    fn a_drawing_shows_what_waits_for_what_and_no_key() {
        let file = r#"{"nodes": {
            "best": {"type_": "aicp.flow.BestOfNNode", "custom": {"api_key": "sk-secret", "model": "m"}},
            "b": {"type_": "aicp.flow.OpenAINode", "name": "B\n\u001b[2J", "disabled": true,
                "custom": {"base_url": "https://me:pw-secret@host:81/v1?key=sk-secret", "output_file": "b.md"}},
            "a": {"type_": "aicp.flow.ContextOutputNode"}
        }, "connections": [
            {"in": ["best", "candidate2"], "out": ["b", "text"]}, {"out": ["a", "text"], "in": ["b", "text"]},
            {"out": ["a", "text"], "in": ["best", "context"]}
        ]}"#;
        let drawn = super::draw(&parse(file.as_bytes()).unwrap());
        let expected = [
            "a  ContextOutputNode",
            "  -> b.text",
            "  -> best.context",
            "b  OpenAINode  B  [2J  model choose  at host:81/v1  writes b.md  disabled",
            "  -> best.candidate2",
            "best  BestOfNNode  model m",
            "",
        ];
        assert_eq!(drawn, expected.join("\n"));
    }
}
