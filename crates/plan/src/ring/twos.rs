//! The ring that `twos` draws from: every real server with weight once, in list order, with the sum of the weights up to it.
//!
//! A draw is then a binary search (`forward/src/schedule/draw.rs`). IPVS draws from 0 to the sum of all weights, both ends
//! included, so that the first real server of two with weight 1 gets two draws of three; here each gets its share.

use super::{Carry, Entry, RingScheduler, Shape};
use crate::ring::mh::TableSize;
use abi::Slot;

/// The scheduler `twos`.
pub struct PowerOfTwo;

impl RingScheduler for PowerOfTwo {
    fn shape(&self) -> Shape {
        Shape::Draw
    }

    fn sequence(&self, reals: &[Entry], _carry: Carry, _table: TableSize) -> Vec<u32> {
        reals.iter().filter(|entry| entry.weight > 0).map(|entry| entry.real).collect()
    }

    fn slots(&self, ring: &[u32], weight: &dyn Fn(u32) -> u32) -> Vec<Slot> {
        let all: u64 = ring.iter().map(|real| u64::from(weight(*real))).sum();
        // Room for one more for each, so that a weight that would be lost by the shortening is 1.
        let room = u64::from(u32::MAX) - ring.len() as u64;
        let shift = (0..32).find(|shift| all >> shift <= room).unwrap_or(32);
        let mut sum = 0_u32;
        let slot = |real: &u32| {
            sum += (weight(*real) >> shift).max(1);
            Slot { real: *real, weight: sum }
        };
        ring.iter().map(slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::entries;

    fn slots(weights: &[(u32, u32)]) -> Vec<Slot> {
        let ring = PowerOfTwo.sequence(&entries(weights), None, TableSize::default());
        PowerOfTwo.slots(&ring, &|real| weights.iter().find(|(it, _)| *it == real).map_or(0, |(_, w)| *w))
    }

    #[test]
    fn has_the_sum_of_the_weights_up_to_each() {
        let expected = [(2, 3), (0, 4)].map(|(real, weight)| Slot { real, weight });
        assert_eq!(slots(&[(2, 3), (1, 0), (0, 1)]), expected);
        assert_eq!(slots(&[(1, 0)]), []);
    }

    #[test]
    fn huge_weights_are_shortened_and_small_ones_not_lost() {
        let huge = i32::MAX as u32;
        let slots = slots(&[(2, huge), (1, huge), (0, 1), (3, huge)]);
        let sums: Vec<u32> = slots.iter().map(|slot| slot.weight).collect();
        assert!(sums.is_sorted_by(|a, b| a < b), "{sums:?}");
        assert_eq!(sums[2] - sums[1], 1);
        assert_eq!(sums[0], sums[1] - sums[0]);
    }
}
