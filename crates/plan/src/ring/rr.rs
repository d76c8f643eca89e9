//! Round robin (`ip_vs_rr.c`).
//!
//! IPVS keeps the last real server chosen and goes on from the one after it, newest first, leaving out those
//! of weight 0. A deleted one hands its place to the one before it in the list.

use super::{Carry, Entry, RingScheduler, RingState, Shape, place, stayed};
use crate::ring::mh::TableSize;

/// The scheduler `rr`. It remembers the index of the last real server chosen; none is the list's head.
pub struct RoundRobin;

impl RingScheduler for RoundRobin {
    fn shape(&self) -> Shape {
        Shape::Cursor
    }

    fn sequence(&self, reals: &[Entry], carry: Carry, _table: TableSize) -> Vec<u32> {
        let last = carry.and_then(|last| reals.iter().position(|entry| entry.real == last));
        let (before, after) = reals.split_at(last.map_or(0, |last| last + 1));
        after.iter().chain(before).filter(|entry| entry.weight > 0).map(|entry| entry.real).collect()
    }

    fn change(&self, earlier: &RingState, picks: u64, reals: &[Entry]) -> Carry {
        let last = last_chosen(self, earlier, picks)?;
        let stayed = stayed(&earlier.reals, reals);
        let at = earlier.reals.iter().position(|entry| entry.real == last)?;
        let kept = |entry: &&Entry| stayed.iter().any(|s| s.real == entry.real);
        earlier.reals[..=at].iter().rev().find(kept).map(|entry| entry.real)
    }

    fn recover(&self, _reals: &[Entry], ring: &[u32], cursor: u64) -> (Carry, u64) {
        let last = cursor.checked_sub(1).and_then(|last| ring.get(place(last, ring.len())));
        (last.copied(), 0)
    }
}

fn last_chosen(scheduler: &RoundRobin, earlier: &RingState, picks: u64) -> Option<u32> {
    let sequence = scheduler.sequence(&earlier.reals, earlier.carry, TableSize::default());
    match picks.checked_sub(1) {
        Some(last) if !sequence.is_empty() => Some(sequence[place(last, sequence.len())]),
        _ => earlier.carry,
    }
}

#[cfg(test)]
mod tests {
    use super::super::lay;
    use super::*;
    use crate::samples::entries;
    use proptest::prelude::*;

    fn next(ring: &[u32], cursor: u64, count: u64) -> Vec<u32> {
        (cursor..cursor + count).map(|c| ring[place(c, ring.len())]).collect()
    }

    #[test]
    fn goes_round_from_the_newest() {
        let (ring, _) =
            lay(&RoundRobin, None, entries(&[(3, 1), (2, 5), (1, 0), (0, 1)]), 0, TableSize::default());
        assert_eq!(next(&ring, 0, 6), [3, 2, 0, 3, 2, 0]);
    }

    #[test]
    fn deleting_the_last_chosen_moves_the_place_back_one() {
        let table = TableSize::default();
        let (_, state) = lay(&RoundRobin, None, entries(&[(3, 1), (2, 1), (1, 1), (0, 1)]), 7, table);
        // Two flows: 3 and 2. The place is 2; without it, 3; so 1 is next.
        let (ring, state) = lay(&RoundRobin, Some(&state), entries(&[(3, 1), (1, 1), (0, 1)]), 9, table);
        assert_eq!(next(&ring, 9, 4), [1, 0, 3, 1]);
        // Nothing was scheduled since: the place is 3. Without it, the head; so 1 is next.
        let (ring, state) = lay(&RoundRobin, Some(&state), entries(&[(1, 1), (0, 1)]), 9, table);
        assert_eq!(next(&ring, 9, 3), [1, 0, 1]);
        // One flow, to 1, which is then quiesced; a new one comes in front.
        let (ring, state) = lay(&RoundRobin, Some(&state), entries(&[(1, 0), (0, 1)]), 10, table);
        assert_eq!(next(&ring, 10, 2), [0, 0]);
        let (ring, _) = lay(&RoundRobin, Some(&state), entries(&[(5, 1), (1, 1), (0, 1)]), 10, table);
        assert_eq!(next(&ring, 10, 4), [0, 5, 1, 0]);
    }

    #[test]
    fn a_real_server_added_again_is_in_front() {
        let table = TableSize::default();
        let (_, state) = lay(&RoundRobin, None, entries(&[(2, 1), (1, 1), (0, 1)]), 0, table);
        // Flows to 2 and 1; then 1 is deleted (place: 2) and added again: 1 2 0.
        let (ring, _) = lay(&RoundRobin, Some(&state), entries(&[(1, 1), (2, 1), (0, 1)]), 2, table);
        assert_eq!(next(&ring, 2, 4), [0, 1, 2, 0]);
    }

    #[test]
    fn all_quiesced_is_an_empty_ring() {
        let (ring, _) = lay(&RoundRobin, None, entries(&[(1, 0), (0, 0)]), 3, TableSize::default());
        assert!(ring.is_empty());
    }

    #[test]
    fn the_place_is_recovered_from_a_ring() {
        let reals = entries(&[(2, 1), (1, 1), (0, 1)]);
        let table = TableSize::default();
        let (ring, state) = lay(&RoundRobin, None, reals.clone(), 0, table);
        let (carry, picks) = RoundRobin.recover(&reals, &ring, 5);
        let recovered = RingState { reals: reals.clone(), carry, cursor: 5 - picks };
        let after = entries(&[(2, 1), (0, 1)]);
        assert_eq!(
            lay(&RoundRobin, Some(&recovered), after.clone(), 5, table).0,
            lay(&RoundRobin, Some(&state), after, 5, table).0
        );
    }

    /// IPVS' rr as section 2.2 of the specification words it.
    #[derive(Default)]
    struct Machine {
        list: Vec<(u32, u32)>,
        last: Option<u32>,
    }

    impl Machine {
        fn pick(&mut self) -> Option<u32> {
            let at = self.list.iter().position(|&(real, _)| Some(real) == self.last).map_or(0, |at| at + 1);
            let eligible =
                (0..self.list.len()).map(|i| self.list[(at + i) % self.list.len()]).find(|&(_, w)| w > 0);
            let (real, _) = eligible?;
            self.last = Some(real);
            self.last
        }

        fn remove(&mut self, at: usize) {
            let (real, _) = self.list.remove(at);
            if self.last == Some(real) {
                self.last = at.checked_sub(1).map(|before| self.list[before].0);
            }
        }
    }

    proptest! {
        #[test]
        fn chooses_as_the_machine_does_over_any_changes(
            ops in prop::collection::vec((0_u8..5, any::<prop::sample::Index>(), 0_u32..3), 1..60),
        ) {
            let table = TableSize::default();
            let mut machine = Machine::default();
            let (mut ring, mut state) = lay(&RoundRobin, Some(&RingState::default()), Vec::new(), 0, table);
            let mut cursor = 0;
            for (number, (op, which, weight)) in ops.into_iter().enumerate() {
                let at = (!machine.list.is_empty()).then(|| which.index(machine.list.len()));
                match (op, at) {
                    (0, Some(at)) => machine.remove(at),
                    (1, Some(at)) => machine.list[at].1 = weight,
                    (2, _) => machine.list.insert(0, (number as u32, weight)),
                    _ => {
                        for _ in 0..=weight {
                            let ours = ring.get(place(cursor, ring.len())).copied();
                            cursor += 1;
                            prop_assert_eq!(ours, machine.pick());
                        }
                        continue;
                    }
                }
                (ring, state) = lay(&RoundRobin, Some(&state), entries(&machine.list), cursor, table);
            }
        }
    }
}
