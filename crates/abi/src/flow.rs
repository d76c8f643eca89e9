//! One tracked connection, the way back of its replies, and the fragments of its datagrams.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// Identity of a flow: both directions of nothing, since the director sees the client side only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
// Aligned, because the compiler merges stores to a key on the stack into eight bytes, and the verifier wants
// those aligned.
#[repr(C, align(8))]
pub struct FlowKey {
    /// Client address.
    pub client: Address,
    /// Virtual address.
    pub virtual_address: Address,
    /// Client port, network order.
    pub client_port_be: u16,
    /// Virtual port, network order.
    pub virtual_port_be: u16,
    /// IANA protocol number; wide, so that the key is whole words.
    pub protocol: u32,
}

/// What is known about a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// When it ends unless another packet comes, in ns of `CLOCK_MONOTONIC_COARSE`. An entry met
    /// after this moment counts as absent.
    pub expires_ns: u64,
    /// State number: [`crate::TcpState`], or 0 for UDP.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
    /// With source translation, the port that the client's port is replaced by, network order; else 0.
    pub source_port_be: u16,
    /// Index of its real server. Between what may be constant in a new flow: the compiler would make one store of both sides,
    /// and the verifier wants it aligned on the stack.
    pub real: u32,
    /// Packets from the client so far; stays at its highest. Wider than it need be: of two neighbours of 16 bits
    /// the compiler makes one store that is not aligned, which the verifier refuses on the stack.
    pub packets: u32,
    /// When its first packet came, in seconds of `CLOCK_MONOTONIC_COARSE`.
    pub opened_s: u32,
}

/// The flow counts as inactive in its real server's load.
pub const FLOW_INACTIVE: u8 = 1;
/// No packet from the real server has been seen: the input-only rows of the state table apply.
pub const FLOW_NO_OUTPUT: u8 = 2;
/// The flow lives in the embryonic table.
pub const FLOW_EMBRYONIC: u8 = 4;
/// The flow could not be promoted because the established table was full.
pub const FLOW_OVERFLOW: u8 = 8;
/// The flow belongs to a persistence template of its service.
pub const FLOW_CONTROLLED: u8 = 16;
/// The entry is a persistence template.
pub const FLOW_TEMPLATE: u8 = 32;
/// A template under which a connection was established, or a UDP packet came back.
pub const FLOW_ASSURED: u8 = 64;
/// In a flow that is no template, the same bit: packets keep their destination port whatever port the real server
/// has. So it is where a persistent service was reached by another port than its own.
pub const FLOW_KEEPS_PORT: u8 = FLOW_ASSURED;
/// Replies come through the director: the flow has a [`Reply`] entry.
pub const FLOW_TRANSLATED: u8 = 128;

/// Where the replies of a translated flow go. Found by the key of the packets that the real server sends,
/// read towards it: `client` is the destination of the reply, `virtual_address` its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
// Aligned as `FlowKey` is, and for the same reason.
#[repr(C, align(8))]
pub struct Reply {
    /// Client address.
    pub client: Address,
    /// Virtual address.
    pub virtual_address: Address,
    /// Client port, network order.
    pub client_port_be: u16,
    /// Virtual port, network order.
    pub virtual_port_be: u16,
    /// Index of the real server.
    pub real: u32,
    /// Interface that the client's packets came by. The way back where the routing table knows none.
    pub ifindex: u32,
    /// First twelve bytes of a frame back that way.
    pub macs: [u32; 3],
}

impl Reply {
    /// The flow it belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn flow_key(&self, protocol: u32) -> FlowKey {
        FlowKey {
            client: self.client,
            virtual_address: self.virtual_address,
            client_port_be: self.client_port_be,
            virtual_port_be: self.virtual_port_be,
            protocol,
        }
    }
}

/// Where the later pieces of a datagram go; its first piece makes the entry. The key is a [`FlowKey`] with
/// source, destination and protocol of the packet, and the identification in the places of the ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Fragment {
    /// An entry met after this moment counts as absent; ns of `CLOCK_MONOTONIC_COARSE`.
    pub expires_ns: u64,
    /// Index of the real server that the datagram goes to or comes from, or [`FRAGMENT_TO_HOST`].
    pub real: u32,
    /// [`FRAGMENT_PLAIN`], [`FRAGMENT_TRANSLATED`], [`FRAGMENT_SOURCE`] or [`FRAGMENT_REPLY`].
    pub kind: u32,
    /// The way back, for a reply.
    pub reply: Reply,
}

/// In [`Fragment::kind`]: to a real server, not translated.
pub const FRAGMENT_PLAIN: u32 = 0;
/// To a masqueraded real server.
pub const FRAGMENT_TRANSLATED: u32 = 1;
/// To a masqueraded real server, with the director's address as source.
pub const FRAGMENT_SOURCE: u32 = 2;
/// From a masqueraded real server.
pub const FRAGMENT_REPLY: u32 = 3;

/// In [`Fragment::real`]: the first piece was left to the director's own stack, and so are the others.
pub const FRAGMENT_TO_HOST: u32 = u32::MAX;

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<Flow>() == 24);
const _: () = assert!(size_of::<Reply>() == 56);
const _: () = assert!(size_of::<Fragment>() == 72);
