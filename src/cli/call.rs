//! `inflightd call TOOL [JSON]`: one tool call from a script or by hand.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::value::RawValue;

use crate::cli::result::ToolResult;
use crate::cli::{ConnectArgs, EXIT_USAGE, complain, print, report};
use crate::client::{Call, ClientError, Progress, explain};

/// The daemon gets so much longer than `--timeout`, to say itself that time is up.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Flags of `call`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  inflightd call echo '{\"text\": \"hello\"}'
  inflightd call analyze @request.json
  jq -n --rawfile text main.rs '{text: $text}' | inflightd call analyze -
  inflightd call --json version

Exit codes: 0 success, 1 the tool failed, 2 wrong usage, 69 no daemon.")]
pub struct CallArgs {
    /// The tool's name, as `inflightd tools` lists it
    tool: String,
    /// Its arguments, a JSON object; `-` reads stdin, `@FILE` a file
    #[arg(value_name = "JSON", default_value = "{}")]
    arguments: String,
    /// How long the call may take
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// Print the whole result, as the daemon sent it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Why the arguments cannot be sent.
#[derive(Debug, thiserror::Error)]
enum ArgumentsError {
    #[error("read the arguments from {from}")]
    Read { from: String, source: io::Error },
    #[error("read the arguments: they are no JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("use the arguments: they must be a JSON object, such as '{{\"text\": \"hello\"}}'")]
    NotAnObject,
}

/// Calls the tool and shows what it says.
pub fn run(args: &CallArgs) -> ExitCode {
    let arguments = match arguments(&args.arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            complain(&format!("could not {}", explain(&error)));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let (endpoint, mut client) = match args.connect.client() {
        Ok(connected) => connected,
        Err(code) => return code,
    };
    let timeout = args.timeout.map(|secs| Duration::from_secs(secs.into()));
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout + ANSWER_GRACE));
    let call = Call { tool: &args.tool, arguments: &arguments, timeout };
    let mut meter = Meter::new();
    let result = client.call(&call, until, &mut |progress| meter.show(progress));
    meter.clear();
    match result {
        Ok(result) => show(&result, args.json),
        Err(error) => report(&endpoint, &error),
    }
}

fn arguments(given: &str) -> Result<Box<RawValue>, ArgumentsError> {
    let text = match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|source| ArgumentsError::Read { from: file.to_owned(), source })?,
        None if given == "-" => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .read_to_string(&mut text)
                .map_err(|source| ArgumentsError::Read { from: "stdin".to_owned(), source })?;
            text
        }
        None => given.to_owned(),
    };
    let value: Box<RawValue> = serde_json::from_str(&text).map_err(ArgumentsError::NotJson)?;
    if value.get().starts_with('{') { Ok(value) } else { Err(ArgumentsError::NotAnObject) }
}

fn show(raw: &RawValue, json: bool) -> ExitCode {
    let result = match ToolResult::read(raw) {
        Ok(result) => result,
        Err(error) => {
            complain(&format!("could not {}", explain(&ClientError::Answer(error))));
            return ExitCode::FAILURE;
        }
    };
    let printed = if json { print(raw.get()) } else { ExitCode::SUCCESS };
    if result.is_error() {
        if !json {
            complain(&result.text());
        }
        if let Some(advice) = result.advice() {
            complain(&advice);
        }
        return ExitCode::FAILURE;
    }
    if json {
        return printed;
    }
    if let Some(unseen) = result.unseen() {
        complain(&format!("not shown: {unseen}; --json prints everything"));
    }
    print(&result.text())
}

/// Progress on stderr: one line that changes on a terminal, lines otherwise.
struct Meter {
    terminal: bool,
    shown: bool,
}

impl Meter {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, progress: &Progress) {
        self.shown = true;
        let text = described(progress);
        // Progress that nobody sees is no reason to fail.
        let _ = if self.terminal {
            write!(io::stderr(), "\r\x1b[K{text}")
        } else {
            writeln!(io::stderr(), "{text}")
        };
    }

    fn clear(&self) {
        if self.terminal && self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// `3/10 reading`. Control characters are left out: a tool must not steer the terminal.
fn described(progress: &Progress) -> String {
    let total = progress.total.map(|total| format!("/{total}")).unwrap_or_default();
    let message = progress.message.as_deref().unwrap_or_default();
    let text = format!("{}{total} {message}", progress.progress);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_bytes_and_must_be_an_object() {
        let raw = arguments(" {\"n\": 18446744073709551616, \"a\":1.0} ").unwrap();
        assert_eq!(raw.get(), "{\"n\": 18446744073709551616, \"a\":1.0}");
        assert!(matches!(arguments("[]"), Err(ArgumentsError::NotAnObject)));
        assert!(matches!(arguments("{"), Err(ArgumentsError::NotJson(_))));
        assert!(matches!(arguments("@/no/such/file"), Err(ArgumentsError::Read { .. })));
    }

    #[test]
    fn progress_is_one_harmless_line() {
        let progress = Progress { progress: 3.0, total: Some(10.0), message: Some("a\n\x1b[2Jb".to_owned()) };
        assert_eq!(described(&progress), "3/10 a  [2Jb");
    }
}
