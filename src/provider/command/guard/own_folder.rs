//! The folder that a run has for itself.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Makes it; nobody else may look into it.
///
/// # Errors
/// It is there already, or cannot be made.
pub(super) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes it with all that is in it, also where the module took its own rights away. Links are not followed.
///
/// # Errors
/// Something is left.
pub(in crate::provider::command) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Gives its owner every right in it and below. Where that fails, removing fails too, and says why.
fn open_up(path: &Path) {
    // A list of its own: how deep folders nest is the module's to choose.
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let _ = fs::set_permissions(&folder, Permissions::from_mode(0o700));
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        folders.extend(entries.filter_map(Result::ok).filter(is_folder).map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_rights_is_removed_and_what_a_link_points_to_stays() {
        let base = std::env::temp_dir().join(format!("inflightd-own-{}", std::process::id()));
        let (own, kept) = (base.join("own"), base.join("kept"));
        fs::create_dir_all(&base).unwrap();
        make(&own).unwrap();
        fs::write(&kept, "kept").unwrap();
        fs::create_dir_all(own.join("a/b")).unwrap();
        fs::write(own.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&base, own.join("a/up")).unwrap();
        fs::set_permissions(own.join("a"), Permissions::from_mode(0o000)).unwrap();
        assert!(make(&own).is_err(), "one that is there is nobody's own");
        remove(&own).unwrap();
        assert!(!own.exists() && kept.exists());
        remove(&own).unwrap();
        fs::remove_dir_all(&base).unwrap();
    }
}
