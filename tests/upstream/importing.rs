//! `inflightd import` on files as clients write them: nothing is lost, backups are exact, twice changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use inflightd::config::jsonc;
use serde_json::Value;

use crate::rig::{Folder, Setup};

const DESKTOP: &str = ".config/Claude/claude_desktop_config.json";
const CODE: &str = ".claude.json";
const CURSOR: &str = ".cursor/mcp.json";
const VSCODE: &str = ".config/Code/User/mcp.json";
const WINDSURF: &str = ".codeium/windsurf/mcp_config.json";
const OURS: &str = ".config/inflightd/mcp_servers.json";

const FILES: [(&str, &str); 5] = [
    (
        DESKTOP,
        "{\n  \"globalShortcut\": \"Ctrl+Space\",\n  \"mcpServers\": {\n    \"filesystem\": {\n      \"command\": \
         \"npx\",\n      \"args\": [\n        \"-y\",\n        \"@modelcontextprotocol/server-filesystem\",\n        \
         \"/home/me/Документы\"\n      ]\n    },\n    \"My GitHub\": {\n      \"command\": \"docker\",\n      \"args\": \
         [\"run\", \"-i\", \"--rm\", \"ghcr.io/github/github-mcp-server\"],\n      \"env\": {\n        \
         \"GITHUB_PERSONAL_ACCESS_TOKEN\": \"ghp_secret\"\n      }\n    }\n  }\n}\n",
    ),
    (
        CODE,
        "{\"numStartups\":184467440737095516160,\"tipsHistory\":{\"x\":1.0e0},\"projects\":{\"/usr\":{\"allowedTools\":\
         [],\"mcpServers\":{\"db\":{\"type\":\"stdio\",\"command\":\"./db-server\",\"args\":[],\"env\":{}}},\
         \"history\":[{\"display\":\"a \\u00e9 {\\\"mcpServers\\\":1}\"}]},\"/gone\":{\"mcpServers\":{}}},\
         \"mcpServers\":{\"sentry\":{\"type\":\"http\",\"url\":\"https://mcp.sentry.dev/mcp\",\"headers\":\
         {\"Authorization\":\"Bearer secret-of-sentry\"}},\"old\":{\"type\":\"sse\",\"url\":\"https://old/sse\"}},\
         \"userID\":\"abc\"}",
    ),
    (
        CURSOR,
        "\u{feff}{\r\n\t// mine\r\n\t\"mcpServers\": {\r\n\t\t\"filesystem\": {\"command\": \"npx\", \"args\": [\"-y\", \
         \"@modelcontextprotocol/server-filesystem\", \"/tmp\"]}, // other folder\r\n\t\t\"home\": {\"command\": \
         \"${userHome}/bin/home\", \"autoApprove\": [\"x\"], /* y */},\r\n\t\t\"needs\": {\"command\": \"x\", \"env\": \
         {\"K\": \"${env:SET_NOWHERE_AT_ALL}\"}},\r\n\t},\r\n}\r\n",
    ),
    (
        VSCODE,
        "{\n\t\"inputs\": [{\"type\": \"promptString\", \"id\": \"key\", \"password\": true}],\n\t\"servers\": {\n\t\t\
         \"git\": {\"type\": \"stdio\", \"command\": \"uvx\", \"args\": [\"mcp-server-git\"]},\n\t\t\"keyed\": \
         {\"type\": \"stdio\", \"command\": \"k\", \"env\": {\"KEY\": \"${input:key}\"}},\n\t\t\"file\": {\"command\": \
         \"f\", \"envFile\": \"${workspaceFolder}/.env\"}\n\t}\n}",
    ),
    (
        WINDSURF,
        "{\"mcpServers\": {\"figma\": {\"serverUrl\": \"https://mcp.figma.com/mcp\", \"headers\": {\"X\": 1}}, \
         \"git\": {\"command\": \"uvx\", \"args\": [\"mcp-server-git\"], \"disabled\": false}}}",
    ),
];

struct Home(Folder);

impl Home {
    fn with(files: &[(&str, &str)]) -> Self {
        let home = Self(Folder::new());
        for (name, text) in files {
            home.write(name, text);
        }
        home
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn import(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inflightd"));
        command.arg("import").args(flags).env_clear().env("HOME", &self.0.0);
        command.current_dir(&self.0.0).output().unwrap()
    }

    /// Imports, and says what it said.
    fn does(&self, flags: &[&str], code: i32) -> String {
        let done = self.import(flags);
        let said =
            format!("{}{}", String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        assert_eq!(done.status.code(), Some(code), "{said}");
        assert!(!said.contains("secret"), "a key is shown: {said}");
        said
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.0.join(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(jsonc::plain(&self.read(name)).trim()).unwrap()
    }

    /// Every file, by its name and bytes.
    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![self.0.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        all
    }
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn without_a_flag_it_tells_and_writes_nothing() {
    let home = Home::with(&FILES);
    let before = home.all();
    let said = home.does(&[], 0);
    for line in [
        "  + filesystem  → filesystem",
        "  + My GitHub   → My-GitHub",
        "  + filesystem  → filesystem-cursor",
        "  = git    is there already as git",
        "  + db (in /usr)  → db",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}\n{said}");
    }
    for stays in ["- old", "- needs", "SET_NOWHERE_AT_ALL", "- keyed", "${input:key}", "- file", "`envFile`"]
    {
        assert!(said.contains(stays), "{stays}\n{said}");
    }
    assert!(said.contains("would add 8 servers"), "{said}");
    assert_eq!(home.all(), before);
}

#[test]
fn what_was_written_is_what_the_daemon_reads() {
    let home = Home::with(&FILES);
    home.does(&["--write"], 0);
    // The clients are as they were.
    for (name, text) in FILES {
        assert_eq!(home.read(name), text, "{name}");
    }
    let setup = Setup { keys: vec![], toml: String::new() };
    let path = home.0.path(OURS);
    let problems = crate::rig::config(&path, &setup).map(|config| config.servers.len());
    // HOME is not set for this one; with it, all are taken.
    let problems = problems.unwrap_err().to_string();
    assert!(problems.contains("HOME") && problems.lines().count() <= 2, "{problems}");
    home.write(OURS, &home.read(OURS).replace("${HOME}", "/home/me"));
    assert_eq!(crate::rig::config(&path, &setup).unwrap().servers.len(), 8);
    let ours = home.json(OURS);
    assert_eq!(
        names(&ours["mcpServers"]),
        ["My-GitHub", "db", "figma", "filesystem", "filesystem-cursor", "git", "home", "sentry"]
            .into_iter()
            .filter(|name| ours["mcpServers"].get(name).is_some())
            .collect::<Vec<_>>()
    );
    assert_eq!(ours["mcpServers"]["db"]["cwd"], "/usr");
    assert_eq!(ours["mcpServers"]["figma"]["url"], "https://mcp.figma.com/mcp");
    assert_eq!(ours["mcpServers"]["My-GitHub"]["env"]["GITHUB_PERSONAL_ACCESS_TOKEN"], "ghp_secret");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn clients_that_are_rewritten_start_the_shim_and_lose_nothing_else() {
    let home = Home::with(&FILES);
    home.does(&["--write", "--rewrite"], 0);
    for (name, text) in FILES {
        let member = if name == VSCODE { "servers" } else { "mcpServers" };
        let (mut before, mut after): (Value, Value) =
            (serde_json::from_str(jsonc::plain(text).trim()).unwrap(), home.json(name));
        let (old, new) = (before[member].take(), after[member].take());
        let kept = match name {
            CODE => vec!["old"],
            CURSOR => vec!["needs"],
            VSCODE => vec!["keyed", "file"],
            _ => vec![],
        };
        for kept in &kept {
            assert_eq!(old[kept], new[kept], "{name}");
        }
        assert_eq!(new["inflightd"]["args"], serde_json::json!(["shim"]), "{name}");
        assert_eq!(new["inflightd"]["command"], env!("CARGO_BIN_EXE_inflightd"));
        assert_eq!(new.as_object().unwrap().len(), kept.len() + 1, "{name}: {new}");
        // Every other member, whatever it is.
        before["projects"]["/usr"]["mcpServers"].take();
        after["projects"]["/usr"]["mcpServers"].take();
        assert_eq!(before, after, "{name}");
    }
    // Verbatim, where JSON readers would round.
    assert!(
        home.read(CODE).starts_with("{\"numStartups\":184467440737095516160,\"tipsHistory\":{\"x\":1.0e0},")
    );
    let cursor = home.read(CURSOR);
    assert!(
        cursor.starts_with("\u{feff}{\r\n\t// mine\r\n") && cursor.ends_with("\t},\r\n}\r\n"),
        "{cursor}"
    );
}

#[test]
fn doing_it_twice_changes_nothing() {
    for flags in [&["--write"][..], &["--write", "--rewrite"]] {
        let home = Home::with(&FILES);
        home.does(flags, 0);
        let once = home.all();
        let said = home.does(flags, 0);
        assert!(said.contains("stays as it is"), "{said}");
        assert_eq!(home.all(), once, "{flags:?}");
    }
    // Nor does it double what was imported first and rewritten later.
    let home = Home::with(&FILES);
    home.does(&["--write"], 0);
    let ours = home.read(OURS);
    home.does(&["--write", "--rewrite"], 0);
    assert_eq!(home.read(OURS), ours);
}

#[test]
fn backups_are_restored_byte_for_byte_and_what_came_after_is_kept() {
    let home = Home::with(&FILES);
    home.does(&["--write", "--rewrite"], 0);
    let rewritten = home.read(CURSOR);
    home.does(&["--restore"], 0);
    for (name, text) in FILES {
        assert_eq!(home.read(name), text, "{name}");
    }
    assert_eq!(home.read(&format!("{CURSOR}.inflightd-undone-1")), rewritten);
    assert!(home.does(&["--restore"], 0).contains("no backup"));
}

#[test]
fn what_is_broken_is_left_alone_and_said_and_the_rest_goes_on() {
    let broken = "{\"mcpServers\": {\"a\": {\"command\": \"x\"},, }";
    let double = "{\"mcpServers\": {\"a\": {\"command\": \"x\"}, \"a\": {\"command\": \"y\"}}}";
    let home = Home::with(&[
        (DESKTOP, broken),
        (CURSOR, double),
        (WINDSURF, ""),
        (VSCODE, "{\"servers\": []}"),
        (CODE, FILES[1].1),
    ]);
    let said = home.does(&["--write", "--rewrite"], 1);
    for fault in
        ["is not JSON: key must be a string at line 1 column", "has `a` twice", "has a `servers` that is not"]
    {
        assert!(said.contains(fault), "{fault}\n{said}");
    }
    for (name, text) in [(DESKTOP, broken), (CURSOR, double), (WINDSURF, ""), (VSCODE, "{\"servers\": []}")] {
        assert_eq!(home.read(name), text, "{name}");
        assert!(!home.0.0.join(format!("{name}.inflightd-backup-1")).exists());
    }
    assert_eq!(names(&home.json(OURS)["mcpServers"]), ["db", "sentry"]);
}

#[test]
fn a_broken_file_of_ours_is_never_written_over() {
    for (ours, why) in [
        ("{\"mcpServers\": {", "is not JSON"),
        ("{\"mcpServers\": []}", "is not an object"),
        ("{\"mcpServers\": {\"one\": {\"command\": \"x\", \"prefix\": false}}}", "prefix = false"),
    ] {
        let home = Home::with(&FILES);
        home.write(OURS, ours);
        let before = home.all();
        let said = home.does(&["--write", "--rewrite"], 1);
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(home.all(), before);
    }
}

#[test]
fn what_stood_in_our_file_stays_with_its_comments() {
    let home = Home::with(&FILES);
    let ours = "// the team's\n{\n  \"mcpServers\": {\n    \"git\": {\"command\": \"our-git\", \"max_inflight\": 2}, // ours\n  }\n}\n";
    home.write(OURS, ours);
    home.does(&["--write", "--skip", "db"], 0);
    let now = home.read(OURS);
    assert!(now.starts_with(
        "// the team's\n{\n  \"mcpServers\": {\n    \"git\": {\"command\": \"our-git\", \"max_inflight\": 2},"
    ));
    assert_eq!(home.read(&format!("{OURS}.inflightd-backup-1")), ours);
    let servers = home.json(OURS)["mcpServers"].clone();
    assert_eq!(servers["git-vscode"]["command"], "uvx");
    assert!(servers.get("db").is_none() && now.contains("// ours"), "{now}");
}

#[test]
fn a_link_stays_a_link_and_a_projects_files_come_when_they_are_named() {
    let home = Home::with(&[
        ("dotfiles/cursor.json", FILES[2].1),
        ("p/.mcp.json", "{\"mcpServers\": {\"local\": {\"command\": \"./run\"}}}"),
    ]);
    std::fs::create_dir_all(home.0.0.join(".cursor")).unwrap();
    std::os::unix::fs::symlink(home.0.0.join("dotfiles/cursor.json"), home.0.0.join(CURSOR)).unwrap();
    assert!(!home.does(&[], 0).contains("local"));
    home.does(&["--write", "--rewrite", "--project", "p"], 0);
    assert!(home.0.0.join(CURSOR).is_symlink());
    assert!(home.read("dotfiles/cursor.json").contains("inflightd"));
    let project = home.0.0.join("p").canonicalize().unwrap();
    assert_eq!(home.json(OURS)["mcpServers"]["local"]["cwd"], project.to_str().unwrap());
    assert_eq!(home.json("p/.mcp.json")["mcpServers"]["inflightd"]["type"], "stdio");
}
