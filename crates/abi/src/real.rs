//! A real server of one service.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// How to reach a real server. The first cache line is read for every packet, the second only where
/// packets are encapsulated or their source is translated.
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
    /// Largest IP packet on the way to it, in bytes, without encapsulation; 0 when unknown.
    pub mtu: u32,
    /// `TUNNEL_*` kind.
    pub tunnel: u8,
    /// `TUNNEL_CHECKSUM`, `TUNNEL_REMOTE_CHECKSUM`.
    pub tunnel_flags: u8,
    /// UDP port of a GUE tunnel, network order.
    pub tunnel_port_be: u16,
    /// 1 if its service limits the connections of each client, so that their ends are counted.
    pub counts_clients: u32,
    /// The director's own address on the way to it: source of tunnel headers, and of translated packets.
    pub source: Address,
    /// 1 if its health checks took its work from it: templates for it do not count. Zero before there was this field.
    pub failed: u32,
    /// Zero.
    pub reserved_2: [u32; 11],
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

/// IP in IP (RFC 2003, RFC 2473).
pub const TUNNEL_IPIP: u8 = 0;
/// Generic UDP encapsulation (draft-ietf-intarea-gue).
pub const TUNNEL_GUE: u8 = 1;
/// Generic routing encapsulation (RFC 2784).
pub const TUNNEL_GRE: u8 = 2;
/// The encapsulation has a checksum of its own.
pub const TUNNEL_CHECKSUM: u8 = 1;
/// GUE with remote checksum offload.
pub const TUNNEL_REMOTE_CHECKSUM: u8 = 2;

/// Packets go to their own destination (cache bypass).
pub const METHOD_BYPASS: u8 = 4;
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
/// The address is one of the director's own.
pub const REAL_LOCAL: u8 = 4;
/// The source of packets is translated too, so that the real server needs no route through the director.
pub const REAL_TRANSLATE_SOURCE: u8 = 8;
/// Packets of flows of this real server, when it is deleted, are dropped until it comes back or they end, even
/// those that may open a flow.
pub const REAL_GONE_KEEP: u8 = 16;
/// Clients of flows of this real server, when it is deleted, get a TCP reset.
pub const REAL_GONE_RESET: u8 = 32;
/// A repeated SYN of a flow of this real server that never got on goes to another one.
pub const REAL_RESCUE: u8 = 64;
/// Some flow of it may be translated, so packets that come from it may be replies.
pub const REAL_TRANSLATED: u8 = 128;

const _: () = assert!(size_of::<Real>() == 128);
