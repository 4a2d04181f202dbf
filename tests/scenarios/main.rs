//! The daemon as its clients meet it: real sockets, a provider that the tests play, gates instead of sleeps.
//!
//! Each module holds promises of one kind, and each test is named as the promise that it keeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub,
    reason = "helpers of tests are tests: they may panic, and they bound each wait by themselves"
)]

mod canaries;
mod consensus;
mod conversations;
mod dedup;
mod deployed;
mod doctor;
mod doors;
mod execute;
mod fallbacks;
mod faults;
mod frames;
mod keys;
mod leaving;
mod limits;
#[cfg(unix)]
mod logs;
mod mcp_http;
mod members;
mod memory;
mod offline;
mod privacy;
mod prompts;
mod resilience;
mod shutdown;
mod spending;
mod startup;
mod support;
mod wires;
