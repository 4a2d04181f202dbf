//! Log lines: rare ones through `tracing`, the one for each call as a record; both through a bounded queue and a writer
//! of its own, so that nobody waits for whoever reads the log.
//!
//! Neither prompts, arguments nor secrets come here: nothing in this file takes any.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::config::{LogFormat, LogLevel};
use crate::lifecycle::Record;

#[cfg(test)]
pub(crate) mod heard;
mod outlet;

pub use outlet::{flush, say};

/// Lines that may wait for the writer: a quarter of a second at 32,000 calls/s. More are dropped and counted.
const WAITING_LINES: usize = 8192;

/// How long the writer lets lines gather. Nobody reads faster, and one write carries them all.
const GATHER: Duration = Duration::from_millis(20);

/// Sends the log of this process to stderr. Only the first call in a process counts.
pub fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let ours = Targets::new().with_target("inflightd", level).with_default(LevelFilter::WARN);
    let outlet = outlet::Outlet::of_process();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || outlet.clone());
    let registry = tracing_subscriber::registry();
    // An error means that this process has its log already: tests start several daemons in one.
    let _ = match format {
        LogFormat::Text => {
            registry.with(lines.with_target(false).with_ansi(false).with_filter(ours)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(ours)).try_init(),
    };
}

/// Where the line for each call goes.
#[derive(Debug, Clone)]
pub struct CallLog {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    come: Condvar,
    gone: Condvar,
    /// Since the start.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<Record>,
    writing: bool,
}

impl CallLog {
    /// A log that writes nothing.
    pub fn off() -> Self {
        Self { shared: None }
    }

    /// A log that writes to stderr, where `level` asks for a line each call.
    ///
    /// `principals` are the names by their ids; a line says whose call it was where there are several.
    pub fn start(format: LogFormat, level: LogLevel, principals: Vec<Box<str>>) -> Self {
        if level < LogLevel::Info {
            return Self::off();
        }
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let started = std::thread::Builder::new()
            .name("call-log".into())
            .spawn(move || writer.run(format, &principals));
        match started {
            Ok(_) => Self { shared: Some(shared) },
            Err(error) => {
                tracing::warn!(%error, "no thread for the call log: calls are not logged");
                Self::off()
            }
        }
    }

    /// Queues one line; never waits.
    pub fn write(&self, record: &Record) {
        let Some(shared) = &self.shared else { return };
        let mut lines = shared.lines.lock();
        if lines.waiting.len() >= WAITING_LINES {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.waiting.push(record.clone());
        let first = lines.waiting.len() == 1;
        drop(lines);
        if first {
            shared.come.notify_one();
        }
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.dropped.load(Ordering::Relaxed))
    }

    /// Waits until what was queued is written, two seconds at most.
    pub fn flush(&self) {
        let Some(shared) = &self.shared else { return };
        let mut lines = shared.lines.lock();
        while !lines.waiting.is_empty() || lines.writing {
            if shared.gone.wait_for(&mut lines, Duration::from_secs(2)).timed_out() {
                return;
            }
        }
    }
}

impl Shared {
    fn run(&self, format: LogFormat, principals: &[Box<str>]) {
        let mut text = String::new();
        let mut batch = Vec::new();
        let mut complained = 0;
        loop {
            let mut lines = self.lines.lock();
            while lines.waiting.is_empty() {
                self.come.wait(&mut lines);
            }
            drop(lines);
            std::thread::sleep(GATHER);
            let mut lines = self.lines.lock();
            std::mem::swap(&mut lines.waiting, &mut batch);
            lines.writing = true;
            drop(lines);
            text.clear();
            for record in batch.drain(..) {
                line(&mut text, &record, format, principals);
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > complained {
                let dropped = dropped - complained;
                tracing::warn!(dropped, "call log: lines came faster than they could be written");
            }
            complained = dropped;
            // A log that cannot be written cannot be complained about.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            self.lines.lock().writing = false;
            self.gone.notify_all();
        }
    }
}

/// Appends a call's line. Every text in it is the daemon's own, but for the model's name.
fn line(out: &mut String, record: &Record, format: LogFormat, principals: &[Box<str>]) {
    let model = record.model.as_deref().map(loggable);
    let ended_ms = record.request.minted_ms() + millis(record.spent.total);
    let principal = usize::try_from(record.principal.0).ok().and_then(|at| principals.get(at));
    let fields: [(&str, Option<&str>); 8] = [
        ("principal", principal.filter(|_| principals.len() > 1).map(|name| &**name)),
        ("tool", Some(&record.tool)),
        ("outcome", Some(record.terminal.label())),
        ("code", record.code),
        ("note", record.seen.filter(|seen| seen.partial).map(|_| "partial")),
        ("role", record.role.map(crate::lifecycle::Role::label)),
        ("provider", record.provider.as_deref()),
        ("model", model.as_deref()),
    ];
    let spent = record.spent;
    let times = [
        ("total_ms", spent.total),
        ("queue_ms", spent.queue),
        ("permit_ms", spent.permit),
        ("provider_ms", spent.provider),
        ("overhead_ms", spent.overhead()),
    ];
    // Writing to a String cannot fail.
    match format {
        LogFormat::Text => {
            push_timestamp(out, ended_ms);
            let _ = write!(out, "  INFO call request={}", record.request);
            if let Some(execution) = record.execution {
                let _ = write!(out, " session={execution}");
            }
            for (name, value) in fields {
                let Some(value) = value else { continue };
                let _ = write!(out, " {name}={value}");
            }
            for (name, value) in times {
                let _ = write!(out, " {name}={:.3}", value.as_secs_f64() * 1e3);
            }
            out.push('\n');
        }
        LogFormat::Json => {
            out.push_str("{\"timestamp\":\"");
            push_timestamp(out, ended_ms);
            let _ =
                write!(out, "\",\"level\":\"INFO\",\"message\":\"call\",\"request\":\"{}\"", record.request);
            if let Some(execution) = record.execution {
                let _ = write!(out, ",\"session\":\"{execution}\"");
            }
            for (name, value) in fields {
                let Some(value) = value else { continue };
                let _ = write!(out, ",\"{name}\":\"{value}\"");
            }
            for (name, value) in times {
                let _ = write!(out, ",\"{name}\":{:.3}", value.as_secs_f64() * 1e3);
            }
            out.push_str(",\"target\":\"inflightd::call\"}\n");
        }
    }
}

/// A model's name comes from a caller or a provider: what could break a line, or make one endless, is left out.
fn loggable(name: &str) -> String {
    const LONGEST: usize = 128;
    let fits = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    name.chars().filter(fits).take(LONGEST).collect()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Appends `2026-11-21T02:52:55.123Z`.
pub fn push_timestamp(out: &mut String, epoch_ms: u64) {
    let (days, ms) = (epoch_ms / 86_400_000, epoch_ms % 86_400_000);
    // Civil date from days, counted in eras of 400 years that begin on 1 March (H. Hinnant, "chrono-compatible
    // low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    // Writing to a String cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whose_call_it_was_where_there_are_several() {
        let record = Record {
            request: crate::ids::RequestId::mint(),
            execution: None,
            principal: crate::ids::PrincipalId(1),
            tool: Arc::from("echo"),
            provider: None,
            model: None,
            role: None,
            terminal: crate::phase::Terminal::Completed,
            code: None,
            refusal: None,
            spent: crate::lifecycle::Spent::default(),
            seen: None,
        };
        let line = |format, names: &[&str]| {
            let names: Vec<Box<str>> = names.iter().map(|name| Box::from(*name)).collect();
            let mut text = String::new();
            super::line(&mut text, &record, format, &names);
            text
        };
        assert!(line(LogFormat::Text, &["local", "ci"]).contains(" principal=ci tool=echo"));
        assert!(line(LogFormat::Json, &["local", "ci"]).contains("\"principal\":\"ci\""));
        assert!(!line(LogFormat::Text, &["local"]).contains("principal"));
    }

    #[test]
    fn dates_are_right_across_leap_days() {
        let of = |epoch_ms| {
            let mut text = String::new();
            push_timestamp(&mut text, epoch_ms);
            text
        };
        assert_eq!(of(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(of(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(of(1_795_229_575_123), "2026-11-21T02:52:55.123Z");
        assert_eq!(of(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
    }

    #[test]
    fn a_line_says_where_the_time_went_and_no_model_can_break_it() {
        use crate::ids::{ExecutionId, PrincipalId, RequestId};
        use crate::lifecycle::{Role, Spent};
        use crate::phase::Terminal;
        let ms = Duration::from_millis;
        let record = Record {
            request: RequestId::mint(),
            execution: Some(ExecutionId::mint()),
            principal: PrincipalId(0),
            tool: Arc::from("chat"),
            provider: Some(Arc::from("kimi")),
            model: Some(Arc::from("k2\" \n,\"tool\":\"x\\")),
            role: Some(Role::Leader),
            terminal: Terminal::Completed,
            code: None,
            refusal: None,
            spent: Spent { total: ms(100), queue: ms(20), permit: ms(10), provider: ms(65) },
            seen: None,
        };
        let mut text = String::new();
        line(&mut text, &record, LogFormat::Json, &[]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json.get("note"), None);
        assert_eq!((&json["tool"], &json["model"]), (&"chat".into(), &"k2,tool:x".into()));
        let times = ["total_ms", "queue_ms", "permit_ms", "provider_ms", "overhead_ms"];
        assert_eq!(times.map(|time| json[time].to_string()), ["100.0", "20.0", "10.0", "65.0", "5.0"]);
        text.clear();
        line(&mut text, &record, LogFormat::Text, &[]);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(&format!(" session={} ", json["session"].as_str().unwrap())));
        assert!(text.ends_with(" model=k2,tool:x total_ms=100.000 queue_ms=20.000 permit_ms=10.000 provider_ms=65.000 overhead_ms=5.000\n"));
    }
}
