//! `inflightd serve`: the daemon.

use std::process::ExitCode;

use crate::cli::ServeArgs;

/// Runs the daemon until it is told to stop.
pub fn run(args: ServeArgs) -> ExitCode {
    drop(args);
    super::complain("this build has no daemon");
    ExitCode::from(super::EXIT_SOFTWARE)
}
