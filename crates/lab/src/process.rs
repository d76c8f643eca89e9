//! A child process that ends with its handle.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at a process that is to end.
const POLL: Duration = Duration::from_millis(10);
/// Last bytes of a log shown in an error.
const LOG_TAIL_BYTES: usize = 600;

/// A running program; killed and waited for when dropped, unless released.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts a command, its output going to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program not be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // In a process group of its own, so that a terminal that is closed takes nobody along who was released, and ctrl-C reaches
        // only this program, which ends the others.
        command.process_group(0);
        let child = command.spawn()?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child: Some(child) })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it is ours.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    /// Kills it with SIGKILL, as a crash would, and waits.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, waits up to `patience`, then kills it.
    pub fn stop(&mut self, patience: Duration) {
        let Some(child) = self.child.as_mut() else { return };
        if let Ok(pid) = i32::try_from(child.id()) {
            // Fails only when it has ended by itself; it is not reaped, so the id is still its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
                return;
            }
            std::thread::sleep(POLL);
        }
        self.crash();
    }

    /// Lets it run on after this program has ended.
    pub fn release(&mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("shell", command, log).expect("starts")
    }

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn it_does_not_hear_what_this_programs_group_is_told() {
        let dir = tempfile::tempdir().expect("directory");
        let process = shell("exec sleep 60", &dir.path().join("log"));
        let pid = Pid::from_raw(process.pid().expect("running").cast_signed());
        assert_eq!(nix::unistd::getpgid(Some(pid)), Ok(pid));
    }

    #[test]
    fn dropping_ends_it_and_the_log_stays() {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("log");
        let mut process = shell("echo ready; exec sleep 60", &log);
        let pid = process.pid().expect("running");
        assert!(alive(pid) && process.exit_status().is_none());
        let deadline = Instant::now() + Duration::from_secs(5);
        while process.log_tail() != "ready" && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        assert_eq!(process.log_tail(), "ready");
        drop(process);
        assert!(!alive(pid));
    }

    #[test]
    fn one_that_ignores_the_request_is_killed() {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("log");
        let mut process = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", &log);
        let deadline = Instant::now() + Duration::from_secs(5);
        while process.log_tail() != "ready" && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let pid = process.pid().expect("running");
        process.stop(Duration::from_millis(100));
        assert!(!alive(pid));
    }
}
