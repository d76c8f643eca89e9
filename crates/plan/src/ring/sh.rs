//! Source hashing: the table of 256 (`ip_vs_sh.c`).
//!
//! The hash is the packet path's. Deliberately in the table: real servers of weight 0. They own one slot a
//! round, where a look-up fails (or falls back), so that quiescing one moves few clients.

use super::{Carry, Entry, RingScheduler, Shape};
use crate::ring::mh::TableSize;

/// Slots of the table.
pub const SLOTS: usize = 256;

/// The scheduler `sh`.
pub struct SourceHash;

impl RingScheduler for SourceHash {
    fn shape(&self) -> Shape {
        Shape::Hash
    }

    fn sequence(&self, reals: &[Entry], _carry: Carry, _table: TableSize) -> Vec<u32> {
        let run = |entry: &Entry| {
            let slots = usize::try_from(entry.weight.max(1)).unwrap_or(SLOTS).min(SLOTS);
            std::iter::repeat_n(entry.real, slots)
        };
        reals.iter().cycle().flat_map(run).take(SLOTS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::entries;

    #[test]
    fn gives_each_real_server_its_weight_in_a_row() {
        let ring = SourceHash.sequence(&entries(&[(2, 3), (1, 0), (0, 1)]), None, TableSize::default());
        assert_eq!(ring.len(), 256);
        assert_eq!(ring[..10], [2, 2, 2, 1, 0, 2, 2, 2, 1, 0]);
        // 51 rounds of five slots and one more.
        assert_eq!(ring.iter().filter(|&&real| real == 1).count(), 51);
        assert_eq!(ring[255], 2);
    }

    #[test]
    fn a_huge_weight_fills_the_table_and_no_real_server_none() {
        let huge = SourceHash.sequence(&entries(&[(1, i32::MAX as u32), (0, 1)]), None, TableSize::default());
        assert!(huge.iter().all(|&real| real == 1));
        assert!(SourceHash.sequence(&[], None, TableSize::default()).is_empty());
    }
}
