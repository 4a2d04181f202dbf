//! The configuration is read again on a signal, and when one of its files has changed. What does not hold changes
//! nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::offering::Offering;
use crate::config::{Config, Problems};

/// Between two looks at the files.
const LOOKS: Duration = Duration::from_secs(2);

/// Reads the configuration.
pub(super) type Read = Box<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// What is read again, and when.
pub(super) struct Reload {
    pub(super) read: Read,
    /// One message for each signal.
    pub(super) signals: mpsc::Receiver<()>,
    pub(super) files: Vec<PathBuf>,
}

/// When a file was changed, and how long it is; `None`: it is not there.
type Mark = Option<(SystemTime, u64)>;

impl Reload {
    /// Reads again whenever there is a reason to; never ends by itself.
    pub(super) async fn run(mut self, offering: Arc<Offering>) {
        let mut seen = self.marks();
        loop {
            self.changed(&mut seen).await;
            tracing::info!("the configuration is read again");
            let config = match (self.read)() {
                Ok(config) => config,
                Err(problems) => {
                    tracing::error!("the configuration does not hold, and nothing changes: {problems}");
                    continue;
                }
            };
            self.files = config.files;
            // A file that is named first now counts from its next change on.
            seen = self.marks();
            if let Err(error) = offering.reload(&config.servers).await {
                tracing::error!("the servers stay as they were: {error}");
            }
        }
    }

    async fn changed(&mut self, seen: &mut Vec<Mark>) {
        loop {
            tokio::select! {
                signal = self.signals.recv() => match signal {
                    Some(()) => return *seen = self.marks(),
                    // Nobody can signal any more; files still change.
                    None => tokio::time::sleep(LOOKS).await,
                },
                () = tokio::time::sleep(LOOKS) => {}
            }
            let now = self.marks();
            if *seen != now {
                *seen = now;
                return;
            }
        }
    }

    fn marks(&self) -> Vec<Mark> {
        let mark = |file: &PathBuf| {
            let about = std::fs::metadata(file).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        self.files.iter().map(mark).collect()
    }
}
