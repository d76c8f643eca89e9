//! Plays scripts into one target and writes down what happens.

use crate::diff::without_time;
use crate::flow::{Ages, Flows};
use crate::frame::{describe, describe_all};
use crate::net::{Net, NetError};
use crate::record::{Outcome, Played, Record, Seen};
use crate::script::Script;
use crate::settings::{mark_packets, mark_words, set};
use crate::step::{Mark, Step};
use crate::target::{Running, Shared, Target, TargetError};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use runtime::Chain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use testkit::Packet;

/// Most times that connections are listed for one step.
const LISTINGS_MAX: usize = 5;
/// A listing up to this size was read in one piece: of connections ipvsadm reads 1,024 bytes at a time, of services more.
const PIECE_BYTES: usize = 900;
/// As the system calls name it.
const THIS_THREAD: Pid = Pid::from_raw(0);
/// How a listing of connections begins.
const CONNECTIONS: &str = "IPVS connection entries";

/// How to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// Into what.
    pub target: Target,
    /// The binary `sluice`.
    pub sluice: PathBuf,
    /// How many scripts at a time.
    pub workers: usize,
}

/// Nothing could be played.
#[derive(Debug, thiserror::Error)]
#[error("cannot play into {}", .target.name())]
pub struct PlayError {
    target: Target,
    #[source]
    source: TargetError,
}

/// One script could not be played to its end.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("network")]
    Net(#[from] NetError),
    #[error("target")]
    Target(#[from] TargetError),
}

/// Plays every script, each in a network of its own. To be called before the process has other threads.
///
/// # Errors
/// [`PlayError`] when the target is not there at all; what stops a single script is in the record.
pub fn play(scripts: &[Script], options: &Options) -> Result<Record, PlayError> {
    let shared = Shared::new(options.target, &options.sluice)
        .map_err(|source| PlayError { target: options.target, source })?;
    let next = AtomicUsize::new(0);
    let mut played: Vec<(usize, Played)> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(script) = scripts.get(number) else { return done };
                done.push((number, play_one(&shared, script, number)));
            }
        };
        let workers: Vec<_> = (0..options.workers.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    played.sort_by_key(|(number, _)| *number);
    let kernel = nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned());
    Ok(Record {
        target: options.target.name().to_owned(),
        kernel: kernel.unwrap_or_default(),
        scripts: played.into_iter().map(|(_, played)| played).collect(),
    })
}

fn play_one(shared: &Shared, script: &Script, number: usize) -> Played {
    let mut played =
        Played { name: script.name.clone(), better: script.better.clone(), failure: None, steps: Vec::new() };
    if let Err(stop) = play_steps(shared, script, number, &mut played.steps) {
        played.failure = Some(Chain(&stop).to_string());
    }
    played
}

fn play_steps(shared: &Shared, script: &Script, number: usize, seen: &mut Vec<Outcome>) -> Result<(), Stop> {
    let mut net = Net::new()?;
    let target = shared.start(&net.director, number)?;
    let mut player =
        Player { net: &mut net, target, flows: Flows::default(), marks: Vec::new(), settled: false };
    for (line, step) in &script.steps {
        seen.push(Outcome { line: line.clone(), seen: player.step(step)? });
    }
    Ok(())
}

struct Player<'a> {
    net: &'a mut Net,
    target: Running<'a>,
    flows: Flows,
    /// The fwmarks given.
    marks: Vec<Mark>,
    /// Whether packets may be sent.
    settled: bool,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<Seen, Stop> {
        match step {
            Step::Wait(time) => {
                std::thread::sleep(*time);
                Ok(Seen::Nothing)
            }
            Step::Packets(packets) => {
                self.settle()?;
                let _pinned = Pinned::new();
                let told = |packet| Ok(describe(packet, &self.packet(packet)?));
                packets.iter().map(told).collect::<Result<_, Stop>>().map(Seen::Packets)
            }
            Step::Together(packets) => {
                self.settle()?;
                let _pinned = Pinned::new();
                let frames =
                    packets.iter().map(|it| self.packet(it)).collect::<Result<Vec<_>, Stop>>()?.concat();
                Ok(Seen::Packets(describe_all(packets, &frames)))
            }
            Step::Command(words) => self.command(words, ""),
            Step::Restore(input) => self.command(&["-R".to_owned()], input),
            Step::Mark(mark) => self.mark(mark),
            Step::Set(name, value) => self.set(name, value),
            Step::Ip(words) => {
                self.settled = false;
                self.net.ip(words)?;
                Ok(Seen::Nothing)
            }
            Step::Mtu(bytes) => {
                self.net.set_mtu(*bytes)?;
                Ok(Seen::Nothing)
            }
        }
    }

    fn settle(&mut self) -> Result<(), Stop> {
        if !self.settled {
            self.target.settle()?;
            self.settled = true;
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet) -> Result<Vec<Vec<u8>>, Stop> {
        let (bytes, now) = (packet.to_bytes(), Instant::now());
        let frames = self.net.exchange(&bytes)?;
        self.flows.note(&bytes, &frames, now);
        Ok(frames)
    }

    fn mark(&mut self, mark: &Mark) -> Result<Seen, Stop> {
        if self.target.target() == Target::Sluice {
            let output = self.target.sluice(&self.net.director, &mark_words(mark))?;
            return Ok(accepted(output.status.success(), &output.stderr));
        }
        if mark.is_added {
            self.marks.push(mark.clone());
        } else {
            self.marks.retain(|it| (&it.protocol, &it.destinations) != (&mark.protocol, &mark.destinations));
        }
        mark_packets(&self.net.director, &self.marks)?;
        Ok(accepted(true, b""))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<Seen, Stop> {
        if self.target.target() == Target::Ipvs {
            return Ok(accepted(set(&self.net.director, name, value)?.is_ok(), b""));
        }
        let words = ["set", name, value].map(str::to_owned);
        let output = self.target.sluice(&self.net.director, &words)?;
        Ok(accepted(output.status.success(), b""))
    }

    /// Runs a command; one that lists again while its listing may be wrong, until two hold the same. The kernel's
    /// tables of services and of connections are those of all namespaces, read in pieces that are found again by
    /// counting: a reader misses rows and sees some twice while a script in another namespace adds and removes.
    fn steady(&self, words: &[String], input: &str) -> Result<Output, Stop> {
        let run = || self.target.command(&self.net.director, words, input);
        let mut output = run()?;
        if !may_be_wrong(&output.stdout) {
            return Ok(output);
        }
        for _ in 0..LISTINGS_MAX {
            let Some(before) = listed(words, &output.stdout) else { break };
            output = run()?;
            if listed(words, &output.stdout) == Some(before) {
                break;
            }
        }
        Ok(output)
    }

    fn command(&mut self, words: &[String], input: &str) -> Result<Seen, Stop> {
        let Output { status, stdout, stderr } = self.steady(words, input)?;
        self.settled = false;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stdout = text(&stdout);
        let ages = if stdout.starts_with(CONNECTIONS) { self.flows.ages(&stdout) } else { Ages::default() };
        Ok(Seen::Command {
            code: status.code().unwrap_or(-1),
            stderr: text(&stderr),
            ages_s: ages.least_s,
            ages_most_s: ages.most_s,
            stdout,
        })
    }
}

/// Keeps this thread on one CPU while packets are sent: they are received there, and Sluice counts what it drops of new
/// flows (`drop_packet`) on each CPU by itself.
struct Pinned {
    before: Option<CpuSet>,
}

impl Pinned {
    fn new() -> Self {
        let pin = || -> nix::Result<CpuSet> {
            let before = sched_getaffinity(THIS_THREAD)?;
            let first = (0..CpuSet::count()).find(|cpu| before.is_set(*cpu).unwrap_or(false));
            let mut one = CpuSet::new();
            one.set(first.unwrap_or(0))?;
            sched_setaffinity(THIS_THREAD, &one)?;
            Ok(before)
        };
        // Where it is not allowed, all else can still be compared.
        Self { before: pin().ok() }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(THIS_THREAD, before);
        }
    }
}

/// Whether a listing was read in more than one piece, or holds a row twice. Services are read in one piece and an end,
/// at which rows can come again but cannot be missed; so are the real servers of each.
fn may_be_wrong(stdout: &[u8]) -> bool {
    let mut lines: Vec<&[u8]> = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    stdout.len() > PIECE_BYTES || lines.len() < count
}

/// The lines of a listing, in order of the alphabet; those of connections once each and without their times.
/// `None` for the output of any other command.
fn listed(words: &[String], stdout: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(stdout).ok()?;
    if text.starts_with(CONNECTIONS) {
        let rows: BTreeSet<String> = text.lines().map(|line| without_time(line).0).collect();
        return Some(rows.into_iter().collect());
    }
    let first = words.first().map_or("-L", String::as_str);
    let is_listing =
        ["-L", "-l", "-S"].iter().any(|it| first.starts_with(it)) || ["--list", "--save"].contains(&first);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    is_listing.then_some(lines)
}

/// What a change led to that is made by other means in each target: whether it was taken, and what was said.
fn accepted(is_accepted: bool, said: &[u8]) -> Seen {
    Seen::Command {
        code: i32::from(!is_accepted),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(said).into_owned(),
        ages_s: BTreeMap::new(),
        ages_most_s: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_asked_again_when_it_is_long_or_holds_a_row_twice() {
        assert!(!may_be_wrong(b"a\nb\n\n"));
        assert!(may_be_wrong(b"a\nb\na\n"));
        assert!(may_be_wrong(&[b'x'; PIECE_BYTES + 1]));
    }

    #[test]
    fn only_listings_are_asked_again() {
        let ask = |words: &str, text: &str| {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            listed(&words, text.as_bytes())
        };
        assert_ne!(ask("-Ln", "a\nb\n"), ask("-Ln", "a\nb\nb\n"), "a row that comes twice is seen");
        assert_eq!(ask("-L --stats", "b\na\n"), ask("--list", "a\nb\n"));
        let row = |time| format!("{CONNECTIONS}\nTCP {time}  SYN_RECV    198.51.100.1:1     192.0.2.10:80\n");
        assert_eq!(ask("-Lcn", &row("00:59")), ask("-R", &row("00:58")));
        assert_eq!(ask("-Z", ""), None);
        assert_eq!(ask("-A -t 192.0.2.10:80", ""), None);
        assert!(ask("", "").is_some());
    }
}
