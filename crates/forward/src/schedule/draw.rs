//! Two draws by weight, the lighter of which wins (`twos`; Mitzenmacher, 2001).
//!
//! The ring that `plan` writes has every real server with weight once, with the sum of the weights up to it: a draw is a
//! binary search, so a flow costs the same whatever the size of the pool.

use super::scan::{self, Score, score};
use crate::Tables;
use crate::tables::Scan;
use abi::{SERVICE_THRESHOLDS, Service, Span};

/// Steps of a search through the largest ring.
const STEPS_MAX: u32 = 32;

/// A real server that was drawn.
#[derive(Clone, Copy)]
struct Drawn {
    real: u32,
    weight: u32,
}

/// The lighter of two real servers drawn by weight. One that has reached its thresholds loses to one that has not; when
/// both have, the least loaded of all is taken.
#[inline(always)]
pub fn lighter<T: Tables>(tables: &T, service: &Service) -> Option<u32> {
    let first = draw(tables, service.ring)?;
    let second = draw(tables, service.ring)?;
    let (one, other) = (tables.load(first.real), tables.load(second.real));
    if service.flags & SERVICE_THRESHOLDS != 0 {
        match (one.overloaded != 0, other.overloaded != 0) {
            (false, false) => {}
            (true, true) => return scan::lowest(tables, service, Score::WeightedLeastConnections),
            (true, false) => return Some(second.real),
            (false, true) => return Some(first.real),
        }
    }
    let (numerator, denominator) = score(Score::WeightedLeastConnections, one, first.weight)?;
    let (other, over) = score(Score::WeightedLeastConnections, other, second.weight)?;
    let second_wins = other.wrapping_mul(denominator) < numerator.wrapping_mul(over);
    Some(if second_wins { second.real } else { first.real })
}

/// Draws a real server: each with the probability that its weight is of all.
#[inline(always)]
fn draw<T: Tables>(tables: &T, ring: Span) -> Option<Drawn> {
    let last = ring.len.checked_sub(1)?;
    let slot = tables.slot(ring.start.wrapping_add(last))?;
    // 0 to the sum of all weights, that itself left out.
    let mark = (u64::from(tables.random()).wrapping_mul(u64::from(slot.weight)) >> 32) as u32;
    let mut search =
        Search { start: ring.start, low: 0, high: last, mark, below: 0, above: slot.weight, real: slot.real };
    tables.scan(STEPS_MAX, &mut search);
    Some(Drawn { real: search.real, weight: search.above.wrapping_sub(search.below) })
}

/// The first slot whose sum is above the mark is at `low` or after, at `high` or before.
struct Search {
    start: u32,
    low: u32,
    high: u32,
    mark: u32,
    /// Sum before `low`.
    below: u32,
    /// Sum at `high`.
    above: u32,
    /// The real server at `high`.
    real: u32,
}

impl Scan for Search {
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, _: u32) -> bool {
        if self.low >= self.high {
            return false;
        }
        let middle = self.low.wrapping_add(self.high.wrapping_sub(self.low) >> 1);
        let Some(slot) = tables.slot(self.start.wrapping_add(middle)) else { return false };
        if slot.weight > self.mark {
            (self.high, self.above, self.real) = (middle, slot.weight, slot.real);
        } else {
            (self.low, self.below) = (middle.wrapping_add(1), slot.weight);
        }
        true
    }
}
