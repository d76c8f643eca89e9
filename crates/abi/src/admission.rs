//! Who may open flows to a service, and how many.

use crate::Address;
use bytemuck::{Pod, Zeroable};
use core::cmp::Ordering;

/// Clients of a service that are let in or kept out: a key of a trie, in which the longest prefix that fits decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
// Aligned as `FlowKey` is, and for the same reason.
#[repr(C, align(8))]
pub struct AccessKey {
    /// Bits that count, from the service on: [`ACCESS_SERVICE_BITS`] and those of the network. Of a look-up all of them.
    pub prefix_len: u32,
    /// Stable index of the service.
    pub service: u32,
    /// The network; bits behind its prefix are zero.
    pub address: Address,
}

/// Bits in front of the address.
pub const ACCESS_SERVICE_BITS: u32 = 32;
/// All bits of a key.
pub const ACCESS_BITS: u32 = ACCESS_SERVICE_BITS + 128;

/// The client is let in.
pub const ACCESS_ALLOW: u32 = 1;
/// The client is kept out.
pub const ACCESS_DENY: u32 = 2;

/// Service by service, so that those of one stand together.
impl Ord for AccessKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = |key: &Self| (key.service, key.address, key.prefix_len);
        parts(self).cmp(&parts(other))
    }
}

impl PartialOrd for AccessKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What each client of a service may have; by service index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ClientLimits {
    /// Connections at a time; 0 for any number.
    pub connections: u32,
    /// New flows a second; 0 for any number.
    pub rate: u32,
}

/// A client of a service with limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct ClientKey {
    /// The client: an IPv4 address, or the first 64 bits of an IPv6 one, all of which one subscriber has.
    pub address: Address,
    /// Stable index of the service.
    pub service: u32,
    /// Zero; makes the key whole words of eight bytes.
    pub reserved: u32,
}

impl ClientKey {
    /// The key of an address.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: u32, address: &Address) -> Self {
        let [a, b, c, d] = address.0;
        let address = if address.is_v4() { [a, b, c, d] } else { [a, b, 0, 0] };
        Self { address: Address(address), service, reserved: 0 }
    }
}

const _: () = assert!(size_of::<AccessKey>() == 24);
const _: () = assert!(size_of::<ClientLimits>() == 8);
const _: () = assert!(size_of::<ClientKey>() == 24);
