//! The ladder of timeouts: provider ≤ tool < daemon < shim < client.
//!
//! A rung that nobody set follows its neighbours, down as well as up; only values that somebody set can
//! violate. Each violation comes with a value that would do, and all of them together make a ladder.

use std::time::Duration;

use super::problem::Origin;

mod violation;

pub use violation::{Broken, Named, Violation};

/// What is logged before the ladder is checked.
pub const VALIDATING: &str = "Validating timeout hierarchy...";

/// A ladder that holds: every rung set, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// Tools of the plain class.
    pub workflow_tool: Duration,
    /// Tools that ask for an expert's analysis: `analyze` and its like.
    pub expert_tool: Duration,
    /// The one budget for waiting: session slot and provider queue together.
    pub queue: Duration,
    /// When the daemon gives up on a waiter.
    pub daemon: Duration,
    /// When the shim would.
    pub shim: Duration,
    /// When the client would.
    pub client: Duration,
    /// Opening a connection to a provider.
    pub connect: Duration,
}

impl Ladder {
    /// The tool rung: the longest of the tools' timeouts.
    pub fn tool(&self) -> Duration {
        self.workflow_tool.max(self.expert_tool)
    }

    /// What is logged once the ladder holds.
    pub fn summary(&self) -> String {
        let tool = self.tool().as_secs_f64();
        let daemon = Duration::from_millis(u64::try_from(self.daemon.as_millis()).unwrap_or(u64::MAX));
        format!(
            "Timeout hierarchy validated: daemon={}s, tool={tool:.1}s (ratio={:.2}x)",
            seconds(daemon),
            self.daemon.as_secs_f64() / tool,
        )
    }
}

/// A value that somebody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// The value: at least a millisecond, at most a week.
    pub value: Duration,
    /// Where it was set.
    pub origin: Origin,
}

/// One setting of the ladder, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Its key.
    pub key: &'static str,
    /// What it is where neither an operator nor a neighbour asks for anything else.
    pub usual: Duration,
    /// What somebody set.
    pub set: Option<Set>,
}

impl Rung {
    fn value(&self) -> Option<Duration> {
        self.set.map(|set| set.value)
    }
}

/// Everything that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rungs {
    /// One for each provider.
    pub providers: Vec<Rung>,
    /// Tools of the plain class.
    pub workflow_tool: Rung,
    /// Tools that ask for an expert's analysis.
    pub expert_tool: Rung,
    /// Waiting.
    pub queue: Rung,
    /// Opening a connection.
    pub connect: Rung,
    /// The daemon's; its usual value is not used, since it follows the tools.
    pub daemon: Rung,
    /// The shim's; it follows the daemon.
    pub shim: Rung,
    /// The client's; it follows the daemon and the shim.
    pub client: Rung,
}

/// A ladder that holds, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The ladder.
    pub ladder: Ladder,
    /// The providers' timeouts, in the order of [`Rungs::providers`].
    pub providers: Vec<Duration>,
    /// What holds, but is hardly meant.
    pub warnings: Vec<String>,
}

/// Fills in every rung that nobody set, and checks those that somebody did.
///
/// # Errors
/// Every violation, the innermost first.
pub fn resolve(rungs: &Rungs) -> Result<Resolved, Vec<Violation>> {
    let violations = violation::all(rungs);
    if !violations.is_empty() {
        return Err(violations);
    }
    let mut resolved = settle(rungs);
    resolved.warnings = warnings(rungs, &resolved.ladder);
    Ok(resolved)
}

/// The usual distances: daemon 1.5 × tool, and daemon : shim : client as 3 : 4 : 5. Total; what comes out holds
/// where `rungs` has no violation.
fn settle(rungs: &Rungs) -> Resolved {
    let room = daemon_room(rungs);
    let (workflow_tool, expert_tool) = tools(rungs, room);
    let tool = workflow_tool.max(expert_tool);
    let within = |time: Duration| room.map_or(time, |room| time.min(room));
    let left = room.map_or(tool, |room| room.saturating_sub(tool));
    let queue = rungs.queue.value().unwrap_or(rungs.queue.usual.min(tool).min(left));
    let daemon =
        rungs.daemon.value().unwrap_or_else(|| within((tool * 3 / 2).max(tool.saturating_add(queue))));
    let shim = rungs.shim.value().unwrap_or_else(|| {
        let usual = daemon * 4 / 3;
        rungs.client.value().map_or(usual, |client| usual.min(midpoint(daemon, client)))
    });
    let client = rungs.client.value().unwrap_or_else(|| (daemon * 5 / 3).max(shim * 5 / 4));
    let connect = rungs.connect.value().unwrap_or(rungs.connect.usual).min(tool);
    let provider = |rung: &Rung| rung.value().unwrap_or(rung.usual.min(tool));
    Resolved {
        providers: rungs.providers.iter().map(provider).collect(),
        ladder: Ladder { workflow_tool, expert_tool, queue, daemon, shim, client, connect },
        warnings: Vec::new(),
    }
}

/// The longest that the daemon's rung may be, where a set rung bounds it.
fn daemon_room(rungs: &Rungs) -> Option<Duration> {
    if rungs.daemon.set.is_some() {
        return rungs.daemon.value();
    }
    let (usual, bound) = match (rungs.shim.value(), rungs.client.value()) {
        (Some(shim), _) => (shim * 3 / 4, shim),
        (None, Some(client)) => (client * 3 / 5, client),
        (None, None) => return None,
    };
    let needed = floor(rungs).saturating_add(rungs.queue.value().unwrap_or_default());
    Some(if usual > needed { usual } else { midpoint(needed, bound) })
}

/// The two tools' timeouts: what was set; else up to the longest provider, and down to what the daemon leaves.
fn tools(rungs: &Rungs, room: Option<Duration>) -> (Duration, Duration) {
    let set = longest(&[rungs.workflow_tool, rungs.expert_tool]);
    let asked = if set.is_none() { longest(&rungs.providers).unwrap_or_default() } else { Duration::ZERO };
    let most = room.map(|room| {
        let beside_queue = room.saturating_sub(rungs.queue.value().unwrap_or_default());
        (room * 2 / 3).min(beside_queue).max(floor(rungs))
    });
    let tool = |rung: &Rung| {
        let usual = rung.usual.max(asked);
        rung.value().unwrap_or(most.map_or(usual, |most| usual.min(most)))
    };
    (tool(&rungs.workflow_tool), tool(&rungs.expert_tool))
}

/// What the tool rung cannot go below: the longest set tool, or where none is set the longest set provider.
fn floor(rungs: &Rungs) -> Duration {
    longest(&[rungs.workflow_tool, rungs.expert_tool])
        .or_else(|| longest(&rungs.providers))
        .unwrap_or_default()
}

fn longest(rungs: &[Rung]) -> Option<Duration> {
    rungs.iter().filter_map(Rung::value).max()
}

fn midpoint(low: Duration, high: Duration) -> Duration {
    low.saturating_add(high.saturating_sub(low) / 2)
}

fn warnings(rungs: &Rungs, ladder: &Ladder) -> Vec<String> {
    let mut warnings = Vec::new();
    let tool = ladder.tool();
    // Only set values can bring the ratio down: an unset daemon takes 1.5 where its neighbours leave the room.
    if ladder.daemon * 2 < tool * 3 {
        warnings.push(format!(
            "the daemon's timeout of {}s is {:.2} times the tools' {}s, less than 1.5: little is left for waiting; \
             {}={} would do",
            seconds(ladder.daemon),
            ladder.daemon.as_secs_f64() / tool.as_secs_f64(),
            seconds(tool),
            rungs.daemon.key,
            seconds((tool * 3 / 2).max(tool.saturating_add(rungs.queue.usual))),
        ));
    }
    if let Some(set) = rungs.connect.set.filter(|set| set.value > tool) {
        warnings.push(format!(
            "{}={} is longer than the tools' {}s, and is cut to it",
            rungs.connect.key,
            seconds(set.value),
            seconds(tool),
        ));
    }
    warnings
}

/// A time in seconds as it can be set, without needless zeros.
pub(super) fn seconds(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        return time.as_secs().to_string();
    }
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests;
