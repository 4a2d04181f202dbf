//! `inflightd shim`: a client's stdin and stdout, connected to the daemon.

use std::process::ExitCode;

use clap::Args;

use crate::cli::{ConnectArgs, EXIT_SOFTWARE, complain};
use crate::client::explain;
use crate::shim::{self, End};

/// Flags of `shim`.
#[derive(Debug, Args)]
#[command(after_help = "An MCP client's configuration:
  {\"mcpServers\": {\"inflightd\": {\"command\": \"inflightd\", \"args\": [\"shim\"]}}}

It ends when its stdin ends or the process that started it is gone. It outlives the daemon: while that is
away it says so to whoever asks, and connects again as soon as it can.")]
pub struct ShimArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the shim until its client is gone.
pub fn run(args: ShimArgs) -> ExitCode {
    let endpoint = match args.connect.endpoint() {
        Ok(endpoint) => endpoint,
        Err(code) => return code,
    };
    // Its memory is needed no more, and the shim lives for days.
    drop(args);
    match shim::run(endpoint) {
        Ok(End::InputEnded | End::OutputClosed | End::ParentGone) => ExitCode::SUCCESS,
        Ok(End::Broken) => ExitCode::from(EXIT_SOFTWARE),
        Err(error) => {
            complain(&format!("could not {}", explain(&error)));
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}
