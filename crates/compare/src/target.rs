//! What scripts are played into: kernel IPVS, or Sluice. Both are spoken to by the command `ipvsadm`; which one
//! that is, is a matter of the path.

use crate::net::run;
use api::{Change, Changes, Outcomes, Placement, PolicyChoices, Services, Status};
use runtime::control::{Client, ControlError, SOCKET_VARIABLE};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use testkit::{NetNs, NetNsError};

/// How long the director may take to start or to end. A virtual machine is slow.
const START_WAIT: Duration = Duration::from_secs(60);
/// How long next hops may take to be known.
const SETTLE_WAIT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// How long one command may take.
const COMMAND_WAIT: Duration = Duration::from_secs(60);
/// Between two looks whether it has ended.
const COMMAND_LOOK: Duration = Duration::from_millis(2);

/// Words of the director that scripts are played into: the last is shown as the size of the connection table, which is 4096
/// in the kernel.
const LIMITS: [&str; 6] = ["--reals-max", "1024", "--slots-max", "600000", "--established-flows-max", "4096"];

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// The kernel's IPVS and Debian's ipvsadm.
    Ipvs,
    /// This repository.
    Sluice,
}

impl Target {
    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Sluice => "sluice",
        }
    }
}

/// Why a target could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The module of IPVS.
    #[error("this kernel has no IPVS ({said}); play this target in the virtual machine")]
    NoIpvs {
        /// What modprobe said.
        said: String,
    },
    /// A program.
    #[error("cannot run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or mount of the target.
    #[error("cannot prepare {}", .path.display())]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The namespace.
    #[error("cannot enter the director's namespace")]
    Namespace(#[from] NetNsError),
    /// The daemon did not come up.
    #[error("the director did not start: {said}")]
    NotStarted {
        /// End of its log.
        said: String,
    },
    /// The daemon does not answer.
    #[error("the director does not answer")]
    Control(#[from] ControlError),
}

/// What all scripts played into one target share.
#[derive(Debug)]
pub(crate) struct Shared {
    target: Target,
    /// The binary `sluice`.
    sluice: PathBuf,
    directory: tempfile::TempDir,
}

fn prepare<T>(path: &Path, result: io::Result<T>) -> Result<T, TargetError> {
    result.map_err(|source| TargetError::Prepare { path: path.to_owned(), source })
}

impl Shared {
    /// Prepares a target. The mount made for it goes with the process: to be called before any thread starts.
    pub(crate) fn new(target: Target, sluice: &Path) -> Result<Self, TargetError> {
        let temporary = std::env::temp_dir();
        let directory = prepare(&temporary, tempfile::Builder::new().prefix("sluice-compare-").tempdir())?;
        match target {
            Target::Ipvs => {
                let mut command = Command::new("modprobe");
                let output = run(command.arg("ip_vs"), "")
                    .map_err(|source| TargetError::Run { program: "modprobe".to_owned(), source })?;
                if !output.status.success() {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    return Err(TargetError::NoIpvs { said });
                }
            }
            Target::Sluice => {
                let (bin, bpffs) = (directory.path().join("bin"), directory.path().join("bpffs"));
                prepare(&bin, std::fs::create_dir(&bin))?;
                prepare(&bpffs, std::fs::create_dir(&bpffs))?;
                prepare(&bin, std::path::absolute(sluice).and_then(|to| symlink(to, bin.join("ipvsadm"))))?;
                prepare(&bpffs, private_bpffs(&bpffs))?;
            }
        }
        Ok(Self { target, sluice: sluice.to_owned(), directory })
    }

    /// Starts the target in a namespace, empty. `number` is unlike those of all others that run.
    pub(crate) fn start(&self, netns: &NetNs, number: usize) -> Result<Running<'_>, TargetError> {
        self.start_with(netns, number, &LIMITS)
    }

    /// The same, with these words for the director; its interface is `d0`.
    pub(crate) fn start_with(
        &self,
        netns: &NetNs,
        number: usize,
        words: &[&str],
    ) -> Result<Running<'_>, TargetError> {
        let place = self.directory.path().join(number.to_string());
        prepare(&place, std::fs::create_dir(&place))?;
        let mut running = Running { shared: self, place, daemon: None };
        if self.target == Target::Sluice {
            running.start_director(netns, number, words)?;
        }
        Ok(running)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Else the folder could not be removed. Without Sluice nothing is mounted.
        let _ = nix::mount::umount2(&self.directory.path().join("bpffs"), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A bpffs in a mount namespace of our own.
fn private_bpffs(path: &Path) -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), none)?;
    Ok(())
}

/// A target that runs in a namespace, ended on drop.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    shared: &'a Shared,
    place: PathBuf,
    daemon: Option<Child>,
}

impl Running<'_> {
    fn socket(&self) -> PathBuf {
        self.place.join("sock")
    }

    fn start_director(&mut self, netns: &NetNs, number: usize, words: &[&str]) -> Result<(), TargetError> {
        let log_path = self.place.join("log");
        let log = prepare(&log_path, File::create(&log_path))?;
        let mut command = Command::new(&self.shared.sluice);
        command.args(["director", "--interface", "d0"]);
        command.arg("--pin").arg(self.shared.directory.path().join(format!("bpffs/{number}")));
        command.arg("--socket").arg(self.socket()).arg("--state").arg(self.place.join("state"));
        command.args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawned = netns.run(move || command.spawn())?;
        let program = || self.shared.sluice.display().to_string();
        self.daemon = Some(spawned.map_err(|source| TargetError::Run { program: program(), source })?);
        let (client, deadline) = (Client::new(self.socket()), Instant::now() + START_WAIT);
        while client.get::<Status>("/v1/status").is_err() {
            let ended = self.daemon.as_mut().is_none_or(|it| !matches!(it.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                let said = std::fs::read_to_string(&log_path).unwrap_or_default();
                return Err(TargetError::NotStarted { said });
            }
            std::thread::sleep(LOOK);
        }
        // IPVS has no secret: only so both can choose the same.
        let choices = PolicyChoices { placement: Some(Placement::Exact), ..PolicyChoices::default() };
        let change = Change::SetPolicy { service: None, forget: false, choices };
        let _: Outcomes = client.post("/v1/changes", &Changes { atomic: true, changes: vec![change] })?;
        Ok(())
    }

    /// Runs `ipvsadm` with these words in the namespace.
    pub(crate) fn command(
        &self,
        netns: &NetNs,
        words: &[String],
        input: &str,
    ) -> Result<Output, TargetError> {
        let mut command = Command::new("ipvsadm");
        command.args(words).env(SOCKET_VARIABLE, self.socket());
        if self.shared.target == Target::Sluice {
            let mut path = OsString::from(self.shared.directory.path().join("bin"));
            path.push(":");
            path.push(std::env::var_os("PATH").unwrap_or_default());
            command.env("PATH", path);
        }
        let output = netns.run(|| self.to_end(&mut command, input))?;
        output.map_err(|source| TargetError::Run { program: "ipvsadm".to_owned(), source })
    }

    /// Runs `sluice` with these words in the namespace.
    pub(crate) fn sluice(&self, netns: &NetNs, words: &[String]) -> Result<Output, TargetError> {
        let mut command = Command::new(&self.shared.sluice);
        command.args(words).env(SOCKET_VARIABLE, self.socket());
        let output = netns.run(|| self.to_end(&mut command, ""))?;
        output
            .map_err(|source| TargetError::Run { program: self.shared.sluice.display().to_string(), source })
    }

    /// Connections that the daemon has counted in its tables, half-open ones too, if the target has one.
    pub(crate) fn flows(&self) -> Result<Option<u64>, TargetError> {
        if self.daemon.is_none() {
            return Ok(None);
        }
        let status: Status = Client::new(self.socket()).get("/v1/status")?;
        Ok(Some(status.embryonic_flows + status.established_flows))
    }

    /// The daemon's process, if the target has one.
    pub(crate) fn process(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Which target it is.
    pub(crate) fn target(&self) -> Target {
        self.shared.target
    }

    /// Runs a command for a limited time. Its output goes through files, which do not block it.
    fn to_end(&self, command: &mut Command, input: &str) -> io::Result<Output> {
        let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| self.place.join(name));
        std::fs::write(&stdin, input)?;
        command.stdin(File::open(&stdin)?).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let (mut child, deadline) = (command.spawn()?, Instant::now() + COMMAND_WAIT);
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill()?;
                    break child.wait()?;
                }
                None => std::thread::sleep(COMMAND_LOOK),
            }
        };
        Ok(Output { status, stdout: std::fs::read(&stdout)?, stderr: std::fs::read(&stderr)? })
    }

    /// Waits until packets can go where the last commands say. The kernel needs no time for that.
    pub(crate) fn settle(&self) -> Result<(), TargetError> {
        if self.shared.target == Target::Ipvs {
            return Ok(());
        }
        let (client, deadline) = (Client::new(self.socket()), Instant::now() + SETTLE_WAIT);
        loop {
            let services: Services = client.get("/v1/services")?;
            let mut reals = services.services.iter().flat_map(|service| &service.reals);
            if reals.all(|real| real.neighbour.is_some()) || Instant::now() > deadline {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = nix::unistd::Pid::from_raw(daemon.id().cast_signed());
        // Nobody is left to tell when it is gone already.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + START_WAIT;
        while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
        let number = self.place.file_name().unwrap_or_default();
        let _ = kernel::detach_all(&self.shared.directory.path().join("bpffs").join(number));
    }
}
