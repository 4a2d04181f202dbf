//! Upstream MCP servers: promises on real processes and sockets, played by `examples/fake_upstream.rs`
//! and `examples/conformance`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "helpers of tests are tests: they may panic, and they bound each wait by themselves"
)]

mod rig;
mod support;

mod asking;
mod calling;
mod conformance;
mod ending;
mod hostile;
mod importing;
mod offering;
mod passing;
mod reloading;
mod sharing;
mod watching;
