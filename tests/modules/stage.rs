//! Folders of their own, scripts in them, and a look at who works there.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use inflightd::deadline::Deadline;
use inflightd::provider::command::{self, Fence, Finished, Folder, Launch, Order};
use tokio_util::sync::CancellationToken;

/// This very program: what guards.
pub const GUARD: &str = env!("CARGO_BIN_EXE_inflightd");

/// The bound of every wait: above five seconds of grace on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// Waits for something that must come.
pub async fn within<F: Future>(what: &str, work: F) -> F::Output {
    let Ok(output) = tokio::time::timeout(BOUND, work).await else {
        panic!("{what} did not come within {BOUND:?}");
    };
    output
}

/// Looks again and again until `look` sees what must come.
pub async fn until(what: &str, mut look: impl FnMut() -> bool) {
    within(what, async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A folder that goes with the test.
pub struct Stage(PathBuf);

impl Stage {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("modules-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A bash script that may be run.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        self.file(name, &format!("#!/bin/bash\n{text}\n"))
    }

    /// Any file that may be run.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// What stands in a file, as far as it was written.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a script has written this line.
    pub async fn says(&self, name: &str, line: &str) {
        until(&format!("{line} in {name}"), || self.text(name).lines().any(|found| found == line)).await;
    }

    /// Processes that live and work in this folder or below, also where it was removed.
    pub fn living(&self) -> Vec<String> {
        let works_here =
            |process: &PathBuf| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&self.0));
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let name = |process: PathBuf| {
            let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            format!("{}: {}", process.display(), line.replace('\0', " "))
        };
        processes.filter(works_here).map(name).collect()
    }

    pub fn is_dead(&self) {
        assert_eq!(self.living(), Vec::<String>::new());
    }

    /// An order to run this script in the stage's folder, with what it needs to write there.
    pub fn order(&self, program: &Path, args: &[&str]) -> Order {
        Order {
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            folder: Folder::Given(self.0.clone()),
            fence: Some(Fence::default()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A run of this order, with an hour of time.
pub fn launch(order: Order) -> Launch {
    Launch {
        guard: GUARD.into(),
        order,
        until: Deadline::after(Duration::from_secs(3600)),
        stop: CancellationToken::new(),
        output_bytes: 64 << 10,
    }
}

/// Runs to the end.
pub async fn run(launch: Launch) -> Finished {
    within("the end of the run", command::run(launch, |_| ())).await
}
