//! The scheduler against a step-by-step machine written from the specification.

use super::super::{lay, place};
use super::*;
use crate::samples::entries;
use proptest::prelude::*;

/// IPVS' wrr as section 2.3 of the specification words it.
#[derive(Default)]
struct Machine {
    list: Vec<(u32, u32)>,
    /// Place of the last one chosen; `None` is the head.
    cl: Option<usize>,
    cw: u32,
    di: u32,
    mw: u32,
}

impl Machine {
    fn changed(&mut self) {
        let positive = || self.list.iter().map(|&(_, w)| w).filter(|&w| w > 0);
        self.di = positive().reduce(gcd).unwrap_or(1);
        self.mw = positive().max().unwrap_or(0).saturating_sub(self.di - 1);
        self.cl = None;
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = self.cw / self.di * self.di + 1;
        }
    }

    fn add(&mut self, real: u32, weight: u32) {
        self.list.insert(0, (real, weight));
        self.changed();
    }

    fn pick(&mut self) -> Option<u32> {
        if self.mw == 0 {
            return None;
        }
        loop {
            let from = self.cl.map_or(0, |cl| cl + 1);
            for i in from..self.list.len() {
                if self.list[i].1 >= self.cw {
                    self.cl = Some(i);
                    return Some(self.list[i].0);
                }
            }
            self.cl = None;
            self.cw = match self.cw.checked_sub(self.di) {
                Some(cw) if cw > 0 => cw,
                _ => self.mw,
            };
        }
    }
}

/// The same service, laid as rings.
struct Rings {
    ring: Vec<u32>,
    state: RingState,
    cursor: u64,
}

impl Rings {
    fn new() -> Self {
        Self { ring: Vec::new(), state: RingState::default(), cursor: 0 }
    }

    fn change(&mut self, list: &[(u32, u32)]) {
        let table = TableSize::default();
        let reals = entries(list);
        (self.ring, self.state) = lay(&WeightedRoundRobin, Some(&self.state), reals, self.cursor, table);
    }

    fn pick(&mut self) -> Option<u32> {
        let picked = self.ring.get(place(self.cursor, self.ring.len())).copied();
        self.cursor += 1;
        picked
    }

    fn picks(&mut self, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| self.pick()).collect()
    }
}

const A: u32 = 3;
const B: u32 = 2;
const C: u32 = 1;

#[test]
fn the_examples_of_the_specification() {
    let list = [(A, 4), (B, 3), (C, 2)];
    // Taken over from another scheduler: from the top.
    let (ring, _) = lay(&WeightedRoundRobin, None, entries(&list), 0, TableSize::default());
    assert_eq!(ring, [A, A, B, A, B, C, A, B, C]);
    // Grown one by one: one round first.
    let mut service = Rings::new();
    service.change(&[(C, 2)]);
    service.change(&[(B, 3), (C, 2)]);
    service.change(&list);
    assert_eq!(service.picks(12), [A, B, C, A, A, B, A, B, C, A, B, C]);
    // The same in one compilation.
    let mut service = Rings::new();
    service.change(&list);
    assert_eq!(service.picks(6), [A, B, C, A, A, B]);
}

#[test]
fn five_weights_added_one_by_one() {
    let mut service = Rings::new();
    service.change(&[(5, 5), (4, 4), (3, 3), (2, 2), (1, 1)]);
    assert_eq!(service.picks(11), [5, 4, 3, 2, 1, 5, 5, 4, 5, 4, 3]);
}

#[test]
fn a_long_cycle_is_scaled_to_fit() {
    let heavy = i32::MAX as u32;
    let reals = entries(&[(3, heavy), (2, heavy - 1), (1, 1), (0, 0)]);
    let ring = WeightedRoundRobin.sequence(&reals, Some(1), TableSize::default());
    let count = |real| ring.iter().filter(|&&r| r == real).count();
    assert!(ring.len() <= RING_SLOTS_MAX as usize, "{}", ring.len());
    assert!(count(3).abs_diff(count(2)) <= 1 && count(3) > 32_000, "{} {}", count(3), count(2));
    assert_eq!((count(1), count(0)), (1, 0));
    // The level is carried over a change in the scaled cycle, too.
    let state = RingState { reals: reals.clone(), carry: Some(1), cursor: 0 };
    let level = WeightedRoundRobin.change(&state, 10, &reals).expect("wrr always has a level");
    assert!(level >= 1 && level <= heavy);
}

#[test]
fn nothing_but_weight_0_is_an_empty_ring() {
    let mut service = Rings::new();
    service.change(&[(1, 0)]);
    assert_eq!(service.pick(), None);
    service.change(&[(2, 6), (1, 0)]);
    assert_eq!(service.picks(2), [2, 2]);
}

#[derive(Clone, Debug)]
enum Op {
    Add(u32),
    Remove(prop::sample::Index),
    Edit(prop::sample::Index, u32),
    Pick(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0_u32..13).prop_map(Op::Add),
        any::<prop::sample::Index>().prop_map(Op::Remove),
        (any::<prop::sample::Index>(), 0_u32..13).prop_map(|(i, w)| Op::Edit(i, w)),
        (0_u8..40).prop_map(Op::Pick),
    ]
}

proptest! {
    #[test]
    fn chooses_as_the_machine_does_over_any_changes(ops in prop::collection::vec(op(), 1..40)) {
        let mut machine = Machine::default();
        let mut rings = Rings::new();
        machine.changed();
        rings.change(&[]);
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Pick(count) => {
                    for _ in 0..count {
                        prop_assert_eq!(rings.pick(), machine.pick());
                    }
                    continue;
                }
                Op::Add(weight) => machine.add(number as u32, weight),
                Op::Remove(_) | Op::Edit(..) if machine.list.is_empty() => continue,
                Op::Remove(i) => {
                    machine.list.remove(i.index(machine.list.len()));
                    machine.changed();
                }
                Op::Edit(i, weight) => {
                    let i = i.index(machine.list.len());
                    if machine.list[i].1 == weight {
                        continue;
                    }
                    machine.list[i].1 = weight;
                    machine.changed();
                }
            }
            rings.change(&machine.list.clone());
        }
    }

    #[test]
    fn recovers_its_level_from_a_ring(
        weights in prop::collection::vec(0_u32..9, 1..6),
        picks in 1_u64..60,
        heavier in 1_u32..9,
    ) {
        let list: Vec<(u32, u32)> = weights.iter().enumerate().map(|(i, &w)| (i as u32, w)).collect();
        let mut known = Rings::new();
        known.change(&list);
        known.cursor = picks;
        let (carry, since) = WeightedRoundRobin.recover(&known.state.reals, &known.ring, picks);
        let state = RingState { reals: known.state.reals.clone(), carry, cursor: picks.wrapping_sub(since) };
        let mut found = Rings { ring: known.ring.clone(), state, cursor: picks };
        let mut after = list.clone();
        after.insert(0, (99, heavier));
        known.change(&after);
        found.change(&after);
        prop_assert_eq!(known.ring, found.ring);
    }
}
