//! `inflightd`: one daemon between AI clients and everything they call.
pub mod config;
