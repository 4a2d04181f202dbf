//! The README and the protocol page say what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test ends at the first surprise"
)]

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};
use inflightd::call::Code;
use inflightd::cli::Cli;
use inflightd::config::{Config, FlowsConfig, Sources, resolve};
use inflightd::provider::catalog::Catalog;
use inflightd::provider::flow::folder::Site;
use inflightd::tool::{Registry, flow, prompt};

const README: &str = include_str!("../README.md");
const PROTOCOL: &str = include_str!("../docs/protocol.md");

fn registry() -> Registry {
    let config = resolve(Sources::default()).unwrap().config;
    let declared = prompt::parse(prompt::BUILT_IN).unwrap();
    let mut registry = Registry::new(Catalog::new(&config).unwrap(), &declared, &config.ladder).unwrap();
    // Those that are there as soon as somebody configures them.
    let work = env!("CARGO_TARGET_TMPDIR").into();
    let flows = FlowsConfig { folders: vec![".".into()], work, work_is_set: true, ..config.flows.clone() };
    let site = Site::open(&flows).unwrap();
    flow::offer(&mut registry, &Config { flows, ..config.clone() }, site, &config.ladder).unwrap();
    registry
}

/// The first cells of the table under a heading.
fn first_cells(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) =
        document.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

#[test]
fn the_readme_lists_every_tool_with_its_effect_and_no_other() {
    let listed: BTreeSet<_> =
        first_cells(README, "Tools").into_iter().map(|cells| (cells[0].clone(), cells[1].clone())).collect();
    let there: BTreeSet<_> = registry()
        .tools()
        .iter()
        .map(|tool| (tool.name.to_string(), tool.effect.label().to_owned()))
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn the_readme_lists_every_command_and_no_other() {
    let listed: BTreeSet<_> = first_cells(README, "Commands")
        .into_iter()
        .map(|cells| cells[0].split_whitespace().nth(1).unwrap().to_owned())
        .collect();
    let there: BTreeSet<_> = Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .filter(|name| name != "help")
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn every_command_line_of_the_readme_parses() {
    let lines = README.lines().filter_map(|line| line.split("  #").next());
    let mut checked = 0;
    for line in lines {
        let words =
            line.trim().strip_prefix("cargo run --release -- ").map(|rest| format!("inflightd {rest}"));
        let Some(words) = words else { continue };
        // The shell's quotes, as far as the README uses them.
        let (plain, quoted) =
            words.split_once('\'').map_or((&*words, None), |(plain, rest)| (plain, rest.split('\'').next()));
        let arguments = plain.split_whitespace().chain(quoted);
        Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line}: {error}"));
        checked += 1;
    }
    assert!(checked >= 2, "the README shows commands");
}

#[test]
fn the_protocol_page_lists_every_error_code_and_no_other() {
    let listed: BTreeSet<_> =
        first_cells(PROTOCOL, "Error codes").into_iter().map(|cells| cells[0].clone()).collect();
    let there: BTreeSet<_> = Code::ALL.into_iter().map(|code| code.label().to_owned()).collect();
    assert_eq!(listed, there);
}
