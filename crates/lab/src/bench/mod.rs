//! Benchmarks. `docs/performance.md` says how to read their figures.

pub mod packet;
pub mod upgrade;

use crate::demo::Cancel;
use clap::{Args, Subcommand};
use std::io::{self, Write};

/// `sluice bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub bench: Bench,
}

/// The benchmarks.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Measure what one packet costs in the eBPF programs
    #[command(after_help = "Examples:\n  sluice bench packet\n  sluice bench packet --case 'hit/*' --json")]
    Packet(PacketArgs),
    /// Stop, start and upgrade the director under load, and count every request and segment
    #[command(
        after_help = "Examples:\n  sluice bench upgrade\n  sluice bench upgrade --starts 60 --json\n\n\
The exit code is 1 if a request failed or a segment did not arrive."
    )]
    Upgrade(UpgradeArgs),
}

/// `sluice bench upgrade`.
#[derive(Clone, Debug, Args)]
pub struct UpgradeArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// How often the director is started again: by turns the same build, another one, another one after kill -9
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub starts: u32,
    /// Requests a second on new connections, and as many on kept ones
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
}

/// A benchmark failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// That of packets.
    #[error(transparent)]
    Packet(#[from] packet::BenchError),
    /// That of upgrades.
    #[error(transparent)]
    Upgrade(#[from] upgrade::UpgradeError),
    /// Something was lost.
    #[error("requests failed or segments did not arrive: see the figures above")]
    Lost,
    /// The report could not be written.
    #[error("cannot write the report")]
    Print(#[source] io::Error),
}

/// `sluice bench packet`.
#[derive(Clone, Debug, Args)]
pub struct PacketArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Rounds; every case is measured once in each
    #[arg(long, value_name = "N", default_value_t = packet::ROUNDS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Measure only cases whose name matches, such as `hit/*`; the floors always are
    #[arg(long = "case", value_name = "GLOB")]
    pub case: Option<String>,
}

/// Runs a benchmark and prints its report on standard output.
///
/// # Errors
/// [`Error`]; nothing is left behind.
pub fn run(args: &BenchArgs) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match &args.bench {
        Bench::Packet(args) => {
            let report = packet::run(&packet::Options { rounds: args.rounds, filter: args.case.clone() })?;
            if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }
                .and_then(|()| out.flush())
                .map_err(Error::Print)
        }
        Bench::Upgrade(args) => {
            let cancel = Cancel::by_signal().map_err(upgrade::UpgradeError::from)?;
            let options = upgrade::Options { starts: args.starts, rate_per_s: args.rate };
            let report = upgrade::run(&options, &cancel)?;
            if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }
                .and_then(|()| out.flush())
                .map_err(Error::Print)?;
            if report.nothing_lost() { Ok(()) } else { Err(Error::Lost) }
        }
    }
}
