//! What is wrong with a ladder, and what would do instead.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::{Rung, Rungs, floor, seconds, settle};
use crate::config::problem::{Origin, Shown};

/// A setting with the value that somebody gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: Duration,
    /// Where it was set.
    pub origin: Origin,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown::with_value(self.key, &seconds(self.value), self.origin).fmt(f)
    }
}

/// Which rule does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A provider may take longer than every tool that is set.
    ProviderOverTool {
        /// The provider.
        provider: Named,
        /// The tools that are set.
        tools: Vec<Named>,
    },
    /// An outer rung is not longer than an inner one.
    NotLonger {
        /// The outer rung.
        outer: Named,
        /// Those that it should outlast.
        inner: Vec<Named>,
    },
    /// Waiting and working do not fit into an outer rung.
    NoRoomToWait {
        /// The queue's budget.
        queue: Named,
        /// What works meanwhile; empty where nothing else is set.
        inner: Vec<Named>,
        /// The rung.
        outer: Named,
    },
}

impl Broken {
    /// The setting that is taken out to see what would do.
    fn culprit(&self) -> Named {
        match self {
            Self::ProviderOverTool { provider, .. } => *provider,
            Self::NotLonger { outer, .. } | Self::NoRoomToWait { outer, .. } => *outer,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProviderOverTool { provider, tools } => {
                write!(f, "{provider}: must not be longer than {}", listed(tools, " and "))
            }
            Self::NotLonger { outer, inner } => {
                write!(f, "{outer}: must be longer than {}", listed(inner, " and "))
            }
            Self::NoRoomToWait { queue, inner, outer } => {
                write!(f, "{outer}: must leave room for {queue}")?;
                if inner.is_empty() {
                    f.write_str(" and a tool")
                } else {
                    write!(f, " and {}", listed(inner, ", "))
                }
            }
        }
    }
}

fn listed(named: &[Named], between: &str) -> String {
    named.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// A rule that does not hold, with a value that would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{broken}; {key}={} would do", seconds(*.would_do))]
pub struct Violation {
    /// What is wrong.
    pub broken: Broken,
    /// The setting to change.
    pub key: &'static str,
    /// To what: with all the violations' values set, the ladder holds.
    pub would_do: Duration,
}

/// Every violation of what was set. Takes the culprits out until the rest holds, then puts values that would do
/// in their place, one after the other, so that all of them fit together.
pub(super) fn all(rungs: &Rungs) -> Vec<Violation> {
    let mut kept = rungs.clone();
    let mut found: Vec<Broken> = Vec::new();
    loop {
        let broken = broken(&kept);
        if broken.is_empty() {
            break;
        }
        for broken in broken {
            // Each turn takes at least one set value away: the loop ends.
            if let Some(rung) = kept.rung_mut(broken.culprit().key) {
                rung.set = None;
            }
            found.push(broken);
        }
    }
    found.into_iter().map(|broken| remedy(&mut kept, broken)).collect()
}

/// The roundest value that would do, which is put into `kept`.
fn remedy(kept: &mut Rungs, broken: Broken) -> Violation {
    let culprit = broken.culprit();
    let exact = settled(kept, culprit.key);
    for grain_ms in [1000, 100, 1] {
        let rounded = round_up(exact, Duration::from_millis(grain_ms));
        let mut tried = kept.clone();
        tried.put(culprit, rounded);
        if self::broken(&tried).is_empty() {
            *kept = tried;
            return Violation { broken, key: culprit.key, would_do: rounded };
        }
    }
    kept.put(culprit, exact);
    Violation { broken, key: culprit.key, would_do: exact }
}

fn round_up(time: Duration, grain: Duration) -> Duration {
    let grain = grain.as_nanos().max(1);
    let nanos = time.as_nanos().div_ceil(grain) * grain;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What a culprit comes to be while nobody sets it; a provider, the longest tool that is set.
fn settled(rungs: &Rungs, key: &str) -> Duration {
    let resolved = settle(rungs);
    let ladder = resolved.ladder;
    let outer = [(&rungs.daemon, ladder.daemon), (&rungs.shim, ladder.shim), (&rungs.client, ladder.client)];
    rungs
        .providers
        .iter()
        .map(|rung| (rung, floor(rungs)))
        .chain(outer)
        .find(|(rung, _)| rung.key == key)
        .map_or(ladder.daemon, |(_, time)| time)
}

/// The rules that do not hold, the innermost first. Only nearest set neighbours are held against each other.
fn broken(rungs: &Rungs) -> Vec<Broken> {
    let tools = named(&[rungs.workflow_tool, rungs.expert_tool]);
    let providers = named(&rungs.providers);
    let mut broken = Vec::new();
    if let Some(longest) = tools.iter().map(|tool| tool.value).max() {
        for provider in providers.iter().filter(|provider| provider.value > longest) {
            broken.push(Broken::ProviderOverTool { provider: *provider, tools: tools.clone() });
        }
    }
    let mut inner = if tools.is_empty() { providers } else { tools };
    let working = inner.clone();
    for outer in named(&[rungs.daemon, rungs.shim, rungs.client]) {
        inner.retain(|inner| inner.value >= outer.value);
        if !inner.is_empty() {
            broken.push(Broken::NotLonger { outer, inner });
        }
        inner = vec![outer];
    }
    let told = |found: &Broken| broken.iter().any(|broken| broken.culprit().key == found.culprit().key);
    if let Some(found) = no_room(rungs, working).filter(|found| !told(found)) {
        broken.push(found);
    }
    broken
}

/// Queue + tool > daemon; or, with the daemon unset, no daemon could stand between them and the shim or client.
fn no_room(rungs: &Rungs, mut working: Vec<Named>) -> Option<Broken> {
    let queue = named(&[rungs.queue]).first().copied()?;
    let outer = named(&[rungs.daemon, rungs.shim, rungs.client]).first().copied()?;
    let tool = floor(rungs);
    let needed = tool.saturating_add(queue.value);
    let exact_fit = rungs.daemon.set.is_some() && !tool.is_zero();
    let fits = if exact_fit { needed <= outer.value } else { needed < outer.value };
    working.retain(|working| working.value == tool);
    (!fits).then_some(Broken::NoRoomToWait { queue, inner: working, outer })
}

fn named(rungs: &[Rung]) -> Vec<Named> {
    let name = |rung: &Rung| {
        let key = rung.key;
        rung.set.map(|set| Named { key, value: set.value, origin: set.origin })
    };
    rungs.iter().filter_map(name).collect()
}

impl Rungs {
    fn rung_mut(&mut self, key: &str) -> Option<&mut Rung> {
        let tools = [&mut self.workflow_tool, &mut self.expert_tool, &mut self.queue];
        let outer = [&mut self.daemon, &mut self.shim, &mut self.client];
        self.providers.iter_mut().chain(tools).chain(outer).find(|rung| rung.key == key)
    }

    fn put(&mut self, named: Named, value: Duration) {
        if let Some(rung) = self.rung_mut(named.key) {
            rung.set = Some(super::Set { value, origin: named.origin });
        }
    }
}
