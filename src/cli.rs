//! The command line: one file a command, and what they share.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::endpoint::DEFAULT_URL;
use crate::client::{Client, ClientError, ConnectError, Endpoint, explain};
use crate::config::{Secret, env, secret_files};

pub mod call;
pub mod doctor;
pub mod flow;
pub mod guard;
pub mod healthcheck;
pub mod import;
pub mod manual;
mod result;
pub mod serve;
pub mod shim;
pub mod stats;
pub mod token;
pub mod tools;

/// Something in the command line is wrong; clap's own code.
const EXIT_USAGE: u8 = 2;
/// `EX_UNAVAILABLE`: no daemon, or it went away.
const EXIT_UNAVAILABLE: u8 = 69;
/// `EX_SOFTWARE`: a fault of ours.
const EXIT_SOFTWARE: u8 = 70;
/// `EX_IOERR`: stdout could not be written.
const EXIT_IO: u8 = 74;

/// One daemon between your AI clients and everything they call.
#[derive(Debug, Parser)]
#[command(name = "inflightd", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Without a command, `serve` runs.

Examples:
  inflightd                                    start the daemon
  inflightd tools                              what it offers
  inflightd call analyze '{\"text\": \"test\"}'    call a tool
  inflightd shim                               what an MCP client starts

An MCP client's configuration:
  {\"mcpServers\": {\"inflightd\": {\"command\": \"inflightd\", \"args\": [\"shim\"]}}}")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`, for when no command is named.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    #[command(after_long_help = crate::config::keys::help())]
    Serve(ServeArgs),
    /// Connect a client's stdin and stdout to the daemon: what an MCP client starts
    Shim(shim::ShimArgs),
    /// Call a tool: result on stdout, progress on stderr
    Call(call::CallArgs),
    /// List the tools
    Tools(tools::ToolsArgs),
    /// Show what the daemon counts
    Stats(stats::StatsArgs),
    /// Look at a flow's file: what is wrong with it, what its graph is
    Flow(flow::FlowArgs),
    /// Take over the MCP servers of other clients, and have those start the shim: says what it would do
    Import(import::ImportArgs),
    /// Make a token for a principal, and say what to put where
    Token(token::TokenArgs),
    /// Ask the daemon what is wrong and what to do: timeouts, providers, clients, limits
    Doctor(doctor::DoctorArgs),
    /// Ask whether the daemon is well: exit code 0 or 1
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print a shell's completions
    Completions(manual::CompletionsArgs),
    /// Print the manual page, of the whole or of a command
    Man(manual::ManArgs),
    /// Guard one module's processes: what the daemon starts, and nobody else
    #[command(hide = true)]
    Guard,
}

/// Flags of `serve`. As texts: the configuration checks them with everything else and reports every problem
/// at once.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address of all doors [default: 127.0.0.1:8079]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Configuration file [default: inflightd.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Prompt tools to serve instead of the built-in ones (TOML)
    #[arg(long, value_name = "FILE")]
    pub tools_file: Option<PathBuf>,
    /// Flows at work, at most [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_workers: Option<u32>,
    /// Flows that wait for a place, at most [default: 20]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: Option<u32>,
    /// End after so many seconds without a connection or a call, as one that `shim --spawn` started does
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub idle_exit_secs: Option<u32>,
    /// Leave the terminal session of whoever started it: what `shim --spawn` adds
    #[arg(long, hide = true)]
    pub background: bool,
}

/// Which daemon.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// The daemon's address, as ws:// or http://
    #[arg(long, env = "INFLIGHTD_URL", hide_env_values = true, default_value = DEFAULT_URL)]
    pub url: String,
    /// The daemon's token; other users of this machine can see flags, so prefer the environment
    #[arg(long, env = "INFLIGHTD_TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Option<Secret>,
    /// A file with the daemon's token, where no token is given
    #[arg(long, env = "INFLIGHTD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

// clap wants a function that can fail.
#[expect(clippy::unnecessary_wraps, reason = "the signature is clap's")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// What the command line says; ends the process where it says nothing that can be done.
///
/// Shims and guards are many and live long: started as they mostly are, they take no page of memory for the flags and
/// helps of all commands.
pub fn parse() -> Cli {
    let words: Vec<_> = std::env::args_os().collect();
    let known: Vec<_> = words.iter().skip(1).map_while(|word| word.to_str()).collect();
    let spawn = known == ["shim", "--spawn"];
    if words.len() == 1 + known.len() {
        if spawn || known == ["shim"] {
            let args = shim::ShimArgs::of_environment(spawn);
            return Cli { command: Some(Command::Shim(args)), serve: ServeArgs::default() };
        }
        if known == ["guard"] {
            return Cli { command: Some(Command::Guard), serve: ServeArgs::default() };
        }
    }
    Cli::parse_from(words)
}

/// Runs one command to its end.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Shim(args) => shim::run(args),
        Command::Call(args) => call::run(&args),
        Command::Tools(args) => tools::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Flow(args) => flow::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Guard => guard::run(),
    }
}

impl ConnectArgs {
    /// As without any flag. What is empty counts as unset.
    fn of_environment() -> Self {
        Self {
            url: env::get("INFLIGHTD_URL").unwrap_or_else(|| DEFAULT_URL.to_owned()),
            token: env::get("INFLIGHTD_TOKEN").map(Secret::new),
            token_file: env::get("INFLIGHTD_TOKEN_FILE").map(PathBuf::from),
        }
    }

    /// The daemon these name; a problem is on stderr already.
    fn endpoint(&self) -> Result<Endpoint, ExitCode> {
        let wrong = |text: String| {
            complain(&text);
            ExitCode::from(EXIT_USAGE)
        };
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => match secret_files::read(path) {
                Ok(token) => Some(Secret::new(token)),
                Err(error) => {
                    let why = format!(
                        "could not take the token from {}: could not {}",
                        path.display(),
                        explain(&error)
                    );
                    return Err(wrong(why));
                }
            },
            (None, None) => None,
        };
        Endpoint::parse(&self.url, token).map_err(|error| wrong(format!("could not {}", explain(&error))))
    }

    /// A connection to it; a problem is on stderr already.
    fn client(&self) -> Result<(Endpoint, Client), ExitCode> {
        let endpoint = self.endpoint()?;
        match Client::connect(&endpoint) {
            Ok(client) => Ok((endpoint, client)),
            Err(error) => Err(report(&endpoint, &error)),
        }
    }
}

/// Says on stderr why there is no result, and what helps.
fn report(endpoint: &Endpoint, error: &ClientError) -> ExitCode {
    complain(&format!("could not {}", explain(error)));
    match error {
        ClientError::Connect(ConnectError::Resolve(_) | ConnectError::Reach(_) | ConnectError::Silent) => {
            complain(&format!("no daemon answers at {endpoint}"));
            complain("start one with `inflightd serve`, or name another with --url or INFLIGHTD_URL");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        ClientError::Connect(
            ConnectError::Unauthorized
            | ConnectError::Forbidden
            | ConnectError::Busy
            | ConnectError::NotADaemon { .. }
            | ConnectError::Handshake(_),
        )
        | ClientError::Lost(_)
        | ClientError::TimedOut => {
            complain(&format!("the daemon was asked at {endpoint}"));
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        ClientError::Refused { .. } | ClientError::Answer(_) | ClientError::Endless => ExitCode::FAILURE,
    }
}

/// One line on stderr. Nobody may read it, which is no reason to fail.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "inflightd: {text}");
}

/// Text and a line break on stdout. A reader that has seen enough is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("could not write to stdout: {error}"));
            ExitCode::from(EXIT_IO)
        }
    }
}

/// Rows of two columns, the first one padded.
fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let lines: Vec<_> =
        rows.iter().map(|(left, right)| format!("{left:<width$}  {right}").trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve_with_its_flags() {
        let cli = Cli::try_parse_from(["inflightd", "--listen", "127.0.0.1:0"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.listen.as_deref(), Some("127.0.0.1:0"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let cli = Cli::try_parse_from(["inflightd", "tools", "--token", "sesame"]).unwrap();
        assert!(!format!("{cli:?}").contains("sesame"));
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [("a".to_owned(), "x".to_owned()), ("long".to_owned(), String::new())];
        assert_eq!(table(&rows), "a     x\nlong");
    }
}
