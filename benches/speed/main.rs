//! `cargo bench --bench speed [-- quick] [selftest] [daemon=PATH] [only=echo,pipeline,…]`: what a call costs.
//!
//! Reference and daemon run in the same run, one worker thread each, on one core; the generator on another.
//! The figure is the **server's processor time a call**, since calls/s are bounded by the generator. Rounds are
//! interleaved, ratios are taken within a round, and the middle one is printed. Both use the system's allocator.
//!
//! - `quick`: 3 rounds of half a second instead of 5 of two.
//! - `selftest`: the spawned reference stands in for the daemon; whatever needs joining then misses its target.
//! - `daemon=PATH`: another binary than the one cargo has built, for example of profile `dist`.
//! - `only=`: some of `echo`, `hits`, `followers`, `pipeline`, `burst`, `idle`, `first`, `shim`, `provider`,
//!   `upstream`, `sessions`, `post`.
//!
//! `cargo bench --features rmcp --bench speed` holds `post` against the Rust SDK's own server.
#![cfg_attr(
    target_os = "linux",
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::print_stdout,
        clippy::disallowed_methods,
        clippy::missing_panics_doc,
        unreachable_pub,
        reason = "a benchmark ends at the first surprise, and prints; its figures are far from any limit"
    )
)]

#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod post;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod provider;
#[cfg(target_os = "linux")]
mod reference;
#[cfg(target_os = "linux")]
mod report;
#[cfg(all(target_os = "linux", feature = "rmcp"))]
mod sdk;
#[cfg(target_os = "linux")]
mod shim;
#[cfg(target_os = "linux")]
mod upstream;
#[cfg(target_os = "linux")]
mod wire;

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this benchmark reads /proc and waits with epoll: Linux only");
}

#[cfg(target_os = "linux")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).map(|word| word.parse::<u16>().unwrap());
    match words.first().map(String::as_str) {
        Some(process::REFERENCE) => run_reference(number(1).unwrap(), number(2)),
        Some(process::MODEL) => {
            let port = number(1).unwrap();
            alone(async move {
                provider::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap()).await;
            });
        }
        Some(process::BARE) => {
            let duration = std::time::Duration::from_millis(u64::from(number(3).unwrap()));
            alone(provider::ask_for(number(1).unwrap(), number(2).unwrap(), duration));
        }
        Some(process::UPSTREAM) => upstream::serve(),
        Some(process::SDK) => run_sdk(number(1).unwrap()),
        Some(process::SHIM) => shim::stand_in(number(1).unwrap()),
        // `cargo test --all-targets` runs benchmarks too, without a word.
        None => println!("run it with `cargo bench --bench speed`"),
        Some(_) => run(&words),
    }
}

#[cfg(target_os = "linux")]
fn run_reference(port: u16, latency_ms: Option<u16>) {
    use reference::Flavour;
    use std::time::Duration;

    let held = |ms| Flavour::Spawned { latency: Duration::from_millis(u64::from(ms)) };
    let flavour = latency_ms.map_or(Flavour::Inline, held);
    alone(async move {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        reference::serve(listener, flavour).await;
    });
}

#[cfg(target_os = "linux")]
fn run_sdk(port: u16) {
    #[cfg(feature = "rmcp")]
    alone(async move {
        sdk::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap()).await;
    });
    #[cfg(not(feature = "rmcp"))]
    panic!("port {port} needs the feature `rmcp`");
}

/// Runs a child's work on one worker thread.
#[cfg(target_os = "linux")]
fn alone(work: impl Future<Output = ()> + Send + 'static) {
    // The benchmark may be killed; nobody else ends this child then.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move { tokio::spawn(work).await.unwrap() });
}

#[cfg(target_os = "linux")]
fn run(words: &[String]) {
    use measure::{Bench, Effort};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::time::Duration;

    type Measurement = fn(&Bench, &mut report::Report);

    let said = |word: &str| words.iter().any(|said| said == word);
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    for word in words {
        let known = ["--bench", "quick", "selftest"].contains(&word.as_str());
        let pair = word.starts_with("daemon=") || word.starts_with("only=");
        assert!(known || pair, "unknown word {word:?}");
    }
    let effort = if said("quick") {
        Effort { rounds: 3, round: Duration::from_millis(500), tries: 5, shim_calls: 2_000 }
    } else {
        Effort { rounds: 5, round: Duration::from_secs(2), tries: 10, shim_calls: 10_000 }
    };
    let built = PathBuf::from(env!("CARGO_BIN_EXE_inflightd"));
    // Absolute, since each server starts in a folder of its own.
    let given = value("daemon=").map(|path| std::fs::canonicalize(path).unwrap());
    let daemon = (!said("selftest")).then(|| given.unwrap_or(built));
    process::raise_open_files();
    let cores = process::Cores::pick();
    let said: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    report::print_machine(cores, &format!("cargo bench --bench speed -- {}", said.join(" ")));

    if daemon.is_none() {
        println!("**Self-test: the spawned reference stands in for the daemon.**");
    }
    let bench = Bench { effort, cores, daemon };
    let mut report = report::Report::default();
    let only = value("only=").map(|names| names.split(',').collect::<Vec<_>>());
    let measurements: [(&str, Measurement); 12] = [
        ("echo", Bench::echo),
        ("hits", Bench::hits),
        ("followers", Bench::followers),
        ("pipeline", Bench::pipeline),
        ("burst", Bench::burst),
        ("idle", Bench::idle),
        ("first", Bench::first),
        ("shim", Bench::shim),
        ("provider", Bench::provider),
        ("upstream", Bench::upstream),
        ("sessions", Bench::sessions),
        ("post", Bench::post),
    ];
    for (name, measure) in measurements {
        if only.as_ref().is_none_or(|only| only.contains(&name)) {
            // What it panicked of is on stderr; the others can still be measured.
            let measured = catch_unwind(AssertUnwindSafe(|| measure(&bench, &mut report)));
            if measured.is_err() {
                report.target(name, "ended early".to_owned(), "", false);
            }
        }
    }
    report.print();
}
