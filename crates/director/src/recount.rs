//! Drift between the loads of the real servers and their flows, found by counting.
//!
//! The packet path changes loads as flows come and go, and cannot see a flow that the kernel evicts. So the
//! sweep counts the flows it passes and compares. Flows move while a pass lasts, so one difference proves nothing: only
//! what two passes in a row agree on is repaired.

use abi::{Flow, Load};
use std::collections::BTreeMap;

/// Flows by real server, counted in the present pass, and the differences that the pass before found.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    counted: BTreeMap<u32, Load>,
    suspected: BTreeMap<u32, Load>,
}

impl Recount {
    /// Counts a live flow.
    pub(crate) fn count(&mut self, flow: &Flow) {
        let load = self.counted.entry(flow.real).or_default();
        *load = each(*load, Load::of(flow), i32::saturating_add);
    }

    /// Whether the pass has met a flow of this real server.
    pub(crate) fn has_flows(&self, real: u32) -> bool {
        self.counted.contains_key(&real)
    }

    /// Ends a pass: what to add to each load. `loads` is by index.
    pub(crate) fn finish(&mut self, loads: &[Load]) -> Vec<(u32, Load)> {
        let counted = std::mem::take(&mut self.counted);
        let before = std::mem::take(&mut self.suspected);
        let mut repairs = Vec::new();
        for (index, load) in (0..).zip(loads) {
            let flows = counted.get(&index).copied().unwrap_or_default();
            let drift = each(flows, *load, i32::saturating_sub);
            if drift == Load::default() {
                continue;
            }
            let earlier = before.get(&index).copied().unwrap_or_default();
            let repair = each(earlier, drift, agreed);
            if repair != Load::default() {
                repairs.push((index, repair));
            }
            // What is repaired now is no drift in the next pass.
            self.suspected.insert(index, each(drift, repair, i32::saturating_sub));
        }
        repairs
    }
}

/// Two loads, number by number.
fn each(a: Load, b: Load, with: fn(i32, i32) -> i32) -> Load {
    Load {
        active: with(a.active, b.active),
        inactive: with(a.inactive, b.inactive),
        persistent: with(a.persistent, b.persistent),
        overloaded: 0,
    }
}

/// The part of two differences that both have.
pub(crate) fn agreed(a: i32, b: i32) -> i32 {
    match (a.signum(), b.signum()) {
        (1, 1) => a.min(b),
        (-1, -1) => a.max(b),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(active: i32, inactive: i32) -> Load {
        Load { active, inactive, ..Load::default() }
    }

    #[test]
    fn only_what_two_passes_agree_on_is_repaired() {
        let mut recount = Recount::default();
        let flow = Flow { real: 1, ..Flow::default() };
        // One flow, but the load says three: suspected, then repaired.
        recount.count(&flow);
        assert!(recount.has_flows(1) && !recount.has_flows(0));
        assert_eq!(recount.finish(&[load(0, 0), load(3, 0)]), []);
        recount.count(&flow);
        assert_eq!(recount.finish(&[load(0, 0), load(3, 0)]), [(1, load(-2, 0))]);
        recount.count(&flow);
        assert_eq!(recount.finish(&[load(0, 0), load(1, 0)]), []);
    }

    #[test]
    fn a_difference_that_passes_is_left_alone() {
        let mut recount = Recount::default();
        assert_eq!(recount.finish(&[load(1, -1)]), []);
        assert_eq!(recount.finish(&[load(0, 0)]), []);
        assert_eq!(recount.finish(&[load(1, 5)]), []);
        // Of opposite signs, and partly the same.
        assert_eq!(recount.finish(&[load(-1, 7)]), [(0, load(0, -5))]);
        assert_eq!(recount.finish(&[load(0, 2)]), [(0, load(0, -2))]);
    }
}
