//! Files that are changed whole or not at all, with a backup beside them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What a backup's name has behind the file's own, before its number.
const BACKUP: &str = "inflightd-backup";
/// The same of what a restored backup took the place of.
const UNDONE: &str = "inflightd-undone";
/// Backups of one file.
const MANY: u32 = 10_000;

/// Why a file stays as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Somebody else has written it since it was read.
    #[error("{} has just been changed by somebody else: run the import again", .0.display())]
    Changed(PathBuf),
    /// There is no way to write it.
    #[error("could not write {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Puts a text in a file's place, its backup made first; returns the backup's name. `before` is what it was when it
/// was read, `None` where it was not there.
pub(super) fn replace(path: &Path, before: Option<&str>, after: &str) -> Result<Option<PathBuf>, FileError> {
    let failed = |error| FileError::Io { path: path.to_owned(), error };
    let backup = match before {
        Some(before) => {
            let backup = keep(path, BACKUP).map_err(failed)?;
            // What was kept must be what was read: the client may have written in between.
            if fs::read(&backup).map_err(failed)? != before.as_bytes() {
                let _ = fs::remove_file(&backup);
                return Err(FileError::Changed(path.to_owned()));
            }
            Some(backup)
        }
        None if path.exists() => return Err(FileError::Changed(path.to_owned())),
        None => {
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            None
        }
    };
    let new = beside(path, "inflightd-new");
    let written = write_new(&new, after.as_bytes(), path).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(failed(error));
    }
    Ok(backup)
}

/// Puts the newest backup of a file back in its place; what it was until then is kept as well. Returns its name; `None`:
/// there is no backup.
pub(super) fn restore(path: &Path) -> Result<Option<PathBuf>, FileError> {
    let failed = |error| FileError::Io { path: path.to_owned(), error };
    let backups = (1..MANY).map(|number| numbered(path, BACKUP, number));
    let Some(newest) = backups.take_while(|backup| backup.exists()).last() else { return Ok(None) };
    let undone = keep(path, UNDONE).map_err(failed)?;
    fs::rename(&newest, path).map_err(failed)?;
    Ok(Some(undone))
}

/// Copies a file beside itself, under the first name that is free.
fn keep(path: &Path, label: &str) -> io::Result<PathBuf> {
    let bytes = fs::read(path)?;
    for number in 1..MANY {
        let kept = numbered(path, label, number);
        match write_new(&kept, &bytes, path) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "there are too many backups of it"))
}

/// Writes a file that is not there yet, readable for whoever may read `like`: there are keys in it.
fn write_new(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    if let Ok(about) = fs::metadata(like) {
        file.set_permissions(about.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

fn numbered(path: &Path, label: &str, number: u32) -> PathBuf {
    beside(path, &format!("{label}-{number}"))
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}
