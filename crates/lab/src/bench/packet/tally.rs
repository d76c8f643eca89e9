//! What the packet path counted: proof that every pass took the way that its case is about.

use super::case::Case;
use super::error::BenchError;
use abi::{Counters, VERDICTS_MAX, Verdict};
use kernel::Tables;

/// Counters, added up over real servers and CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    verdicts: Vec<u64>,
    packets: u64,
    connections: u64,
}

impl Tally {
    /// What is counted now, of real servers with an index below `reals`.
    pub(super) fn read(tables: &Tables, reals: u32) -> Result<Self, BenchError> {
        let verdicts = tables.verdicts.fold_range(0, VERDICTS_MAX, |a, b| a + b)?;
        let add = |a: Counters, b: Counters| Counters {
            connections: a.connections + b.connections,
            in_packets: a.in_packets + b.in_packets,
            ..a
        };
        let counters = tables.counters.fold_range(0, reals, add)?;
        let packets = counters.iter().map(|c| c.in_packets).sum();
        let connections = counters.iter().map(|c| c.connections).sum();
        Ok(Self { verdicts, packets, connections })
    }

    /// What was counted since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let minus = |(now, before): (&u64, &u64)| now - before;
        Self {
            verdicts: self.verdicts.iter().zip(&earlier.verdicts).map(minus).collect(),
            packets: self.packets - earlier.packets,
            connections: self.connections - earlier.connections,
        }
    }

    /// What `passes` passes of a case must count.
    pub(super) fn expected(case: &Case, passes: u64) -> Self {
        let mut verdicts = vec![0; VERDICTS_MAX as usize];
        let counted = match case {
            Case::New { .. } => Some(Verdict::ForwardNew),
            Case::PassNoVip => Some(Verdict::PassNotVip),
            Case::PassNonIp => Some(Verdict::PassNotIp),
            // A hit is counted with its real server only.
            Case::Hit { .. } | Case::SynAgain | Case::FloorTx | Case::FloorParse => None,
        };
        if let Some(place) = counted.and_then(|verdict| verdicts.get_mut(verdict.number() as usize)) {
            *place = passes;
        }
        let is_forwarded = matches!(case, Case::New { .. } | Case::Hit { .. } | Case::SynAgain);
        let packets = if is_forwarded { passes } else { 0 };
        let connections = if matches!(case, Case::New { .. }) { passes } else { 0 };
        Self { verdicts, packets, connections }
    }

    /// The counters that are not 0, for a message.
    pub(super) fn text(&self) -> String {
        let verdicts = Verdict::ALL.iter().filter_map(|verdict| {
            let count = self.verdicts.get(verdict.number() as usize).copied().filter(|count| *count > 0)?;
            Some(format!("{} {count}", verdict.name()))
        });
        let own = [format!("packets {}", self.packets), format!("connections {}", self.connections)];
        own.into_iter().chain(verdicts).collect::<Vec<_>>().join(", ")
    }
}
