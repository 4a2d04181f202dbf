//! `inflightd shim`: a client's stdin and stdout, connected to the daemon.

use std::process::ExitCode;

use clap::Args;

use crate::cli::{ConnectArgs, EXIT_SOFTWARE, EXIT_USAGE, complain};
use crate::client::explain;
use crate::shim::{self, End, StartError};

/// Flags of `shim`.
#[derive(Debug, Args)]
#[command(after_help = "An MCP client's configuration:
  {\"mcpServers\": {\"inflightd\": {\"command\": \"inflightd\", \"args\": [\"shim\"]}}}

It ends when its stdin ends or the process that started it is gone. It outlives the daemon: it connects again
as soon as it can and collects the calls that were under way; a daemon that stays away for 10 s is an error to
whoever asks.")]
pub struct ShimArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Start a daemon if none answers at a loopback address; it ends when nobody needs it for 15 minutes, and its
    /// log, `.env` and `inflightd.toml` are in `$XDG_STATE_HOME/inflightd` [`~/.local/state/inflightd`]
    #[arg(long)]
    spawn: bool,
}

impl ShimArgs {
    /// As without any flag but that one.
    pub(super) fn of_environment(spawn: bool) -> Self {
        Self { connect: ConnectArgs::of_environment(), spawn }
    }
}

/// Runs the shim until its client is gone.
pub fn run(args: ShimArgs) -> ExitCode {
    let endpoint = match args.connect.endpoint() {
        Ok(endpoint) => endpoint,
        Err(code) => return code,
    };
    let spawn = args.spawn;
    // Its memory is needed no more, and the shim lives for days.
    drop(args);
    match shim::run(endpoint, spawn) {
        Ok(End::InputEnded | End::OutputClosed | End::ParentGone) => ExitCode::SUCCESS,
        Ok(End::Broken) => ExitCode::from(EXIT_SOFTWARE),
        Err(error) => {
            complain(&format!("could not {}", explain(&error)));
            ExitCode::from(match error {
                StartError::NotLocal(_) => EXIT_USAGE,
                StartError::Thread(_) | StartError::Random(_) => EXIT_SOFTWARE,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn started_as_it_mostly_is_it_gets_what_the_command_line_would_say() {
        for (words, spawn) in [(&["inflightd", "shim"][..], false), (&["inflightd", "shim", "--spawn"], true)]
        {
            let Some(Command::Shim(said)) = Cli::try_parse_from(words).unwrap().command else {
                panic!("no shim")
            };
            assert_eq!(format!("{said:?}"), format!("{:?}", ShimArgs::of_environment(spawn)));
        }
    }
}
