//! What work tells of itself while it is done.

/// How far work has come, by its own count.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How far; it rises.
    pub progress: f64,
    /// Of how much, where that is known.
    pub total: Option<f64>,
    /// What happened; it may be empty.
    pub message: String,
}

/// Where work in progress tells of itself. Telling never waits and never fails.
pub trait Tell: Send + Sync {
    /// The next piece of the text that is being made.
    fn text(&self, piece: &str);

    /// How far the work has come; whoever looks later sees the latest.
    fn step(&self, step: Step);
}
