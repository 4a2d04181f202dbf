//! Files under a folder, opened so that nothing leads out of it: no `..`, no link, and no race with whoever puts one
//! there, since each step is taken from the folder that the step before has opened.

use std::fs::File;
use std::io;
use std::path::Path;

/// The most parts of a path: far above what anybody writes, and far below what taking a tree away recurses into.
pub(super) const MOST_PARTS: usize = 64;

#[cfg(unix)]
pub(super) use unix::{Root, is_outside};

#[cfg(not(unix))]
pub(super) use elsewhere::{Root, is_outside};

/// Opens what stands at `rest` under a folder, to be read. Links that stay in the folder are followed where the kernel
/// watches over them.
///
/// # Errors
/// It is not there, or not in the folder: see [`is_outside`].
pub(super) fn open(folder: &Path, rest: &Path) -> io::Result<File> {
    Root::open(folder)?.read(rest)
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::{Component, Path};

    use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
    use rustix::io::Errno;

    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    /// A pipe is opened without waiting for its other end, and a terminal does not become ours.
    const PLAIN: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

    /// An open folder.
    #[derive(Debug)]
    pub(in crate::provider::flow) struct Root(OwnedFd);

    /// Whether it is refused because it leads out.
    pub(in crate::provider::flow) fn is_outside(error: &io::Error) -> bool {
        matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::XDEV | Errno::MLINK))
    }

    impl Root {
        /// Opens a folder by its path, which its operator chose.
        pub(in crate::provider::flow) fn open(folder: &Path) -> io::Result<Self> {
            Ok(Self(rustix::fs::open(folder, FOLDER, Mode::empty())?))
        }

        /// Holds it for as long as this is open, unless somebody does already.
        pub(in crate::provider::flow) fn hold(&self) -> io::Result<()> {
            Ok(rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive)?)
        }

        /// Whether its path still leads to it.
        pub(in crate::provider::flow) fn is_at(&self, path: &Path) -> bool {
            let (here, there) = (rustix::fs::fstat(&self.0), rustix::fs::lstat(path));
            matches!((here, there), (Ok(here), Ok(there)) if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
        }

        /// Whether it is this user's, and nobody else writes into it.
        pub(in crate::provider::flow) fn is_private(&self) -> io::Result<bool> {
            let about = rustix::fs::fstat(&self.0)?;
            let others_write = about.st_mode & 0o022 != 0;
            Ok(about.st_uid == rustix::process::geteuid().as_raw() && !others_write)
        }

        pub(in crate::provider::flow) fn read(&self, rest: &Path) -> io::Result<File> {
            let opened = self.beneath(rest).unwrap_or_else(|| {
                let (folder, name) = self.walk(rest, false)?;
                Ok(rustix::fs::openat(
                    &folder,
                    name,
                    OFlags::RDONLY | OFlags::NOFOLLOW | PLAIN,
                    Mode::empty(),
                )?)
            });
            opened.map(File::from)
        }

        /// By the kernel, where it knows how: links that stay inside are followed.
        #[cfg(target_os = "linux")]
        fn beneath(&self, rest: &Path) -> Option<io::Result<OwnedFd>> {
            use rustix::fs::ResolveFlags;
            /// The kernel gives up where somebody renames folders meanwhile.
            const ATTEMPTS: usize = 16;
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            for _ in 0..ATTEMPTS {
                match rustix::fs::openat2(&self.0, rest, OFlags::RDONLY | PLAIN, Mode::empty(), how) {
                    Err(Errno::AGAIN) => {}
                    // An old kernel, or a container that forbids it.
                    Err(Errno::NOSYS | Errno::PERM) => return None,
                    opened => return Some(opened.map_err(Into::into)),
                }
            }
            Some(Err(Errno::XDEV.into()))
        }

        #[cfg(not(target_os = "linux"))]
        fn beneath(&self, _rest: &Path) -> Option<io::Result<OwnedFd>> {
            None
        }

        /// Opens a file to be written anew, with the folders before it.
        pub(in crate::provider::flow) fn create(&self, rest: &Path) -> io::Result<File> {
            let (folder, name) = self.walk(rest, true)?;
            let how = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | PLAIN;
            let file = File::from(rustix::fs::openat(&folder, name, how, Mode::from_raw_mode(0o666))?);
            if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
        }

        /// The folder before the last part, step by step.
        fn walk<'a>(&self, rest: &'a Path, make: bool) -> io::Result<(OwnedFd, &'a OsStr)> {
            let mut parts = rest.components().map(|part| match part {
                Component::Normal(part) => Ok(part),
                Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
                    Err(io::Error::from(Errno::XDEV))
                }
            });
            let mut name = parts.next().unwrap_or_else(|| Err(io::ErrorKind::InvalidInput.into()))?;
            let mut folder = self.0.try_clone()?;
            for next in parts {
                if make {
                    match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                folder = match rustix::fs::openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(opened) => opened,
                    Err(error) => return Err(said(&folder, name, error)),
                };
                name = next?;
            }
            Ok((folder, name))
        }
    }

    /// Linux says of a link in a folder's place that it is no folder.
    fn said(folder: &OwnedFd, name: &OsStr, error: Errno) -> io::Error {
        let is_link = error == Errno::NOTDIR
            && rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|about| rustix::fs::FileType::from_raw_mode(about.st_mode).is_symlink());
        if is_link { Errno::LOOP.into() } else { error.into() }
    }
}

/// Where folders cannot be opened: by looking at each part before. A race is not kept out.
#[cfg(not(unix))]
mod elsewhere {
    use std::fs::{self, File};
    use std::io;
    use std::path::{Component, Path, PathBuf};

    #[derive(Debug)]
    pub(in crate::provider::flow) struct Root(PathBuf);

    pub(in crate::provider::flow) fn is_outside(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::PermissionDenied
    }

    impl Root {
        pub(in crate::provider::flow) fn open(folder: &Path) -> io::Result<Self> {
            fs::metadata(folder)?;
            Ok(Self(folder.to_owned()))
        }

        pub(in crate::provider::flow) fn hold(&self) -> io::Result<()> {
            Ok(())
        }

        pub(in crate::provider::flow) fn is_at(&self, _path: &Path) -> bool {
            true
        }

        pub(in crate::provider::flow) fn is_private(&self) -> io::Result<bool> {
            Ok(true)
        }

        pub(in crate::provider::flow) fn read(&self, rest: &Path) -> io::Result<File> {
            File::open(self.walk(rest, false)?)
        }

        pub(in crate::provider::flow) fn create(&self, rest: &Path) -> io::Result<File> {
            File::create(self.walk(rest, true)?)
        }

        fn walk(&self, rest: &Path, make: bool) -> io::Result<PathBuf> {
            let mut path = self.0.clone();
            for part in rest.components() {
                let Component::Normal(part) = part else {
                    return Err(io::ErrorKind::PermissionDenied.into());
                };
                if make {
                    fs::create_dir_all(&path)?;
                }
                path.push(part);
                if fs::symlink_metadata(&path).is_ok_and(|about| about.is_symlink()) {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
            }
            Ok(path)
        }
    }
}
