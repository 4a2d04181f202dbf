//! Modules: local commands as an operator declared them, run once for each call and told of as data, however they end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::config::{GateRules, ModuleConfig, ModulesConfig};
use crate::deadline::Deadline;
use crate::provider::command::{
    self, ENDING, End, EndedBy, Fence, Finished, Folder, Glimpse, Kept, Launch, Order,
};
use crate::provider::machine::Machine;
use crate::provider::{Context, Fault, Job, Reply, Step, Tell};

/// How a run that could not be started, or was ended by us, is told.
const NO_CODE: i32 = -1;

/// What is shown of stderr where a run has failed.
const SHOWN_LINES: usize = 10;
const SHOWN_CHARS: usize = 2000;

/// The name of what tells a run when it must have ended, in milliseconds since 1970.
const DEADLINE_VARIABLE: &str = "INFLIGHTD_DEADLINE_MS";

/// All modules, and what they are run with.
#[derive(Debug)]
pub struct Modules {
    config: ModulesConfig,
    machine: Arc<Machine>,
}

/// One run, as a call asks for it.
pub struct ModuleRun {
    /// What it is called by.
    pub id: Box<str>,
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its whole argument vector, without the program.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Where it works; `None`: in a folder of its own.
    pub cwd: Option<PathBuf>,
    /// What it may reach; `None`: whatever the daemon may.
    pub fence: Option<Fence>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// It is shown and not started.
    pub dry: bool,
    /// All modules.
    pub modules: Arc<Modules>,
}

impl Modules {
    /// As configured.
    pub fn new(config: ModulesConfig, machine: Arc<Machine>) -> Self {
        Self { config, machine }
    }

    /// The configuration.
    pub fn config(&self) -> &ModulesConfig {
        &self.config
    }

    /// The declared module of that name.
    pub fn find(&self, id: &str) -> Option<&ModuleConfig> {
        self.config.declared.iter().find(|module| *module.id == *id)
    }

    /// Why nothing may be started now.
    fn refusal(&self) -> Option<String> {
        let rules: &GateRules = self.config.gate.as_ref()?;
        self.machine.refusal(rules)
    }
}

/// What is told of one run.
#[derive(Debug, Default)]
struct Told {
    exit_code: i32,
    error: Option<String>,
    stdout: Kept,
    stderr: Kept,
    took: Duration,
    timed_out: bool,
}

impl Told {
    fn refused(error: String) -> Self {
        Self { exit_code: NO_CODE, error: Some(error), ..Self::default() }
    }

    /// How it ended; `limit` is how long it could have taken.
    fn of(finished: Finished, limit: Duration) -> Self {
        let Finished { end, by, stdout, stderr, took, .. } = finished;
        let (exit_code, error) = match (by, end) {
            (EndedBy::Time, _) => {
                (NO_CODE, Some(format!("Module execution timed out after {}s", limit.as_secs_f64())))
            }
            (EndedBy::Stop, _) => (NO_CODE, Some("Cancelled".to_owned())),
            (EndedBy::Itself, Err(reason)) => (NO_CODE, Some(reason)),
            (EndedBy::Itself, Ok(End::Code(0))) => (0, None),
            (EndedBy::Itself, Ok(End::Code(code))) => {
                let last = stderr.last_lines(SHOWN_LINES, SHOWN_CHARS);
                let gap = if last.is_empty() { "" } else { "\n" };
                (code, Some(format!("Process exited with code {code}{gap}{last}")))
            }
            (EndedBy::Itself, Ok(End::Signal(signal))) => {
                (-signal, Some(format!("Process killed by signal {signal}")))
            }
        };
        Self { exit_code, error, stdout, stderr, took, timed_out: by == EndedBy::Time }
    }

    fn shown(self, id: &str) -> Value {
        let mut shown = json!({
            "module_id": id,
            "exit_code": self.exit_code,
            "success": self.exit_code == 0 && self.error.is_none(),
            "error": self.error,
            "stdout": self.stdout.text,
            "stderr": self.stderr.text,
            "duration_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "timed_out": self.timed_out,
        });
        let cut = [("stdout_cut_bytes", self.stdout.cut_bytes), ("stderr_cut_bytes", self.stderr.cut_bytes)];
        if let Some(members) = shown.as_object_mut() {
            members.extend(
                cut.into_iter().filter(|(_, cut)| *cut > 0).map(|(name, cut)| (name.into(), cut.into())),
            );
        }
        shown
    }
}

/// What a run is told as that was not started, for this reason.
pub fn not_run(id: &str, reason: String) -> Value {
    Told::refused(reason).shown(id)
}

impl Job for ModuleRun {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            let id = self.id.clone();
            let told = self.told(context).await;
            Ok(Reply::structured(&told.shown(&id)))
        }
        .boxed()
    }

    fn winds_down(&self) -> bool {
        true
    }
}

impl ModuleRun {
    async fn told(self, context: Context) -> Told {
        if let Some(refusal) = self.modules.refusal() {
            return Told::refused(refusal);
        }
        if self.dry {
            let words = std::iter::once(self.program.display().to_string()).chain(self.args);
            let words: Vec<_> = words.map(|word| quoted(&word)).collect();
            let text = format!("DRY_RUN: {}", words.join(" "));
            return Told { stdout: Kept { text, cut_bytes: 0 }, ..Told::default() };
        }
        if !self.program.exists() {
            return Told::refused(format!("Script not found: {}", self.program.display()));
        }
        let (until, limit) = self.until(context.deadline);
        let mut env = self.env;
        let left = u64::try_from(until.remaining().as_millis()).unwrap_or(u64::MAX);
        env.push((DEADLINE_VARIABLE.to_owned(), epoch_ms().saturating_add(left).to_string()));
        let order = Order {
            program: self.program,
            args: self.args,
            env,
            folder: self.cwd.map_or_else(own_folder, Folder::Given),
            fence: self.fence,
        };
        let launch = Launch {
            guard: self.modules.config.guard.clone(),
            order,
            until,
            stop: context.stop.unwrap_or_default(),
            output_bytes: self.modules.config.output_bytes,
        };
        let tell = context.tell;
        let finished = command::run(launch, |glimpse| see(&*tell, glimpse)).await;
        if let Some(why) = &finished.left {
            tracing::warn!(module = &*self.id, "something of a module's own folder is left: {why}");
        }
        Told::of(finished, limit)
    }

    /// When it must have ended by itself, so that its tree is dead at the deadline; and how long that is.
    fn until(&self, deadline: Deadline) -> (Deadline, Duration) {
        let left = deadline.remaining();
        let most = left.saturating_sub(ENDING.min(left / 2));
        let limit = self.timeout.map_or(most, |timeout| timeout.min(most));
        (Deadline::after(limit), limit)
    }
}

fn see(tell: &dyn Tell, glimpse: Glimpse) {
    let message = glimpse.line.unwrap_or_default();
    // Seconds, as people read them; looks are a second apart at least, so that it rises.
    let progress = (glimpse.elapsed.as_secs_f64() * 10.0).round() / 10.0;
    tell.step(Step { progress, total: None, message });
}

/// A word as a shell would want it, where it is not a plain one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A folder that nobody else has.
fn own_folder() -> Folder {
    let name = format!("inflightd_module_{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    Folder::Own(std::env::temp_dir().join(name))
}

fn epoch_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The folder or file that a path really is, if it lies in or below one of these.
pub fn within(path: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    let below = |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    folders.iter().any(below).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(end: Result<End, String>, by: EndedBy, stderr: &str) -> Finished {
        let stderr = Kept { text: stderr.into(), cut_bytes: 0 };
        Finished { end, by, stdout: Kept::default(), stderr, took: Duration::from_millis(7), left: None }
    }

    #[test]
    fn each_way_to_end_has_its_code_and_text() {
        let limit = Duration::from_secs(300);
        for (end, by, code, error) in [
            (Ok(End::Code(0)), EndedBy::Itself, 0, None),
            (Ok(End::Code(3)), EndedBy::Itself, 3, Some("Process exited with code 3\na\nb")),
            (Ok(End::Signal(9)), EndedBy::Itself, -9, Some("Process killed by signal 9")),
            (Err("Permission denied".into()), EndedBy::Itself, -1, Some("Permission denied")),
            (Ok(End::Signal(15)), EndedBy::Time, -1, Some("Module execution timed out after 300s")),
            (Ok(End::Code(0)), EndedBy::Stop, -1, Some("Cancelled")),
        ] {
            let timed_out = by == EndedBy::Time;
            let shown = Told::of(finished(end, by, "a\nb\n"), limit).shown("m");
            assert_eq!(shown["exit_code"], code);
            assert_eq!(shown["error"].as_str(), error);
            assert_eq!(shown["success"], error.is_none());
            assert_eq!(shown["timed_out"], timed_out);
            assert_eq!((&shown["module_id"], &shown["duration_ms"]), (&json!("m"), &json!(7)));
        }
        let silent = Told::of(finished(Ok(End::Code(1)), EndedBy::Itself, ""), limit).shown("m");
        assert_eq!(silent["error"], "Process exited with code 1");
    }

    #[test]
    fn what_is_cut_says_so() {
        let stdout = Kept { text: "end".into(), cut_bytes: 5 };
        let shown = Told { stdout, ..Told::default() }.shown("m");
        assert_eq!((&shown["stdout_cut_bytes"], shown.get("stderr_cut_bytes")), (&json!(5), None));
    }

    #[test]
    fn words_are_shown_as_they_would_be_written() {
        assert_eq!(["a-b/c.d", "", "it's", "ü"].map(quoted), ["a-b/c.d", "''", "'it'\\''s'", "ü"]);
    }
}
