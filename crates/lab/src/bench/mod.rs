//! Benchmarks. `docs/performance.md` says how to read their figures.

pub mod packet;

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
/// [`packet::BenchError`]; nothing is left behind.
pub fn run(args: &BenchArgs) -> Result<(), packet::BenchError> {
    let Bench::Packet(args) = &args.bench;
    let report = packet::run(&packet::Options { rounds: args.rounds, filter: args.case.clone() })?;
    let mut out = io::stdout().lock();
    if args.json { report.write_json(&mut out) } else { report.write_table(&mut out) }
        .and_then(|()| out.flush())
        .map_err(packet::BenchError::Print)
}
