//! Carries out a command line, or all those of a restore, against a director.

use crate::connections::connections_text;
use crate::daemon::{Daemon, DaemonRefusal, DaemonRole, daemons_text};
use crate::endpoint::Names;
use crate::failure::Failure;
use crate::listing::services_text;
use crate::parse::{Place, parse};
use crate::request::Request;
use crate::restore::restore_lines;
use crate::save::save_text;
use crate::texts::{refusal_text, timeouts_text};
use api::{Change, Connection, Refusal, Services};

/// Most changes sent in one request; keeps a request below the 128 MiB that the director takes. What is in one request is
/// compiled, put into the kernel and saved at once.
pub const CHANGES_PER_REQUEST_MAX: usize = 262_144;

/// The director gave no usable answer. Displays as the whole cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// What the tool needs of a director.
pub trait Director {
    /// Tries these changes in order, each by itself; one answer for each, `None` for done.
    ///
    /// # Errors
    /// The director cannot be asked.
    fn change(&mut self, changes: Vec<Change>) -> Result<Vec<Option<Refusal>>, Unreachable>;

    /// All services.
    ///
    /// # Errors
    /// The director cannot be asked.
    fn services(&mut self) -> Result<Services, Unreachable>;

    /// All tracked flows.
    ///
    /// # Errors
    /// The director cannot be asked.
    fn connections(&mut self) -> Result<Vec<Connection>, Unreachable>;

    /// The running synchronisation daemons, master first.
    ///
    /// # Errors
    /// The director cannot be asked.
    fn daemons(&mut self) -> Result<Vec<Daemon>, Unreachable>;

    /// Starts a synchronisation daemon; `None` when it runs.
    ///
    /// # Errors
    /// The director cannot be asked.
    fn start_daemon(&mut self, daemon: &Daemon) -> Result<Option<DaemonRefusal>, Unreachable>;

    /// Stops a synchronisation daemon; `None` when it is stopped.
    ///
    /// # Errors
    /// The director cannot be asked.
    fn stop_daemon(&mut self, role: DaemonRole) -> Result<Option<DaemonRefusal>, Unreachable>;
}

/// What to print, and the exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// Exit code.
    pub code: u8,
}

/// Carries out one command line: `program` is the name the tool was called by, `words` the rest. `input`
/// gives standard input and is called for a restore only.
pub fn run(
    program: &str,
    words: &[String],
    input: &mut dyn FnMut() -> String,
    director: &mut dyn Director,
    names: &dyn Names,
) -> Output {
    let mut runner = Runner { director, names, waiting: Vec::new(), output: Output::default() };
    let outcome = match parse(program, words, Place::CommandLine, names) {
        Ok(Request::Restore) => runner.restore(program, &input()),
        Ok(request) => runner.answer(request).and_then(|_| runner.send()),
        Err(failure) => {
            runner.fail(&failure);
            Ok(())
        }
    };
    if let Err(error) = outcome {
        runner.fail(&Failure::usage(format!("Can't initialize ipvs: {error}")));
    }
    runner.output
}

/// Whether a restore goes on after a line.
#[derive(PartialEq, Eq)]
enum Next {
    Line,
    End,
}

struct Runner<'a> {
    director: &'a mut dyn Director,
    names: &'a dyn Names,
    /// Changes not sent yet: a restore sends many at once.
    waiting: Vec<Change>,
    output: Output,
}

impl Runner<'_> {
    fn fail(&mut self, failure: &Failure) {
        self.output.stderr += &failure.text;
        self.output.stderr.push('\n');
        self.output.code = failure.code;
    }

    /// Every line in turn; the exit code is that of the last one.
    fn restore(&mut self, program: &str, input: &str) -> Result<(), Unreachable> {
        for words in restore_lines(input) {
            let next = match parse(program, &words, Place::Restore, self.names) {
                Ok(request) => self.answer(request)?,
                Err(failure) => {
                    self.send()?;
                    self.fail(&failure);
                    if failure.ends_program { Next::End } else { Next::Line }
                }
            };
            if next == Next::End {
                break;
            }
        }
        self.send()
    }

    /// Sends the waiting changes; the exit code becomes that of the last one.
    fn send(&mut self) -> Result<(), Unreachable> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.waiting);
        let refusals = self.director.change(changes.clone())?;
        if refusals.len() != changes.len() {
            return Err(Unreachable(format!(
                "the director answered {} of {} changes",
                refusals.len(),
                changes.len()
            )));
        }
        for (change, refusal) in changes.iter().zip(refusals) {
            self.output.code = 0;
            if let Some(refusal) = refusal {
                self.fail(&Failure::refused(refusal_text(change, &refusal)));
            }
        }
        Ok(())
    }

    /// Answers a request, or lets a change wait.
    fn answer(&mut self, request: Request) -> Result<Next, Unreachable> {
        if let Request::Change(change) = request {
            self.waiting.push(change);
            if self.waiting.len() >= CHANGES_PER_REQUEST_MAX {
                self.send()?;
            }
            return Ok(Next::Line);
        }
        self.send()?;
        self.output.code = 0;
        let names = self.names;
        let mut next = Next::Line;
        match request {
            // Changes were taken above; a restore in a restore never gets through the parser.
            Request::Change(_) | Request::Restore => {}
            Request::Print(text) => {
                self.output.stdout += &text;
                next = Next::End;
            }
            Request::List(list) => match services_text(&self.director.services()?, &list, names) {
                Ok(text) => self.output.stdout += &text,
                Err(failure) => {
                    self.fail(&failure);
                    next = Next::End;
                }
            },
            Request::ListConnections { numeric, engine_data } => {
                let connections = self.director.connections()?;
                self.output.stdout += &connections_text(&connections, numeric, engine_data, names);
            }
            Request::ListTimeouts => {
                self.output.stdout += &timeouts_text(&self.director.services()?.timeouts);
            }
            Request::ListDaemons => self.output.stdout += &daemons_text(&self.director.daemons()?),
            Request::StartDaemon(daemon) => {
                let refusal = self.director.start_daemon(&daemon)?;
                self.daemon_outcome(refusal);
            }
            Request::StopDaemon(role) => {
                let refusal = self.director.stop_daemon(role)?;
                self.daemon_outcome(refusal);
            }
            Request::Save { numeric } => {
                self.output.stdout += &save_text(&self.director.services()?, numeric, names);
            }
        }
        Ok(next)
    }

    fn daemon_outcome(&mut self, refusal: Option<DaemonRefusal>) {
        if let Some(refusal) = refusal {
            self.fail(&Failure::refused(refusal.text()));
        }
    }
}
