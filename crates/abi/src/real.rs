//! A real server of one service.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// How to reach a real server. One cache line: it is read for every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Real {
    /// Address of the real server.
    pub address: Address,
    /// Hardware address of the next hop towards it.
    pub destination_mac: [u8; 6],
    /// Hardware address of the interface packets leave by.
    pub source_mac: [u8; 6],
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
