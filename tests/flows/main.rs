//! Flows: their files, the tool that runs them, and what is left of a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test ends at the first surprise"
)]

mod commands;
