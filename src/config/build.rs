//! Values → [`Config`], with the rules that bind several keys together.

use super::ladder::{self, Resolved, Rung, Rungs};
use super::parse::Wrong;
use super::principals::{LOCAL, RateLimit};
use super::providers::{self, Classes, Share};
use super::values::Values;
use super::{
    BreakerRules, Config, ConversationBounds, Limits, LogFormat, LogLevel, OfflineConfig, OfflineFault,
    Resilience, RetryRules,
};
use super::{fallbacks, flows};

/// Reads every key. `None` where the ladder does not hold; other problems leave a stand-in.
pub(super) fn config(values: &mut Values) -> Option<Config> {
    let (mut principals, token_set) = values.principals();
    let rate = rate_limit(values);
    for principal in principals.iter_mut().filter(|principal| &*principal.name != LOCAL) {
        principal.rate = principal.rate.or(rate);
    }
    let (listen, set) = values.address("INFLIGHTD_LISTEN");
    if let Some(found) = set.filter(|_| !token_set && !listen.ip().to_canonical().is_loopback()) {
        values.refuse(&found, Wrong::OpenToAll);
    }
    let classes = Classes {
        normal: values.seconds("NORMAL_TIMEOUT_SECS"),
        streaming: values.seconds("STREAMING_TIMEOUT_SECS"),
        continuation: values.seconds("CONTINUATION_TIMEOUT_SECS"),
    };
    let presets = providers::presets(values, &classes);
    let conversations = ConversationBounds {
        count: values.count("CONVERSATIONS_MAX").0,
        bytes: values.count("CONVERSATION_BYTES").0,
        age: values.seconds("CONVERSATION_SECS"),
    };
    let (aliases, prices) = (values.aliases(), values.prices());
    let fallbacks = values.fallbacks(&aliases);
    let idle_connections = values.count("PROVIDER_IDLE_CONNECTIONS").0;
    let offline_max = values.count("OFFLINE_MAX_INFLIGHT");
    let (limits, global_set) = limits(values);
    let shares = presets.iter().map(providers::Preset::share).chain([Share {
        key: "OFFLINE_MAX_INFLIGHT".to_owned(),
        max: offline_max.0,
        set: offline_max.1,
        offered: true,
    }]);
    values.warnings.extend(shares.filter_map(|share| share.warning(limits.global, global_set)));
    let resilience = resilience(values);
    let resolved = resolve_ladder(values, presets.iter().map(|preset| preset.rung).collect());
    let offline = offline(values, offline_max.0);
    let log_format = if values.choice("LOG_FORMAT") == "json" { LogFormat::Json } else { LogFormat::Text };
    let log_level = log_level(values.choice("LOG_LEVEL"));
    let worker_threads = values.optional_count("WORKER_THREADS");
    let allowed_origins = values.origins("ALLOWED_ORIGINS");
    let health_interval = values.seconds("HEALTH_INTERVAL_SECS");
    let drain_timeout = values.seconds("DRAIN_TIMEOUT_SECS");
    let reattach = values.seconds("REATTACH_SECS");
    let unknown_client_limit = values.seconds("UNKNOWN_CLIENT_LIMIT_SECS");
    let guard_window = values.milliseconds("GUARD_WINDOW_MS");
    let tools_file = values.file("TOOLS_FILE");
    let modules = values.modules();
    let flows = flows::read(values);
    let (servers, child_environment) = values.servers();
    let servers_wait = values.seconds("MCP_SERVERS_WAIT_SECS");
    let files = values.files();
    let Resolved { ladder, providers: timeouts, warnings } = resolved?;
    values.warnings.extend(warnings);
    let presets = presets.into_iter().zip(timeouts);
    let mut providers: Vec<_> =
        presets.filter_map(|(preset, timeout)| preset.offered(timeout, &classes, &ladder)).collect();
    providers.extend(values.own_providers(&classes, &ladder));
    let offered = providers.iter().map(|provider| &*provider.name).chain([providers::OFFLINE]);
    values.warnings.extend(fallbacks::warnings(&fallbacks, &aliases, &offered.collect::<Vec<_>>()));
    Some(Config {
        listen,
        principals,
        allowed_origins,
        log_format,
        log_level,
        worker_threads,
        limits,
        resilience,
        ladder,
        providers,
        conversations,
        aliases,
        fallbacks,
        prices,
        idle_connections,
        offline,
        health_interval,
        drain_timeout,
        reattach,
        unknown_client_limit,
        guard_window,
        tools_file,
        modules,
        flows,
        servers,
        files,
        child_environment,
        servers_wait,
    })
}

/// How often those may call who say nothing of their own.
fn rate_limit(values: &mut Values) -> Option<RateLimit> {
    let per_minute = values.optional_count("RATE_LIMIT_PER_MINUTE");
    let burst = values.optional_count("RATE_LIMIT_BURST");
    if burst.is_some() && per_minute.is_none() {
        let warning = "RATE_LIMIT_BURST is set and RATE_LIMIT_PER_MINUTE is not: it bounds nothing";
        values.warnings.push(warning.to_owned());
    }
    RateLimit::of(per_minute, burst)
}

fn resilience(values: &mut Values) -> Resilience {
    let mut count = |name| u32::try_from(values.count(name).0).unwrap_or(u32::MAX);
    let (min_calls, failure_percent) = (count("BREAKER_MIN_CALLS"), count("BREAKER_FAILURE_PERCENT"));
    let attempts = count("RETRY_ATTEMPTS");
    Resilience {
        breaker: BreakerRules {
            window: values.seconds("BREAKER_WINDOW_SECS"),
            min_calls,
            failure_percent,
            open_for: values.seconds("BREAKER_OPEN_SECS"),
        },
        retry: RetryRules { attempts, backoff: values.milliseconds("RETRY_BACKOFF_MS") },
    }
}

/// The bounds, and whether somebody set the one over all providers.
fn limits(values: &mut Values) -> (Limits, bool) {
    let (global, global_set) = values.count("GLOBAL_MAX_INFLIGHT");
    let mut count = |name| values.count(name).0;
    let limits = Limits {
        global,
        session: count("SESSION_MAX_INFLIGHT"),
        consensus: count("CONSENSUS_MAX_INFLIGHT"),
        batches: count("BATCHES_MAX_INFLIGHT"),
        flows: count("MAX_WORKERS"),
        flows_queue: count("MAX_QUEUE"),
        queue: count("QUEUE_MAX"),
        executions: count("EXECUTIONS_MAX"),
        connections: count("CONNECTIONS_MAX"),
        waiters: count("WAITERS_MAX"),
        result_cache_bytes: count("RESULT_CACHE_BYTES"),
        frame_bytes: count("MAX_FRAME_BYTES"),
        result_bytes: count("MAX_RESULT_BYTES"),
        write_queue_bytes: count("WRITE_QUEUE_BYTES"),
    };
    (limits, global_set)
}

fn resolve_ladder(values: &mut Values, providers: Vec<Rung>) -> Option<Resolved> {
    let rungs = Rungs {
        providers,
        workflow_tool: values.rung("WORKFLOW_TOOL_TIMEOUT_SECS"),
        expert_tool: values.rung("EXPERT_ANALYSIS_TIMEOUT_SECS"),
        queue: values.rung("QUEUE_TIMEOUT_SECS"),
        connect: values.rung("CONNECT_TIMEOUT_SECS"),
        daemon: values.rung("DAEMON_TIMEOUT_SECS"),
        shim: values.rung("SHIM_TIMEOUT_SECS"),
        client: values.rung("CLIENT_TIMEOUT_SECS"),
    };
    ladder::resolve(&rungs)
        .map_err(|violations| values.problems.extend(violations.into_iter().map(Into::into)))
        .ok()
}

fn offline(values: &mut Values, max_inflight: usize) -> OfflineConfig {
    let word = values.choice("OFFLINE_FAULT");
    let fault = offline_fault(word);
    if fault.is_some() {
        // Nobody is to look for the cause of a bad day that was asked for and forgotten.
        let warning =
            format!("OFFLINE_FAULT={word}: the provider `offline` plays it; unset it to be answered");
        values.warnings.push(warning);
    }
    OfflineConfig {
        latency: values.milliseconds("OFFLINE_LATENCY_MS"),
        fault,
        fault_every: values.count("OFFLINE_FAULT_EVERY").0,
        retry_after: values.seconds("OFFLINE_RETRY_AFTER_SECS"),
        max_inflight,
    }
}

/// The words come from the table, which `values` has held the text to.
fn offline_fault(word: &str) -> Option<OfflineFault> {
    match word {
        "error" => Some(OfflineFault::Error),
        "rate_limit" => Some(OfflineFault::RateLimit),
        "hang" => Some(OfflineFault::Hang),
        "drip" => Some(OfflineFault::Drip),
        "reset" => Some(OfflineFault::Reset),
        "garbage" => Some(OfflineFault::Garbage),
        "endless" => Some(OfflineFault::Endless),
        "tls" => Some(OfflineFault::Tls),
        _ => None,
    }
}

fn log_level(word: &str) -> LogLevel {
    match word {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    }
}
