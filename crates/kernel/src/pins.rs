//! The directory on the bpffs where programs, maps and links outlive the daemon.
//!
//! ```text
//! DIR/maps/NAME        the lasting maps, and PROGRAMS
//! DIR/programs/NAME    the programs now attached
//! DIR/links/MODE_INDEX one for each interface: `native_3`, `generic_4` (a bpffs allows no dots in names)
//! ```
//!
//! Absent: locking. Who may use the directory is decided by the lock file of the director.

use crate::sys;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A pin could not be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The directory is not on a bpffs.
    #[error("{} is not on a bpffs: {}", path.display(), mount_words(path))]
    NoBpffs {
        /// The pin directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The usual place of a bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// How to come by a bpffs for a pin directory: at the usual place if it is below that, else at its parent.
fn mount_words(path: &Path) -> String {
    let parent = path.parent().unwrap_or(path).display();
    match path.starts_with(BPFFS) {
        true => format!("mount one with `mount -t bpf bpf {BPFFS}`"),
        false => format!(
            "mount one with `mount -t bpf bpf {parent}`, which hides what else is in {parent}, or take a directory below {BPFFS}"
        ),
    }
}

/// A pin directory.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

/// The three sub-directories.
const PARTS: [&str; 3] = ["links", "programs", "maps"];
/// More names than this in one sub-directory are not ours.
const NAMES_MAX: usize = 4096;

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PinError + 'a {
    move |source| PinError::System { operation, path: path.to_owned(), source }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

impl Pins {
    /// A pin directory that need not exist yet. Checks that it would be on a bpffs.
    pub(crate) fn at(root: &Path) -> Result<Self, PinError> {
        let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let file_system = statfs(existing).map_err(io::Error::from).map_err(failed("examine", existing))?;
        if file_system.filesystem_type() != BPF_FS_MAGIC {
            return Err(PinError::NoBpffs { path: root.to_owned() });
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Makes the directories.
    pub(crate) fn create(&self) -> Result<(), PinError> {
        for part in PARTS {
            let path = self.root.join(part);
            std::fs::create_dir_all(&path).map_err(failed("make the directory", &path))?;
        }
        Ok(())
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The names in a sub-directory; empty when it does not exist.
    pub(crate) fn names(directory: &Path) -> Result<Vec<String>, PinError> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", directory)(error)),
        };
        let mut names = Vec::new();
        for entry in entries.take(NAMES_MAX) {
            let entry = entry.map_err(failed("read", directory))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Removes everything, links first so that no packet meets a program without its tables. A missing
    /// directory is fine.
    pub(crate) fn remove(&self) -> Result<(), PinError> {
        for part in PARTS {
            let directory = self.root.join(part);
            for name in Self::names(&directory)? {
                unpin(&directory.join(name))?;
            }
            remove_directory(&directory)?;
        }
        remove_directory(&self.root)
    }
}

fn remove_directory(path: &Path) -> Result<(), PinError> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove the directory", path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens a pin; `None` when there is none.
pub(crate) fn open(path: &Path) -> Result<Option<OwnedFd>, PinError> {
    match c_path(path).and_then(|path| sys::open_pin(&path)) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Pins an object where nothing is.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<(), PinError> {
    c_path(path).and_then(|path| sys::pin(object, &path)).map_err(failed("pin", path))
}

/// A new pin beside the one it will replace.
pub(crate) struct Next {
    next: PathBuf,
    path: PathBuf,
    /// What an earlier, interrupted replacement left under the same name; kept open until this value goes.
    pub(crate) leftover: Option<OwnedFd>,
}

/// The place beside a pin where what will replace it is pinned.
fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("_next");
    PathBuf::from(name)
}

/// Takes back what [`prepare`] pinned beside this pin, if anything.
pub(crate) fn drop_prepared(path: &Path) -> Result<(), PinError> {
    unpin(&next(path))
}

/// Pins an object beside the pin it will replace.
pub(crate) fn prepare(object: BorrowedFd<'_>, path: &Path) -> Result<Next, PinError> {
    let next = next(path);
    let leftover = open(&next)?;
    unpin(&next)?;
    pin(object, &next)?;
    Ok(Next { next, path: path.to_owned(), leftover })
}

impl Next {
    /// Puts the new pin in the place of the old one.
    pub(crate) fn commit(self) -> Result<Option<OwnedFd>, PinError> {
        std::fs::rename(&self.next, &self.path).map_err(failed("replace", &self.path))?;
        Ok(self.leftover)
    }
}

/// Removes a pin; a missing one is fine.
pub(crate) fn unpin(path: &Path) -> Result<(), PinError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("unpin", path)(error)),
        _ => Ok(()),
    }
}

/// Detaches every interface and removes every pin below a directory, also of a daemon that died. Packets are no longer
/// balanced from here on, and flows are forgotten. Returns how many interfaces were detached; a directory that does not
/// exist is fine.
///
/// # Errors
/// [`PinError`]; what was removed before stays removed.
pub fn detach_all(directory: &Path) -> Result<usize, PinError> {
    if !directory.exists() {
        return Ok(0);
    }
    let pins = Pins::at(directory)?;
    let mut detached = 0;
    for name in Pins::names(&pins.links())? {
        let path = pins.links().join(name);
        let Some(link) = open(&path)? else { continue };
        match sys::link_detach(link.as_fd()) {
            Ok(()) => detached += 1,
            // The interface is gone already.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => return Err(failed("detach", &path)(error)),
        }
    }
    pins.remove()?;
    Ok(detached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_outside_a_bpffs_is_refused_with_the_mount_command() {
        let error = Pins::at(Path::new("/proc/no/such/place")).expect_err("no bpffs");
        let text = error.to_string();
        assert_eq!(
            text,
            "/proc/no/such/place is not on a bpffs: mount one with `mount -t bpf bpf /proc/no/such`, which hides what else is in \
             /proc/no/such, or take a directory below /sys/fs/bpf"
        );
        let usual = mount_words(Path::new("/sys/fs/bpf/sluice"));
        assert_eq!(usual, "mount one with `mount -t bpf bpf /sys/fs/bpf`");
    }

    #[test]
    fn removing_what_does_not_exist_is_fine() {
        assert_eq!(detach_all(Path::new("/nonexistent/sluice")).expect("nothing to do"), 0);
    }
}
