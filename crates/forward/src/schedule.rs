//! Choosing a real server for a new flow. Never sees bytes.
//!
//! A scheduler has one of these shapes: a ring with a cursor, a ring with a hash, a scan with a score, draws from a ring.
//! The fifth, affinity over a scan, is a program of its own: [`affinity`].
//! `plan` writes the rings; what is left for the packet path is one line for each scheduler in [`shape`].

pub mod added;
pub mod affinity;
mod draw;
mod ring;
mod scan;

use crate::Tables;
use abi::{
    FlowKey, SCHEDULER_DH, SCHEDULER_FO, SCHEDULER_LC, SCHEDULER_MH, SCHEDULER_NQ, SCHEDULER_OVF,
    SCHEDULER_RR, SCHEDULER_SED, SCHEDULER_SH, SCHEDULER_TWOS, SCHEDULER_WLC, SCHEDULER_WRR,
    SERVICE_THRESHOLDS, Service, Slot,
};
pub use scan::{Score, score};

/// How a scheduler finds a real server.
enum Shape {
    /// The next slot of the ring.
    Cursor,
    /// The slot of the ring that this hash names.
    Hash(ring::Hash),
    /// The lowest score of the pool.
    Scan(Score),
    /// The lighter of two draws.
    Draw,
}

#[inline(always)]
fn shape(scheduler: u16) -> Option<Shape> {
    Some(match scheduler {
        SCHEDULER_RR | SCHEDULER_WRR => Shape::Cursor,
        SCHEDULER_SH => Shape::Hash(ring::Hash::Source),
        SCHEDULER_DH => Shape::Hash(ring::Hash::Destination),
        SCHEDULER_MH => Shape::Hash(ring::Hash::Maglev),
        SCHEDULER_LC => Shape::Scan(Score::LeastConnections),
        SCHEDULER_WLC => Shape::Scan(Score::WeightedLeastConnections),
        SCHEDULER_SED => Shape::Scan(Score::ShortestDelay),
        SCHEDULER_NQ => Shape::Scan(Score::NeverQueue),
        SCHEDULER_FO => Shape::Scan(Score::Failover),
        SCHEDULER_OVF => Shape::Scan(Score::Overflow),
        SCHEDULER_TWOS => Shape::Draw,
        added => match added::of(added)?.kind {
            added::Kind::Score => Shape::Scan(Score::Added),
            added::Kind::Ring(added::Ring::Cursor) => Shape::Cursor,
            added::Kind::Ring(added::Ring::Hash) => Shape::Hash(ring::Hash::Keyed),
        },
    })
}

/// The real server for a new flow, by the service's scheduler; `None` when there is none that may take it.
#[inline(always)]
pub fn schedule<T: Tables>(tables: &T, service: &Service, key: &FlowKey) -> Option<u32> {
    match shape(service.scheduler)? {
        Shape::Cursor => ring::next(tables, service),
        Shape::Hash(hash) => ring::hashed(tables, service, key, hash),
        Shape::Scan(score) => scan::lowest(tables, service, score),
        Shape::Draw => draw::lighter(tables, service),
    }
}

/// The real server that a SYN gets which was repeated in vain: by consistent hash, so that every further repetition that
/// is not rescued again finds the same; `but` itself where there is no other.
#[inline(always)]
pub fn another<T: Tables>(tables: &T, service: &Service, key: &FlowKey, but: u32) -> u32 {
    let real = scan::rendezvous(tables, service, key, but);
    if real == scan::NOBODY { but } else { real }
}

/// Whether a real server may take a new flow: it has weight, and has not reached its upper threshold. Only services
/// with thresholds pay for the second.
#[inline(always)]
pub(crate) fn is_eligible<T: Tables>(tables: &T, thresholds: bool, slot: &Slot) -> bool {
    slot.weight > 0 && !(thresholds && tables.load(slot.real).overloaded != 0)
}

/// Whether a real server has reached its upper threshold and not fallen below the lower one since.
#[inline(always)]
pub(crate) fn is_overloaded<T: Tables>(tables: &T, service: &Service, real: u32) -> bool {
    service.flags & SERVICE_THRESHOLDS != 0 && tables.load(real).overloaded != 0
}

/// The real server that consistent hashing gives a flow, whatever the scheduler: weighted rendezvous
/// hashing (Thaler and Ravishankar, 1998), which needs no table and moves only the flows of a real server
/// that goes. Serves flows that cannot be tracked because the established table is full. Thresholds do not matter to it: a
/// flow would move whenever one is crossed.
#[inline(always)]
pub fn consistent<T: Tables>(tables: &T, service: &Service, key: &FlowKey) -> Option<u32> {
    let real = scan::rendezvous(tables, service, key, scan::NOBODY);
    (real != scan::NOBODY).then_some(real)
}
