//! The pages of `docs/` say what the code does, and what they show parses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test ends at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use inflightd::cli::Cli;
use inflightd::config::{Sources, resolve};

const OPERATIONS: &str = include_str!("../docs/operations.md");
const CLIENTS: &str = include_str!("../docs/clients.md");
/// Lines whose text stands elsewhere: in constants, or with what they warn about.
const IN_CONSTANTS: [(&str, &str); 2] =
    [("info", "Validating timeout hierarchy..."), ("info", "Timeout hierarchy validated: …")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Files of a folder and of those in it, that end so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Everything that a user reads.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), ".md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages
}

/// Fenced blocks of a language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&*fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The text of an event: the first literal that is an argument of its own. What is filled in becomes `…`.
fn text(arguments: &str) -> Option<String> {
    let mut depth = 0;
    let mut characters = arguments.chars();
    let mut found = String::new();
    while let Some(character) = characters.next() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => return None,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                while let Some(next) = characters.next() {
                    match next {
                        '"' => break,
                        // Only continued lines are escaped there.
                        '\\' => {
                            while matches!(characters.clone().next(), Some(space) if space.is_whitespace()) {
                                characters.next();
                            }
                        }
                        _ => literal.push(next),
                    }
                }
                if depth == 0 {
                    found = literal;
                    break;
                }
            }
            _ => {}
        }
    }
    let mut shown = String::new();
    let mut rest = &*found;
    while let Some((before, after)) = rest.split_once('{') {
        shown.push_str(before);
        shown.push('…');
        rest = after.split_once('}').unwrap().1;
    }
    Some((shown + rest).replace("`…`", "…"))
}

/// Each line that the code can log, but for those of tests.
fn logged() -> BTreeSet<(String, String)> {
    let mut found: BTreeSet<_> =
        IN_CONSTANTS.iter().map(|(level, text)| ((*level).to_owned(), (*text).to_owned())).collect();
    for path in files(&root().join("src"), ".rs") {
        let code = fs::read_to_string(&path).unwrap();
        for level in ["info", "warn", "error"] {
            for arguments in code.split(&format!("tracing::{level}!(")).skip(1) {
                let text =
                    text(arguments).unwrap_or_else(|| panic!("{}: an event without a text", path.display()));
                if text != "…" {
                    found.insert((level.to_owned(), text));
                }
            }
        }
    }
    found
}

#[test]
fn the_operations_page_explains_every_line_of_the_log_and_no_other() {
    let (_, table) = OPERATIONS.split_once("\n| level | line | means | do |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let explained: BTreeSet<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
            (cells[0].to_owned(), cells[1].trim_matches('`').to_owned())
        })
        .collect();
    let logged = logged();
    let missing: Vec<_> = logged.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&logged).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/operations.md needs a row for each of {missing:#?}, and none for {gone:#?}"
    );
}

#[test]
fn every_snippet_of_the_clients_page_starts_the_shim() {
    let mut seen = 0;
    for block in blocks(CLIENTS, "json") {
        let whole: serde_json::Value =
            serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}:\n{block}"));
        let servers = whole.get("mcpServers").or_else(|| whole.get("servers")).unwrap();
        starts_the_shim(&servers["inflightd"], block);
        seen += 1;
    }
    for block in blocks(CLIENTS, "toml") {
        let whole: serde_json::Value =
            toml::from_str(block).unwrap_or_else(|error| panic!("{error}:\n{block}"));
        starts_the_shim(&whole["mcp_servers"]["inflightd"], block);
        seen += 1;
    }
    for line in blocks(CLIENTS, "sh") {
        if let Some((_, command)) = line.split_once(" -- ") {
            Cli::try_parse_from(command.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        } else {
            let json = line.split('\'').nth(1).unwrap();
            starts_the_shim(&serde_json::from_str(json).unwrap(), line);
        }
        seen += 1;
    }
    for client in ["Claude Desktop", "Claude Code", "Cursor", "VS Code", "Codex", "Windsurf"] {
        let (_, section) = CLIENTS.split_once(&format!("\n## {client}\n")).expect(client);
        assert!(section.split("\n## ").next().unwrap().contains("```"), "{client} has a snippet");
    }
    assert!(seen >= 11, "{seen}");
}

fn starts_the_shim(server: &serde_json::Value, shown: &str) {
    let mut words = vec![server["command"].as_str().unwrap_or_else(|| panic!("no command:\n{shown}"))];
    words.extend(server["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
    assert_eq!(words[..2], ["inflightd", "shim"], "{shown}");
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{shown}: {error}"));
    for name in server.get("env").into_iter().flat_map(|env| env.as_object().unwrap().keys()) {
        assert!(["INFLIGHTD_URL", "INFLIGHTD_TOKEN", "INFLIGHTD_TOKEN_FILE"].contains(&&**name), "{name}");
    }
}

#[test]
fn every_piece_of_configuration_that_the_pages_show_holds() {
    let page = include_str!("../docs/configuration.md");
    let pieces = blocks(page, "toml");
    assert!(pieces.len() >= 4, "{}", pieces.len());
    for piece in pieces {
        // What `inflightd token new` would print there.
        let filled = piece.replace("blake3:…", &format!("blake3:{}", "5a".repeat(32)));
        let toml = toml::from_str(&filled).unwrap_or_else(|error| panic!("{error}:\n{piece}"));
        let sources = Sources { toml, working_folder: root(), ..Sources::default() };
        if let Err(problems) = resolve(sources) {
            panic!("{problems:#?}:\n{piece}");
        }
    }
}

#[test]
fn all_json_that_the_pages_show_is_json() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in blocks(&text, "json") {
            // One value, or one a line.
            let mut values = serde_json::Deserializer::from_str(block).into_iter::<serde_json::Value>();
            assert!(values.all(|value| value.is_ok()), "{}:\n{block}", page.display());
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// Words as a shell parts them, as far as the pages quote.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn every_command_line_of_every_page_parses() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in blocks(&text, "sh").into_iter().flat_map(str::lines) {
            let command = line.trim().trim_start_matches("cargo run --release -- ");
            let is_ours =
                line.trim().starts_with("cargo run --release -- ") || command.starts_with("inflightd ");
            if !is_ours {
                continue;
            }
            let command = command.trim_start_matches("inflightd ");
            let command =
                command.split(" #").next().unwrap().split(" > ").next().unwrap().split(" | ").next().unwrap();
            let mut arguments = words(command);
            arguments.insert(0, "inflightd".to_owned());
            Cli::try_parse_from(arguments)
                .unwrap_or_else(|error| panic!("{}: {line}: {error}", page.display()));
            checked += 1;
        }
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn no_link_between_pages_is_broken() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let there = fs::read_to_string(&target).unwrap();
                let titles = there.lines().filter(|line| line.starts_with('#'));
                let mut anchors = titles.map(|line| {
                    let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                    title
                        .chars()
                        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
                        .collect::<String>()
                });
                assert!(anchors.any(|title| title == anchor), "{}: {link}", page.display());
            }
        }
    }
}
