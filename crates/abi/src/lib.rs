//! Keys and values of every BPF map.
//!
//! One crate for both sides of the kernel border: the eBPF programs, the daemon that fills their maps,
//! and the core (`forward`) all see these types and no others. Anything that changes the meaning or the
//! size of a type here changes [`LAYOUT_VERSION`].
//!
//! Numbers are in host order unless a name or a comment says `be` (big-endian, as in the packet).
//! Deliberately absent: behaviour. What the fields do is in `forward`; who fills them is `plan`.
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod counters;
mod flow;
mod limits;
mod real;
mod service;
mod settings;
mod verdict;

pub use address::Address;
pub use counters::{Counters, Load};
pub use flow::{FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_NO_OUTPUT, FLOW_OVERFLOW, Flow, FlowKey};
pub use limits::{Limits, VIP_FILTER_BITS, VIP_FILTER_WORDS, vip_filter_bit};
pub use real::{
    METHOD_DIRECT_ROUTING, METHOD_MASQUERADE, METHOD_TUNNEL, REAL_AVAILABLE, REAL_RESOLVED, Real,
};
pub use service::{
    SCHEDULER_DH, SCHEDULER_FO, SCHEDULER_LC, SCHEDULER_MH, SCHEDULER_NONE, SCHEDULER_NQ, SCHEDULER_OVF,
    SCHEDULER_RR, SCHEDULER_SED, SCHEDULER_SH, SCHEDULER_WLC, SCHEDULER_WRR, SERVICE_FALLBACK,
    SERVICE_ONE_PACKET, SERVICE_PORT, Service, ServiceKey, Slot, Span,
};
pub use settings::{Answers, Settings, Shared, TcpState, UDP_STATE};
pub use verdict::{VERDICTS_MAX, Verdict};

/// Version of everything in this crate. Pinned maps of another version are not adopted.
pub const LAYOUT_VERSION: u32 = 1;

/// Protocol numbers (IANA) that the packet path knows.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
