//! `inflightd`: one daemon between AI clients and everything they call.
pub mod cli;
pub mod client;
pub mod config;
pub mod shim;
