//! Counters: per-CPU statistics and the shared load of a real server.

use crate::{FLOW_INACTIVE, FLOW_TEMPLATE, Flow};
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

/// What the packet path saw go wrong with one real server; one shared array, changed with atomic adds. Each goes round at
/// its highest, so a difference of two readings is right as long as fewer came in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Failures {
    /// SYNs that a client repeated, while the real server got on with no other connection either.
    pub unanswered: u32,
    /// Connections that it reset instead of opening; seen of masqueraded ones only.
    pub refused: u32,
    /// ICMP errors that said it cannot be reached; seen of masqueraded and tunnelled ones only.
    pub unreachable: u32,
    /// Zero.
    pub reserved: u32,
}

/// One of the [`Failures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A SYN repeated in vain.
    Unanswered,
    /// A connection reset instead of opened.
    Refused,
    /// An ICMP error: it cannot be reached.
    Unreachable,
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
    /// Persistence templates.
    pub persistent: i32,
    /// 1 while the upper connection threshold is reached and the lower one not yet.
    pub overloaded: u32,
}

impl Load {
    /// The load that one flow is: a template counts as persistent only.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow) -> Self {
        let (active, inactive, persistent) = if flow.flags & FLOW_TEMPLATE != 0 {
            (0, 0, 1)
        } else if flow.flags & FLOW_INACTIVE != 0 {
            (0, 1, 0)
        } else {
            (1, 0, 0)
        };
        Self { active, inactive, persistent, overloaded: 0 }
    }

    /// What takes this load away again.
    #[inline(always)]
    #[must_use]
    pub const fn negated(self) -> Self {
        Self {
            active: self.active.wrapping_neg(),
            inactive: self.inactive.wrapping_neg(),
            persistent: self.persistent.wrapping_neg(),
            overloaded: 0,
        }
    }

    /// Flows of one kind; what an add and a correction left below zero counts as zero.
    #[inline(always)]
    #[must_use]
    pub fn clamped(self) -> (u32, u32) {
        (self.active.max(0).cast_unsigned(), self.inactive.max(0).cast_unsigned())
    }
}

const _: () = assert!(size_of::<Counters>() == 40);
const _: () = assert!(size_of::<Load>() == 16);
const _: () = assert!(size_of::<Failures>() == 16);
