//! A SYN flood into one target: what it costs, which connections go on, who gets in.
//!
//! ```text
//! client, and the flood ---- d0 :director ---- server (direct routing)
//! ```
//! Real TCP in namespaces. Before the flood some connections are established; half of them talk after every wave of it, the
//! others are silent until its end and for longer than a minute. After every wave an honest client connects. Counts only:
//! deliberately absent is every rate, as IPVS runs on an emulated machine.

mod memory;
mod world;

use crate::settings::set;
use crate::target::{Running, Shared, Target, TargetError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use world::{Talk, World, connect};

use testkit::{Frames, NetNsError, Syns};

/// Connections established before, of each kind.
const BEFORE: usize = 50;
/// Later than this an honest client's connection needed a repeated SYN: clients repeat the first one after a second.
const LATE: Duration = Duration::from_millis(900);
/// How long after the beginning the silent connections are asked again: longer than a minute, after which `drop_entry` may
/// take what is silent.
const SILENCE: Duration = Duration::from_secs(100);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What is flooded.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// As it stands in the table.
    pub name: &'static str,
    /// Into what.
    pub target: Target,
    /// Settings, of IPVS or of `sluice set`.
    settings: &'static [(&'static str, &'static str)],
    /// Words of `sluice director`.
    words: &'static [&'static str],
}

const fn ipvs(name: &'static str, settings: &'static [(&'static str, &'static str)]) -> Variant {
    Variant { name, target: Target::Ipvs, settings, words: &[] }
}

const fn sluice(name: &'static str, words: &'static [&'static str]) -> Variant {
    Variant { name, target: Target::Sluice, settings: &[], words }
}

/// First two lines of the table.
pub const HEAD: &str = "| into | SYNs | connections in the table after the last | 100 s after the first | memory of the table \
    | talking connections kept | silent ones kept | honest clients that got in |\n\
    | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Every variant. Memory counts as short below `amemthresh` pages, so that much of it is asked for where the automatic modes
/// are to act.
pub const VARIANTS: [Variant; 7] = [
    ipvs("IPVS", &[]),
    ipvs("IPVS, drop_entry=1, memory short", &[("amemthresh", "1000000000"), ("drop_entry", "1")]),
    ipvs("IPVS, drop_entry=3", &[("drop_entry", "3")]),
    ipvs("IPVS, drop_packet=3", &[("drop_packet", "3")]),
    ipvs("IPVS, secure_tcp=3", &[("secure_tcp", "3")]),
    sluice("Sluice", &[]),
    sluice("Sluice, room for 1,024 half-open ones", &["--embryonic-flows-max", "1024"]),
];

/// How to flood.
#[derive(Clone, Debug)]
pub struct FloodOptions {
    /// The binary `sluice`.
    pub sluice: PathBuf,
    /// SYNs from made-up addresses; at most 65,536 times 200.
    pub syns: u32,
    /// How many between two looks at the connections.
    pub wave: u32,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flooded {
    /// The variant.
    pub name: String,
    /// SYNs sent, and seconds it took with everything in between.
    pub syns: u32,
    /// In whole seconds.
    pub seconds: u64,
    /// Connections in the table when the last SYN had been sent, and at most after any wave.
    pub entries: (u64, u64),
    /// When the silent ones are asked.
    pub entries_later: u64,
    /// Bytes of an entry (of its slab), if it has one of its own.
    pub entry_bytes: Option<u64>,
    /// Memory of the tables, in bytes, before the flood and at most after a wave.
    pub bytes: (u64, u64),
    /// Connections before the flood that talked after every wave: how many, and how many were cut.
    pub busy: (usize, usize),
    /// The same of silent ones.
    pub silent: (usize, usize),
    /// Honest clients: how many tried, got in, and needed a repeated SYN.
    pub honest: (usize, usize, usize),
    /// Of those that got in, how many went on to the end.
    pub honest_kept: usize,
}

/// The flood could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    /// Namespaces and links.
    #[error("cannot make the network")]
    Network(#[from] NetNsError),
    /// A tool, a file or a socket.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// IPVS or Sluice.
    #[error("cannot start the target")]
    Target(#[from] TargetError),
    /// A command or a setting.
    #[error("{what}: {said}")]
    Refused {
        /// Which.
        what: String,
        /// What was said.
        said: String,
    },
}

fn cannot<T>(what: &str, result: io::Result<T>) -> Result<T, FloodError> {
    result.map_err(|source| FloodError::Io { what: what.to_owned(), source })
}

/// Floods one variant on the running kernel. To be called before the process has other threads.
///
/// # Errors
/// [`FloodError`] when there is nothing to flood; whoever does not get through is counted.
pub fn flood(variant: &Variant, options: &FloodOptions) -> Result<Flooded, FloodError> {
    let shared = Shared::new(variant.target, &options.sluice)?;
    let world = World::new()?;
    let mut running = shared.start_with(&world.director, 0, variant.words)?;
    for (name, value) in variant.settings {
        let what = format!("set {name} to {value}");
        let entered = set(&world.director, name, value);
        let written = entered.map_err(|error| FloodError::Refused {
            what: what.clone(),
            said: runtime::Chain(&error).to_string(),
        })?;
        cannot(&what, written)?;
    }
    for words in ["-A -t 192.0.2.10:8080 -s rr", "-a -t 192.0.2.10:8080 -r 192.0.2.3:8080 -g"] {
        ipvsadm(&running, &world, words)?;
    }
    running.settle()?;
    Scene { world: &world, running: &mut running, options }.play(variant)
}

fn ipvsadm(running: &Running<'_>, world: &World, words: &str) -> Result<String, FloodError> {
    let line: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let output = running.command(&world.director, &line, "")?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(FloodError::Refused { what: format!("ipvsadm {words}"), said: said(&output.stderr) })
}

/// A flood under way.
struct Scene<'a, 'b> {
    world: &'a World,
    running: &'a mut Running<'b>,
    options: &'a FloodOptions,
}

impl Scene<'_, '_> {
    fn play(&self, variant: &Variant) -> Result<Flooded, FloodError> {
        let talks = || (0..BEFORE).map(|_| connect(&self.world.client)).collect::<Result<Vec<_>, _>>();
        let (mut busy, mut silent) = (talks()?, talks()?);
        let before = self.bytes()?;
        let frames = self.world.client.run(|| Frames::open("eth0"))?;
        let frames = cannot("open the client's link", frames)?;
        let mut syns = Syns::new(world::DIRECTOR_MAC, "192.0.2.10", 8080);
        let (start, mut honest, mut late) = (Instant::now(), Vec::new(), 0);
        let (mut entries, mut entries_max, mut bytes_max) = (0, 0, before);
        let waves = self.options.syns / self.options.wave;
        for _ in 0..waves {
            cannot("send SYNs", syns.send(&frames, self.options.wave))?;
            busy.iter_mut().for_each(Talk::say);
            let asked = Instant::now();
            if let Ok(talk) = connect(&self.world.client) {
                late += usize::from(asked.elapsed() > LATE);
                honest.push(talk);
            }
            entries = self.entries()?;
            entries_max = entries.max(entries_max);
            bytes_max = self.bytes()?.max(bytes_max);
        }
        let seconds = start.elapsed().as_secs();
        while start.elapsed() < SILENCE {
            std::thread::sleep(LOOK);
        }
        let entries_later = self.entries()?;
        for talk in busy.iter_mut().chain(&mut silent).chain(&mut honest) {
            talk.say();
        }
        let cut = |talks: &[Talk]| talks.iter().filter(|talk| talk.is_cut()).count();
        Ok(Flooded {
            name: variant.name.to_owned(),
            syns: waves * self.options.wave,
            seconds,
            entries: (entries, entries_max),
            entries_later,
            entry_bytes: self.slab().map(|slab| slab.object_bytes),
            bytes: (before, bytes_max),
            busy: (busy.len(), cut(&busy)),
            silent: (silent.len(), cut(&silent)),
            honest: (waves as usize, honest.len(), late),
            honest_kept: honest.len() - cut(&honest),
        })
    }

    /// Connections in the table, half-open ones too: of Sluice as its last sweep has counted them, of IPVS as its real
    /// server has them by `ipvsadm -Ln`.
    fn entries(&self) -> Result<u64, FloodError> {
        if let Some(flows) = self.running.flows()? {
            return Ok(flows);
        }
        let listed = ipvsadm(self.running, self.world, "-Ln")?;
        let numbers = listed.lines().filter_map(|line| line.trim().strip_prefix("-> 192.0.2.3:8080"));
        let counts = numbers.flat_map(|line| line.split_whitespace().rev().take(2));
        Ok(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
    }

    /// The slab of connections, if the target is IPVS and the kernel tells.
    fn slab(&self) -> Option<memory::Slab> {
        if self.running.process().is_some() { None } else { memory::of_slab("ip_vs_conn") }
    }

    /// Memory of the tables: of IPVS its slab, of Sluice its maps.
    fn bytes(&self) -> Result<u64, FloodError> {
        match self.running.process() {
            Some(process) => cannot("read the director's maps", memory::of_maps(process)),
            None => Ok(self.slab().map_or(0, |slab| slab.bytes)),
        }
    }
}

/// Reads what [`flood`] has written for each variant.
///
/// # Errors
/// The file that is not there or is no such record.
pub fn read(folder: &Path) -> Result<Vec<Flooded>, FloodError> {
    let record = |number: usize| {
        let path = folder.join(format!("{number}.json"));
        let text = cannot(&format!("read {}", path.display()), std::fs::read(&path))?;
        let read = serde_json::from_slice(&text).map_err(io::Error::other);
        cannot(&format!("read {}", path.display()), read)
    };
    (0..VARIANTS.len()).map(record).collect()
}

/// A row of the table.
impl fmt::Display for Flooded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let kept = |(all, cut): (usize, usize)| format!("{} of {all}", all - cut);
        let (tried, got_in, late) = self.honest;
        let entry = self.entry_bytes.map_or_else(String::new, |bytes| format!(" ({bytes} bytes each)"));
        write!(
            f,
            "| {} | {} in {} s | {} (at most {}) | {} ",
            self.name, self.syns, self.seconds, self.entries.0, self.entries.1, self.entries_later
        )?;
        write!(f, "| {} to {} MiB{entry} ", mib(self.bytes.0), mib(self.bytes.1))?;
        write!(f, "| {} | {} ", kept(self.busy), kept(self.silent))?;
        write!(f, "| {got_in} of {tried}, {late} by a repeated SYN; {} went on |", self.honest_kept)
    }
}
