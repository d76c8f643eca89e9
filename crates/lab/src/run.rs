//! The identity of one run and what it leaves on the machine: a directory, its lock, and namespaces named
//! after it.
//!
//! The lock tells a live run from a dead one, whatever became of process ids meanwhile. A run that was kept
//! on purpose has a file `kept` and is removed only by [`end`].

use crate::command::{self, CommandError};
use host::netns::NAMED_NAMESPACES;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::lock::{LockError, LockFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where runs keep their files.
pub const RUNS: &str = "/run/sluice-lab";
/// How long processes of a dead run get to end before they are killed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one run waits for others that are being made.
const TURN_MAX: Duration = Duration::from_secs(30);

/// Runs made by this process so far.
static RUN_COUNT: AtomicU32 = AtomicU32::new(0);

/// A run's files could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file or directory.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock.
    #[error("cannot take the lock of the run")]
    Lock(#[source] LockError),
    /// A run that is still going on.
    #[error("run {id} is still going on; end its process first")]
    Alive {
        /// The run.
        id: String,
        /// Who holds its lock.
        #[source]
        source: LockError,
    },
    /// There is no such run.
    #[error("there is no run {id}")]
    NoSuchRun {
        /// The run asked for.
        id: String,
    },
    /// A command.
    #[error("cannot remove the namespaces of a run")]
    Command(#[source] CommandError),
}

/// A run of this process: its directory and its name.
#[derive(Debug)]
pub struct Run {
    id: String,
    directory: PathBuf,
    lock: Option<LockFile>,
    kept: bool,
}

impl Run {
    /// Makes the directory of a new run. Removes what dead runs left behind first.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn create() -> Result<Self, RunError> {
        let _turn = turn()?;
        remove_stale()?;
        let id = match RUN_COUNT.fetch_add(1, Ordering::Relaxed) {
            0 => std::process::id().to_string(),
            number => format!("{}-{number}", std::process::id()),
        };
        let directory = Path::new(RUNS).join(&id);
        std::fs::create_dir_all(&directory).map_err(file("make the directory", &directory))?;
        let lock = LockFile::acquire(&directory.join("lock")).map_err(RunError::Lock)?;
        Ok(Self { id, directory, lock: Some(lock), kept: false })
    }

    /// Its name: the process id of its maker.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The namespace of a node of this run.
    #[must_use]
    pub fn namespace(&self, node: &str) -> String {
        format!("sl-{}-{node}", self.id)
    }

    /// Keeps everything after this process has ended, until [`end`].
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn keep(&mut self) -> Result<(), RunError> {
        let mark = self.directory.join("kept");
        std::fs::write(&mark, b"").map_err(file("write", &mark))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = remove(&self.id) {
            runtime::print_error(&error);
        }
        self.lock = None;
    }
}

/// The lock of all runs together: between making a run's directory and locking it, the run looks dead to
/// others.
fn turn() -> Result<LockFile, RunError> {
    let runs = Path::new(RUNS);
    std::fs::create_dir_all(runs).map_err(file("make the directory", runs))?;
    let deadline = Instant::now() + TURN_MAX;
    loop {
        match LockFile::acquire(&runs.join("lock")) {
            Err(LockError::Held { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            taken => return taken.map_err(RunError::Lock),
        }
    }
}

/// Ends a run that was kept: its processes, its namespaces, its files.
///
/// # Errors
/// [`RunError::NoSuchRun`], [`RunError::Alive`] while the process that made it still runs.
pub fn end(id: &str) -> Result<(), RunError> {
    let known = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let directory = Path::new(RUNS).join(id);
    if !known || !directory.is_dir() {
        return Err(RunError::NoSuchRun { id: id.to_owned() });
    }
    let _lock = LockFile::acquire(&directory.join("lock"))
        .map_err(|source| RunError::Alive { id: id.to_owned(), source })?;
    remove(id)
}

/// Removes every run whose maker is gone and that was not kept.
///
/// # Errors
/// [`RunError`].
pub fn remove_stale() -> Result<(), RunError> {
    let runs = Path::new(RUNS);
    let Ok(entries) = std::fs::read_dir(runs) else { return Ok(()) };
    for entry in entries.flatten() {
        let directory = entry.path();
        let (Some(id), false) =
            (entry.file_name().to_str().map(str::to_owned), directory.join("kept").exists())
        else {
            continue;
        };
        if let Ok(_lock) = LockFile::acquire(&directory.join("lock")) {
            remove(&id)?;
        }
    }
    Ok(())
}

/// The namespaces of a run, `sl-ID-NODE` with no further dash.
fn namespaces(id: &str) -> Vec<String> {
    let prefix = format!("sl-{id}-");
    let Ok(entries) = std::fs::read_dir(NAMED_NAMESPACES) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.strip_prefix(&prefix).is_some_and(|node| !node.contains('-')))
        .collect()
}

fn remove(id: &str) -> Result<(), RunError> {
    let namespaces = namespaces(id);
    end_processes(&namespaces)?;
    for namespace in &namespaces {
        command::ip(&format!("netns delete {namespace}")).map_err(RunError::Command)?;
    }
    let directory = Path::new(RUNS).join(id);
    // Fails when it was never mounted, which is the aim.
    let _ = nix::mount::umount2(&directory.join("bpf"), nix::mount::MntFlags::MNT_DETACH);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", &directory)(error)),
        _ => Ok(()),
    }
}

/// Ends every process in these namespaces: they are named after the run, so whatever runs there belongs to
/// it.
fn end_processes(namespaces: &[String]) -> Result<(), RunError> {
    let deadline = Instant::now() + PATIENCE;
    let mut signal = Signal::SIGTERM;
    // Two rounds of patience at most: the second one kills.
    loop {
        let mut pids = Vec::new();
        for namespace in namespaces {
            let text = command::ip(&format!("netns pids {namespace}")).map_err(RunError::Command)?;
            pids.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
        }
        // A test's own threads may be inside; the run must not end its maker.
        pids.retain(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id()));
        if pids.is_empty() || Instant::now() > deadline + PATIENCE {
            return Ok(());
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        std::thread::sleep(Duration::from_millis(20));
        if Instant::now() > deadline {
            signal = Signal::SIGKILL;
        }
    }
}

pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_are_ended() {
        for id in ["", "../etc", "0", "sshd"] {
            let error = end(id).expect_err("no such run");
            assert_eq!(error.to_string(), format!("there is no run {id}"));
        }
    }
}
