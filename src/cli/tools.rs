//! `inflightd tools`: what the daemon offers.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::{ConnectArgs, print, report, table};
use crate::client::ClientError;

/// Flags of `tools`.
#[derive(Debug, Args)]
pub struct ToolsArgs {
    /// Print the whole descriptions, one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    #[serde(default)]
    description: String,
}

/// Lists the tools.
pub fn run(args: &ToolsArgs) -> ExitCode {
    let (endpoint, mut client) = match args.connect.client() {
        Ok(connected) => connected,
        Err(code) => return code,
    };
    let shown = client.tools().and_then(|tools| if args.json { Ok(array(&tools)) } else { rows(&tools) });
    match shown {
        Ok(text) => print(&text),
        Err(error) => report(&endpoint, &error),
    }
}

fn array(tools: &[Box<RawValue>]) -> String {
    let tools: Vec<&str> = tools.iter().map(|tool| tool.get()).collect();
    format!("[{}]", tools.join(","))
}

fn rows(tools: &[Box<RawValue>]) -> Result<String, ClientError> {
    let mut rows = Vec::with_capacity(tools.len());
    for tool in tools {
        let Tool { name, description } = serde_json::from_str(tool.get()).map_err(ClientError::Answer)?;
        rows.push((name, description.lines().next().unwrap_or_default().to_owned()));
    }
    Ok(table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_its_name_and_the_first_line_of_what_it_does() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let tools = [raw(r#"{"name":"a","description":"First.\nSecond."}"#), raw(r#"{"name":"bcd"}"#)];
        assert_eq!(rows(&tools).unwrap(), "a    First.\nbcd");
        assert!(array(&tools).starts_with(r#"[{"name":"a""#));
    }
}
