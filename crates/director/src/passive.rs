//! What the packet path itself saw go wrong with real servers, told to the health machine every two seconds.
//!
//! A SYN that was repeated in vain is seen a second or more after its flow was opened. So where clients have given up
//! meanwhile, the failures stand for the flows.

use crate::actor::{Director, log_error};
use abi::Failures;
use api::{RealId, ServiceId};
use kernel::TableError;
use std::collections::BTreeMap;

/// What was read of real servers that are watched, by index: flows opened, and failures.
pub(crate) type Seen = BTreeMap<u32, (u64, Failures)>;

/// New flows and failures between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    flows: u32,
    failed: u32,
}

/// The difference of two readings.
fn between(before: (u64, Failures), now: (u64, Failures)) -> Interval {
    let (was, is) = (before.1, now.1);
    let failed = is
        .unanswered
        .wrapping_sub(was.unanswered)
        .saturating_add(is.refused.wrapping_sub(was.refused))
        .saturating_add(is.unreachable.wrapping_sub(was.unreachable));
    // Zeroed meanwhile: nothing is known of this interval.
    let opened = now.0.saturating_sub(before.0);
    Interval { flows: u32::try_from(opened).unwrap_or(u32::MAX).max(failed), failed }
}

impl Director {
    /// Tells the health machine what the packet path saw since the last time.
    pub(crate) fn watch_failures(&mut self) {
        let watched: Vec<(ServiceId, RealId, u32)> = self
            .declared
            .services()
            .filter(|(_, entry)| entry.health().passive.is_some())
            .flat_map(|(id, entry)| entry.reals().map(move |(real, _)| (*id, *real)))
            .filter_map(|(id, real)| Some((id, real, self.layout.real_index(&id, &real)?)))
            .collect();
        let before = std::mem::take(&mut self.seen);
        let mut observed = Vec::new();
        for (service, real, index) in watched {
            match self.read_failures(index) {
                Ok(now) => {
                    if let Some(earlier) = before.get(&index) {
                        observed.push((service, real, between(*earlier, now)));
                    }
                    self.seen.insert(index, now);
                }
                Err(error) => log_error("failures not read", &error),
            }
        }
        for (service, real, Interval { flows, failed }) in observed {
            self.observe(&service, &real, flows, failed);
        }
        self.obey_health();
    }

    fn read_failures(&self, index: u32) -> Result<(u64, Failures), TableError> {
        let maps = self.maps();
        let opened = maps.counters.get(index)?.iter().map(|cpu| cpu.connections).sum();
        Ok((opened, maps.failures.get(index)?.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_come_late_stand_for_their_flows() {
        let failures = |unanswered, refused, unreachable| Failures {
            unanswered,
            refused,
            unreachable,
            ..Failures::default()
        };
        let of = |before, now| {
            let Interval { flows, failed } = between(before, now);
            (flows, failed)
        };
        assert_eq!(of((10, failures(1, 0, 0)), (30, failures(3, 1, 1))), (20, 4));
        assert_eq!(of((10, failures(0, 0, 0)), (10, failures(7, 0, 0))), (7, 7));
        // Round at the highest, and zeroed.
        assert_eq!(of((10, failures(u32::MAX, 0, 0)), (11, failures(1, 0, 0))), (2, 2));
        assert_eq!(of((10, failures(0, 0, 0)), (0, failures(0, 0, 0))), (0, 0));
    }
}
