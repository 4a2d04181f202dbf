//! The `inflightd` command.

use std::process::ExitCode;

use inflightd::cli;

fn main() -> ExitCode {
    cli::run(cli::parse())
}
