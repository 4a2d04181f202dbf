//! The ladder of timeouts: provider ≤ tool < daemon < shim < client.

use std::time::Duration;

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
}
