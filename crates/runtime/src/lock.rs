//! Exclusive lock files: one holder at a time, and a message that says who.
//!
//! The lock is the kernel's (`flock`), so it ends with its holder however that dies. The file itself stays:
//! removing it would let two processes lock two different files of one name. Its text, the holder's process
//! id, is for people only.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes of a lock file read to find the holder.
const TEXT_MAX: u64 = 32;

/// The lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("{path} is locked by {}", holder(.pid))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Process id of the holder, if the file names one.
        pid: Option<u32>,
    },
    /// The file cannot be opened or made.
    #[error("cannot open the lock file {path}")]
    Open {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Locking or writing failed.
    #[error("cannot lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// A held lock; dropping it unlocks.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl LockFile {
    /// Takes the lock, or says at once who holds it. The directory must exist.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Lock { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| LockError::Open { path: path.to_owned(), source })?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::Error::EWOULDBLOCK)) => {
                return Err(LockError::Held { path: path.to_owned(), pid: read_pid(&mut file) });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        write_pid(&mut lock).map_err(failed)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the lock file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

/// The process id in the file; `None` when it has none (the holder may be about to write it).
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(TEXT_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lock");
        let first = LockFile::acquire(&path).expect("free lock");
        let error = LockFile::acquire(&path).expect_err("held lock");
        let expected = format!("{} is locked by process {}", path.display(), std::process::id());
        assert_eq!(error.to_string(), expected);
        drop(first);
        LockFile::acquire(&path).expect("free again");
    }

    #[test]
    fn rubbish_in_the_file_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("lock");
        std::fs::write(&path, b"\xff not a number").expect("write");
        let lock = LockFile::acquire(&path).expect("free lock");
        assert_eq!(lock.path(), path);
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = LockFile::acquire(Path::new("/nonexistent/sluice/lock")).expect_err("no directory");
        assert_eq!(error.to_string(), "cannot open the lock file /nonexistent/sluice/lock");
    }
}
