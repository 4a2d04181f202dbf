//! `inflightd stats`: what the daemon counts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::result::ToolResult;
use crate::cli::{ConnectArgs, complain, print, report, table};
use crate::client::{Call, Client, ClientError};

/// Statistics are in the daemon's memory: this only bounds a daemon that hangs.
const BUDGET: Duration = Duration::from_secs(10);

/// Flags of `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Shows the statistics.
pub fn run(args: &StatsArgs) -> ExitCode {
    let (endpoint, mut client) = match args.connect.client() {
        Ok(connected) => connected,
        Err(code) => return code,
    };
    let result = match ask(&mut client, "get_server_stats", BUDGET) {
        Ok(result) => result,
        Err(error) => return report(&endpoint, &error),
    };
    if result.is_error() {
        complain(&result.text());
        return ExitCode::FAILURE;
    }
    match result.data() {
        Some(data) if args.json => print(&data.to_string()),
        Some(data) => {
            let mut rows = Vec::new();
            flatten("", &data, &mut rows);
            print(&table(&rows))
        }
        None => print(&result.text()),
    }
}

/// Calls a built-in tool that takes no arguments.
pub(super) fn ask(client: &mut Client, tool: &str, budget: Duration) -> Result<ToolResult, ClientError> {
    let arguments: &RawValue = serde_json::from_str("{}").map_err(ClientError::Answer)?;
    let call = Call { tool, arguments, timeout: None };
    let raw = client.call(&call, Some(Instant::now() + budget), &mut |_| {})?;
    ToolResult::read(&raw).map_err(ClientError::Answer)
}

/// `{"a": {"b": 1}}` is the row `a.b 1`. A JSON document is read with a bounded depth, so this ends.
fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(name, value)| flatten(&below(name), value, rows));
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(&below(&at.to_string()), item, rows));
        }
        Value::String(text) => rows.push((path.to_owned(), text.clone())),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            rows.push((path.to_owned(), value.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_statistics_become_one_row_for_each_figure() {
        let value = serde_json::json!({"a": {"b": 1, "c": [{"d": "x"}], "e": [1, 2]}});
        let mut rows = Vec::new();
        flatten("", &value, &mut rows);
        assert_eq!(table(&rows), "a.b      1\na.c.0.d  x\na.e      [1,2]");
    }
}
