//! Keys of local commands.

use super::{BYTES, COUNT, Group, Kind, MANY, key, unset};

/// Most machines have fewer.
const MOST_GB: usize = 1 << 20;

/// One group.
pub(super) static GROUPS: &[Group] = &[Group {
    heading: "Modules",
    keys: &[
        key(
            "MODULES_MAX_CONCURRENT",
            Kind::CountOrAuto { most: MANY },
            "10",
            "Local commands at work at once; `auto`: twice the processors. See docs/modules.md.",
        ),
        unset(
            "MODULES_SCRIPT_DIRS",
            Kind::List,
            "Folders whose scripts may be run by their path, without a `[modules.NAME]` of their own.",
        ),
        key(
            "MODULES_OUTPUT_BYTES",
            BYTES,
            "262144",
            "What is kept of each stream of a local command: its end. The result says how much is missing.",
        ),
        key(
            "MODULES_DRY_RUN",
            Kind::Choice(&["off", "on"]),
            "off",
            "`on`: local commands are shown and not started.",
        ),
        key(
            "MODULES_GATE",
            Kind::Choice(&["off", "on"]),
            "off",
            "`on`: no local command is started while the machine has too little left, by the next two keys.",
        ),
        key(
            "MODULES_GATE_CPU_PERCENT",
            Kind::Count { most: 100 },
            "80",
            "Processors busier than this are too busy.",
        ),
        key(
            "MODULES_GATE_MEMORY_GB",
            Kind::Count { most: MOST_GB },
            "4",
            "Less memory than this is too little; the limit of a container counts.",
        ),
        key(
            "BATCHES_MAX_INFLIGHT",
            COUNT,
            "8",
            "Calls of `run_batch` at work. They hold no other place; the commands that each runs are calls of their own.",
        ),
    ],
}];
