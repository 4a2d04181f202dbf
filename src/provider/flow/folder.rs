//! What a run may touch: a folder of its own, which goes when the run ends, and those that its operator allows.
//!
//! Everything here happens at once, and never in a task of its own: a run that is dropped takes its folder with it, and
//! no write comes after.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use crate::config::FlowsConfig;
use crate::ids::FlowId;
use crate::provider::flow::tree::{self, MOST_PARTS, Root};

/// What stands before the name of each run's folder.
const PREFIX: &str = "flow_";
/// The flow, in its run's folder.
const GRAPH: &str = "flow.json";
/// The context, in its run's folder.
const CONTEXT: &str = "fullcode.txt";
/// The longest path that a node may write to.
const MOST_PATH_BYTES: usize = 4096;
/// What the nodes of a run may write together: above what models answer, far below what fills a disk.
pub const MOST_WRITTEN_BYTES: u64 = 256 << 20;

/// Why a flow's file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NoGraph {
    /// It is none of those that may be run.
    #[error("it lies in no flows folder")]
    Outside,
    /// There is none.
    #[error("there is no such file")]
    NotFound,
    /// The operating system says no.
    #[error("open the file")]
    Io(#[source] io::Error),
}

/// Why a node did not write.
#[derive(Debug, thiserror::Error)]
pub enum NoWrite {
    /// No path at all, or one that no file can have.
    #[error("The path is empty, too long, or none.")]
    NoPath,
    /// A way up.
    #[error("The path leads out of the run's folder by `..`.")]
    Parent,
    /// Out of it.
    #[error("The path is absolute and in none of the folders that flows may write to (FLOWS_WRITE_DIRS).")]
    NotAllowed,
    /// Over a link.
    #[error("The path leads over a symbolic link.")]
    Link,
    /// What the run itself keeps.
    #[error("The file is the run's own.")]
    Reserved,
    /// Too much.
    #[error("The nodes of a run write at most {MOST_WRITTEN_BYTES} bytes.")]
    TooMuch,
    /// The operating system says no.
    #[error("The file cannot be written: {}.", .0.kind())]
    Io(io::Error),
}

/// Why there is no folder to work in.
#[derive(Debug, thiserror::Error)]
pub enum NoFolder {
    /// Somebody else made it first.
    #[error("{0} is not this user's alone; set FLOWS_WORK_DIR to a folder that is")]
    NotOurs(PathBuf),
    /// The operating system says no.
    #[error("use {0} as the folder for runs of flows")]
    Io(PathBuf, #[source] io::Error),
}

/// The folders of all runs.
#[derive(Debug)]
pub struct Site {
    config: FlowsConfig,
}

impl Site {
    /// Makes the folder ready, and takes away what killed daemons left in it.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn open(config: &FlowsConfig) -> Result<Self, NoFolder> {
        let work = &config.work;
        let failed = |error| NoFolder::Io(work.clone(), error);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(work).map_err(failed)?;
        let root = Root::open(work).map_err(failed)?;
        let is_link = fs::symlink_metadata(work).map_err(failed)?.is_symlink();
        if !config.work_is_set && (is_link || !root.is_private().map_err(failed)?) {
            return Err(NoFolder::NotOurs(work.clone()));
        }
        sweep(work);
        Ok(Self { config: config.clone() })
    }

    /// Opens the file of a flow.
    ///
    /// # Errors
    /// It is none of those that may be run, or not there.
    pub fn graph(&self, path: &str) -> Result<File, NoGraph> {
        let path = Path::new(path);
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::RootDir | Component::CurDir);
        if path.as_os_str().as_encoded_bytes().contains(&0) || !path.components().all(is_plain) {
            return Err(NoGraph::Outside);
        }
        let mut found = if path.is_absolute() { NoGraph::Outside } else { NoGraph::NotFound };
        for folder in &self.config.folders {
            let Some(rest) = beneath(path, folder) else { continue };
            match tree::open(folder, &rest) {
                Ok(file) => return Ok(file),
                Err(error) if tree::is_outside(&error) => found = NoGraph::Outside,
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => found = NoGraph::NotFound,
                    _ => return Err(NoGraph::Io(error)),
                },
            }
        }
        Err(found)
    }

    /// Makes the folder of one run.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, id: FlowId, graph: &[u8], context: &str) -> Result<Folder, NoFolder> {
        let path = self.config.work.join(format!("{PREFIX}{id}_{}", std::process::id()));
        let failed = |error| NoFolder::Io(self.config.work.clone(), error);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(failed)?;
        let gone = Gone(path.clone());
        let root = Root::open(&path).and_then(|root| root.hold().map(|()| root)).map_err(failed)?;
        let allowed = self.config.writes.clone();
        let folder = Folder { path, root, allowed, written: 0, _gone: gone };
        for (name, bytes) in [(GRAPH, graph), (CONTEXT, context.as_bytes())] {
            folder.root.create(Path::new(name)).and_then(|mut file| file.write_all(bytes)).map_err(failed)?;
        }
        Ok(folder)
    }
}

/// What a path says below a folder.
fn beneath(path: &Path, folder: &Path) -> Option<PathBuf> {
    let rest = if path.is_absolute() { path.strip_prefix(folder).ok()? } else { path };
    // `.` leads nowhere, and what is left of a folder itself is no file.
    let rest: PathBuf = rest.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    (!rest.as_os_str().is_empty()).then_some(rest)
}

/// Takes away the folders of runs whose daemon is gone: those that nobody holds.
fn sweep(work: &Path) {
    let Ok(entries) = fs::read_dir(work) else { return };
    let mut swept = 0_usize;
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        let held = |root: Root| root.hold().is_ok() && root.is_at(&path);
        let Some(process) = maker(&entry.file_name().to_string_lossy()) else { continue };
        if is_folder && is_stale(process, &path) && Root::open(&path).is_ok_and(held) {
            remove(&path);
            swept += 1;
        }
    }
    if swept > 0 {
        tracing::warn!(swept, "folders of flows were left by a daemon that was killed, and are gone");
    }
}

/// The process that made the folder of a run, by its name: `flow_<32 hexadecimal digits>_<process>`. `None` for every other
/// folder: it is somebody's own.
fn maker(name: &str) -> Option<i32> {
    let (id, process) = name.strip_prefix(PREFIX)?.split_once('_')?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_number = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
    if is_id && is_number { process.parse().ok() } else { None }
}

/// Whether the daemon that its name tells of is no more: a run whose folder was made just now holds it a moment later.
#[cfg(unix)]
fn is_stale(process: i32, path: &Path) -> bool {
    let process = rustix::process::Pid::from_raw(process);
    // This one has made none yet: in a container each daemon has the same id as the one before.
    let process = process.filter(|id| *id != rustix::process::getpid());
    // Ids are used again: of a process that lives, whoever it is, only a folder that nobody holds for long is stale.
    let lives = process.is_some_and(|id| rustix::process::test_kill_process(id).is_ok());
    !lives || fs::metadata(path).and_then(|about| about.modified()).is_ok_and(is_old)
}

#[cfg(not(unix))]
fn is_stale(_process: i32, path: &Path) -> bool {
    fs::metadata(path).and_then(|about| about.modified()).is_ok_and(is_old)
}

fn is_old(modified: std::time::SystemTime) -> bool {
    /// Far longer than it takes from making a folder to holding it.
    const OLD: std::time::Duration = std::time::Duration::from_secs(60);
    modified.elapsed().is_ok_and(|age| age > OLD)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(path = %path.display(), "the folder of a flow could not be removed: {error}");
    }
}

/// Takes a run's folder away, however the run ends.
#[derive(Debug)]
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// One run's own. It goes with this.
#[derive(Debug)]
#[must_use]
pub struct Folder {
    path: PathBuf,
    root: Root,
    allowed: Vec<PathBuf>,
    written: u64,
    _gone: Gone,
}

/// Where a node writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The folder outside the run's own, if it is one.
    outside: Option<PathBuf>,
    rest: PathBuf,
}

impl Target {
    /// What it is called in the result.
    pub fn name(&self) -> String {
        match &self.outside {
            Some(folder) => folder.join(&self.rest).display().to_string(),
            None => self.rest.display().to_string(),
        }
    }

    /// Whether it stays when the run is over.
    pub fn stays(&self) -> bool {
        self.outside.is_some()
    }
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a path leads: relative ones and those below `~` into the run's own folder.
    ///
    /// # Errors
    /// It leads elsewhere.
    pub fn target(&self, path: &str) -> Result<Target, NoWrite> {
        if path.len() > MOST_PATH_BYTES || path.contains('\0') {
            return Err(NoWrite::NoPath);
        }
        let home = path.strip_prefix("~/").or(path.strip_prefix("~\\")).or((path == "~").then_some(""));
        let path = Path::new(home.map_or(path, |rest| rest.trim_start_matches(['/', '\\'])));
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(NoWrite::Parent);
        }
        let outside = if path.is_absolute() {
            Some(self.allowed.iter().find(|folder| path.starts_with(folder)).ok_or(NoWrite::NotAllowed)?)
        } else {
            None
        };
        let rest = beneath(path, outside.map_or(Path::new(""), |folder| folder)).ok_or(NoWrite::NoPath)?;
        if rest.components().count() > MOST_PARTS {
            return Err(NoWrite::NoPath);
        }
        if outside.is_none() && [GRAPH, CONTEXT].iter().any(|own| rest.as_os_str().eq_ignore_ascii_case(own))
        {
            return Err(NoWrite::Reserved);
        }
        Ok(Target { outside: outside.cloned(), rest })
    }

    /// Writes a text that is not empty.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn write(&mut self, target: &Target, text: &str) -> Result<(), NoWrite> {
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let written = self.written.saturating_add(bytes);
        if written > MOST_WRITTEN_BYTES {
            return Err(NoWrite::TooMuch);
        }
        let outside = target.outside.as_deref().map(Root::open).transpose().map_err(NoWrite::Io)?;
        let root = outside.as_ref().unwrap_or(&self.root);
        let file = root
            .create(&target.rest)
            .map_err(|error| if tree::is_outside(&error) { NoWrite::Link } else { NoWrite::Io(error) });
        self.written = written;
        file?.write_all(text.as_bytes()).map_err(NoWrite::Io)
    }
}

#[cfg(test)]
mod tests;
