//! The director of the demo: this very program as a daemon in the director's namespace, configured through
//! its `ipvsadm` front.

use super::{Cancel, DemoError, io_failed};
use crate::address::Node;
use crate::cluster::{INTERFACE, Lab};
use crate::command::{self, CommandError};
use crate::process::Process;
use nix::mount::{MsFlags, mount};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long the director may take until it answers: it loads and verifies the programs.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(10);
/// The variable in which the commands look for the control socket.
const SOCKET_VARIABLE: &str = "SLUICE_SOCKET";

/// How to reach the director from anywhere; cheap to clone.
#[derive(Clone, Debug)]
pub struct Front {
    program: PathBuf,
    socket: PathBuf,
}

impl Front {
    /// Runs `ipvsadm` with these words, split at blanks; gives what it printed.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn ipvsadm(&self, words: &str) -> Result<String, CommandError> {
        let mut command = Command::new(&self.program);
        command.arg("ipvsadm").args(words.split_whitespace()).env(SOCKET_VARIABLE, &self.socket);
        command::output(command, None)
    }

    /// Runs `sluice` with these words, split at blanks; gives what it printed.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn sluice(&self, words: &str) -> Result<String, CommandError> {
        let mut command = Command::new(&self.program);
        command.args(words.split_whitespace()).env(SOCKET_VARIABLE, &self.socket);
        command::output(command, None)
    }

    /// What the daemon thinks of a real server: the word of `sluice health`.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn standing(&self, real: SocketAddr) -> Result<Option<api::Standing>, DemoError> {
        let view: api::HealthView = serde_json::from_str(&self.sluice("health --json")?)
            .map_err(|error| io_failed("read the health of the real servers")(error.into()))?;
        let reals = view.services.into_iter().flat_map(|it| it.reals);
        let found = reals.into_iter().find(|it| it.real.address == real.ip() && it.real.port == real.port());
        Ok(found.map(|it| it.standing))
    }

    /// Whether the daemon, by its own word in `sluice status --json`, adopted what an earlier one left in the
    /// kernel.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn adopted(&self) -> Result<bool, DemoError> {
        let mut command = Command::new(&self.program);
        command.args(["status", "--json"]).env(SOCKET_VARIABLE, &self.socket);
        let status: api::Status = serde_json::from_str(&command::output(command, None)?)
            .map_err(|error| io_failed("read the director's status")(error.into()))?;
        Ok(status.adopted)
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The program to call.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// The running daemon.
#[derive(Debug)]
pub struct Director {
    front: Front,
    pins: PathBuf,
    process: Process,
}

impl Director {
    /// Mounts a bpffs for the run and starts the daemon; returns once it answers.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn start(lab: &Lab, program: PathBuf, cancel: &Cancel) -> Result<Self, DemoError> {
        let pins = lab.directory().join("bpf");
        std::fs::create_dir_all(&pins).map_err(io_failed("make the directory for the pins"))?;
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), None::<&str>)
            .map_err(|errno| io_failed("mount a bpffs")(errno.into()))?;
        let front = Front { program, socket: lab.directory().join("director.sock") };
        let process = spawn(lab, &front, &pins)?;
        let mut director = Self { front, pins, process };
        director.wait_until_ready(cancel)?;
        Ok(director)
    }

    /// How to reach it.
    #[must_use]
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Kills it as a crash would.
    pub fn crash(&mut self) {
        self.process.crash();
    }

    /// Asks it to end, as systemd would.
    pub fn stop(&mut self) {
        self.process.stop(END_MAX);
    }

    /// Starts another program in its place; returns once it answers.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn start_again_as(&mut self, lab: &Lab, program: PathBuf, cancel: &Cancel) -> Result<(), DemoError> {
        self.front.program = program;
        self.start_again(lab, cancel)
    }

    /// Starts it again after a crash; returns once it answers.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn start_again(&mut self, lab: &Lab, cancel: &Cancel) -> Result<(), DemoError> {
        self.process = spawn(lab, &self.front, &self.pins)?;
        self.wait_until_ready(cancel)
    }

    /// Lets it run on after this program.
    pub fn release(mut self) {
        self.process.release();
    }

    fn wait_until_ready(&mut self, cancel: &Cancel) -> Result<(), DemoError> {
        let Self { front, process, .. } = self;
        let mut ended = None;
        let ready = cancel.wait_until(READY_MAX, || {
            ended = process.exit_status();
            // A socket file of a killed daemon may still be there; only a connection proves one.
            ended.is_some() || UnixStream::connect(&front.socket).is_ok()
        })?;
        let reason = match ended {
            Some(status) => format!("it ended, {status}"),
            None if ready => return Ok(()),
            None => format!("no answer within {} s", READY_MAX.as_secs()),
        };
        Err(DemoError::Director { reason, log: self.process.log_tail() })
    }
}

fn spawn(lab: &Lab, front: &Front, pins: &Path) -> Result<Process, DemoError> {
    let mut command = lab.command_in(Node::Director, &front.program)?;
    command.args(["director", "--interface", INTERFACE, "--log-format", "text"]);
    command.args(lab.inside_interfaces().flat_map(|name| ["--interface", name]));
    command.arg("--socket").arg(&front.socket).arg("--pin").arg(pins.join("sluice"));
    command.arg("--state").arg(lab.directory().join("state"));
    Ok(lab.start("director", command)?)
}
