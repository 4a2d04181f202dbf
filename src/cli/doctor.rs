//! `inflightd doctor`: what the running daemon finds in itself, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::{ConnectArgs, print, report, table};
use crate::client::{ClientError, Endpoint};

/// Where the daemon tells it.
const PATH: &str = "/api/v1/doctor";

/// It is in the daemon's memory: this only bounds a daemon that hangs.
const BUDGET: Duration = Duration::from_secs(10);

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Ends with 0 when all is well, 1 when there are problems, 69 when no daemon answers.")]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Asks the daemon and shows what it finds.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let endpoint = match args.connect.endpoint() {
        Ok(endpoint) => endpoint,
        Err(code) => return code,
    };
    let mut found = match ask(&endpoint) {
        Ok(found) => found,
        Err(error) => return report(&endpoint, &error),
    };
    compare_versions(&mut found, env!("CARGO_PKG_VERSION"));
    let printed = print(&if args.json { found.to_string() } else { page(&endpoint.to_string(), &found) });
    let well = items(&found, "problems").is_empty();
    if printed == ExitCode::SUCCESS && !well { ExitCode::FAILURE } else { printed }
}

fn ask(endpoint: &Endpoint) -> Result<Value, ClientError> {
    let body = endpoint.get(PATH, BUDGET)?;
    let found: Value = serde_json::from_str(&body).map_err(ClientError::Answer)?;
    // Whoever else answers there has no ladder, and must not be found well.
    if member(&found, "ladder").is_array() && member(&found, "problems").is_array() {
        Ok(found)
    } else {
        Err(ClientError::Answer(serde::de::Error::custom("it has no `ladder` and no `problems`")))
    }
}

/// Adds what the daemon cannot see: that this command is another version.
fn compare_versions(found: &mut Value, own: &str) {
    let daemon = text(found, "version").to_owned();
    if daemon == own {
        return;
    }
    if let Some(problems) = found.get_mut("problems").and_then(Value::as_array_mut) {
        problems.push(serde_json::json!({
            "problem": format!("the daemon is version {daemon}, this command {own}"),
            "remedy": "restart the daemon after an update",
        }));
    }
}

/// The findings as a person reads them.
fn page(place: &str, found: &Value) -> String {
    let uptime = Duration::from_secs(member(found, "uptime_seconds").as_u64().unwrap_or_default());
    let head = format!("inflightd {} at {place}, up {}", text(found, "version"), span(uptime));
    let sections = [
        ("Timeouts: provider ≤ tool < daemon < shim < client", ladder(found)),
        ("Providers", providers(found)),
        ("Spending", spending(found)),
        ("Upstream servers", servers(found)),
        ("Clients", clients(found)),
        ("Limits", limits(found)),
    ];
    let mut out = vec![head];
    // Most daemons have no limit on spending.
    for (heading, rows) in
        sections.into_iter().filter(|(heading, rows)| *heading != "Spending" || !rows.is_empty())
    {
        let rows = if rows.is_empty() { "none".to_owned() } else { table(&rows) };
        out.push(format!("\n{heading}\n{}", indented(&rows)));
    }
    let problems: Vec<_> = items(found, "problems").iter().map(problem).collect();
    let problems = if problems.is_empty() { "none".to_owned() } else { problems.join("\n") };
    out.push(format!("\nProblems\n{}", indented(&problems)));
    out.join("\n")
}

fn ladder(found: &Value) -> Vec<(String, String)> {
    let row = |hop: &Value| {
        let margin = member(hop, "margin_secs").as_f64();
        let margin = margin.map_or_else(String::new, |margin| format!(", {margin} s below the next"));
        (text(hop, "hop").to_owned(), format!("{} s{margin}", seconds(member(hop, "timeout_secs"))))
    };
    items(found, "ladder").iter().map(row).collect()
}

fn providers(found: &Value) -> Vec<(String, String)> {
    let row = |provider: &Value| {
        let mut about = match text(provider, "key") {
            "set" => "has a key".to_owned(),
            "missing" => format!("is not offered: set {} to offer it", text(provider, "offered_with")),
            _ => "needs no key".to_owned(),
        };
        if let connections @ Value::Object(_) = member(provider, "connections") {
            let [active, idle, failed] = ["active", "idle", "failed"].map(|name| member(connections, name));
            // Writing to a String cannot fail.
            let _ = write!(about, "; connections: {active} active, {idle} idle, {failed} failed so far");
        }
        let fallbacks: Vec<_> = items(provider, "fallbacks").iter().filter_map(Value::as_str).collect();
        if !fallbacks.is_empty() {
            let _ = write!(about, "; where it fails, {}", fallbacks.join(", then "));
        }
        (text(provider, "name").to_owned(), about)
    };
    items(found, "providers").iter().map(row).collect()
}

fn spending(found: &Value) -> Vec<(String, String)> {
    let row = |each: &Value| {
        let [spent, limit] = ["spent_today", "limit"].map(|name| member(each, name));
        (text(each, "principal").to_owned(), format!("{spent} of {limit} today (UTC)"))
    };
    items(found, "spending").iter().map(row).collect()
}

fn servers(found: &Value) -> Vec<(String, String)> {
    let row = |server: &Value| {
        let instances = items(server, "instances").iter().map(|instance| {
            let detail = Some(text(instance, "detail")).filter(|detail| !detail.is_empty());
            let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}{detail} for {}", text(instance, "state"), text(instance, "for"))
        });
        let instances: Vec<_> = instances.collect();
        let state = if instances.is_empty() { "not started".to_owned() } else { instances.join(", ") };
        let tools =
            member(server, "tools").as_u64().map_or("not listed".to_owned(), |tools| tools.to_string());
        (text(server, "name").to_owned(), format!("{}; tools: {tools}; {state}", text(server, "transport")))
    };
    items(found, "servers").iter().map(row).collect()
}

fn clients(found: &Value) -> Vec<(String, String)> {
    let row = |client: &Value| {
        let name = Some(text(client, "name")).filter(|name| !name.is_empty()).unwrap_or("(no name)");
        let limit = match member(client, "limit_secs") {
            Value::Null => "waits as long as it takes".to_owned(),
            limit => format!("gives up after {} s ({})", seconds(limit), text(client, "basis")),
        };
        let first = match text(client, "gives_up_first") {
            "yes" => ", before the daemon",
            "without_progress" => ", before the daemon where it asks for no progress",
            _ => "",
        };
        let seen = match member(client, "connections").as_u64() {
            Some(connections @ 1..) => format!("connections: {connections}"),
            Some(0) | None => format!("last seen {}", text(client, "last_seen")),
        };
        (format!("{name} {}", text(client, "version")), format!("{limit}{first}; {seen}"))
    };
    items(found, "clients").iter().map(row).collect()
}

fn limits(found: &Value) -> Vec<(String, String)> {
    let limits = member(found, "limits");
    let used = |name: &str, used: &Value, limit: &Value| (name.to_owned(), format!("{used} of {limit}"));
    let (connections, executions) = (member(limits, "connections"), member(limits, "executions"));
    let mut rows = vec![
        used("connections", member(connections, "open"), member(connections, "limit")),
        used("executions", member(executions, "active"), member(executions, "limit")),
    ];
    let permits = member(found, "permits").as_object().into_iter().flatten();
    rows.extend(permits.map(|(name, view)| {
        used(&format!("permits of {name}"), member(view, "in_use"), member(view, "limit"))
    }));
    rows
}

fn problem(problem: &Value) -> String {
    format!("- {}\n  what to do: {}", text(problem, "problem"), text(problem, "remedy"))
}

/// A member, or null.
fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn items<'a>(found: &'a Value, name: &str) -> &'a [Value] {
    member(found, name).as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    member(value, name).as_str().unwrap_or_default()
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// `45 s`, `12 min`, `3 h 5 min`.
fn span(span: Duration) -> String {
    match (span.as_secs() / 3600, span.as_secs() / 60 % 60, span.as_secs()) {
        (0, 0, secs) => format!("{secs} s"),
        (0, minutes, _) => format!("{minutes} min"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_problem_comes_with_what_to_do() {
        let mut found = json!({
            "version": "0.0.9", "uptime_seconds": 11_100,
            "ladder": [{"hop": "tool", "timeout_secs": 180.0, "margin_secs": 90.0},
                       {"hop": "client", "timeout_secs": 450.0, "margin_secs": null}],
            "providers": [{"name": "kimi", "key": "missing", "offered_with": "KIMI_API_KEY"},
                          {"name": "glm", "key": "set", "connections": {"active": 1, "idle": 2, "failed": 3},
                           "fallbacks": ["openai/gpt-5-mini", "offline/echo"]},
                          {"name": "offline", "key": "not needed"}],
            "clients": [{"name": "claude-ai", "version": "1", "connections": 1, "limit_secs": 60.0, "basis": "known",
                         "gives_up_first": "yes"}],
            "limits": {"connections": {"open": 2, "limit": 10}, "executions": {"active": 0, "limit": 5}},
            "permits": {"global": {"in_use": 1, "limit": 24}},
            "problems": [],
        });
        compare_versions(&mut found, "0.1.0");
        let page = page("ws://here", &found);
        for line in [
            "inflightd 0.0.9 at ws://here, up 3 h 5 min",
            "  tool    180 s, 90 s below the next",
            "  kimi     is not offered: set KIMI_API_KEY to offer it",
            "  glm      has a key; connections: 1 active, 2 idle, 3 failed so far; where it fails, openai/gpt-5-mini, then offline/echo",
            "  claude-ai 1  gives up after 60 s (known), before the daemon; connections: 1",
            "  permits of global  1 of 24",
            "  - the daemon is version 0.0.9, this command 0.1.0",
            "    what to do: restart the daemon after an update",
        ] {
            assert!(page.lines().any(|each| each == line), "{line}\n{page}");
        }
    }
}
