//! `inflightd import`: takes the MCP servers of clients over into a file of the daemon's, and has the clients start the
//! shim instead. It asks no daemon, and writes nothing unless it is told to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{EXIT_USAGE, complain, print};
use crate::client::endpoint::DEFAULT_URL;
use crate::client::explain;
use crate::config::env;

mod convert;
mod document;
mod files;
mod places;
mod plan;

use places::{Place, Roots};
use plan::{Fate, Plan, Planned, Shim};

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at Claude Desktop, Claude Code, Cursor, VS Code and Windsurf. Without --write it says what it \
would do. Ends with 0, or with 1 where a file is left alone because something is wrong with it."
)]
pub struct ImportArgs {
    /// Write the servers file
    #[arg(long)]
    write: bool,
    /// Also rewrite the clients: what was taken over goes, `inflightd shim` comes
    #[arg(long, requires = "write")]
    rewrite: bool,
    /// Put each client's newest backup back
    #[arg(long, conflicts_with_all = ["write", "rewrite", "skip"])]
    restore: bool,
    /// The servers file [default: `inflightd/mcp_servers.json` in the folder of configurations]
    #[arg(long, value_name = "FILE", env = "MCP_SERVERS_FILE")]
    output: Option<PathBuf>,
    /// Leave servers of this name with their clients; may be given several times
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Also look at the files of a project: .mcp.json, .cursor/mcp.json, .vscode/mcp.json
    #[arg(long, value_name = "FOLDER")]
    project: Option<PathBuf>,
}

/// Imports.
pub fn run(args: &ImportArgs) -> ExitCode {
    let Some(home) = env::get("HOME").or_else(|| env::get("USERPROFILE")).map(PathBuf::from) else {
        complain("could not find the home folder: set HOME");
        return ExitCode::from(EXIT_USAGE);
    };
    let project = match args.project.as_ref().map(|folder| folder.canonicalize()).transpose() {
        Ok(project) => project,
        Err(error) => {
            complain(&format!("could not find the folder of the project: {error}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let config = env::get("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    let output = args.output.clone().unwrap_or_else(|| config.join("inflightd").join("mcp_servers.json"));
    let output = std::path::absolute(&output).unwrap_or(output);
    // A link stays one, and leads to what is written.
    let output = output.canonicalize().unwrap_or(output);
    let claude = env::get("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let mut places = places::find(&Roots { home, config, claude, project });
    places.retain(|place| place.path != output);
    if args.restore {
        return restore(&places);
    }
    match plan::plan(places, &output, &shim(), &args.skip) {
        Ok(plan) => carry_out(args, &plan),
        Err(error) => {
            complain(&format!("could not {}", explain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// As clients start it: by its whole path, since those that a desktop starts have a short PATH.
fn shim() -> Shim {
    let program = std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned));
    let url = env::get("INFLIGHTD_URL").filter(|url| url != DEFAULT_URL);
    let of = |name, value: Option<String>| value.map(|value| (name, value));
    let env = [of("INFLIGHTD_URL", url), of("INFLIGHTD_TOKEN_FILE", env::get("INFLIGHTD_TOKEN_FILE"))];
    Shim {
        command: program.unwrap_or_else(|| "inflightd".to_owned()),
        env: env.into_iter().flatten().collect(),
    }
}

fn carry_out(args: &ImportArgs, plan: &Plan) -> ExitCode {
    let mut out: Vec<String> = plan.files.iter().map(shown).collect();
    if plan.files.is_empty() {
        out.push("No client's configuration was found.".to_owned());
    }
    let mut well = plan.files.iter().all(|file| file.fault.is_none());
    let servers = count(plan.added, "server");
    let output = plan.output.display();
    let clients: Vec<_> = plan.files.iter().filter(|file| file.after.is_some()).collect();
    if !args.write {
        out.push(format!("\nNothing was written. --write would add {servers} to {output}."));
        if !clients.is_empty() {
            let files = count(clients.len(), "file");
            out.push(format!(
                "--write --rewrite would also have {files} of clients start `inflightd shim` instead."
            ));
        }
        return ended(&out, well);
    }
    out.push(String::new());
    if plan.added == 0 {
        out.push(format!("{output} stays as it is."));
    } else {
        match files::replace(&plan.output, plan.output_before.as_deref(), &plan.output_after) {
            Ok(backup) => out.push(wrote(&format!("{servers} added to {output}"), backup)),
            Err(error) => {
                complain(&error.to_string());
                // No client gives up a server that is in no file of ours.
                return ended(&out, false);
            }
        }
    }
    for file in clients.into_iter().filter(|_| args.rewrite) {
        let (path, after) = (&file.place.path, file.after.as_deref().unwrap_or_default());
        match files::replace(path, Some(&file.before), after) {
            Ok(backup) => out.push(wrote(&format!("{} rewritten", path.display()), backup)),
            Err(error) => {
                complain(&error.to_string());
                well = false;
            }
        }
    }
    out.push(format!("The daemon reads it where MCP_SERVERS_FILE={output} is set."));
    ended(&out, well)
}

fn wrote(what: &str, backup: Option<PathBuf>) -> String {
    match backup {
        Some(backup) => format!("{what}; as it was: {}", backup.display()),
        None => what.to_owned(),
    }
}

fn shown(file: &Planned) -> String {
    let mut out = format!("{}  {}", file.place.client.name(), file.place.path.display());
    let rows: Vec<_> =
        file.entries.iter().map(|(name, fate)| (name.escape_debug().to_string(), fate)).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, fate) in rows {
        let line = match fate {
            Fate::Added(as_name) => format!("  + {name:<width$}  → {as_name}"),
            Fate::There(as_name) => format!("  = {name:<width$}  is there already as {as_name}"),
            Fate::Stays(why) => format!("  - {name:<width$}  stays: {why}"),
        };
        out.push('\n');
        out.push_str(&line);
    }
    if let Some(fault) = &file.fault {
        out.push_str("\n  ! ");
        out.push_str(fault);
        out.push_str("; it is left alone");
    }
    out
}

fn restore(places: &[Place]) -> ExitCode {
    let (mut out, mut well) = (Vec::new(), true);
    for place in places {
        match files::restore(&place.path) {
            Ok(Some(undone)) => {
                out.push(format!("{} is as it was; until now: {}", place.path.display(), undone.display()));
            }
            Ok(None) => {}
            Err(error) => {
                complain(&error.to_string());
                well = false;
            }
        }
    }
    if out.is_empty() && well {
        out.push("There is no backup of any client's file.".to_owned());
    }
    ended(&out, well)
}

fn ended(out: &[String], well: bool) -> ExitCode {
    let printed = print(&out.join("\n"));
    if printed == ExitCode::SUCCESS && !well { ExitCode::FAILURE } else { printed }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
