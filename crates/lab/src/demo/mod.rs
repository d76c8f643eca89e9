//! `sluice demo`: a whole cluster on this machine, driven through the acts of an operator's day, each
//! checked.
//!
//! One thread plays the acts and owns the cluster; the main thread waits for signals and keys and draws.
//! Whatever ends the demo (the last act, a failure, ctrl-C, the time limit), the playing thread returns and
//! so drops the cluster, and with it every process and namespace.

pub mod acts;
pub mod board;
pub mod director;
mod failure;
pub mod file;
pub mod judge;
pub mod listing;
pub mod report;
pub mod screen;

use crate::cluster::LabError;
use crate::command::CommandError;
use crate::run::RunError;
use acts::Stage;
use board::{ActState, Board};
use report::{Reporter, Style};
use runtime::signals::{Shutdown, SignalError};
use screen::Screen;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The demo is ended when it takes longer; it should take about 50 s.
const TIME_MAX: Duration = Duration::from_secs(180);
/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Exit code after ctrl-C, as shells expect it.
const EXIT_INTERRUPTED: u8 = 130;

/// The words of `sluice demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  sluice demo\n  sluice demo --headless\n  sluice demo --keep")]
pub struct Options {
    /// Print a transcript instead of showing the cluster live; also done when standard output is no terminal.
    #[arg(long)]
    pub headless: bool,
    /// Print one JSON object a line: act, expected, seen, ok.
    #[arg(long)]
    pub json: bool,
    /// Leave the cluster running and print how to enter it and how to end it.
    #[arg(long)]
    pub keep: bool,
    /// End a cluster that was kept, by the number --keep printed.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["headless", "json", "keep"])]
    pub end: Option<String>,
}

/// The demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// ctrl-C, SIGTERM, or `q`.
    #[error("interrupted; everything was cleaned up")]
    Interrupted,
    /// It took too long.
    #[error("the demo took longer than {} s; everything was cleaned up", TIME_MAX.as_secs())]
    TooLong,
    /// The cluster.
    #[error("the cluster failed")]
    Lab(#[from] LabError),
    /// A command.
    #[error("a command failed")]
    Command(#[from] CommandError),
    /// The run.
    #[error("cannot end the run")]
    Run(#[from] RunError),
    /// Signal handlers.
    #[error("cannot start")]
    Signal(#[from] SignalError),
    /// UDP from the client.
    #[error("cannot send UDP")]
    Udp(#[from] crate::udp::UdpError),
    /// The director did not get ready.
    #[error("the director is not ready ({reason}); its log ends with: {log}")]
    Director {
        /// What happened instead.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A file, a thread or the terminal.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The playing thread panicked; its message is above.
    #[error("the demo broke off")]
    Panic,
}

pub(crate) fn io_failed(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Io { what, source }
}

/// Asks the playing thread to end; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicU8>);

impl Cancel {
    const INTERRUPTED: u8 = 1;
    const TOO_LONG: u8 = 2;

    /// One that is set when SIGINT or SIGTERM comes.
    ///
    /// # Errors
    /// When handlers or a thread cannot be made.
    pub fn by_signal() -> Result<Self, DemoError> {
        let cancel = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io_failed("start a runtime"))?;
        let mut shutdown = runtime.block_on(async { Shutdown::install() })?;
        let told = cancel.clone();
        let wait = move || {
            runtime.block_on(shutdown.wait());
            told.set(Self::INTERRUPTED);
        };
        // It waits until the process ends.
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)
            .map_err(io_failed("start a thread"))?;
        Ok(cancel)
    }

    fn set(&self, why: u8) {
        // The first reason stays.
        let _ = self.0.compare_exchange(0, why, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Fails once the demo should end.
    ///
    /// # Errors
    /// [`DemoError::Interrupted`], [`DemoError::TooLong`].
    pub fn check(&self) -> Result<(), DemoError> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            Self::TOO_LONG => Err(DemoError::TooLong),
            _ => Err(DemoError::Interrupted),
        }
    }

    /// Sleeps, but not past the end of the demo.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn sleep(&self, time: Duration) -> Result<(), DemoError> {
        self.wait_until(time, || false).map(drop)
    }

    /// Waits until `done`, at most `patience`; gives whether it was done.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn wait_until(&self, patience: Duration, mut done: impl FnMut() -> bool) -> Result<bool, DemoError> {
        let deadline = Instant::now() + patience;
        loop {
            self.check()?;
            if done() {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

/// Runs `sluice demo` to its exit code: success only if every expectation held.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            runtime::print_error(&error);
            match error {
                DemoError::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: Options) -> Result<bool, DemoError> {
    if let Some(id) = &options.end {
        crate::run::end(id)?;
        report::print(&format!("ended run {id}\n"));
        return Ok(true);
    }
    let style = match (options.json, options.headless || !io::stdout().is_terminal()) {
        (true, _) => Style::Json,
        (false, true) => Style::Text,
        (false, false) => Style::Silent,
    };
    let program = std::env::current_exe().map_err(io_failed("find this program"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io_failed("start a runtime"))?;
    let board = Board::default();
    let played = runtime.block_on(supervise(options, style, program, board.clone()));
    if style == Style::Silent {
        // The screen is gone; what was on it stays readable.
        let mut reporter = Reporter::new(Style::Text);
        for act in board.acts() {
            if let ActState::Done(outcome) = act.state {
                reporter.begin(&act.name, &act.plan);
                reporter.outcome(&outcome);
            }
        }
        board.notes().iter().for_each(|note| reporter.note(note));
    }
    let ok = played?;
    if style != Style::Json {
        report::print(if ok { "every expectation held\n" } else { "not every expectation held\n" });
    }
    Ok(ok)
}

/// Waits for the playing thread, and meanwhile for signals and keys, and draws.
async fn supervise(
    options: Options,
    style: Style,
    program: PathBuf,
    board: Board,
) -> Result<bool, DemoError> {
    let mut shutdown = Shutdown::install()?;
    let mut hangup = signal(SignalKind::hangup()).map_err(io_failed("install a handler for SIGHUP"))?;
    let mut screen = if style == Style::Silent { Some(Screen::open()?) } else { None };
    let cancel = Cancel::default();
    let player = {
        let (cancel, board) = (cancel.clone(), board.clone());
        let play = move || play(&options, style, program, cancel, board);
        std::thread::Builder::new()
            .name("acts".to_owned())
            .spawn(play)
            .map_err(io_failed("start a thread"))?
    };
    let started = Instant::now();
    let mut broken = None;
    while !player.is_finished() {
        tokio::select! {
            _ = shutdown.wait() => cancel.set(Cancel::INTERRUPTED),
            _ = hangup.recv() => cancel.set(Cancel::INTERRUPTED),
            () = tokio::time::sleep(FRAME) => {}
        }
        if started.elapsed() > TIME_MAX {
            cancel.set(Cancel::TOO_LONG);
        }
        match screen.as_mut().map(|screen| screen.frame(&board)) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => cancel.set(Cancel::INTERRUPTED),
            Some(Err(error)) => {
                // The player must still come to its end: it cleans up.
                cancel.set(Cancel::INTERRUPTED);
                (screen, broken) = (None, Some(error));
            }
        }
    }
    drop(screen);
    let played = player.join().unwrap_or(Err(DemoError::Panic));
    broken.map_or(played, Err)
}

/// Plays every act; gives whether every expectation held.
fn play(
    options: &Options,
    style: Style,
    program: PathBuf,
    cancel: Cancel,
    board: Board,
) -> Result<bool, DemoError> {
    let mut reporter = Reporter::new(style);
    board.announce(acts::ACTS.iter().map(|act| (act.name, act.plan)));
    let mut stage = None;
    let mut all_ok = true;
    for act in &acts::ACTS {
        board.begin(act.name);
        reporter.begin(act.name, act.plan);
        let outcome = match &mut stage {
            None => {
                let (new, outcome) = Stage::set_up(act.name, program.clone(), options.keep, &cancel, &board)?;
                stage = Some(new);
                outcome
            }
            Some(stage) => (act.play)(act.name, stage)?,
        };
        all_ok &= outcome.ok;
        reporter.outcome(&outcome);
        board.end(outcome);
    }
    if let Some(stage) = stage.filter(|_| options.keep) {
        let note = stage.keep()?;
        reporter.note(&note);
        board.note(note);
    }
    Ok(all_ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    const OPTIONS: Options = Options { headless: true, json: false, keep: false, end: None };

    const STATUS: &str = concat!(
        r#"{"version":"0","pid":1,"generation":1,"uptime_s":1,"adopted":false,"interfaces":[],"#,
        r#""embryonic_flows":0,"embryonic_flows_max":1,"established_flows":0,"established_flows_max":1}"#
    );

    /// A program in place of the director: `director` and `ipvsadm` run these shell lines.
    fn program(directory: &Path, director: &str, ipvsadm: &str) -> PathBuf {
        let path = directory.join("program");
        let text = format!(
            "#!/bin/sh\ncase \"$1\" in\ndirector) {director} ;;\nipvsadm) {ipvsadm} ;;\napply|drain) exit 0 ;;\n\
             status) echo '{STATUS}' ;;\nesac\n"
        );
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    fn missing(error: &DemoError) -> bool {
        let missing = matches!(error, DemoError::Lab(LabError::NotRoot | LabError::Command(_)));
        if missing {
            eprintln!("SKIPPED: {}", runtime::Chain(error));
        }
        missing
    }

    #[test]
    fn a_director_that_ends_at_once_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().expect("directory");
        let program = program(dir.path(), "echo error: no such map; exit 7", "exit 1");
        let played = play(&OPTIONS, Style::Silent, program, Cancel::default(), Board::default());
        let error = played.expect_err("no director");
        if !missing(&error) {
            let text = runtime::Chain(&error).to_string();
            let expected = "the director is not ready (it ended, exit status: 7); \
                            its log ends with: error: no such map";
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_director() {
        let dir = tempfile::tempdir().expect("directory");
        let program = program(dir.path(), "exec sleep 600", "exit 1");
        let cancel = Cancel::default();
        let player = {
            let cancel = cancel.clone();
            std::thread::spawn(move || play(&OPTIONS, Style::Silent, program, cancel, Board::default()))
        };
        std::thread::sleep(Duration::from_secs(2));
        cancel.set(Cancel::INTERRUPTED);
        cancel.set(Cancel::TOO_LONG);
        let begun = Instant::now();
        let error = player.join().expect("no panic").expect_err("interrupted");
        if !missing(&error) {
            assert!(matches!(error, DemoError::Interrupted), "{error:?}");
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }

    /// The acts must notice a director that answers every command and forwards nothing.
    #[test]
    fn a_director_that_forwards_nothing_fails_the_acts() {
        if crate::command::find("socat", "socat").is_err() {
            eprintln!("SKIPPED: needs socat");
            return;
        }
        let dir = tempfile::tempdir().expect("directory");
        // The socket is the word behind --socket, the seventh.
        let listen = "exec socat UNIX-LISTEN:$7,fork,unlink-early EXEC:true";
        let program = program(dir.path(), listen, "exit 0");
        let board = Board::default();
        match play(&OPTIONS, Style::Silent, program, Cancel::default(), board.clone()) {
            Err(error) => assert!(missing(&error), "{}", runtime::Chain(&error)),
            Ok(ok) => {
                assert!(!ok);
                let outcomes = board.outcomes();
                assert_eq!(outcomes.len(), acts::ACTS.len());
                for outcome in outcomes {
                    assert!(!outcome.ok, "{outcome:?}");
                }
            }
        }
    }

    #[test]
    fn ending_an_unknown_run_is_an_error() {
        let options = Options { end: Some("17x".to_owned()), ..OPTIONS };
        let error = run(options).expect_err("no such run");
        assert_eq!(runtime::Chain(&error).to_string(), "cannot end the run: there is no run 17x");
    }
}
