//! What `inflightd doctor` shows: the ladder hop by hop, providers, clients, limits, and what is wrong.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::door::Hub;
use crate::health;
use crate::lifecycle::spend::Allowance;
use crate::provider::breaker::BreakerState;
use crate::tool::Insight;

/// Above this share of the connections, in percent, newcomers may soon be refused.
const BUSY_PERCENT: usize = 80;

impl Hub {
    /// The daemon's own findings. Nothing in it is secret: keys are told to be there or not.
    pub fn doctor(&self) -> Value {
        let clients = self.clients.report();
        let open = self.connections.load(Ordering::Relaxed);
        let limits = json!({
            "connections": {"open": open, "limit": self.limits.connections},
            "executions": {"active": self.calls.flights().executions(), "limit": self.limits.executions},
            "queue": self.limits.queue,
            "session": self.limits.session,
            "waiters": self.limits.waiters,
        });
        let servers: Vec<_> = self.calls.registry().servers().iter().map(|server| server.report()).collect();
        let mut problems = self.problems(&clients, open);
        problems.extend(servers.iter().flat_map(of_server));
        let mut about = self.calls.health();
        if let Some(members) = about.as_object_mut() {
            let own = [
                ("ladder", self.hops()),
                ("providers", self.providers()),
                ("servers", servers.clone().into()),
                ("problems", problems.into()),
                ("spending", self.spending()),
                ("clients", clients.into()),
                ("limits", limits),
            ];
            members.extend(own.map(|(name, value)| (name.to_owned(), value)));
        }
        about
    }

    /// Each rung with its distance to the next one.
    fn hops(&self) -> Value {
        let ladder = &self.ladder;
        let hop = |name: &str, timeout: Duration, next: Option<Duration>| {
            let margin = next.map(|next| next.saturating_sub(timeout).as_secs_f64());
            json!({"hop": name, "timeout_secs": timeout.as_secs_f64(), "margin_secs": margin})
        };
        let registry = self.calls.registry();
        let entries = registry.catalog().entries().iter();
        let mut hops: Vec<_> = entries
            .map(|entry| hop(&format!("provider {}", entry.name), entry.timeout, Some(ladder.tool())))
            .collect();
        hops.push(hop("tool", ladder.tool(), Some(ladder.daemon)));
        hops.push(hop("daemon", ladder.daemon, Some(ladder.shim)));
        hops.push(hop("shim", ladder.shim, Some(ladder.client)));
        hops.push(hop("client", ladder.client, None));
        hops.into()
    }

    /// Those that are offered, in the order in which they are preferred, then the presets that are not.
    fn providers(&self) -> Value {
        let registry = self.calls.registry();
        let catalog = registry.catalog();
        let offered = catalog.entries().iter().map(|entry| {
            let mut about =
                json!({"name": &*entry.name, "key": if entry.has_key { "set" } else { "not needed" }});
            let fallbacks = catalog.fallbacks(&entry.name);
            let fallbacks: Vec<_> =
                fallbacks.iter().map(|(other, model)| format!("{}/{model}", other.name)).collect();
            if let Some(members) = about.as_object_mut() {
                if let Some(gauges) = &entry.connections {
                    members.insert("connections".into(), health::connections(gauges));
                }
                if !fallbacks.is_empty() {
                    members.insert("fallbacks".into(), fallbacks.into());
                }
            }
            about
        });
        let missing = config::provider_presets()
            .filter(|(name, _)| catalog.find(name).is_none())
            .map(|(name, set)| json!({"name": name, "key": "missing", "offered_with": set}));
        offered.chain(missing).collect::<Vec<_>>().into()
    }

    /// Principals with a limit on what their models' answers cost in a day.
    fn spending(&self) -> Value {
        let allowances = self.calls.watch().ledger().allowances();
        let of = |each: Allowance| json!({"principal": &*each.principal, "limit": each.limit.json(), "spent_today": each.spent.json()});
        allowances.into_iter().map(of).collect::<Vec<_>>().into()
    }

    fn problems(&self, clients: &[Value], open: usize) -> Vec<Value> {
        let mut problems = Vec::new();
        let mut add = |what: String, remedy: &str| problems.push(json!({"problem": what, "remedy": remedy}));
        if self.health.broken() {
            add("an invariant of the daemon is broken".into(), "see the errors in its log, and report them");
        }
        if self.calls.watch().lifecycle().draining() {
            add(
                "the daemon is going down".into(),
                "wait for the next one, or start one with `inflightd serve`",
            );
        }
        for (name, view) in self.calls.care() {
            if let BreakerState::Open(wait) = view.breaker {
                add(
                    format!(
                        "most of the last calls to {name} failed: none is sent for {:.1}s",
                        wait.as_secs_f64()
                    ),
                    "see the provider's own status and its key; then one call is sent as a probe",
                );
            } else if let Some(wait) = view.paused {
                add(
                    format!("{name} asked to be left alone: its calls wait for {:.1}s", wait.as_secs_f64()),
                    "call it less often, lower its _MAX_INFLIGHT, or ask for a higher limit there",
                );
            }
        }
        if open * 100 > self.limits.connections * BUSY_PERCENT {
            let what = format!("{open} of {} connections are open", self.limits.connections);
            add(what, "close clients, or raise CONNECTIONS_MAX");
        }
        if self.ladder.daemon * 2 < self.ladder.tool() * 3 {
            let what = "the daemon's timeout is less than 1.5 times the tools': little is left for waiting";
            add(what.into(), "raise DAEMON_TIMEOUT_SECS, or lower the tools' timeouts");
        }
        for client in clients {
            let text = |name| client.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("gives_up_first") != "yes" {
                continue;
            }
            let what = format!(
                "the client {} {} gives up after {}s, before the daemon does after {}s",
                text("name"),
                text("version"),
                client.get("limit_secs").and_then(Value::as_f64).unwrap_or_default(),
                self.ladder.daemon.as_secs_f64(),
            );
            let remedy = "raise the client's own limit, or lower DAEMON_TIMEOUT_SECS; until then its longer calls are \
                          answered shortly before its limit, and get_request collects their outcomes";
            add(what, remedy);
        }
        problems
    }
}

/// What is wrong with an upstream server, by what it is reported to be.
fn of_server(server: &Value) -> Vec<Value> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = text(server, "name");
    let list =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut problems = Vec::new();
    let mut add = |what: String, remedy: &str| problems.push(json!({"problem": what, "remedy": remedy}));
    for instance in list(server, "instances") {
        let (state, whose) = (text(&instance, "state"), text(&instance, "for"));
        let starts = instance.get("starts").and_then(Value::as_u64).unwrap_or_default();
        if state != "ready" && starts > 0 {
            let words = list(&instance, "last_words");
            let words = words.last().and_then(Value::as_str).unwrap_or_default();
            let said = if words.is_empty() { String::new() } else { format!("; it said: {words}") };
            let why = [text(&instance, "detail"), text(&instance, "last_end")];
            let why = why
                .into_iter()
                .find(|why| !why.is_empty())
                .unwrap_or_else(|| "it has not answered yet".into());
            let what =
                format!("the server {name} (for {whose}) is {state}, started {starts} times: {why}{said}");
            add(what, "run its command by hand, or see its lines in the log");
        }
        let odd = instance.get("not_messages").and_then(Value::as_u64).unwrap_or_default();
        if odd > 0 {
            let what =
                format!("the server {name} has written {odd} lines to its stdout that are no messages");
            add(what, "have it log to stderr; they are left out");
        }
    }
    for why in list(server, "left_out") {
        let what = format!("the server {name}: {}", why.as_str().unwrap_or_default());
        add(what, "leave tools out with tools.allow or tools.deny, or mend the server");
    }
    problems
}
