//! The `inflightd` command.

use std::process::ExitCode;

use clap::Parser;
use inflightd::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
