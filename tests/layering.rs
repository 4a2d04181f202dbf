//! What a compiler does not hold: dependencies between the families of `src/` point down one list, files stay
//! short, and what has one home stays there.

#![expect(
    clippy::expect_used,
    reason = "the sources of this very crate are read: failing loudly is the test"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Families, top to bottom. A family is `src/NAME.rs` with everything under `src/NAME/`; it uses itself and
/// what stands on a lower line. Families of one line use one another only where the line says so.
const ORDER: &[Line] = &[
    Line::Apart(&["main"]),
    Line::Apart(&["lib"]),
    Line::Apart(&["cli"]),
    Line::Apart(&["app"]),
    Line::Apart(&["listener"]),
    Line::Apart(&["session"]),
    Line::Apart(&["http"]),
    Line::Apart(&["door"]),
    Line::Apart(&["shim"]),
    Line::Apart(&["client"]),
    Line::Apart(&["proto"]),
    Line::Apart(&["clients"]),
    Line::Apart(&["health"]),
    Line::Apart(&["call"]),
    Line::Apart(&["tool"]),
    Line::Apart(&["provider"]),
    Line::Apart(&["run"]),
    Line::Together(&["lifecycle", "telemetry", "tasks"]),
    Line::Apart(&["config"]),
    Line::Apart(&["submit"]),
    Line::Apart(&["ids", "deadline", "phase", "rate"]),
    Line::Apart(&["sync"]),
];

/// The longest a source file may be, its tests counted.
const LONGEST_FILE_LINES: usize = 500;

/// Where the map of flights lives: a reference into it must not reach any other file.
const HOME_OF_DASHMAP: &str = "src/call/flights.rs";

/// One rank.
enum Line {
    /// Its families do not use one another.
    Apart(&'static [&'static str]),
    /// Its families may use one another.
    Together(&'static [&'static str]),
}

impl Line {
    fn families(&self) -> &'static [&'static str] {
        match self {
            Self::Apart(families) | Self::Together(families) => families,
        }
    }
}

/// One file of `src/`, with what is not code blanked out and its lines kept.
struct Source {
    path: String,
    family: String,
    /// How many modules deep: 1 for `src/call.rs`, 2 for `src/call/key.rs`.
    depth: usize,
    text: String,
    code: String,
}

#[test]
fn dependencies_point_down_the_list() {
    let mut wrong = String::new();
    for source in sources() {
        for (line, used) in uses(&source) {
            if let Err(why) = may_use(&source.family, &used) {
                let _ = writeln!(wrong, "{}:{line}: {why}", source.path);
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies point down the list ORDER in tests/layering.rs only:\n{wrong}");
}

#[test]
fn every_family_has_a_rank() {
    let unranked: Vec<_> = sources()
        .into_iter()
        .filter(|source| rank(&source.family).is_none())
        .map(|source| source.path)
        .collect();
    assert!(
        unranked.is_empty(),
        "give the family of each of these a rank in ORDER, tests/layering.rs: {unranked:?}"
    );
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.path.clone(), source.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE_LINES} lines: {long:?}");
}

#[test]
fn nothing_is_printed_past_the_writer_that_owns_the_stream() {
    let macros = ["println", "print", "dbg"];
    let found = places(|code| {
        let name = code.find(|c: char| !is_word(c)).map_or(code, |end| &code[..end]);
        macros.contains(&name) && code[name.len()..].starts_with('!')
    });
    assert!(
        found.is_empty(),
        "stdout is the protocol's in the shim; write to a handle that was passed in: {found:?}"
    );
}

#[test]
fn dashmap_is_named_in_its_home_only() {
    let found = places(|code| code.to_ascii_lowercase().starts_with("dashmap"));
    let strays: Vec<_> = found.iter().filter(|place| !place.starts_with(HOME_OF_DASHMAP)).collect();
    assert!(strays.is_empty(), "DashMap lives in {HOME_OF_DASHMAP}, which returns owned values: {strays:?}");
}

/// The rules of reading, on a text that tries to mislead them.
#[test]
fn only_code_counts_as_a_use() {
    let text = r##"
        //! crate::app
        use crate::{config::{self, Ladder}, ids};
        /* crate::cli /* nested */ crate::cli */
        fn f<'a>(x: &'a str) -> char { let _ = "crate::http \" crate::http"; let _ = r#"crate::" "shim"#; '"' }
        fn g() { super::super::tool::x(); super::sibling(); crate::call::go(); not_crate::proto::x(); }
        #[cfg(test)]
        mod tests { use crate::listener::{A, B}; fn h() { let _ = "}"; } }
        fn i() { crate :: phase :: x() }
    "##;
    let source = Source {
        path: "src/call/x.rs".into(),
        family: "call".into(),
        depth: 2,
        text: text.into(),
        code: without_tests(&without_text(text)),
    };
    let families: Vec<_> = uses(&source).into_iter().map(|(_, family)| family).collect();
    assert_eq!(families, ["config", "ids", "tool", "call", "phase"]);
    assert_eq!(uses(&source).first().map(|(line, _)| *line), Some(3));
}

#[test]
fn a_use_is_judged_by_rank() {
    assert!(may_use("call", "call").is_ok());
    assert!(may_use("call", "provider").is_ok());
    assert!(may_use("lifecycle", "telemetry").is_ok());
    assert!(may_use("provider", "call").is_err());
    assert!(may_use("ids", "phase").is_err());
    let unknown = may_use("call", "surprise").expect_err("it has no rank");
    assert!(unknown.contains("give `surprise` a rank"), "{unknown}");
}

fn rank(family: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.families().contains(&family))
}

fn may_use(user: &str, target: &str) -> Result<(), String> {
    if user == target {
        return Ok(());
    }
    let unknown = |family: &str| format!("give `{family}` a rank in ORDER, tests/layering.rs");
    let above = rank(user).ok_or_else(|| unknown(user))?;
    let below = rank(target).ok_or_else(|| unknown(target))?;
    let together = matches!(ORDER.get(above), Some(Line::Together(_)));
    if below > above || (below == above && together) {
        Ok(())
    } else {
        Err(format!("`{user}` uses `{target}`, which does not stand below it"))
    }
}

/// Each use of a family in a file: its line and the family, in order.
fn uses(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(root) = next_root(source, at) {
        at = root;
        let line = 1 + code[..root].matches('\n').count();
        found.extend(named_at(&code[root..]).into_iter().map(|family| (line, family)));
    }
    found
}

/// Where the next path that starts at the crate's root has its first name, after `from`.
fn next_root(source: &Source, from: usize) -> Option<usize> {
    let code = &source.code;
    let mut at = from;
    loop {
        let start = at + code[at..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |length| start + length);
        at = end;
        let Some(after) = after_colons(code, end) else { continue };
        match &code[start..end] {
            "crate" => return Some(after),
            // The command is another crate than the library.
            "inflightd" if source.family == "main" => return Some(after),
            "super" => {
                let (mut ups, mut here) = (1, after);
                while let Some(next) =
                    code[here..].strip_prefix("super").and_then(|_| after_colons(code, here + 5))
                {
                    ups += 1;
                    here = next;
                }
                at = here;
                if ups == source.depth {
                    return Some(here);
                }
            }
            _ => {}
        }
    }
}

/// Past `::` and the blanks around it.
fn after_colons(code: &str, at: usize) -> Option<usize> {
    let rest = code[at..].trim_start().strip_prefix("::")?.trim_start();
    Some(code.len() - rest.len())
}

/// The first names of a path or of a `{…}` group of paths.
fn named_at(code: &str) -> Vec<String> {
    let first = |text: &str| text.trim_start().split(|c| !is_word(c)).next().unwrap_or_default().to_owned();
    let Some(group) = code.strip_prefix('{') else { return vec![first(code)] };
    let (mut depth, mut item, mut items) = (0_usize, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {
                depth = if c == '{' { depth + 1 } else { depth - usize::from(c == '}') };
                item.push(c);
            }
        }
    }
    items.push(item);
    items.iter().map(|item| first(item)).filter(|name| !name.is_empty()).collect()
}

/// `FILE:LINE` of each word of code outside of tests at which `is_it` holds.
fn places(is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        let starts = source.code.char_indices().scan(' ', |before, (at, c)| {
            let starts = is_word(c) && !is_word(*before);
            *before = c;
            Some((at, starts))
        });
        for (at, _) in starts.filter(|(_, starts)| *starts) {
            if is_it(&source.code[at..]) {
                found.push(format!("{}:{}", source.path, 1 + source.code[..at].matches('\n').count()));
            }
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files.iter().map(|file| read(&root, file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of src/ can be read") {
        let path = entry.expect("an entry of src/ can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let text = fs::read_to_string(file).expect("a file of src/ can be read");
    let inside = file.strip_prefix(root).expect("it was found under src/").with_extension("");
    let names: Vec<_> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let is_tests = names.len() > 1 && names.last().is_some_and(|name| name == "tests");
    let code = if is_tests { String::new() } else { without_tests(&without_text(&text)) };
    Source {
        path: format!("src/{}.rs", names.join("/")),
        family: names.first().cloned().unwrap_or_default(),
        depth: names.len(),
        text,
        code,
    }
}

/// The same text with comments, strings and characters blanked out, lines kept.
fn without_text(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = code.chars().next_back().is_some_and(is_word);
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_length(rest),
            '"' => string_length(rest),
            'r' if !after_word => raw_string_length(rest),
            'b' if !after_word && rest.starts_with("br") => {
                let raw = raw_string_length(&rest[1..]);
                if raw == 0 { 0 } else { raw + 1 }
            }
            '\'' => character_length(rest),
            _ => 0,
        };
        let (gone, left) = rest.split_at(if skipped == 0 { c.len_utf8() } else { skipped });
        if skipped == 0 {
            code.push(c);
        } else {
            code.push(' ');
            code.extend(gone.chars().filter(|c| *c == '\n'));
        }
        rest = left;
    }
    code
}

/// Block comments nest.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// 0 where no raw string starts: `r` may be any name's letter.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let Some(body) = text[1 + hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len())
}

/// 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(0, |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The same code with each `#[cfg(test)]` module blanked out.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, tests) = rest.split_at(at);
        kept.push_str(before);
        let length = item_length(tests);
        kept.extend(tests[..length].chars().filter(|c| *c == '\n'));
        rest = &tests[length..];
    }
    kept.push_str(rest);
    kept
}

/// To the `;` or the closing brace that ends an item.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    code.len()
}
