//! Destination hashing: the table of 256 (`ip_vs_dh.c`).
//!
//! One slot each in turn, weights ignored: a look-up that meets weight 0 fails.

use super::{Carry, Entry, RingScheduler, Shape};
use crate::ring::mh::TableSize;
use crate::ring::sh::SLOTS;

/// The scheduler `dh`.
pub struct DestinationHash;

impl RingScheduler for DestinationHash {
    fn shape(&self) -> Shape {
        Shape::Hash
    }

    fn sequence(&self, reals: &[Entry], _carry: Carry, _table: TableSize) -> Vec<u32> {
        reals.iter().cycle().map(|entry| entry.real).take(SLOTS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::entries;

    #[test]
    fn gives_each_real_server_one_slot_in_turn() {
        let ring = DestinationHash.sequence(&entries(&[(2, 9), (1, 0), (0, 1)]), None, TableSize::default());
        assert_eq!(ring.len(), 256);
        assert_eq!(ring[..4], [2, 1, 0, 2]);
        assert!(DestinationHash.sequence(&[], None, TableSize::default()).is_empty());
    }
}
