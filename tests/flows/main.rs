//! Flows: their files, the tool that runs them, and what is left of a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "helpers of tests are tests: they may panic, and they bound each wait by themselves"
)]

mod model;
mod rig;
mod support;

mod commands;
mod nodes;
mod refusing;
mod running;
mod sharing;
