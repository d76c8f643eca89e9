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
mod admission;
mod affinity;
mod call;
mod capture;
mod counters;
mod flow;
mod limits;
mod program;
mod real;
mod service;
mod settings;
pub mod verdict;

pub use address::Address;
pub use admission::{
    ACCESS_ALLOW, ACCESS_BITS, ACCESS_DENY, ACCESS_SERVICE_BITS, AccessKey, ClientKey, ClientLimits,
};
pub use affinity::{Affinity, AffinityKey, REPLICAS_MAX};
pub use call::{CALL_ID_BYTES_MAX, Call, SIP_BYTES_MAX, SipScratch};
pub use capture::{
    CAPTURE_BYTES_MAX, CAPTURE_NO_REAL, CaptureCounts, CaptureNetwork, CaptureRecord, CaptureScratch,
    CaptureSettings, PLACE_ENTRY, PLACE_RECORD,
};
pub use counters::{Counters, Failure, Failures, Load};
pub use flow::{
    FLOW_ASSURED, FLOW_CONTROLLED, FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_KEEPS_PORT, FLOW_NO_OUTPUT,
    FLOW_OVERFLOW, FLOW_TEMPLATE, FLOW_TRANSLATED, FRAGMENT_PLAIN, FRAGMENT_REPLY, FRAGMENT_SOURCE,
    FRAGMENT_TO_HOST, FRAGMENT_TRANSLATED, Flow, FlowKey, Fragment, Reply,
};
pub use limits::{Limits, VIP_FILTER_BITS, VIP_FILTER_WORDS, vip_filter_bit};
pub use program::{PROGRAMS_MAX, Program};
pub use real::{
    METHOD_BYPASS, METHOD_DIRECT_ROUTING, METHOD_MASQUERADE, METHOD_TUNNEL, REAL_AVAILABLE, REAL_GONE_KEEP,
    REAL_GONE_RESET, REAL_LOCAL, REAL_RESCUE, REAL_RESOLVED, REAL_TRANSLATE_SOURCE, REAL_TRANSLATED, Real,
    TUNNEL_CHECKSUM, TUNNEL_GRE, TUNNEL_GUE, TUNNEL_IPIP, TUNNEL_REMOTE_CHECKSUM,
};
pub use service::{
    SCHEDULER_DH, SCHEDULER_FO, SCHEDULER_LBLC, SCHEDULER_LBLCR, SCHEDULER_LC, SCHEDULER_MH, SCHEDULER_NONE,
    SCHEDULER_NQ, SCHEDULER_OVF, SCHEDULER_RR, SCHEDULER_SED, SCHEDULER_SH, SCHEDULER_TWOS, SCHEDULER_WLC,
    SCHEDULER_WRR, SERVICE_ADMITS, SERVICE_ALLOWS, SERVICE_EXACT, SERVICE_FALLBACK, SERVICE_ONE_PACKET,
    SERVICE_PORT, SERVICE_SIP, SERVICE_THRESHOLDS, Service, ServiceKey, Slot, Span,
};
pub use settings::{
    Answers, SCTP_STATES, SETTING_FTP, SETTING_PORT_ZERO, SOURCE_PORTS, SYSCTL_CACHE_BYPASS,
    SYSCTL_EXPIRE_NODEST_CONN, SYSCTL_EXPIRE_QUIESCENT_TEMPLATE, SYSCTL_PMTU_DISC, SYSCTL_SCHEDULE_ICMP,
    SYSCTL_SLOPPY_SCTP, SYSCTL_SLOPPY_TCP, Settings, Shared, Sysctls, TcpState, UDP_STATE,
};
pub use verdict::{VERDICTS_MAX, Verdict};

/// Version of everything in this crate. Pinned maps of another version are not adopted.
pub const LAYOUT_VERSION: u32 = 4;

/// Protocol numbers (IANA) that the packet path knows.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
