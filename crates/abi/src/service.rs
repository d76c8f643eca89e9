//! A virtual service, its rings and its pool.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// What a service answers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Address,
    /// Port, network order; 0 stands for every port.
    pub port_be: u16,
    /// IANA protocol number.
    pub protocol: u16,
}

/// A run of [`Slot`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Span {
    /// First slot.
    pub start: u32,
    /// Number of slots.
    pub len: u32,
}

/// One place in a ring or a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// Index of the real server.
    pub real: u32,
    /// Its weight when the span was written; 0 makes it ineligible.
    pub weight: u32,
}

/// A virtual service as the packet path sees it. Replaced as a whole: new spans are written first, so a
/// reader sees either the old ones or the new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Service {
    /// Stable index: cursor and statistics.
    pub index: u32,
    /// `SCHEDULER_*`.
    pub scheduler: u16,
    /// `SERVICE_*` bits.
    pub flags: u16,
    /// Precomputed ring of the ring schedulers; empty for the others.
    pub ring: Span,
    /// All real servers, newest first, weight-0 ones included.
    pub pool: Span,
    /// Life of a persistence template in seconds; 0 without persistence.
    pub persistence_s: u32,
    /// Which clients share a template: an IPv4 mask in network order, or the length of an IPv6 prefix.
    pub mask: u32,
    /// The firewall mark of a service by mark, else 0.
    pub mark: u32,
    /// Port it was added with, network order; 0 stands for every port.
    pub port_be: u16,
    /// Zero.
    pub reserved: u16,
}

/// Ring with a cursor: round robin.
pub const SCHEDULER_RR: u16 = 1;
/// Ring with a cursor: weighted round robin.
pub const SCHEDULER_WRR: u16 = 2;
/// Scan with a score: least connections.
pub const SCHEDULER_LC: u16 = 3;
/// Scan with a score: weighted least connections.
pub const SCHEDULER_WLC: u16 = 4;
/// Ring with a hash: source hashing.
pub const SCHEDULER_SH: u16 = 5;
/// Ring with a hash: Maglev.
pub const SCHEDULER_MH: u16 = 6;
/// Ring with a hash: destination hashing.
pub const SCHEDULER_DH: u16 = 7;
/// Scan with a score: shortest expected delay.
pub const SCHEDULER_SED: u16 = 8;
/// Scan with a score: never queue.
pub const SCHEDULER_NQ: u16 = 9;
/// Scan with a score: weighted fail-over.
pub const SCHEDULER_FO: u16 = 10;
/// Scan with a score: weighted overflow.
pub const SCHEDULER_OVF: u16 = 11;
/// Affinity over a scan: locality-based least connections.
pub const SCHEDULER_LBLC: u16 = 12;
/// Affinity over a scan: the same with replication.
pub const SCHEDULER_LBLCR: u16 = 13;
/// Two draws, the lighter of which wins.
pub const SCHEDULER_TWOS: u16 = 14;
/// Refuses every new flow.
pub const SCHEDULER_NONE: u16 = 0;

/// `sh-fallback`, `mh-fallback`: an ineligible choice moves on instead of failing.
pub const SERVICE_FALLBACK: u16 = 1;
/// `sh-port`, `mh-port`: the client port is hashed too.
pub const SERVICE_PORT: u16 = 2;
/// One-packet scheduling.
pub const SERVICE_ONE_PACKET: u16 = 4;
/// Some real server of it has an upper connection threshold.
pub const SERVICE_THRESHOLDS: u16 = 8;
/// Persistence by the Call-ID of SIP.
pub const SERVICE_SIP: u16 = 16;
/// The hash schedulers place clients exactly as IPVS does, by its constant keys, and not by the director's secret.
pub const SERVICE_EXACT: u16 = 32;
/// Not every client may open any number of flows to it: [`crate::AccessKey`], [`crate::ClientLimits`].
pub const SERVICE_ADMITS: u16 = 64;
/// Beside: only clients that are let in by name.
pub const SERVICE_ALLOWS: u16 = 128;

const _: () = assert!(size_of::<ServiceKey>() == 20);
const _: () = assert!(size_of::<Slot>() == 8);
const _: () = assert!(size_of::<Service>() == 40);
