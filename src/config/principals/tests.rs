use std::collections::BTreeMap;

use super::*;
use crate::config::{Config, Sources, resolve};

const A: &str = "blake3:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "blake3:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn sources(toml: &str, token: Option<&str>) -> Sources {
    let toml = toml.replace("$A", A).replace("$B", B).parse().unwrap();
    let process: BTreeMap<_, _> =
        token.map(|token| ("INFLIGHTD_TOKEN".to_owned(), token.to_owned())).into_iter().collect();
    Sources { process, toml, ..Sources::default() }
}

fn held(toml: &str, token: Option<&str>) -> Config {
    resolve(sources(toml, token)).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn problems(toml: &str) -> Vec<String> {
    let found = resolve(sources(toml, None)).unwrap_err().to_string();
    found.lines().map(str::to_owned).collect()
}

fn problem(toml: &str) -> String {
    let found = problems(toml);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

/// The one problem of `[principals.ci]` with a good hash and these lines.
fn problem_of(lines: &str) -> String {
    problem(&format!("[principals.ci]\ntoken_hash = \"$A\"\n{lines}"))
}

fn names(config: &Config) -> Vec<&str> {
    config.principals.iter().map(|principal| &*principal.name).collect()
}

#[test]
fn a_table_says_everything_about_its_principal() {
    let config = held(
        "[principals.ci]\ntoken_hashes = [\"$A\", \"$B\"]\nexpires = \"2027-01-31\"\nmax_inflight = 4\n\
         max_queued = 9\npriority_ceiling = \"low\"\ntools = [\"chat\", \"code*\"]",
        None,
    );
    let [ci] = config.principals.as_slice() else { panic!("{:?}", config.principals) };
    assert_eq!((&*ci.name, ci.tokens.len(), ci.expires), ("ci", 2, Expiry::parse("2027-01-31").ok()));
    assert_eq!(ci.limits, Some(OwnLimits { max_inflight: 4, max_queued: Some(9) }));
    assert_eq!(ci.ceiling, Ceiling::Low);
    let tools = ci.tools.as_ref().unwrap();
    assert!(tools.allow("codereview") && !tools.allow("echo"));
    assert!(config.token_required());
}

#[test]
fn a_rate_is_ones_own_or_that_of_all_but_local() {
    let text = "rate_limit_per_minute = 60\nrate_limit_burst = 5\n[principals.anna]\ntoken_hash = \"$A\"\n\
                [principals.ben]\ntoken_hash = \"$B\"\nrate_per_minute = 10";
    let config = held(text, Some("a-token-of-sixteen-characters"));
    let rates: Vec<_> = config.principals.iter().map(|each| (&*each.name, each.rate)).collect();
    let rate = |per_minute, burst| Some(RateLimit { per_minute, burst });
    assert_eq!(rates, [(LOCAL, None), ("anna", rate(60, 5)), ("ben", rate(10, 10))]);
    let own = held("[principals.local]\nrate_per_minute = 10\nrate_burst = 2", None);
    assert_eq!(own.principals[0].rate, rate(10, 2));
    assert_eq!(
        problem_of("rate_burst = 2"),
        "principals.ci.rate_burst (from the TOML file): stands without the number a minute of which it is a part; \
         rate_per_minute = 60 beside it would do"
    );
    assert!(problem_of("rate_per_minute = 0").contains("must be at least 1"));
}

#[test]
fn without_any_token_there_is_local_alone() {
    let config = held("", None);
    assert_eq!((names(&config), config.token_required()), (vec![LOCAL], false));
    let bounded = held("[principals.local]\nmax_inflight = 2", None);
    assert_eq!((names(&bounded), bounded.token_required()), (vec![LOCAL], false));
    assert_eq!(bounded.principals[0].limits.map(|limits| limits.max_inflight), Some(2));
    assert_eq!(names(&held("[principals]", None)), [LOCAL]);
}

#[test]
fn the_token_of_the_environment_is_locals() {
    let token = "0123456789abcdef";
    let config = held("[principals.ci]\ntoken_hash = \"$A\"", Some(token));
    assert_eq!(names(&config), [LOCAL, "ci"]);
    assert!(config.principals[0].tokens[0].same(&TokenHash::of(token)));
    let both = held("[principals.local]\ntoken_hash = \"$A\"\ntools = [\"chat\"]", Some(token));
    assert_eq!((names(&both), both.principals[0].tokens.len()), (vec![LOCAL], 2));
    assert!(both.principals[0].tools.is_some());
}

#[test]
fn a_principals_token_opens_another_address_than_loopback() {
    let mut open = sources("listen = 1", None);
    open.toml =
        format!("inflightd_listen = \"0.0.0.0:0\"\n[principals.ci]\ntoken_hash = \"{A}\"").parse().unwrap();
    assert!(resolve(open.clone()).is_ok());
    open.toml = "inflightd_listen = \"0.0.0.0:0\"\n[principals.local]\nmax_inflight = 2".parse().unwrap();
    let found = resolve(open).unwrap_err().to_string();
    assert!(found.contains("neither INFLIGHTD_TOKEN nor a principal's token is set"), "{found}");
}

#[test]
fn every_problem_of_every_table_is_reported_at_once() {
    let found = problems(
        "[principals.CI]\ntoken_hash = \"$A\"\n\
         [principals.a]\ntoken_hash = \"$A\"\ntool = [\"chat\"]\nmax_inflight = 0\nexpires = \"soon\"\n\
         [principals.b]\ntoken_hash = \"$A\"\npriority_ceiling = \"urgent\"\n\
         [principals.c]\ntoken_hash = \"hush\"\ntools = []\n\
         [principals.d]\n",
    );
    assert_eq!(
        found,
        [
            "principals.CI (from the TOML file): is not a name of 1 to 64 of the characters a-z 0-9 _ -; \
             [principals.ci] would do",
            "principals.a.tool (from the TOML file): there is no such key; the nearest is tools",
            "principals.a.max_inflight=0 (from the TOML file): must be at least 1; max_inflight = 8 would do",
            "principals.a.expires=soon (from the TOML file): is not a date, nor a time with its offset; \
             expires = \"2027-01-31\" would do",
            "principals.b.token_hash (from the TOML file): is the hash that principals.a.token_hash has already; \
             `inflightd token new b` prints one",
            "principals.b.priority_ceiling=urgent (from the TOML file): is none of high, medium, low; \
             priority_ceiling = \"medium\" would do",
            "principals.c.token_hash (from the TOML file): is not blake3: with 64 hexadecimal digits behind it; \
             `inflightd token new c` prints one",
            "principals.c.tools (from the TOML file): has no entry; \
             tools = [\"chat\", \"code*\", \"get_request\"] would do",
            "principals.d (from the TOML file): has no token; set token_hash to what `inflightd token new d` prints",
        ]
    );
}

#[test]
fn each_limit_is_at_least_one() {
    assert_eq!(
        problem_of("max_inflight = 3\nmax_queued = 0"),
        "principals.ci.max_queued=0 (from the TOML file): must be at least 1; max_queued = 100 would do"
    );
    assert!(problem_of("max_inflight = -1").contains("is not a whole number; max_inflight = 8 would do"));
    assert!(problem_of("max_inflight = 1000001").contains("is more than 1000000"));
    assert!(problem_of("max_inflight = [1]").contains("is an array in TOML; max_inflight = 8 would do"));
    assert_eq!(
        problem_of("max_queued = 5"),
        "principals.ci.max_queued (from the TOML file): stands without the max_inflight that calls would wait for; \
         max_inflight = 8 beside it would do"
    );
}

#[test]
fn a_token_stands_for_one_principal_once() {
    assert_eq!(
        problem("[principals.ci]\ntoken_hashes = [\"$A\", \"$B\", \"$A\"]"),
        "principals.ci.token_hashes (from the TOML file): is the hash that principals.ci.token_hashes has already; \
         `inflightd token new ci` prints one"
    );
    let token = "0123456789abcdef";
    let same = format!("[principals.ci]\ntoken_hash = \"{}\"", TokenHash::of(token).text());
    let found = resolve(sources(&same, Some(token))).unwrap_err().to_string();
    assert!(found.contains("is the hash that INFLIGHTD_TOKEN has already"), "{found}");
    assert!(!found.contains(token) && !found.contains(&TokenHash::of(token).text()), "{found}");
}

#[test]
fn hashes_stand_in_one_member() {
    assert_eq!(
        problem_of("token_hashes = [\"$B\"]"),
        "principals.ci.token_hash (from the TOML file): stands beside token_hashes; leave token_hash out, and put its \
         hash into token_hashes"
    );
    let none = problem("[principals.ci]\ntoken_hashes = []");
    assert!(
        none.contains("token_hashes (from the TOML file): has no entry; `inflightd token new ci`"),
        "{none}"
    );
    let text = problem("[principals.ci]\ntoken_hashes = \"$A\"");
    assert!(text.contains("is a string in TOML; token_hashes = [\"blake3:…\"] would do"), "{text}");
}

#[test]
fn a_token_put_in_place_of_its_hash_is_not_shown() {
    for member in ["token_hash = \"hush-hush-hush-hush\"", "token_hashes = [\"hush-hush-hush-hush\", 7]"] {
        let found = problems(&format!("[principals.ci]\n{member}")).join("\n");
        assert!(found.contains("token_hash") && !found.contains("hush-"), "{found}");
    }
}

#[test]
fn local_needs_a_token_once_others_have_one() {
    assert_eq!(
        problem("[principals.ci]\ntoken_hash = \"$A\"\n[principals.local]\nmax_inflight = 2"),
        "principals.local (from the TOML file): has no token; set INFLIGHTD_TOKEN, or set token_hash to what \
         `inflightd token new local` prints"
    );
}

#[test]
fn an_open_daemon_does_not_expire() {
    assert_eq!(
        problem("[principals.local]\nexpires = \"2027-01-31\""),
        "principals.local.expires (from the TOML file): stands without any token that could expire; set a token, or \
         leave it out"
    );
}

#[test]
fn a_date_may_be_tomls_own() {
    let config = held("[principals.ci]\ntoken_hash = \"$A\"\nexpires = 2027-01-31T12:00:00+02:00", None);
    assert_eq!(config.principals[0].expires, Expiry::parse("2027-01-31T10:00:00Z").ok());
    assert!(problem_of("expires = 12:00:00").contains("is not a date, nor a time with its offset"));
}

#[test]
fn what_is_no_table_is_refused() {
    assert_eq!(
        problem("principals = \"ci\""),
        "principals (from the TOML file): is a string in TOML; [principals.ci] with token_hash = \"blake3:…\" below \
         it would do"
    );
    assert!(
        problem("principals.ci = 1").starts_with("principals.ci (from the TOML file): is a number in TOML")
    );
    let near = problem("[principal.ci]");
    assert!(near.ends_with("the nearest is principals"), "{near}");
}

#[test]
fn a_name_fits_a_line_of_the_log() {
    assert!(["ci", "a", "team_2-x", &"a".repeat(64)].iter().all(|text| name(text).is_ok()));
    for text in ["", "Ci", "a b", "a.b", "ä", "a\nb", &"a".repeat(65)] {
        assert_eq!(name(text), Err(Wrong::NotName), "{text}");
        assert!(name(&sound_name(text)).is_ok(), "{text}");
    }
}

#[test]
fn a_pattern_that_fits_no_name_is_refused() {
    assert_eq!(
        problem_of("tools = [\"chat\", \"code review\"]"),
        "principals.ci.tools (from the TOML file): has an entry that is not 1 to 64 of the characters \
         A-Z a-z 0-9 _ - . *; tools = [\"chat\", \"code*\", \"get_request\"] would do"
    );
    assert!(problem_of("tools = \"chat\"").contains("is a string in TOML"));
    assert!(problem_of("tools = [1]").contains("is an array of something else than strings in TOML"));
}

#[test]
fn every_member_is_documented() {
    for member in &MEMBERS {
        assert!(
            crate::config::keys::markdown().contains(&format!("| `{}` |", member.name)),
            "{}",
            member.name
        );
    }
}
