//! Which real servers serve a destination address: the memory of the schedulers lblc and lblcr.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// Most real servers that serve one destination address at a time (`lblcr`).
pub const REPLICAS_MAX: usize = 8;

/// A destination address of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct AffinityKey {
    /// The destination address.
    pub address: Address,
    /// Stable index of the service.
    pub service: u32,
    /// Zero; makes the key whole words of eight bytes.
    pub reserved: u32,
}

/// The real servers of a destination address. The kernel gives up the least recently used entry when the table is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Affinity {
    /// When a flow was last scheduled by it, in ns of `CLOCK_MONOTONIC_COARSE`. Met later than its time-out after that, the
    /// entry counts as absent.
    pub used_ns: u64,
    /// When a real server was last added or removed.
    pub modified_ns: u64,
    /// Real servers by index: the first `len`; `lblc` has one.
    pub reals: [u32; REPLICAS_MAX],
    /// How many there are.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 24);
const _: () = assert!(size_of::<Affinity>() == 56);
