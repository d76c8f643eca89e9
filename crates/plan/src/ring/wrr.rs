//! Weighted round robin (`ip_vs_wrr.c`).
//!
//! IPVS goes through the list level by level: at level `cw` each real server of at least that weight gets a
//! flow, then the level sinks by the greatest common divisor of the weights, and from the last one rises to
//! the highest again. The ring is one whole cycle: sum of the weights / divisor slots.
//!
//! A change of the service sends IPVS back to the head of the list at the present level (adapted to the new
//! weights), so the level is all there is to remember. A first real server alone has one level, number 1, and
//! later ones do not change it: a service that grew this way starts with one round over all.
//!
//! Several changes compiled at once count as: all deletions, then all edits, then the additions one by one.
//! Each alone is exact.
//!
//! A cycle longer than [`RING_SLOTS_MAX`] slots is not written out. The weights are then scaled down to fit,
//! each to the next lower whole number and at least 1: the share of a real server of weight w is off by at
//! most one part in its scaled weight.

use super::mh::{TableSize, gcd};
use super::{Carry, Entry, RING_SLOTS_MAX, RingScheduler, RingState, Shape, stayed};

/// The scheduler `wrr`. It remembers its level; none is level 0, before the first real server of a weight.
pub struct WeightedRoundRobin;

impl RingScheduler for WeightedRoundRobin {
    fn shape(&self) -> Shape {
        Shape::Cursor
    }

    fn sequence(&self, reals: &[Entry], carry: Carry, _table: TableSize) -> Vec<u32> {
        let cycle = Cycle::of(reals);
        let mut ring = cycle.picks(reals);
        let start = cycle.first_pick(carry.unwrap_or_default());
        ring.rotate_left(start);
        ring
    }

    fn start(&self, reals: &[Entry]) -> Carry {
        Some(Levels::of(reals).top)
    }

    fn change(&self, earlier: &RingState, picks: u64, reals: &[Entry]) -> Carry {
        let mut level = Cycle::of(&earlier.reals).level_after(earlier.carry.unwrap_or_default(), picks);
        let stayed = stayed(&earlier.reals, reals);
        // Both in the same order.
        let mut next = stayed.iter().peekable();
        let same = |old: &&Entry| next.next_if(|entry| entry.real == old.real).is_some();
        let left: Vec<Entry> = earlier.reals.iter().filter(same).copied().collect();
        if left.len() < earlier.reals.len() {
            level = Levels::of(&left).adapt(level);
        }
        if left.iter().zip(&stayed).any(|(old, new)| old.weight != new.weight) {
            level = Levels::of(&stayed).adapt(level);
        }
        let mut weights = Weights::of(&stayed);
        let (added, _) = reals.split_at(reals.len() - stayed.len());
        for entry in added.iter().rev() {
            weights.add(entry.weight);
            level = weights.levels().adapt(level);
        }
        Some(level)
    }

    fn recover(&self, reals: &[Entry], ring: &[u32], cursor: u64) -> (Carry, u64) {
        let cycle = Cycle::of(reals);
        let picks = cycle.picks(reals);
        if ring.is_empty() || picks.len() != ring.len() {
            return (self.start(reals), 0);
        }
        let turn = turn_of(&picks, ring).unwrap_or_default();
        let since = (super::place(cursor, ring.len()) + ring.len() - turn) % ring.len();
        // A whole cycle and none look alike; only before the first flow of all can it be none.
        let since = if since == 0 && cursor > 0 { ring.len() } else { since };
        if cursor == 0 {
            return (Some(cycle.level_after(cycle.levels.top, since as u64 + 1)), 0);
        }
        (Some(cycle.levels.top), since as u64)
    }
}

/// The levels of a list: `top`, `top - step`, ... 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels {
    /// The greatest common divisor of the weights, 1 if there are none.
    step: u32,
    /// The highest level, 0 if no weight is above 0.
    top: u32,
}

impl Levels {
    fn of(reals: &[Entry]) -> Self {
        Weights::of(reals).levels()
    }

    /// The level after a change of the weights.
    fn adapt(self, level: u32) -> u32 {
        if level > self.top || level == 0 {
            self.top
        } else if self.step > 1 {
            level / self.step * self.step + 1
        } else {
            level
        }
    }
}

/// What the levels are made of.
#[derive(Clone, Copy)]
struct Weights {
    divisor: u32,
    largest: u32,
}

impl Weights {
    fn of(reals: &[Entry]) -> Self {
        let mut weights = Self { divisor: 0, largest: 0 };
        reals.iter().for_each(|entry| weights.add(entry.weight));
        weights
    }

    fn add(&mut self, weight: u32) {
        self.divisor = gcd(self.divisor, weight);
        self.largest = self.largest.max(weight);
    }

    fn levels(self) -> Levels {
        let step = self.divisor.max(1);
        Levels { step, top: self.largest.saturating_sub(step - 1) }
    }
}

/// One cycle over a list, its weights scaled if need be.
struct Cycle {
    /// Weight of each entry of the list.
    weights: Vec<u32>,
    levels: Levels,
    /// Levels of the list as it is, before scaling.
    exact: Levels,
}

impl Cycle {
    fn of(reals: &[Entry]) -> Self {
        let exact = Levels::of(reals);
        let sum: u64 = reals.iter().map(|entry| u64::from(entry.weight)).sum();
        let mut weights: Vec<u32> = reals.iter().map(|entry| entry.weight).collect();
        let max = u64::from(RING_SLOTS_MAX);
        if sum / u64::from(exact.step) <= max {
            return Self { weights, levels: exact, exact };
        }
        // Room for the ones that are raised to 1.
        let room = max.saturating_sub(reals.len() as u64);
        for weight in &mut weights {
            let scaled = u128::from(*weight) * u128::from(room) / u128::from(sum);
            *weight = u32::try_from(scaled).unwrap_or(u32::MAX).max(u32::from(*weight > 0));
        }
        let mut all = Weights { divisor: 0, largest: 0 };
        weights.iter().for_each(|&weight| all.add(weight));
        Self { weights, levels: all.levels(), exact }
    }

    /// Number of flows at each level, from the top.
    fn counts(&self) -> impl Iterator<Item = (u32, u64)> {
        let mut sorted: Vec<u32> = self.weights.iter().copied().filter(|&weight| weight > 0).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let mut taken = 0;
        self.down().map(move |level| {
            while sorted.get(taken).is_some_and(|&weight| weight >= level) {
                taken += 1;
            }
            (level, taken as u64)
        })
    }

    fn down(&self) -> impl Iterator<Item = u32> {
        let Levels { step, top } = self.levels;
        (0..top.div_ceil(step)).map(move |below| top - below * step)
    }

    /// The choices of a whole cycle from the top level.
    fn picks(&self, reals: &[Entry]) -> Vec<u32> {
        let mut by_weight: Vec<usize> = (0..reals.len()).filter(|&i| self.weights[i] > 0).collect();
        by_weight.sort_by_key(|&i| (std::cmp::Reverse(self.weights[i]), i));
        let mut waiting = by_weight.into_iter().peekable();
        // Places in the list of those that take part, in the order of the list.
        let mut members: Vec<usize> = Vec::new();
        let mut picks = Vec::new();
        for level in self.down() {
            let before = members.len();
            while let Some(place) = waiting.next_if(|&i| self.weights[i] >= level) {
                members.push(place);
            }
            if members.len() > before {
                members.sort_unstable();
            }
            picks.extend(members.iter().map(|&i| reals[i].real));
        }
        picks
    }

    /// Which choice of a cycle is the first at this level of the exact list.
    fn first_pick(&self, exact_level: u32) -> usize {
        let level = self.scaled(exact_level);
        let above: u64 = self.counts().take_while(|&(l, _)| l > level).map(|(_, count)| count).sum();
        usize::try_from(above).unwrap_or_default()
    }

    /// The level, of the exact list, after so many choices from a level on.
    fn level_after(&self, exact_level: u32, picks: u64) -> u32 {
        let len: u64 = self.counts().map(|(_, count)| count).sum();
        let Some(last) = picks.checked_sub(1).filter(|_| len > 0) else { return exact_level };
        let mut place = (last % len + self.first_pick(exact_level) as u64) % len;
        for (level, count) in self.counts() {
            if place < count {
                return self.unscaled(level);
            }
            place -= count;
        }
        exact_level
    }

    /// A level of the exact list as one of this cycle: itself unless the weights were scaled.
    fn scaled(&self, exact_level: u32) -> u32 {
        let Levels { step, top } = self.levels;
        let level = rescale(exact_level, self.exact.top, top).min(top);
        if level == 0 { top } else { (level - 1) / step * step + 1 }
    }

    fn unscaled(&self, level: u32) -> u32 {
        let level = rescale(level, self.levels.top, self.exact.top);
        self.exact.adapt(level)
    }
}

/// `level` of `from` as the level of `to` that is as high, and not 0 unless it is.
fn rescale(level: u32, from: u32, to: u32) -> u32 {
    if from == to || from == 0 {
        return level;
    }
    let scaled = u64::from(level) * u64::from(to) / u64::from(from);
    u32::try_from(scaled).unwrap_or(to).max(level.min(1))
}

/// The first place of `ring` from which it reads as `cycle`, both of one length above 0; none if it never
/// does. The search of Knuth, Morris and Pratt, for long rings are nearly alike at many places.
fn turn_of(cycle: &[u32], ring: &[u32]) -> Option<usize> {
    let mut borders = vec![0; cycle.len()];
    let mut border = 0;
    for i in 1..cycle.len() {
        while border > 0 && cycle[i] != cycle[border] {
            border = borders[border - 1];
        }
        border += usize::from(cycle[i] == cycle[border]);
        borders[i] = border;
    }
    let mut matched = 0;
    for (i, real) in ring.iter().chain(ring).enumerate() {
        while matched > 0 && *real != cycle[matched] {
            matched = borders[matched - 1];
        }
        matched += usize::from(*real == cycle[matched]);
        if matched == cycle.len() {
            return Some(i + 1 - matched);
        }
    }
    None
}

#[cfg(test)]
mod tests;
