//! What a module may reach, held by the kernel (Landlock). The guard itself stays outside: only the thread that starts
//! the program is fenced, and what that thread starts inherits it.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope, path_beneath_rules,
};

use crate::provider::command::order::Fence;

/// The rights that are asked for; an older kernel holds those that it knows.
const RIGHTS: ABI = ABI::V6;

/// What every program needs to read, where it is there.
const SYSTEM: [&str; 13] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/proc", "/sys",
    "/dev",
];

/// Devices without a memory.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Fences the calling thread in, and whatever it starts.
///
/// # Errors
/// The kernel has a fence and does not put it up: nothing may be started then.
pub(super) fn put_up(fence: &Fence, program: &Path, folder: &Path) -> Result<(), RulesetError> {
    let (read, all) = (AccessFs::from_read(RIGHTS), AccessFs::from_all(RIGHTS));
    let beside = program.parent().map(Path::to_path_buf);
    let readable = SYSTEM.iter().map(PathBuf::from).chain(beside).chain(fence.read.iter().cloned());
    let writable = DEVICES.iter().map(PathBuf::from).chain(fence.write.iter().cloned());
    Ruleset::default()
        .handle_access(all)?
        // It can neither stop nor kill its guard, nor anything else outside.
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(writable.chain([folder.to_path_buf()]), all))?
        .restrict_self()?;
    Ok(())
}

/// Whether this kernel can hold a fence.
pub fn is_there() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}
