//! What can go wrong in a measurement.

use kernel::{LoadError, ProgramError, TableError};
use std::io;

/// The benchmark could not measure, or does not trust what it measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The filter names no case.
    #[error(
        "no case matches {filter}; cases are named like hit/v4/tcp/1, new/rr/3, pass/no-vip, and * stands for anything"
    )]
    NoCase {
        /// The filter.
        filter: String,
    },
    /// The programs under test could not be loaded.
    #[error("cannot load the programs under test")]
    Load(#[from] LoadError),
    /// The programs of the benchmark could not be loaded.
    #[error("cannot load the programs of the benchmark")]
    Harness(#[source] aya::EbpfError),
    /// One of them could not be loaded or run.
    #[error("cannot use program {name} of the benchmark")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// One of its maps could not be used.
    #[error("cannot use map {name} of the benchmark")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: aya::maps::MapError,
    },
    /// The object has no such program or map: it was built from other sources.
    #[error("the object of the benchmark has no {name}: build it again")]
    Missing {
        /// What it has not.
        name: &'static str,
    },
    /// A program under test could not be examined.
    #[error("cannot examine the programs under test")]
    Examine(#[from] ProgramError),
    /// A table could not be read or written.
    #[error("cannot prepare the tables")]
    Table(#[from] TableError),
    /// The services of the benchmark were refused.
    #[error("cannot prepare the services: {0}")]
    Services(String),
    /// A frame could not be built.
    #[error("cannot build a frame: {0}")]
    Frame(String),
    /// A system call failed.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A check failed, so the figures would not be what they say.
    #[error("{case}, {repeats} repeats: {what}; the figure would be wrong")]
    Invalid {
        /// The case.
        case: String,
        /// Passes of the test run.
        repeats: u32,
        /// What was found.
        what: String,
    },
}
