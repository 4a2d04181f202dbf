use super::*;

/// The servers of a file with this text, and what is wrong with it.
fn read(text: &str) -> (Vec<ServerConfig>, Vec<String>) {
    let variables = BTreeMap::from([("KEY".to_owned(), "k".to_owned())]);
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let json: Value = serde_json::from_str(&jsonc::plain(text)).unwrap();
    let mut reader = Reader {
        variables: &variables,
        folder: Path::new("/"),
        problems: &mut problems,
        warnings: &mut warnings,
        servers: Vec::new(),
    };
    reader.all("f", json["mcpServers"].as_object().unwrap(), false);
    let servers = reader.finish();
    (servers, problems.iter().map(ToString::to_string).chain(warnings).collect())
}

#[test]
fn a_server_is_read_as_clients_write_it_with_ours_beside_it() {
    let (servers, wrong) = read(
        r#"{"mcpServers": { // two
        "git": {"command": "uvx", "args": ["mcp-server-git", "${KEY}"], "env": {"A": "${NONE:-b}"}, "autoApprove": [],
                "max_inflight": 2, "timeout_secs": 1.5, "effect": {"git_*": "read", "git_commit": "write"},
                "tools": {"deny": ["git_reset"], "rename": {"git_log": "log"}}, "share": "all", "restart": "never"},
        "far": {"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
        "off": {"command": "x", "disabled": true},
    }}"#,
    );
    assert_eq!(wrong, [""; 0]);
    let [far, git] = servers.as_slice() else { panic!("{servers:?}") };
    let Transport::Stdio { args, env, .. } = &git.transport else { panic!() };
    assert_eq!((args[1].as_str(), env["A"].reveal()), ("k", "b"));
    assert_eq!((git.max_inflight, git.timeout), (2, Some(Duration::from_millis(1500))));
    assert_eq!((git.share, git.restart, git.prefix), (Share::All, Restart::Never, true));
    assert_eq!(git.effect_of("git_commit"), Some(SaidEffect::Write));
    assert_eq!(git.effect_of("git_status"), Some(SaidEffect::Read));
    assert_eq!(git.effect_of("other"), None);
    assert_eq!(git.offered_as("git_log").as_deref(), Some("git__log"));
    assert_eq!(git.offered_as("git_reset"), None);
    let Transport::Http { headers, .. } = &far.transport else { panic!() };
    assert_eq!(headers[0].1.reveal(), "Bearer k");
    assert!(!format!("{far:?}").contains("Bearer k"), "secrets are never shown");
}

#[test]
fn a_secret_is_part_of_what_a_server_is() {
    let of = |key: &str| {
        let text = format!(r#"{{"mcpServers": {{"a": {{"command": "x", "env": {{"K": "{key}"}}}}}}}}"#);
        read(&text).0[0].digest()
    };
    assert_eq!(of("1"), of("1"));
    assert_ne!(of("1"), of("2"));
}

#[test]
fn every_problem_is_told_with_what_would_do() {
    let (servers, wrong) = read(
        r#"{"mcpServers": {
        "a b": {"command": "x"}, "c": 7, "d": {}, "e": {"command": "x", "url": "y"}, "f": {"url": "ftp://x"},
        "g": {"command": "x", "args": ["${NONE}", "${workspaceFolder}"], "effect": "maybe", "max_inflight": 0},
        "h": {"type": "sse", "url": "https://x"}, "i": {"command": "x", "tools": {"alow": ["x"], "deny": []}},
        "j": {"command": "x", "prefix": false, "time_out_secs": 1}
    }}"#,
    );
    assert_eq!(servers.len(), 3, "{servers:?}");
    for line in [
        "f: a b: is not a name of 1 to 32 of the characters A-Z a-z 0-9 _ - without __; a-b would do",
        "f: c: is not an object; {\"command\": \"…\"} would do",
        "f: d: has neither command nor url; command = \"npx\" would do",
        "f: e.url: stands beside command; leave one of them out",
        "f: f.url: is not an http or https URL; https://mcp.example.com/mcp would do",
        "f: g.args: names the variable NONE, which is not set; set it, or write ${NONE:-instead}",
        "f: g.args: has ${workspaceFolder}, which only the client that it was written for can fill in; write out what it stands for",
        "f: g.effect: is none of read, idempotent, write; effect = \"read\" or effect = {\"get_*\" = \"read\"} would do",
        "f: g.max_inflight: is not a number from 1 to 100000; leave it out, or write 8",
        "f: h.type: is the transport that MCP gave up in 2025; ask for the server's Streamable HTTP address, and leave type out",
        "f: i.tools.alow: there is no such member; there are allow, deny and rename",
        "f: i.tools.deny: has no entry; [\"get_*\"] would do",
        "server j: has prefix = false, and there are 3 servers; leave prefix out: only one server alone needs none",
        "f: j: `time_out_secs` is ignored; the nearest that is read is `timeout_secs`",
    ] {
        assert!(wrong.iter().any(|each| each == line), "{line}\n{wrong:#?}");
    }
    assert_eq!(wrong.len(), 14, "{wrong:#?}");
}
