//! Affinity over a scan: a destination address goes where it went before (`lblc`, `lblcr`), as long as that is not
//! overloaded, and by weighted least connections else [`ip_vs_lblc.c`, `ip_vs_lblcr.c`].
//!
//! For farms of caches, where it matters that one destination is served by few of them. Deliberately absent: the timer that
//! looks for old entries. One that was not used for long counts as absent when it is met, and the table gives up the least
//! recently used one when it is full.

use super::scan::{Score, score};
use super::{is_eligible, scan};
use crate::Tables;
use crate::tables::Scan;
use abi::{
    Affinity, AffinityKey, FlowKey, REAL_AVAILABLE, REPLICAS_MAX, SCHEDULER_LBLC, SCHEDULER_LBLCR,
    SERVICE_THRESHOLDS, Service, Slot, Span,
};

const SECOND_NS: u64 = 1_000_000_000;

/// Whether the service's scheduler remembers destinations: [`choose`] is for these only.
#[inline(always)]
#[must_use]
pub fn is_affine(service: &Service) -> bool {
    service.scheduler == SCHEDULER_LBLC || service.scheduler == SCHEDULER_LBLCR
}

/// The real server for a new flow by the service's memory of the flow's destination.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, service: &Service, flow: &FlowKey, now_ns: u64) -> Option<u32> {
    let replicates = service.scheduler == SCHEDULER_LBLCR;
    let sysctls = tables.settings()?.sysctls;
    let seconds = if replicates { sysctls.lblcr_expiration_s } else { sysctls.lblc_expiration_s };
    let expiration_ns = u64::from(seconds).wrapping_mul(SECOND_NS);

    let key = AffinityKey { address: flow.virtual_address, service: service.index, reserved: 0 };
    let counts = |entry: &Affinity| now_ns <= entry.used_ns.wrapping_add(expiration_ns);
    let before = tables.affinity(&key).filter(counts).unwrap_or_default();
    let mut entry = before;
    let best = member(tables, service, &entry, Best::Least, !replicates);
    if replicates && entry.len > 1 && now_ns > entry.modified_ns.wrapping_add(expiration_ns) {
        let busiest = member(tables, service, &entry, Best::Most, true);
        entry.remove(busiest, now_ns);
    }
    let mut chosen = best;
    if best == scan::NOBODY || is_overloaded(tables, service, best) {
        chosen = scan::lowest(tables, service, Score::WeightedLeastConnections)?;
        if replicates {
            entry.add(chosen, now_ns);
        } else {
            entry = Affinity { modified_ns: now_ns, len: 1, ..Affinity::default() };
            entry.set(0, chosen);
        }
    }
    // A busy destination is not written anew for each flow: its time-out is in seconds.
    if entry != before || now_ns >= entry.used_ns.wrapping_add(SECOND_NS) {
        tables.put_affinity(&key, &Affinity { used_ns: now_ns, ..entry });
    }
    Some(chosen)
}

/// Which member of an entry is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Best {
    Least,
    Most,
}

/// The least or the most loaded of an entry's real servers that are still the service's and have weight;
/// [`scan::NOBODY`] without any. Of those that have reached their thresholds only if `overloaded` says so.
#[inline(always)]
fn member<T: Tables>(tables: &T, service: &Service, entry: &Affinity, best: Best, overloaded: bool) -> u32 {
    let thresholds = !overloaded && service.flags & SERVICE_THRESHOLDS != 0;
    let (real, numerator, denominator) = (scan::NOBODY, 0, 1);
    let mut members = Members {
        reals: entry.reals,
        len: entry.len,
        service: service.index,
        thresholds,
        best,
        real,
        numerator,
        denominator,
    };
    tables.scan(REPLICAS_MAX as u32, &mut members);
    members.real
}

#[repr(C, align(8))]
struct Members {
    reals: [u32; REPLICAS_MAX],
    numerator: u64,
    denominator: u64,
    len: u32,
    service: u32,
    real: u32,
    best: Best,
    thresholds: bool,
}

impl Scan for Members {
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, i: u32) -> bool {
        if i >= self.len {
            return false;
        }
        let Some(&index) = self.reals.get(i as usize & REPLICAS_MASK) else { return false };
        let Some(real) = tables.real(index) else { return true };
        if real.service != self.service || real.flags & REAL_AVAILABLE == 0 {
            return true;
        }
        if !is_eligible(tables, self.thresholds, &Slot { real: index, weight: real.weight }) {
            return true;
        }
        let load = tables.load(index);
        let Some((numerator, denominator)) = score(Score::WeightedLeastConnections, load, real.weight) else {
            return true;
        };
        let (new, old) = (numerator.wrapping_mul(self.denominator), self.numerator.wrapping_mul(denominator));
        let better = if self.best == Best::Least { new < old } else { new > old };
        if self.real == scan::NOBODY || better {
            (self.real, self.numerator, self.denominator) = (index, numerator, denominator);
        }
        true
    }
}

const REPLICAS_MASK: usize = REPLICAS_MAX.wrapping_sub(1);
const _: () = assert!(REPLICAS_MAX.is_power_of_two());

/// What an entry can do. An implementation here, as the tables' types have no behaviour.
trait Entry {
    fn set(&mut self, place: u32, real: u32);
    fn add(&mut self, real: u32, now_ns: u64);
    fn remove(&mut self, real: u32, now_ns: u64);
}

impl Entry for Affinity {
    #[inline(always)]
    fn set(&mut self, place: u32, real: u32) {
        if let Some(member) = self.reals.get_mut(place as usize & REPLICAS_MASK) {
            *member = real;
        }
    }

    /// Adds a real server that is not in yet, before the others: of equals, the newest is chosen. Where there is no room,
    /// the oldest goes.
    #[inline(always)]
    fn add(&mut self, real: u32, now_ns: u64) {
        let len = self.len;
        if self.reals.iter().zip(0..).any(|(member, place)| place < len && *member == real) {
            return;
        }
        self.modified_ns = now_ns;
        let [a, b, c, d, e, f, g, _] = self.reals;
        self.reals = [real, a, b, c, d, e, f, g];
        if len < REPLICAS_MAX as u32 {
            self.len = len.wrapping_add(1);
        }
    }

    /// Takes a real server out, if it is in; the others keep their order.
    #[inline(always)]
    fn remove(&mut self, real: u32, now_ns: u64) {
        let before = *self;
        let mut kept = 0_u32;
        for (member, place) in before.reals.iter().zip(0..) {
            if place < before.len && *member != real {
                self.set(kept, *member);
                kept = kept.wrapping_add(1);
            }
        }
        if kept != before.len {
            (self.len, self.modified_ns) = (kept, now_ns);
        }
    }
}

/// Whether a real server has more active flows than weight, while another one has fewer than half its weight.
#[inline(always)]
fn is_overloaded<T: Tables>(tables: &T, service: &Service, real: u32) -> bool {
    let Some(weight) = tables.real(real).map(|real| real.weight) else { return true };
    if tables.load(real).clamped().0 <= weight {
        return false;
    }
    let mut search = Spare { pool: service.pool, found: false };
    tables.scan(service.pool.len, &mut search);
    search.found
}

/// Looks for a real server with fewer active flows than half its weight.
struct Spare {
    pool: Span,
    found: bool,
}

impl Scan for Spare {
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, i: u32) -> bool {
        let Some(slot) = tables.slot(self.pool.start.wrapping_add(i)) else { return false };
        let (active, _) = tables.load(slot.real).clamped();
        self.found = u64::from(active).wrapping_mul(2) < u64::from(slot.weight);
        !self.found
    }
}
