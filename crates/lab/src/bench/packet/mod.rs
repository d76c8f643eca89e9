//! What one packet costs in the eBPF programs, by the kernel's test run.
//!
//! ```text
//! test-run loop -> reset (restores the frame, chooses the client) -> program under test
//! ```
//!
//! The loop restores nothing between passes, so each pass goes through a program that does. Its cost is
//! measured beside every figure and subtracted; every figure is checked by counters and by the packet that
//! comes out.
//!
//! Deliberately absent: drivers, interrupts and caches that other work has cleared. This is the cost of the
//! programs, not of a packet on a wire.

mod case;
mod error;
mod flows;
mod frame;
mod measure;
mod report;
#[path = "../../../../../bpf/src/reset.rs"]
mod reset;
mod rig;
mod services;
mod tally;

pub use error::BenchError;
pub use report::{ProgramRow, Report, Row};

use case::Case;
use rig::Rig;

/// Rounds unless said otherwise.
pub const ROUNDS_DEFAULT: u32 = 9;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Rounds; every case is measured once in each. The figures are medians over the rounds.
    pub rounds: u32,
    /// Only cases whose name matches; `*` stands for anything. The floors are always measured.
    pub filter: Option<String>,
}

/// Measures. Takes one to two minutes with nine rounds; says on standard error how far it is.
///
/// # Errors
/// [`BenchError`]; nothing is left behind.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let (cases, found) = case::select(options.filter.as_deref());
    if !found {
        return Err(BenchError::NoCase { filter: options.filter.clone().unwrap_or_default() });
    }
    let pinned = measure::Pinned::new()?;
    let mut rig = Rig::new(&cases)?;
    for at in 0..cases.len() {
        measure::check(&mut rig, at)?;
    }
    let samples = measure::rounds(&mut rig, options.rounds)?;
    report::make(&rig, &samples, options.rounds, pinned.cpu())
}

/// The names of all cases, in the order of the report.
#[must_use]
pub fn names() -> Vec<String> {
    case::all().iter().map(Case::name).collect()
}
