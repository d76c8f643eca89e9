//! The control socket, and the lock files that keep a second daemon away.

use runtime::lock::{LockError, LockFile};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Who may use the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// Longest path of a socket, in bytes: `sun_path` of unix(7), less its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// What stands behind the path of a socket until it may be used.
const NEXT: &str = ".next";
/// Where the locks of pin directories are; those are on a bpffs, which holds no files.
const LOCKS: &str = "/run/sluice";

/// The socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another director is there.
    #[error("another director is running")]
    Lock(#[source] LockError),
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock cannot be used, for another reason than a director that holds it.
    #[error("cannot keep other directors away")]
    NoLock(#[source] LockError),
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenError {
    let path = path.to_owned();
    move |source| ListenError::File { operation, path, source }
}

/// Directories that were missing and are made here; those still empty at the end go again, so that a start that fails
/// leaves nothing.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a directory and what is missing above it.
    fn make(&mut self, directory: &Path) -> Result<(), ListenError> {
        let missing: Vec<PathBuf> =
            directory.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        let made = std::fs::create_dir_all(directory).map_err(file("make the directory", directory));
        self.0.extend(missing);
        made
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // The innermost first. One that is in use is not empty, and stays.
        for directory in &self.0 {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// A lock whose file goes with it.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _held: LockFile,
    // After the file in it.
    _made: Made,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is still held: whoever gets it afterwards sees that the file is not this one.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Tries when the holder removes its file, or its directory, just then.
const LOCK_TRIES: usize = 10;

fn lock(path: &Path) -> Result<Lock, ListenError> {
    let mut made = Made::default();
    for _ in 0..LOCK_TRIES {
        made.make(path.parent().unwrap_or(Path::new(".")))?;
        let held = match LockFile::acquire(path) {
            Ok(held) => held,
            Err(LockError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(error @ LockError::Held { .. }) => return Err(ListenError::Lock(error)),
            Err(error) => return Err(ListenError::NoLock(error)),
        };
        // The file that was locked says who we are; another one of that name, or none, is somebody else's to lock.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.trim() == std::process::id().to_string() {
            return Ok(Lock { path: path.to_owned(), _held: held, _made: made });
        }
    }
    Err(file("lock", path)(io::Error::other("it is removed again and again")))
}

/// The path with something after its last word.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Locks a pin directory.
pub(crate) fn lock_pins(directory: &Path) -> Result<Lock, ListenError> {
    let name = directory.to_string_lossy().trim_matches('/').replace('/', "-");
    lock(&Path::new(LOCKS).join(format!("{name}.lock")))
}

/// Locks the directory of the configuration.
pub(crate) fn lock_state(directory: &Path) -> Result<Lock, ListenError> {
    lock(&directory.join("lock"))
}

/// The control socket; its file goes when this value does.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    _lock: Lock,
}

impl Socket {
    /// Listens. A file that a dead director left is replaced.
    pub(crate) fn listen(path: &Path) -> Result<(Self, UnixListener), ListenError> {
        if path.as_os_str().len() + NEXT.len() > SOCKET_PATH_BYTES_MAX {
            let most = SOCKET_PATH_BYTES_MAX - NEXT.len();
            let why = io::Error::other(format!("the path of a socket has at most {most} bytes"));
            return Err(file("listen on", path)(why));
        }
        let lock = lock(&with_suffix(path, ".lock"))?;
        // Under another name until its mode is right, so that nobody gets in before.
        let next = with_suffix(path, NEXT);
        remove_socket(&next)?;
        remove_socket(path)?;
        let listener = UnixListener::bind(&next).map_err(file("listen on", &next))?;
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(file("set the mode of", &next))?;
        std::fs::rename(&next, path).map_err(file("make", path))?;
        Ok((Self { path: path.to_owned(), _lock: lock }, listener))
    }

    /// Removes the socket that a killed director left. One that somebody listens on stays, and so does a file of
    /// another kind.
    pub(crate) fn remove_stale(path: &Path) -> Result<(), ListenError> {
        if std::fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        match lock(&with_suffix(path, ".lock")) {
            Ok(_lock) => remove_socket(path),
            Err(ListenError::Lock(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket, and nothing else: a file of another kind is somebody's.
fn remove_socket(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file("examine", path)(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(file("replace", path)(io::Error::other("it is there and not a socket")));
    }
    std::fs::remove_file(path).map_err(file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_others_away_and_leaves_no_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("a/lock");
        let first = lock(&path).expect("free");
        let error = lock(&path).expect_err("held");
        assert!(matches!(error, ListenError::Lock(LockError::Held { pid: Some(_), .. })), "{error:?}");
        drop(first);
        assert!(!path.exists());
        drop(lock(&path).expect("free again"));
    }

    #[test]
    fn directories_made_for_a_lock_go_with_it_unless_they_are_used() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("a/b/lock");
        drop(lock(&path).expect("free"));
        assert!(!directory.path().join("a").exists() && directory.path().exists());
        let held = lock(&path).expect("free");
        std::fs::write(directory.path().join("a/kept"), "").expect("write");
        drop(held);
        assert!(directory.path().join("a/kept").exists() && !directory.path().join("a/b").exists());
        // One that was there before is not ours.
        std::fs::create_dir(directory.path().join("theirs")).expect("directory");
        drop(lock(&directory.path().join("theirs/lock")).expect("free"));
        assert!(directory.path().join("theirs").exists());
    }

    #[test]
    fn a_file_in_the_place_of_the_socket_is_not_replaced() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").expect("write");
        let error = remove_socket(&path).expect_err("no socket");
        assert!(error.to_string().starts_with("cannot replace "), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "precious");
        remove_socket(&directory.path().join("nothing")).expect("nothing to remove");
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_made_leaves_nothing_and_a_stale_one_goes() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let names = || -> Vec<_> {
            let entries = std::fs::read_dir(directory.path()).expect("read");
            entries.map(|entry| entry.expect("entry").file_name()).collect()
        };
        let long = directory.path().join("s".repeat(SOCKET_PATH_BYTES_MAX));
        let error = Socket::listen(&long).expect_err("too long");
        assert!(runtime::Chain(&error).to_string().ends_with("the path of a socket has at most 102 bytes"));
        assert!(names().is_empty());
        let path = directory.path().join("s");
        std::fs::write(&path, "precious").expect("write");
        Socket::listen(&path).expect_err("a file is in the way");
        assert_eq!(names(), ["s"]);
        std::fs::remove_file(&path).expect("remove");

        let (socket, listener) = Socket::listen(&path).expect("listen");
        Socket::remove_stale(&path).expect("in use");
        assert!(path.exists());
        // A killed director drops nothing, and the kernel gives its lock up.
        drop(listener);
        std::mem::forget(socket);
        std::fs::remove_file(with_suffix(&path, ".lock")).expect("remove");
        Socket::remove_stale(&path).expect("stale");
        assert!(names().is_empty(), "{:?}", names());
    }
}
