//! Network namespaces: entering one with a thread or a child process.
//!
//! Deliberately absent: mount namespaces. A child started here sees the machine's `/sys`, unlike one started
//! with
//! `ip netns exec`.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Where `ip netns` keeps the namespaces it names.
pub const NAMED_NAMESPACES: &str = "/run/netns";

/// A namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// It cannot be opened.
    #[error("cannot open the network namespace {path}")]
    Open {
        /// The file that stands for it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be entered.
    #[error("cannot enter the network namespace {path}")]
    Enter {
        /// The file that stands for it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace; cheap to clone. It lives at least as long as this handle.
#[derive(Clone, Debug)]
pub struct Namespace {
    path: PathBuf,
    file: Arc<File>,
}

impl Namespace {
    /// Opens the namespace that `ip netns add NAME` made.
    ///
    /// # Errors
    /// [`NamespaceError::Open`].
    pub fn open(name: &str) -> Result<Self, NamespaceError> {
        Self::open_path(&Path::new(NAMED_NAMESPACES).join(name))
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// [`NamespaceError::Open`].
    pub fn current() -> Result<Self, NamespaceError> {
        Self::open_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens the namespace a file stands for.
    ///
    /// # Errors
    /// [`NamespaceError::Open`].
    pub fn open_path(path: &Path) -> Result<Self, NamespaceError> {
        let file =
            File::open(path).map_err(|source| NamespaceError::Open { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file) })
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into the namespace for good. Sockets made afterwards belong to it.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`], mostly for want of CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        nix::sched::setns(&*self.file, nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NamespaceError::Enter { path: self.path.clone(), source: errno.into() })
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A command whose process will start inside the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        let enter =
            move || nix::sched::setns(&*file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: the closure runs in the child between fork and exec. It makes one system call on a
        // descriptor that the closure keeps open; it takes no lock and allocates nothing (an errno converts
        // to io::Error without allocation).
        unsafe { command.pre_exec(enter) };
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_namespace_is_named() {
        let error = Namespace::open("sl-no-such").expect_err("no such namespace");
        assert_eq!(error.to_string(), "cannot open the network namespace /run/netns/sl-no-such");
    }
}
