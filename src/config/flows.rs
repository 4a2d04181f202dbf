//! What flows may touch, and how often they may be called.

use std::path::{Path, PathBuf};

use super::values::Values;

/// Everything that `execute_flow` needs.
#[derive(Debug, Clone, Default)]
pub struct FlowsConfig {
    /// Where their files are. Without any, there are no flows.
    pub folders: Vec<PathBuf>,
    /// Where they may write beside their own folder.
    pub writes: Vec<PathBuf>,
    /// Where each run has a folder of its own.
    pub work: PathBuf,
    /// Whether somebody said so: the usual one must be this user's.
    pub work_is_set: bool,
    /// Calls of each principal within any minute.
    pub per_minute: usize,
}

/// Reads them.
pub(super) fn read(values: &mut Values) -> FlowsConfig {
    let folders = values.folders("FLOWS_DIRS");
    let writes = values.folders("FLOWS_WRITE_DIRS");
    let said = values.path("FLOWS_WORK_DIR");
    FlowsConfig {
        folders,
        writes,
        work_is_set: said.is_some(),
        work: said.unwrap_or_else(usual),
        per_minute: values.count("FLOWS_PER_MINUTE").0,
    }
}

#[cfg(unix)]
fn usual() -> PathBuf {
    std::env::temp_dir().join(format!("inflightd-flows-{}", rustix::process::geteuid().as_raw()))
}

#[cfg(not(unix))]
fn usual() -> PathBuf {
    std::env::temp_dir().join("inflightd-flows")
}

/// The folders of a list.
pub(super) fn list(text: &str, working_folder: &Path) -> Vec<PathBuf> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| working_folder.join(name)).collect()
}
