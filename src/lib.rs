//! `inflightd`: one daemon between AI clients and everything they call.
pub mod call;
pub mod config;
pub mod deadline;
pub mod health;
pub mod ids;
pub mod lifecycle;
pub mod phase;
pub mod provider;
pub mod tasks;
pub mod telemetry;
pub mod tool;
