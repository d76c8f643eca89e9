//! Flows and the load of their real servers, with the connection thresholds.
//!
//! A real server is overloaded from the flow on that reaches its upper threshold, until enough of them have gone
//! [`ip_vs_conn.c`, `ip_vs_bind_dest`, `ip_vs_unbind_dest`]. Templates do not count.

use crate::Tables;
use abi::{Flow, Load, Real};

/// Counts a new flow of a real server.
#[inline(always)]
pub fn bind<T: Tables>(tables: &T, index: u32, real: &Real, flow: &Flow) {
    tables.add_load(index, Load::of(flow));
    if real.upper_threshold != 0 && is_reached(real, tables.load(index)) {
        tables.set_overloaded(index, true);
    }
}

/// Counts a flow that is over.
#[inline(always)]
pub fn unbind<T: Tables>(tables: &T, flow: &Flow) {
    tables.add_load(flow.real, Load::of(flow).negated());
    let load = tables.load(flow.real);
    if load.overloaded != 0
        && let Some(real) = tables.real(flow.real)
        && has_recovered(&real, load)
    {
        tables.set_overloaded(flow.real, false);
    }
}

/// Whether an overloaded real server with this load takes new flows again.
#[inline(always)]
#[must_use]
pub fn has_recovered(real: &Real, load: Load) -> bool {
    let total = total(load);
    let (upper, lower) = (u64::from(real.upper_threshold), u64::from(real.lower_threshold));
    match (upper, lower) {
        (_, 1..) => total < lower,
        (1.., 0) => total.wrapping_mul(4) < upper.wrapping_mul(3),
        (0, 0) => true,
    }
}

/// Whether a real server with this load has reached its upper threshold.
#[inline(always)]
#[must_use]
pub fn is_reached(real: &Real, load: Load) -> bool {
    real.upper_threshold != 0 && total(load) >= u64::from(real.upper_threshold)
}

/// Active and inactive flows.
#[inline(always)]
fn total(load: Load) -> u64 {
    let (active, inactive) = load.clamped();
    u64::from(active).wrapping_add(u64::from(inactive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_real_server_recovers_by_the_rules_of_the_specification() {
        let real =
            |upper_threshold, lower_threshold| Real { upper_threshold, lower_threshold, ..Real::default() };
        let load = |active, inactive| Load { active, inactive, persistent: 1000, overloaded: 1 };
        // Lower threshold: below it.
        assert!(!has_recovered(&real(10, 4), load(2, 2)));
        assert!(has_recovered(&real(10, 4), load(2, 1)));
        // None: below three quarters of the upper one.
        assert!(!has_recovered(&real(8, 0), load(0, 6)));
        assert!(has_recovered(&real(8, 0), load(5, 0)));
        // Neither: at once.
        assert!(has_recovered(&real(0, 0), load(500, 0)));
    }
}
