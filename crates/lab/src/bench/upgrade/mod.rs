//! `sluice bench upgrade`: the director is stopped and started again and again under load, also as another build, and every
//! request and every segment is counted.
//!
//! A client sends numbered requests through the VIP, on new connections and on kept ones. Whatever it sends to the VIP must
//! arrive at a real server: the kernel's own counters of TCP at both ends say whether it did.

mod counters;
mod other;
mod report;

pub use report::{Report, Row};

use crate::address::{HTTP_PORT, Node, VIP_V4, vip};
use crate::cluster::{Lab, LabError, LabOptions};
use crate::demo::director::Director;
use crate::demo::{Cancel, DemoError};
use crate::load::{LoadHandle, LoadMode, LoadOptions, LoadStats};
use counters::Counters;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the daemon is away at least each time, and how long it runs before the next: requests must meet both.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the director may take until it answers.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long counters may take to agree after the load.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// What the director logs when it exchanges programs.
const EXCHANGED: &str = "exchanged the programs of attached interfaces";

/// The benchmark could not measure.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The cluster.
    #[error("the cluster failed")]
    Lab(#[from] LabError),
    /// The director.
    #[error("the director failed")]
    Director(#[from] DemoError),
    /// A command.
    #[error("a command failed")]
    Command(#[from] crate::command::CommandError),
    /// A namespace.
    #[error("cannot read counters")]
    Namespace(#[from] host::netns::NamespaceError),
    /// This program does not hold the object that it loads, or in a way that is not understood.
    #[error("cannot make another build of {}: {reason}", program.display())]
    OtherBuild {
        /// This program.
        program: PathBuf,
        /// What is odd.
        reason: String,
    },
    /// A file or a thread.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What a command or a file of the kernel says is not understood.
    #[error("cannot understand {0}")]
    Odd(String),
}

fn io_failed(what: &'static str) -> impl FnOnce(std::io::Error) -> UpgradeError {
    move |source| UpgradeError::Io { what, source }
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the director is started again.
    pub starts: u32,
    /// Requests a second on new connections, and as many on kept ones.
    pub rate_per_s: u32,
}

/// A way for the director to go and to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    name: &'static str,
    /// Another build starts, whose programs have other instructions.
    other: bool,
    /// It is killed, not asked to end.
    killed: bool,
}

const WAYS: [Way; 3] = [
    Way { name: "restart", other: false, killed: false },
    Way { name: "upgrade", other: true, killed: false },
    Way { name: "kill -9, upgrade", other: true, killed: true },
];

/// Runs the benchmark.
///
/// # Errors
/// [`UpgradeError`]; nothing is left behind.
pub fn run(options: &Options, cancel: &Cancel) -> Result<Report, UpgradeError> {
    let lab = Lab::new(LabOptions::default())?;
    let own = std::env::current_exe().map_err(io_failed("find this program"))?;
    let builds = [own.clone(), lab.directory().join("sluice-other")];
    other::write(&own, &builds[1])?;
    let mut director = Director::start(&lab, own, cancel)?;
    let service = format!("{VIP_V4}:{HTTP_PORT}");
    director.front().ipvsadm(&format!("-A -t {service} -s rr"))?;
    for number in lab.reals() {
        let real = Node::Real(number).v4();
        director.front().ipvsadm(&format!("-a -t {service} -r {real}:{HTTP_PORT} -g"))?;
    }
    wait_for_next_hops(&lab, cancel)?;

    let before = Counters::settled(&lab, director.front(), SETTLE_MAX)?;
    let started = Instant::now();
    let loads = Loads::start(&lab, options.rate_per_s)?;
    let mut report = Report::default();
    let mut build = 0;
    for (number, way) in (0..options.starts).zip(WAYS.iter().cycle()) {
        cancel.sleep(PAUSE)?;
        if way.other {
            build = 1 - build;
        }
        let program = builds.get(build).cloned().unwrap_or_default();
        let row = once(&lab, &mut director, (*way, program), &loads, cancel)?;
        report.add(row);
        say(number, &report);
    }
    cancel.sleep(PAUSE)?;
    (report.new_connections, report.kept_connections) = loads.stop();
    report.seconds = started.elapsed().as_secs_f64();
    let after = Counters::settled(&lab, director.front(), SETTLE_MAX)?;
    report.count(&after.since(&before));
    Ok(report)
}

/// A word a start, so that a long run is seen to go on.
fn say(number: u32, report: &Report) {
    let failed: u64 = report.rows.iter().map(|row| row.failed).sum();
    runtime::tell(format_args!("start {}: {failed} requests failed", number + 1));
}

/// Packets that come before a real server's address is known are not forwarded; that is no matter of upgrades.
fn wait_for_next_hops(lab: &Lab, cancel: &Cancel) -> Result<(), UpgradeError> {
    let client = lab.namespace(Node::Client)?;
    let mut warm = None;
    let reals = lab.reals().len() as u64;
    let known = cancel.wait_until(SETTLE_MAX, || {
        let options = LoadOptions { requests_max: reals * 2, ..LoadOptions::new(vip(false, HTTP_PORT)) };
        warm = LoadHandle::start(client, options).ok().map(LoadHandle::wait);
        warm.as_ref().is_some_and(|stats| stats.failed == 0 && stats.share.len() as u64 == reals)
    })?;
    if known {
        return Ok(());
    }
    Err(UpgradeError::Odd(format!("why not every real server answers through the VIP: {warm:?}")))
}

/// Both kinds of load.
struct Loads {
    new: LoadHandle,
    kept: LoadHandle,
}

impl Loads {
    fn start(lab: &Lab, rate_per_s: u32) -> Result<Self, UpgradeError> {
        let start = |mode| {
            let options = LoadOptions { mode, rate_per_s, ..LoadOptions::new(vip(false, HTTP_PORT)) };
            let options = LoadOptions {
                requests_max: u64::MAX,
                duration_max: Duration::from_secs(24 * 3600),
                ..options
            };
            lab.start_load(options)
        };
        Ok(Self { new: start(LoadMode::NewConnection)?, kept: start(LoadMode::KeepAlive)? })
    }

    fn stats(&self) -> [LoadStats; 2] {
        [self.new.stats(), self.kept.stats()]
    }

    fn stop(self) -> (LoadStats, LoadStats) {
        (self.new.stop(), self.kept.stop())
    }
}

/// One end and one start.
fn once(
    lab: &Lab,
    director: &mut Director,
    (way, program): (Way, PathBuf),
    loads: &Loads,
    cancel: &Cancel,
) -> Result<Row, UpgradeError> {
    let (stats, exchanges) = (loads.stats(), exchanges(lab.directory())?);
    let away = Instant::now();
    if way.killed {
        director.crash();
    } else {
        director.stop();
    }
    cancel.sleep(PAUSE)?;
    director.start_again_as(lab, program, cancel)?;
    // It listens before it has taken over, and answers afterwards.
    let mut adopted = None;
    cancel.wait_until(ANSWER_MAX, || {
        adopted = director.front().adopted().ok();
        adopted.is_some()
    })?;
    if adopted != Some(true) {
        return Err(UpgradeError::Odd("why the director did not adopt what the one before left".to_owned()));
    }
    let away = away.elapsed();
    cancel.sleep(PAUSE)?;
    let since: Vec<LoadStats> =
        loads.stats().iter().zip(&stats).map(|(after, before)| after.since(before)).collect();
    Ok(Row {
        way: way.name,
        starts: 1,
        exchanges: self::exchanges(lab.directory())? - exchanges,
        away_ms: u64::try_from(away.as_millis()).unwrap_or(u64::MAX),
        answered: since.iter().map(|stats| stats.answered).sum(),
        failed: since.iter().map(|stats| stats.failed).sum(),
    })
}

/// How often programs were exchanged so far, by the director's log.
fn exchanges(directory: &Path) -> Result<u64, UpgradeError> {
    let log = std::fs::read_to_string(directory.join("director.log"));
    Ok(log.map_err(io_failed("read the director's log"))?.matches(EXCHANGED).count() as u64)
}
