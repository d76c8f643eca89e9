//! Plays scripts into one target and writes down what happens.

use crate::diff::without_time;
use crate::frame::describe;
use crate::net::{Net, NetError};
use crate::record::{Outcome, Played, Record, Seen};
use crate::script::Script;
use crate::step::Step;
use crate::target::{Running, Shared, Target, TargetError};
use runtime::Chain;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use testkit::Packet;

/// Most times that connections are listed for one step.
const LISTINGS_MAX: usize = 5;
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
    let mut player = Player { net: &mut net, target, sent: BTreeMap::new(), settled: false };
    for (line, step) in &script.steps {
        seen.push(Outcome { line: line.clone(), seen: player.step(step)? });
    }
    Ok(())
}

struct Player<'a> {
    net: &'a mut Net,
    target: Running<'a>,
    /// When the last packet of a flow was sent.
    sent: BTreeMap<String, Instant>,
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
                if !self.settled {
                    self.target.settle()?;
                    self.settled = true;
                }
                packets.iter().map(|packet| self.packet(packet)).collect::<Result<_, _>>().map(Seen::Packets)
            }
            Step::Command(words) => self.command(words, ""),
            Step::Restore(input) => self.command(&["-R".to_owned()], input),
        }
    }

    fn packet(&mut self, packet: &Packet) -> Result<String, Stop> {
        let bytes = packet.to_bytes();
        if let Some(flow) = flow(&bytes) {
            self.sent.insert(flow, Instant::now());
        }
        let frames = self.net.exchange(&bytes)?;
        Ok(describe(packet, &frames))
    }

    /// Runs a command; one that lists until two listings hold the same. The kernel's tables of services and of
    /// connections are those of all namespaces, read in pieces that are found again by counting: a reader misses
    /// rows and sees some twice while a script in another namespace adds and removes.
    fn steady(&self, words: &[String], input: &str) -> Result<Output, Stop> {
        let run = || self.target.command(&self.net.director, words, input);
        let mut output = run()?;
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
        let is_connections = stdout.starts_with(CONNECTIONS);
        let sent = if is_connections { self.sent.iter() } else { Default::default() };
        Ok(Seen::Command {
            code: status.code().unwrap_or(-1),
            stderr: text(&stderr),
            ages_s: sent.map(|(flow, at)| (flow.clone(), at.elapsed().as_secs_f64())).collect(),
            stdout,
        })
    }
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

/// A flow as a listing of connections names it: protocol, client, virtual address.
fn flow(frame: &[u8]) -> Option<String> {
    let ip = frame.get(14..)?;
    let (protocol, size, client, virtual_address): (u8, usize, IpAddr, IpAddr) = match ip.first()? >> 4 {
        4 => {
            let at = |from: usize| <[u8; 4]>::try_from(ip.get(from..from + 4)?).ok().map(IpAddr::from);
            (*ip.get(9)?, usize::from(ip[0] & 15) * 4, at(12)?, at(16)?)
        }
        _ => {
            let at = |from: usize| <[u8; 16]>::try_from(ip.get(from..from + 16)?).ok().map(IpAddr::from);
            (*ip.get(6)?, 40, at(8)?, at(24)?)
        }
    };
    let name = match protocol {
        6 => "TCP",
        17 => "UDP",
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(ip.get(size + at..size + at + 2)?.try_into().ok()?));
    let (client, to) = (SocketAddr::new(client, port(0)?), SocketAddr::new(virtual_address, port(2)?));
    Some(format!("{name} {client} {to}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::packet;

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

    #[test]
    fn a_flow_is_named_as_in_a_listing() {
        let text = |text: &str| flow(&packet(&format!("eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / {text}")));
        assert_eq!(
            text("ip4 198.51.100.1 > 192.0.2.10 ttl 3 / tcp 5 > 80 syn").as_deref(),
            Some("TCP 198.51.100.1:5 192.0.2.10:80")
        );
        assert_eq!(
            text("ip6 2001:db8:1::1 > 2001:db8::10 / udp 5 > 53").as_deref(),
            Some("UDP [2001:db8:1::1]:5 [2001:db8::10]:53")
        );
        assert_eq!(text("ip4 198.51.100.1 > 192.0.2.10 / icmp 8 0"), None);
    }
}
