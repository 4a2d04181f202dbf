//! Modules with real processes: the engine by itself, then the tools through a daemon, then a daemon that is stopped or
//! killed.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests are tests"
)]

mod daemon;
mod engine;
mod hostile;
mod stage;
mod tools;
