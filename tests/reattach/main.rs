//! A caller that lost its connection collects its call: the daemon's side, and the shim's with real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests are tests"
)]

mod collecting;
mod processes;
mod proxy;
mod spawning;
mod stage;
