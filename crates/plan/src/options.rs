//! Choices made once, when the director starts.

use crate::ring::mh::TableSize;
use abi::{Limits, Settings};

/// Longest of the three classic timeouts, in seconds: 31 days, as the classic tool has it.
pub const TIMEOUT_S_MAX: u32 = 2_678_400;

/// What is fixed for the life of a director and not part of the declared configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Capacity of each table.
    pub limits: Limits,
    /// Slots of an `mh` ring.
    pub mh_table: TableSize,
    /// Key of the hash schedulers. It should be secret, and the same on every director of a cluster. The fill of the
    /// rings always uses the constant keys of IPVS.
    pub placement_key: [u64; 2],
    /// ICMP errors the director may send on each CPU per second.
    pub answers_per_second_max: u64,
    /// Key of the stateless placement used when the established table is full. It should be secret, and the
    /// same on every director that may take a flow over.
    pub overflow_key: [u64; 2],
    /// Lowest and highest port that source translation gives a flow.
    pub source_ports: [u16; 2],
}

impl Default for Options {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            limits: Limits::default(),
            mh_table: TableSize::default(),
            placement_key: settings.placement_key,
            answers_per_second_max: settings.answers_per_second_max,
            overflow_key: settings.overflow_key,
            source_ports: settings.source_ports,
        }
    }
}
