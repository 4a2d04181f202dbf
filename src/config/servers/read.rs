//! JSON → servers, every problem at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::variables::{self, Unfilled};
use super::{Restart, SaidEffect, ServerConfig, Share, ToolRules, Transport, in_folder, is_name, near_name};
use crate::config::principals::ToolPatterns;
use crate::config::problem::nearest;
use crate::config::{Problem, Secret, jsonc, keys, parse};

/// The tables of the TOML file.
pub(in crate::config) const TABLE: &str = "mcp_servers";
/// Calls at work at a server of which nothing is said.
const MAX_INFLIGHT: usize = 8;
/// How long a server may take to start: some are fetched first.
const START: Duration = Duration::from_secs(60);

/// Members that are read, those of clients first.
const MEMBERS: [&str; 16] = [
    "command",
    "args",
    "env",
    "cwd",
    "url",
    "headers",
    "type",
    "disabled",
    "max_inflight",
    "timeout_secs",
    "start_timeout_secs",
    "effect",
    "tools",
    "restart",
    "share",
    "prefix",
];
const RULES: [&str; 3] = ["allow", "deny", "rename"];

/// Reads servers from wherever they are said.
pub(in crate::config) struct Reader<'a> {
    /// Of which variables are filled in.
    pub(in crate::config) variables: &'a BTreeMap<String, String>,
    /// From where folders are named.
    pub(in crate::config) folder: &'a Path,
    pub(in crate::config) problems: &'a mut Vec<Problem>,
    pub(in crate::config) warnings: &'a mut Vec<String>,
    pub(in crate::config) servers: Vec<ServerConfig>,
}

/// One server's table, and where it stands.
struct Table<'a> {
    place: String,
    members: &'a Map<String, Value>,
    /// Whether a member that is not known is a slip: in our own file it is, in a client's it may be the client's.
    strict: bool,
}

impl Reader<'_> {
    /// The file that the clients' `mcpServers` object stands in.
    pub(in crate::config) fn file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.refuse(&shown, &error.to_string(), "make it readable"),
        };
        let json: Value = match serde_json::from_str(jsonc::plain(&text).trim()) {
            Ok(json) => json,
            Err(error) => return self.refuse(&shown, &format!("is not JSON: {error}"), "mend it"),
        };
        let servers = ["mcpServers", "servers"].into_iter().find_map(|name| json.get(name));
        match servers.and_then(Value::as_object) {
            Some(servers) => self.all(&shown, servers, false),
            None => self.refuse(&shown, "has no object mcpServers", "{\"mcpServers\": {}} would do"),
        }
    }

    /// The tables of the TOML file.
    pub(in crate::config) fn toml(&mut self, value: &toml::Value) {
        // TOML says nothing that JSON cannot, dates apart, and no member is one.
        let Ok(Value::Object(servers)) = serde_json::to_value(value) else {
            let remedy = format!("[{TABLE}.git] with command = \"…\" below it would do");
            return self.refuse(TABLE, "is not a table", &remedy);
        };
        self.all(TABLE, &servers, true);
    }

    /// Every server is read: what holds for all of them together.
    pub(in crate::config) fn finish(mut self) -> Vec<ServerConfig> {
        let several = self.servers.len() > 1;
        let bare: Vec<_> =
            self.servers.iter().filter(|server| !server.prefix).map(|s| s.name.clone()).collect();
        for name in bare.iter().filter(|_| several) {
            let what = format!("has prefix = false, and there are {} servers", self.servers.len());
            self.refuse(
                &format!("server {name}"),
                &what,
                "leave prefix out: only one server alone needs none",
            );
        }
        self.servers
    }

    /// One server, wherever it stands.
    pub(super) fn one(&mut self, name: &str, server: &Value) {
        if let Some(members) = server.as_object() {
            self.server(name, &Table { place: name.to_owned(), members, strict: false });
        }
    }

    fn all(&mut self, place: &str, servers: &Map<String, Value>, strict: bool) {
        for (name, value) in servers {
            let place = format!("{place}: {}", name.escape_debug().take(80).collect::<String>());
            let place = if strict { place.replacen(": ", ".", 1) } else { place };
            if !is_name(name) {
                let what = "is not a name of 1 to 32 of the characters A-Z a-z 0-9 _ - without __";
                self.refuse(&place, what, &format!("{} would do", near_name(name)));
                continue;
            }
            if self.servers.iter().any(|server| *server.name == **name) {
                self.refuse(&place, "is the name of another server already", "give it another one");
                continue;
            }
            match value.as_object() {
                Some(members) => self.server(name, &Table { place, members, strict }),
                None => self.refuse(&place, "is not an object", "{\"command\": \"…\"} would do"),
            }
        }
    }

    fn server(&mut self, name: &str, table: &Table<'_>) {
        self.strangers(table);
        if table.members.get("disabled") == Some(&Value::Bool(true)) {
            return;
        }
        let transport = self.transport(table);
        let rules = self.rules(table);
        let effects = self.effects(table);
        let max_inflight = self.number(table, "max_inflight", 1.0, 100_000.0);
        let timeout = self.number(table, "timeout_secs", 0.001, 604_800.0);
        let start = self.number(table, "start_timeout_secs", 0.001, 3600.0);
        let restart = self.word(table, "restart", &["always", "never"]);
        let share = self.word(table, "share", &["principal", "all", "session"]);
        let prefix = match table.members.get("prefix") {
            None => true,
            Some(Value::Bool(prefix)) => *prefix,
            Some(_) => {
                self.member(table, "prefix", "is neither true nor false", "prefix = false would do");
                true
            }
        };
        let Some(transport) = transport else { return };
        self.servers.push(ServerConfig {
            name: name.into(),
            transport,
            max_inflight: max_inflight.and_then(whole).unwrap_or(MAX_INFLIGHT),
            timeout: timeout.map(Duration::from_secs_f64),
            start_timeout: start.map_or(START, Duration::from_secs_f64),
            effects,
            tools: rules,
            restart: if restart == Some("never") { Restart::Never } else { Restart::Always },
            share: match share {
                Some("all") => Share::All,
                Some("session") => Share::Session,
                _ => Share::Principal,
            },
            prefix,
        });
    }

    fn strangers(&mut self, table: &Table<'_>) {
        for name in table.members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            let near = nearest(name, MEMBERS.into_iter());
            if table.strict {
                let remedy = near.map_or_else(
                    || "docs/upstream.md lists them all".to_owned(),
                    |near| format!("the nearest is {near}"),
                );
                self.refuse(
                    &format!("{}.{}", table.place, name.escape_debug()),
                    "there is no such member",
                    &remedy,
                );
            } else if let Some(near) = near {
                let place = &table.place;
                let name = name.escape_debug();
                self.warnings
                    .push(format!("{place}: `{name}` is ignored; the nearest that is read is `{near}`"));
            }
        }
    }

    fn transport(&mut self, table: &Table<'_>) -> Option<Transport> {
        let kind = self.word(table, "type", &["stdio", "http", "streamable-http", "streamableHttp", "sse"]);
        if kind == Some("sse") {
            let what = "is the transport that MCP gave up in 2025";
            self.member(
                table,
                "type",
                what,
                "ask for the server's Streamable HTTP address, and leave type out",
            );
            return None;
        }
        match (table.members.contains_key("command"), table.members.contains_key("url")) {
            (true, false) => self.stdio(table),
            (false, true) => self.http(table),
            (true, true) => {
                self.member(table, "url", "stands beside command", "leave one of them out");
                None
            }
            (false, false) => {
                self.refuse(&table.place, "has neither command nor url", "command = \"npx\" would do");
                None
            }
        }
    }

    fn stdio(&mut self, table: &Table<'_>) -> Option<Transport> {
        let command = self.text(table, "command").filter(|text| !text.is_empty());
        let args = self.texts(table, "args");
        let env = self.pairs(table, "env");
        let folder = self.text(table, "cwd").map(|path| in_folder(self.folder, &path));
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
            self.member(
                table,
                "cwd",
                &format!("{} is not a folder", folder.display()),
                "name one that is there",
            );
        }
        Some(Transport::Stdio { command: command?, args, env: env.into_iter().collect(), folder })
    }

    fn http(&mut self, table: &Table<'_>) -> Option<Transport> {
        let url = self.text(table, "url")?;
        let headers = self.pairs(table, "headers");
        for (name, value) in &headers {
            let sound = reqwest::header::HeaderName::try_from(name.as_str()).is_ok()
                && reqwest::header::HeaderValue::try_from(value.reveal()).is_ok();
            if !sound {
                let what = format!("`{}` or its value cannot be sent", name.escape_debug());
                self.member(table, "headers", &what, "use visible ASCII characters");
            }
        }
        let parsed = reqwest::Url::parse(&url).ok();
        let sound = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if sound.is_none() {
            self.member(table, "url", "is not an http or https URL", "https://mcp.example.com/mcp would do");
            return None;
        }
        Some(Transport::Http { url, headers })
    }

    fn rules(&mut self, table: &Table<'_>) -> ToolRules {
        let Some(value) = table.members.get("tools") else { return ToolRules::default() };
        let Some(members) = value.as_object() else {
            self.member(table, "tools", "is not an object", "{\"deny\": [\"delete_*\"]} would do");
            return ToolRules::default();
        };
        let inner = Table { place: format!("{}.tools", table.place), members, strict: true };
        for name in members.keys().filter(|name| !RULES.contains(&name.as_str())) {
            self.member(&inner, name, "there is no such member", "there are allow, deny and rename");
        }
        let rename = self.pairs(&inner, "rename");
        ToolRules {
            allow: self.patterns(&inner, "allow"),
            deny: self.patterns(&inner, "deny"),
            rename: rename.into_iter().map(|(from, to)| (from, to.reveal().to_owned())).collect(),
        }
    }

    /// A word for all tools, or words by patterns.
    fn effects(&mut self, table: &Table<'_>) -> Vec<(ToolPatterns, SaidEffect)> {
        let example = "effect = \"read\" or effect = {\"get_*\" = \"read\"} would do";
        let one = Map::from_iter(table.members.get("effect").map(|value| ("*".to_owned(), value.clone())));
        let by_pattern = table.members.get("effect").and_then(Value::as_object).unwrap_or(&one);
        let mut effects = Vec::new();
        for (pattern, effect) in by_pattern {
            let effect = match effect.as_str() {
                Some("read") => SaidEffect::Read,
                Some("idempotent") => SaidEffect::Idempotent,
                Some("write") => SaidEffect::Write,
                _ => {
                    self.member(table, "effect", "is none of read, idempotent, write", example);
                    continue;
                }
            };
            match ToolPatterns::parse(&[pattern]) {
                Ok(pattern) => effects.push((pattern, effect)),
                Err(wrong) => self.member(table, "effect", &wrong.to_string(), example),
            }
        }
        // The more a pattern says, the earlier it counts.
        let star = |patterns: &ToolPatterns| patterns.each().any(|pattern| pattern.contains('*'));
        let length = |patterns: &ToolPatterns| patterns.each().map(str::len).max();
        effects.sort_by_key(|(patterns, _)| (star(patterns), std::cmp::Reverse(length(patterns))));
        effects
    }

    fn patterns(&mut self, table: &Table<'_>, name: &str) -> Option<ToolPatterns> {
        table.members.get(name)?;
        let texts = self.texts(table, name);
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let read = ToolPatterns::parse(&texts);
        read.map_err(|wrong| self.member(table, name, &wrong.to_string(), "[\"get_*\"] would do")).ok()
    }

    fn text(&mut self, table: &Table<'_>, name: &str) -> Option<String> {
        let Some(text) = table.members.get(name)?.as_str() else {
            self.member(table, name, "is not a text", "put it into quotes");
            return None;
        };
        self.filled(table, name, text)
    }

    fn texts(&mut self, table: &Table<'_>, name: &str) -> Vec<String> {
        let Some(value) = table.members.get(name) else { return Vec::new() };
        let texts: Option<Vec<_>> =
            value.as_array().and_then(|entries| entries.iter().map(Value::as_str).collect());
        let Some(texts) = texts else {
            self.member(table, name, "is not an array of texts", "[\"…\"] would do");
            return Vec::new();
        };
        texts.into_iter().filter_map(|text| self.filled(table, name, text)).collect()
    }

    fn pairs(&mut self, table: &Table<'_>, name: &str) -> Vec<(String, Secret)> {
        let Some(value) = table.members.get(name) else { return Vec::new() };
        let Some(members) = value.as_object() else {
            self.member(table, name, "is not an object of texts", "{\"NAME\": \"…\"} would do");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (key, value) in members {
            let text = match value {
                Value::String(text) => self.filled(table, name, text),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(word) => Some(word.to_string()),
                Value::Null => None,
                Value::Array(_) | Value::Object(_) => {
                    self.member(table, name, "is not an object of texts", "{\"NAME\": \"…\"} would do");
                    None
                }
            };
            pairs.extend(text.map(|text| (key.clone(), Secret::new(text))));
        }
        pairs
    }

    fn filled(&mut self, table: &Table<'_>, name: &str, text: &str) -> Option<String> {
        match variables::fill(text, self.variables) {
            Ok(text) => Some(text),
            Err(Unfilled::Unset(variable)) => {
                let what = format!("names the variable {variable}, which is not set");
                self.member(table, name, &what, &format!("set it, or write ${{{variable}:-instead}}"));
                None
            }
            Err(Unfilled::OfTheClient(text)) => {
                let what = format!("has {text}, which only the client that it was written for can fill in");
                self.member(table, name, &what, "write out what it stands for");
                None
            }
        }
    }

    fn number(&mut self, table: &Table<'_>, name: &str, least: f64, most: f64) -> Option<f64> {
        let value = table.members.get(name)?;
        let number = value.as_f64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.member(
                table,
                name,
                &format!("is not a number from {least} to {most}"),
                "leave it out, or write 8",
            );
        }
        number
    }

    fn word(&mut self, table: &Table<'_>, name: &str, words: &[&'static str]) -> Option<&'static str> {
        let value = table.members.get(name)?;
        let word = value.as_str().and_then(|text| parse::choice(text, words).ok());
        if word.is_none() {
            self.member(
                table,
                name,
                &format!("is none of {}", words.join(", ")),
                "leave it out, or use one of them",
            );
        }
        word
    }

    fn member(&mut self, table: &Table<'_>, name: &str, what: &str, remedy: &str) {
        self.refuse(&format!("{}.{name}", table.place), what, remedy);
    }

    fn refuse(&mut self, place: &str, what: &str, remedy: &str) {
        self.problems.push(Problem::Server {
            place: place.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

fn whole(number: f64) -> Option<usize> {
    format!("{number:.0}").parse().ok().filter(|count| *count <= keys::MANY)
}

#[cfg(test)]
mod tests;
