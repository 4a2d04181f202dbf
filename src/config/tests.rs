use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn process(pairs: &[(&str, &str)]) -> Sources {
    Sources { process: map(pairs), working_folder: env!("CARGO_MANIFEST_DIR").into(), ..Sources::default() }
}

fn toml_file(text: &str) -> Sources {
    Sources { toml: text.parse().unwrap(), ..Sources::default() }
}

fn held(sources: Sources) -> Loaded {
    resolve(sources).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(sources: Sources) -> Vec<String> {
    resolve(sources).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

fn problem(sources: Sources) -> String {
    let found = problems(sources);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("inflightd-config-{}-{count}", std::process::id()));
        for (file, text) in files {
            let file = path.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Self(path)
    }

    fn load(&self, flags: &[(&'static str, String)], process: &[(&str, &str)]) -> Result<Loaded, Problems> {
        load_from(flags, map(process), Vec::new(), &self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_defaults_alone_make_a_configuration() {
    let Loaded { config, warnings } = held(Sources::default());
    assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8079)));
    assert!(!config.token_required() && config.providers.is_empty() && config.tools_file.is_none());
    assert_eq!((config.limits.global, config.limits.session, config.limits.queue), (24, 8, 100));
    assert_eq!(
        (config.limits.executions, config.limits.connections, config.limits.waiters),
        (200, 10_000, 1_000)
    );
    let looks = [config.health_interval, config.drain_timeout, config.ladder.connect, config.reattach];
    assert_eq!(looks.map(|time| time.as_secs()), [30, 30, 10, 60]);
    assert_eq!((config.limits.frame_bytes, config.limits.write_queue_bytes), (33_554_432, 8_388_608));
    assert_eq!(config.offline.max_inflight, 8);
    assert_eq!(config.offline.fault, None);
    assert_eq!((config.log_format, config.log_level), (LogFormat::Text, LogLevel::Info));
    assert_eq!(config.worker_threads, None);
    assert_eq!(warnings, [""; 0]);
    let outer = ["DAEMON_TIMEOUT_SECS", "SHIM_TIMEOUT_SECS", "CLIENT_TIMEOUT_SECS"];
    let shown = outer.map(|name| keys::find(name).unwrap().default.shown().to_owned());
    let ladder = config.ladder;
    assert_eq!(shown, [ladder.daemon, ladder.shim, ladder.client].map(|time| time.as_secs().to_string()));
}

#[test]
fn every_key_is_read_and_every_read_is_a_key() {
    let mut values = Values::new(Sources::default());
    build::config(&mut values).unwrap();
    let table: BTreeSet<_> = keys::all().map(|key| key.name).collect();
    // Read before the others: it says where they are.
    values.read.insert("INFLIGHTD_CONFIG");
    assert_eq!(values.read, table);
}

#[test]
fn every_default_can_be_set() {
    let set: Vec<_> = keys::all()
        .map(|key| (key.name, key.default.shown()))
        .filter(|(name, _)| *name != "INFLIGHTD_CONFIG")
        .collect();
    let mut sources = process(&set);
    held(sources.clone());
    sources.dotenv = std::mem::take(&mut sources.process);
    held(sources);
}

#[test]
fn flags_beat_environment_beats_dotenv_beats_toml() {
    let mut sources =
        toml_file("queue_max = 4\nsession_max_inflight = 4\nexecutions_max = 4\nwaiters_max = 4");
    sources.dotenv = map(&[("QUEUE_MAX", "3"), ("SESSION_MAX_INFLIGHT", "3"), ("EXECUTIONS_MAX", "3")]);
    sources.process = map(&[("QUEUE_MAX", "2"), ("SESSION_MAX_INFLIGHT", "2")]);
    sources.flags = map(&[("QUEUE_MAX", "1")]);
    let limits = held(sources).config.limits;
    assert_eq!((limits.queue, limits.session, limits.executions, limits.waiters), (1, 2, 3, 4));
}

#[test]
fn an_empty_value_counts_as_unset() {
    let mut sources = process(&[("KIMI_API_KEY", ""), ("INFLIGHTD_TOKEN", " "), ("QUEUE_MAX", "")]);
    sources.dotenv = map(&[("QUEUE_MAX", "7")]);
    let config = held(sources).config;
    assert!(config.providers.is_empty() && !config.token_required());
    assert_eq!(config.limits.queue, 7);
}

#[test]
fn a_provider_with_a_key_is_offered() {
    let set =
        [("OPENAI_API_KEY", "sk-1"), ("OPENAI_API_URL", "http://127.0.0.1:9/v1/"), ("KIMI_API_KEY", "sk-2")];
    let Loaded { config, warnings } = held(process(&set));
    let names: Vec<_> = config.providers.iter().map(|provider| &*provider.name).collect();
    assert_eq!(names, ["kimi", "openai"]);
    let openai = &config.providers[1];
    let key = openai.api_key.as_ref().map(Secret::reveal);
    assert_eq!((openai.base_url.as_str(), key), ("http://127.0.0.1:9/v1", Some("sk-1")));
    assert_eq!((openai.max_inflight, openai.timeout.as_secs()), (8, 180));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn a_url_without_a_key_warns() {
    let Loaded { config, warnings } = held(process(&[("GLM_API_URL", "http://127.0.0.1:9")]));
    assert!(config.providers.is_empty());
    assert_eq!(warnings.len(), 1);
}

#[test]
fn every_problem_is_reported_at_once() {
    let mut sources = process(&[
        ("INFLIGHTD_LISTEN", "here"),
        ("LOG_LEVEL", "loud"),
        ("QUEUE_MAX", "0"),
        ("KIMI_TIMEOUT_SECS", "abc"),
        ("DAEMON_TIMEOUT_SECS", "100"),
        ("SHIM_TIMEOUT_SECS", "50"),
    ]);
    sources.toml = "kimi_timeout_sec = 3".parse().unwrap();
    assert_eq!(
        problems(sources),
        [
            "kimi_timeout_sec (from the TOML file): there is no such key; the nearest is kimi_timeout_secs",
            "INFLIGHTD_LISTEN=here (from the environment): is not an IP address with a port; \
             INFLIGHTD_LISTEN=127.0.0.1:8079 would do",
            "KIMI_TIMEOUT_SECS=abc (from the environment): is not a number of seconds (digits, at most three \
             decimals); KIMI_TIMEOUT_SECS=180 would do",
            "QUEUE_MAX=0 (from the environment): must be at least 1; QUEUE_MAX=100 would do",
            "SHIM_TIMEOUT_SECS=50 (from the environment): must be longer than DAEMON_TIMEOUT_SECS=100 (from the \
             environment); SHIM_TIMEOUT_SECS=134 would do",
            "LOG_LEVEL=loud (from the environment): is none of error, warn, info, debug, trace; LOG_LEVEL=info \
             would do",
        ]
    );
}

#[test]
fn zero_is_refused_for_every_limit() {
    for key in keys::all() {
        if matches!(key.kind, keys::Kind::Count { .. } | keys::Kind::Bytes { .. } | keys::Kind::Seconds) {
            let found = problem(process(&[(key.name, "0")]));
            assert!(
                found.starts_with(&format!("{}=0 (from the environment): must be ", key.name)),
                "{found}"
            );
            assert!(found.contains(&format!("; {}=", key.name)), "{found}");
        }
    }
}

#[test]
fn a_secret_is_never_shown() {
    let secret = "hush hush";
    for key in keys::all().filter(|key| key.kind == keys::Kind::Secret) {
        let found = problem(process(&[(key.name, secret)]));
        assert!(found.starts_with(key.name) && !found.contains("hush"), "{found}");
    }
    let found = problem(process(&[("KIMI_API_URL", "https://me:hush@host/v1")]));
    assert!(!found.contains("hush"), "{found}");
    let shown = format!("{:?}", held(process(&[("KIMI_API_KEY", "hush")])));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn a_short_token_says_how_to_set_one() {
    assert_eq!(
        problem(process(&[("INFLIGHTD_TOKEN", "short")])),
        "INFLIGHTD_TOKEN (from the environment): is 5 characters long, and 16 are the least; set INFLIGHTD_TOKEN \
         to what `openssl rand -hex 32` prints"
    );
}

#[test]
fn an_open_address_without_a_token_says_how_to_set_one() {
    assert_eq!(
        problem(process(&[("INFLIGHTD_LISTEN", "0.0.0.0:8079")])),
        "INFLIGHTD_LISTEN=0.0.0.0:8079 (from the environment): is reachable from other machines, and \
         neither INFLIGHTD_TOKEN nor a principal's token is set; set INFLIGHTD_TOKEN to what `openssl rand -hex 32` prints, or \
         INFLIGHTD_LISTEN=127.0.0.1:8079"
    );
    for listen in ["127.9.9.9:1", "[::1]:0", "localhost:0", "[::ffff:127.0.0.1]:0"] {
        held(process(&[("INFLIGHTD_LISTEN", listen)]));
    }
    held(process(&[("INFLIGHTD_LISTEN", "[::]:0"), ("INFLIGHTD_TOKEN", "0123456789abcdef")]));
}

#[test]
fn a_strange_name_under_our_prefix_only_warns() {
    let warnings = held(process(&[
        ("INFLIGHTD_LISTN", "x"),
        ("INFLIGHTD_SERVICE_PORT_HTTP", "80"),
        ("INFLIGHTD_URL", "ws://127.0.0.1:8079"),
    ]))
    .warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(
        warnings[0],
        "INFLIGHTD_LISTN (from the environment): there is no such key, it is ignored; the nearest is \
         INFLIGHTD_LISTEN"
    );
}

#[test]
fn a_provider_limit_that_takes_everything_warns() {
    assert_eq!(held(process(&[("KIMI_MAX_INFLIGHT", "24")])).warnings.len(), 1);
    let low = [("GLOBAL_MAX_INFLIGHT", "6"), ("KIMI_API_KEY", "k"), ("GLM_API_KEY", "k")];
    let warnings = held(process(&low)).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("KIMI_MAX_INFLIGHT=6 is not below GLOBAL_MAX_INFLIGHT=6"),
        "{warnings:?}"
    );
    assert!(warnings[1].starts_with("OFFLINE_MAX_INFLIGHT=8"), "{warnings:?}");
}

#[test]
fn toml_takes_numbers_texts_and_lists() {
    let config = held(toml_file(
        "queue_max = 7\nqueue_timeout_secs = 0.5\nlog_level = \"warn\"\nworker_threads = \"3\"\n\
         allowed_origins = [\"https://a.example\", \"https://b.example\"]\ndrain_timeout_secs = 5.0",
    ))
    .config;
    assert_eq!((config.limits.queue, config.worker_threads), (7, Some(3)));
    assert_eq!(config.ladder.queue, Duration::from_millis(500));
    assert_eq!(config.log_level, LogLevel::Warn);
    assert_eq!(config.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.drain_timeout.as_secs(), 5);
}

#[test]
fn toml_of_the_wrong_type_is_refused() {
    let found = problems(toml_file(
        "queue_max = true\nlog_level = [\"info\"]\nallowed_origins = [1]\nsession_max_inflight = 2.0\n\
         waiters_max = -1\ninflightd_config = \"other.toml\"\nQUEUE_TIMEOUT_SECS = 5\n[kimi]\ntimeout_secs = 5",
    ));
    assert_eq!(found.len(), 8, "{found:#?}");
    assert!(found.contains(
        &"queue_max (from the TOML file): is a boolean in TOML; queue_max = 100 would do".to_owned()
    ));
    assert!(found.iter().any(|line| line.ends_with("the nearest is queue_timeout_secs")), "{found:#?}");
}

#[test]
fn a_tools_file_must_be_there() {
    let config = held(process(&[("TOOLS_FILE", "Cargo.toml")])).config;
    assert_eq!(config.tools_file, Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")));
    assert_eq!(
        problem(process(&[("TOOLS_FILE", "no.toml")])),
        "TOOLS_FILE=no.toml (from the environment): is not a file that is there; name a file that is there, or \
         leave TOOLS_FILE unset"
    );
}

#[test]
fn dotenv_is_read_from_the_folder_and_not_from_its_parents() {
    let folder =
        Folder::new(&[(".env", "QUEUE_MAX=7\n"), ("below/.env", "\u{feff}export SESSION_MAX_INFLIGHT='3' ")]);
    assert_eq!(folder.load(&[], &[]).unwrap().config.limits.queue, 7);
    let below = load_from(&[], map(&[]), Vec::new(), &folder.0.join("below")).unwrap().config.limits;
    assert_eq!((below.queue, below.session), (100, 3));
}

#[test]
fn a_bad_line_of_dotenv_is_named_without_its_text() {
    let text = "A=1\n\n# note\nhush hush\nKIMI_API_KEY=hush and hush\nQUEUE_MAX=0\nB=\"hush\nhush\n";
    let folder = Folder::new(&[(".env", text)]);
    let found = folder.load(&[], &[]).unwrap_err().to_string();
    let path = folder.0.join(".env");
    for line in [4, 5, 7] {
        assert!(found.contains(&format!("{} line {line}: ", path.display())), "{found}");
    }
    assert!(found.contains("QUEUE_MAX=0 (from .env): must be at least 1"), "{found}");
    assert_eq!((found.lines().count(), found.contains("hush")), (4, false), "{found}");
}

#[test]
fn the_toml_file_is_the_one_that_is_named() {
    let folder = Folder::new(&[("inflightd.toml", "queue_max = 1"), ("other.toml", "queue_max = 2")]);
    let queue = |flags: &[_], set: &[_]| folder.load(flags, set).unwrap().config.limits.queue;
    assert_eq!(queue(&[], &[]), 1);
    assert_eq!(queue(&[], &[("INFLIGHTD_CONFIG", "other.toml")]), 2);
    assert_eq!(
        queue(&[("INFLIGHTD_CONFIG", "other.toml".to_owned())], &[("INFLIGHTD_CONFIG", "no.toml")]),
        2
    );
    let found = folder.load(&[], &[("INFLIGHTD_CONFIG", "no.toml"), ("QUEUE_MAX", "0")]).unwrap_err();
    assert_eq!(found.0.len(), 2, "{found}");
    assert!(found.to_string().contains("no.toml: cannot be read: it does not exist; name a file"), "{found}");
}

#[test]
fn toml_that_is_none_is_named_by_its_line() {
    let folder = Folder::new(&[("inflightd.toml", "queue_max = 1\nkimi_api_key = hush\n")]);
    let found = folder.load(&[], &[("QUEUE_MAX", "0")]).unwrap_err().to_string();
    assert!(found.contains("inflightd.toml line 2: "), "{found}");
    assert_eq!((found.lines().count(), found.contains("hush")), (2, false), "{found}");
}

#[test]
fn a_flag_of_no_key_is_a_problem() {
    let sources = Sources { flags: map(&[("QUEUE_MX", "1")]), ..Sources::default() };
    assert_eq!(
        problem(sources),
        "QUEUE_MX (from the command line): there is no such key; the nearest is QUEUE_MAX"
    );
}

#[test]
fn each_bad_day_has_a_word_and_a_warning() {
    let key = keys::find("OFFLINE_FAULT").unwrap();
    let keys::Kind::Choice(words) = key.kind else { panic!("{key:?}") };
    let mut played = Vec::new();
    for word in words {
        let Loaded { config, warnings } = held(process(&[("OFFLINE_FAULT", word)]));
        assert_eq!(warnings.len(), usize::from(config.offline.fault.is_some()), "{word}");
        assert!(
            warnings.iter().all(|text| text.starts_with(&format!("OFFLINE_FAULT={word}: "))),
            "{warnings:?}"
        );
        assert!(!played.contains(&config.offline.fault), "{word} plays what another word does");
        played.push(config.offline.fault);
    }
    assert_eq!((words.len(), held(Sources::default()).config.offline.fault), (9, None));
}

#[test]
fn local_commands_run_ten_at_once_or_as_many_as_is_said_and_never_none() {
    let at_once =
        |text: &str| held(process(&[("MODULES_MAX_CONCURRENT", text)])).config.modules.max_concurrent;
    assert_eq!((at_once(""), at_once("3")), (10, 3));
    assert_eq!(at_once("auto"), 2 * std::thread::available_parallelism().unwrap().get());
    for none in ["0", "-1"] {
        assert_eq!(
            problem(process(&[("MODULES_MAX_CONCURRENT", none)])),
            format!(
                "MODULES_MAX_CONCURRENT={none} (from the environment): max_concurrent must be at least 1; \
                 MODULES_MAX_CONCURRENT=10 would do"
            )
        );
    }
}
