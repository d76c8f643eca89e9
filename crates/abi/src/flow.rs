//! One tracked connection.

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
    /// Index of its real server.
    pub real: u32,
    /// State number: [`crate::TcpState`], or 0 for UDP.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
}

/// The flow counts as inactive in its real server's load.
pub const FLOW_INACTIVE: u8 = 1;
/// No packet from the real server has been seen: the input-only rows of the state table apply.
pub const FLOW_NO_OUTPUT: u8 = 2;
/// The flow lives in the embryonic table.
pub const FLOW_EMBRYONIC: u8 = 4;
/// The flow could not be promoted because the established table was full.
pub const FLOW_OVERFLOW: u8 = 8;

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<Flow>() == 16);
