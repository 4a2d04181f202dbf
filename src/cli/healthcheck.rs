//! `inflightd healthcheck`: one question, for containers and scripts.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::{ConnectArgs, complain, print, report, stats};

/// Shorter than what container runtimes wait by default.
const BUDGET: Duration = Duration::from_secs(10);

/// Flags of `healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "Prints `ok` and ends with 0, or says what is wrong and ends with 1.")]
pub struct HealthcheckArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Asks the daemon whether it is well.
pub fn run(args: &HealthcheckArgs) -> ExitCode {
    let Ok((endpoint, mut client)) = args.connect.client() else { return ExitCode::FAILURE };
    match stats::ask(&mut client, "health", BUDGET) {
        Ok(health) if health.is_error() => {
            complain(&health.text());
            ExitCode::FAILURE
        }
        Ok(_) => print("ok"),
        Err(error) => {
            report(&endpoint, &error);
            ExitCode::FAILURE
        }
    }
}
