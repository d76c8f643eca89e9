//! How many of everything, and the filter in front of the look-ups.

use crate::Address;

/// Capacity of each table. Every limit has a name and is configurable when the tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Virtual services.
    pub services_max: u32,
    /// Real servers over all services, those with flows left after their deletion included.
    pub reals_max: u32,
    /// Slots of all rings and pools together; two generations of each must fit.
    pub slots_max: u32,
    /// Flows that have not proved themselves; the least recently used one goes when it is full.
    pub embryonic_flows_max: u32,
    /// Flows that have; never evicted.
    pub established_flows_max: u32,
    /// Persistence templates; when there is no room for another, its client is served without.
    pub templates_max: u32,
    /// Fragmented datagrams whose later pieces may still come; the least recently used one goes when it is full.
    pub fragments_max: u32,
    /// Destination addresses whose real servers are remembered (`lblc`, `lblcr`); the least recently used one goes.
    pub affinities_max: u32,
    /// Networks that services let in or keep out, over all services.
    pub networks_max: u32,
    /// Clients of services with limits for each client; the least recently used one is forgotten.
    pub clients_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services_max: 16_384,
            reals_max: 65_536,
            slots_max: 2_097_152,
            embryonic_flows_max: 131_072,
            established_flows_max: 1_048_576,
            templates_max: 131_072,
            fragments_max: 16_384,
            affinities_max: 16_384,
            networks_max: 65_536,
            clients_max: 65_536,
        }
    }
}

/// Bits of the VIP filter: one for each value of a 16-bit hash of an address.
pub const VIP_FILTER_BITS: u32 = 65_536;
/// 64-bit words of the VIP filter.
pub const VIP_FILTER_WORDS: u32 = VIP_FILTER_BITS / 64;

/// Which bit of the VIP filter stands for an address: (word, mask). A clear bit proves that the address is
/// no VIP, so a packet that is nobody's business costs no hash look-up. The filter of the masqueraded real servers is the
/// same again.
#[inline(always)]
#[must_use]
pub const fn vip_filter_bit(address: &Address) -> (u32, u64) {
    // Fibonacci hashing of the folded address; the high bits are the good ones.
    let folded = address.0[0] ^ address.0[1] ^ address.0[2] ^ address.0[3];
    let hash = folded.wrapping_mul(0x9e37_79b1) >> 16;
    (hash >> 6, 1 << (hash & 63))
}

const _: () = assert!(VIP_FILTER_WORDS == 1024);
