//! `inflightd`: one daemon between AI clients and everything they call.
//!
//! # The path of a call
//!
//! ```text
//! door → Calls::submit(call) → Waiter
//!   admission   draining? tool known? arguments valid against the tool's compiled JSON Schema?
//!   key         principal, session, tool, definition, digest of the canonical arguments
//!   flights     key → join the flight in the air, or open one
//!   Run         belongs to the daemon, to no connection
//!     slot      its opener's client session, then its principal's own
//!     queue     the provider's: bounded, by priority
//!     permits   narrow to wide: provider, then global; one Lease, held until the work has really ended
//!     invoke    within the Run's deadline
//!     settle    free the key, answer everybody, one terminal record each
//!   each Waiter answers through its own door, or leaves at its own deadline
//! ```
//!
//! Modules stand below in the order in which they may use one another: each uses only what comes after it.

pub mod cli;

pub mod app;

pub mod listener;

pub mod session;

pub mod http;

pub mod door;

pub mod client;
pub mod shim;

pub mod proto;

pub mod clients;

pub mod health;

pub mod call;

pub mod tool;

pub mod provider;

pub mod lifecycle;
pub mod tasks;
pub mod telemetry;

pub mod config;

pub mod deadline;
pub mod ids;
pub mod phase;
pub mod rate;
pub mod sync;
