//! Flows: graphs of nodes that a visual editor saved, run headless, many at a time, without one run touching another.
//!
//! A file is read whole and every problem is found at once ([`format`]); what is sound is a [`Flow`], which knows what
//! each node waits for.

pub mod draw;
pub mod engine;
pub mod file;
pub mod folder;
pub mod format;
pub mod graph;
pub mod kind;
pub mod output;
pub mod problem;
pub mod question;
mod tree;

pub use graph::{Flow, Link, Node};
pub use kind::{NodeKind, Port};
pub use problem::Problem;
