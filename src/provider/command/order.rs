//! What the daemon and the guard of one module say to each other, over the socket that is the guard's stdin.
//!
//! The daemon sends one [`Order`]: its length in four bytes, the highest first, then JSON. From then on its end of the
//! socket says one thing only: it is shut, so the tree must end. The guard sends one [`Report`] a line.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long processes may take to end by themselves after TERM.
pub const GRACE: Duration = Duration::from_secs(5);

/// The longest order: the kernel takes no longer arguments.
pub(super) const LONGEST_ORDER_BYTES: u32 = 16 << 20;

/// What is to be started. Without `Debug`: the environment may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Where it works.
    pub folder: Folder,
    /// What it may reach, where the kernel can hold it to that; `None`: whatever its user may.
    pub fence: Option<Fence>,
}

/// Where a module works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Folder {
    /// In a folder of its own, which the guard makes, and removes once the tree is dead.
    Own(PathBuf),
    /// In one that is there.
    Given(PathBuf),
}

impl Folder {
    /// The folder.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Own(path) | Self::Given(path) => path,
        }
    }
}

/// What a module may reach beside its folder, its program's folder, and what every program needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// It may read and run what is in there.
    pub read: Vec<PathBuf>,
    /// It may also write there.
    pub write: Vec<PathBuf>,
}

/// What the guard says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The program was started.
    Started,
    /// It could not be started, for this reason.
    NotStarted(String),
    /// The program itself has ended.
    Ended(End),
    /// Nothing of the tree lives any more, and its own folder is gone; or it is not, for this reason.
    Dead {
        /// Why something of its own folder is left.
        left: Option<String>,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}
