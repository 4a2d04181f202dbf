//! The `inflightd` command.
fn main() {}
