//! `inflightd flow`: looks at the file of a flow, without any daemon.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::{EXIT_USAGE, complain, print};
use crate::provider::flow::file::{self, ReadError};
use crate::provider::flow::{Flow, Problem, draw, format};

/// Flags of `flow`.
#[derive(Debug, Args)]
pub struct FlowArgs {
    #[command(subcommand)]
    command: FlowCommand,
}

/// What to do with a flow.
#[derive(Debug, Subcommand)]
enum FlowCommand {
    /// Say everything that is wrong with a flow's file: exit code 0 or 1
    Check(FileArgs),
    /// Print a flow's graph: each node behind those that it waits for
    Draw(FileArgs),
}

/// Which flow.
#[derive(Debug, Args)]
struct FileArgs {
    /// The flow, as the editor saved it
    file: PathBuf,
}

/// Looks at a flow.
pub fn run(args: &FlowArgs) -> ExitCode {
    let (FlowCommand::Check(asked) | FlowCommand::Draw(asked)) = &args.command;
    let flow = match read(&asked.file) {
        Ok(flow) => flow,
        Err(Unread::Problems(problems)) => {
            // What is wrong is what `check` was asked for; to `draw` it is an error.
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            match &args.command {
                FlowCommand::Check(_) => {
                    let printed = print(&lines.join("\n"));
                    return if printed == ExitCode::SUCCESS { ExitCode::FAILURE } else { printed };
                }
                FlowCommand::Draw(_) => lines.iter().for_each(|line| complain(line)),
            }
            return ExitCode::FAILURE;
        }
        Err(Unread::Io(error)) => {
            complain(&format!("could not read {}: {error}", asked.file.display()));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match &args.command {
        FlowCommand::Check(_) => print(&summary(&flow)),
        FlowCommand::Draw(_) => print(draw::draw(&flow).trim_end()),
    }
}

/// Why there is no flow.
enum Unread {
    Problems(Vec<Problem>),
    Io(std::io::Error),
}

fn read(path: &Path) -> Result<Flow, Unread> {
    // To open a pipe would wait for somebody to write into it.
    if fs::metadata(path).map_err(Unread::Io)?.is_file() {
        let bytes =
            File::open(path).map_err(ReadError::Io).and_then(file::read).map_err(|error| match error {
                ReadError::Problem(problem) => Unread::Problems(vec![problem]),
                ReadError::Io(error) => Unread::Io(error),
            })?;
        return format::parse(&bytes).map_err(Unread::Problems);
    }
    Err(Unread::Problems(vec![Problem::NoFile]))
}

fn summary(flow: &Flow) -> String {
    let count = |what: &str, number: usize| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let chats = flow.nodes().iter().filter(|node| node.kind.chats() && !node.disabled).count();
    let mut text = count("node", flow.nodes().len());
    // Writing to a String cannot fail.
    let _ = write!(text, ", {}", count("connection", flow.links().len()));
    let _ = write!(text, ", at most {}: no problem", count("call", chats));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_flow_is_summed_up() {
        let file = br#"{"nodes": {"a": {"type_": "aicp.flow.ContextOutputNode"}, "b": {"type_": "aicp.flow.OpenAINode"},
            "c": {"type_": "aicp.flow.GeminiNode", "disabled": true}},
            "connections": [{"out": ["a", "text"], "in": ["b", "text"]}]}"#;
        let flow = format::parse(file).unwrap();
        assert_eq!(summary(&flow), "3 nodes, 1 connection, at most 1 call: no problem");
    }
}
