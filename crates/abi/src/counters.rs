//! Counters: per-CPU statistics and the shared load of a real server.

use bytemuck::{Pod, Zeroable};

/// Statistics of one real server on one CPU; the map is per CPU, indexed as the reals are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counters {
    /// Flows scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients, link-layer header not counted.
    pub in_bytes: u64,
    /// Packets to clients that passed the director.
    pub out_packets: u64,
    /// Bytes to clients that passed the director.
    pub out_bytes: u64,
}

/// Flows of one real server now; one shared array, changed with atomic adds by the packet path and
/// corrected by the sweep. Signed, because a correction and an add may cross.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Load {
    /// Active flows: TCP in SYN_RECV, ESTABLISHED, SYN_SENT or SYNACK.
    pub active: i32,
    /// All other flows.
    pub inactive: i32,
}

impl Load {
    /// Flows of one kind; what an add and a correction left below zero counts as zero.
    #[inline(always)]
    #[must_use]
    pub fn clamped(self) -> (u32, u32) {
        (self.active.max(0).cast_unsigned(), self.inactive.max(0).cast_unsigned())
    }
}

const _: () = assert!(size_of::<Counters>() == 40);
const _: () = assert!(size_of::<Load>() == 8);
