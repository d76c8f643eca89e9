//! A real server of one service.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// How to reach a real server. One cache line: it is read for every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Real {
    /// Address of the real server.
    pub address: Address,
    /// The first twelve bytes of a frame to it: the hardware address of the next hop, then that of the
    /// interface packets leave by. Words, because bytes are copied one by one on the BPF target.
    pub macs: [u32; 3],
    /// Index of the interface packets leave by.
    pub ifindex: u32,
    /// Port, network order; 0 keeps the packet's.
    pub port_be: u16,
    /// `METHOD_*`.
    pub method: u8,
    /// `REAL_*` bits.
    pub flags: u8,
    /// Configured weight; 0 quiesces.
    pub weight: u32,
    /// Stable index of the service it belongs to.
    pub service: u32,
    /// Upper connection threshold, 0 for none.
    pub upper_threshold: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    pub lower_threshold: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

impl Real {
    /// The first twelve bytes of a frame from `source` to `destination`.
    #[must_use]
    pub const fn macs_of(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l])]
    }

    /// Hardware address of the next hop.
    #[must_use]
    pub const fn destination_mac(&self) -> [u8; 6] {
        let [first, second, _] = self.macs;
        let ([a, b, c, d], [e, f, _, _]) = (first.to_ne_bytes(), second.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Hardware address of the interface packets leave by.
    #[must_use]
    pub const fn source_mac(&self) -> [u8; 6] {
        let [_, second, third] = self.macs;
        let ([_, _, a, b], [c, d, e, f]) = (second.to_ne_bytes(), third.to_ne_bytes());
        [a, b, c, d, e, f]
    }
}

/// Packets go to the real server's MAC unchanged but for TTL.
pub const METHOD_DIRECT_ROUTING: u8 = 3;
/// Packets are encapsulated.
pub const METHOD_TUNNEL: u8 = 2;
/// Addresses are translated.
pub const METHOD_MASQUERADE: u8 = 0;

/// The real server is configured. Flows of one that was deleted find this bit clear.
pub const REAL_AVAILABLE: u8 = 1;
/// The MAC addresses and the interface are known.
pub const REAL_RESOLVED: u8 = 2;

const _: () = assert!(size_of::<Real>() == 64);
