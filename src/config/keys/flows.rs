//! The keys of flows.

use super::{COUNT, Group, Kind, key, unset};

/// The table's part.
pub(super) static GROUPS: &[Group] = &[Group {
    heading: "Flows",
    keys: &[
        unset(
            "FLOWS_DIRS",
            Kind::List,
            "Folders whose flow files `execute_flow` runs, with all that is under them. Unset, the tool is not offered. See docs/flows.md.",
        ),
        unset(
            "FLOWS_WRITE_DIRS",
            Kind::List,
            "Folders outside its own into which a flow may write, by absolute paths. Unset, none.",
        ),
        unset(
            "FLOWS_WORK_DIR",
            Kind::Path,
            "The folder in which each run has its own, for as long as it runs. Unset, one of this user's in the system's folder for temporary files.",
        ),
        key(
            "MAX_WORKERS",
            COUNT,
            "5",
            "Flows at work. They hold no other place; their chat nodes are calls of their own.",
        ),
        key("MAX_QUEUE", COUNT, "20", "Flows that wait for such a place."),
        key("FLOWS_PER_MINUTE", COUNT, "10", "Calls of `execute_flow` of each principal within any minute."),
    ],
}];
