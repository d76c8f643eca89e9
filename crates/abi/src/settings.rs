//! Settings read for every packet, and the one word that programs write for each other.

use bytemuck::{Pod, Zeroable};

/// Settings of the whole director; one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// [`crate::LAYOUT_VERSION`].
    pub layout_version: u32,
    /// Zero.
    pub reserved: u32,
    /// Time-out of each TCP state in ns, indexed by [`TcpState`]; 16 places so that an index can be masked.
    pub tcp_timeout_ns: [u64; 16],
    /// Time-out of a UDP flow in ns.
    pub udp_timeout_ns: u64,
    /// Keys of the `mh` hash: the one the packet path uses.
    pub mh_key: [u64; 2],
    /// ICMP errors the director may send on each CPU per second.
    pub answers_per_second_max: u64,
    /// Key of the stateless placement used when the established table is full.
    pub overflow_key: [u64; 2],
}

/// State that the packet path itself writes; one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Shared {
    /// Until when (ns) new flows are placed by a consistent hash, because the established table was full.
    pub overflow_until_ns: u64,
}

/// ICMP errors sent on one CPU in the present second; per CPU, one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Answers {
    /// Which second of `CLOCK_MONOTONIC_COARSE` is counted.
    pub second: u64,
    /// How many were sent in it.
    pub sent: u64,
}

/// TCP states as IPVS numbers them [uapi `ip_vs.h`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Before the first packet.
    None = 0,
    /// Established.
    Established = 1,
    /// SYN sent.
    SynSent = 2,
    /// SYN received.
    SynRecv = 3,
    /// FIN wait.
    FinWait = 4,
    /// Time wait.
    TimeWait = 5,
    /// Closed.
    Close = 6,
    /// Close wait.
    CloseWait = 7,
    /// Last ACK.
    LastAck = 8,
    /// Listen.
    Listen = 9,
    /// SYN+ACK.
    SynAck = 10,
}

impl TcpState {
    /// Every state, by number.
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
    ];

    /// The name in connection listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
        }
    }

    /// Default time-out in seconds [`ip_vs_proto_tcp.c`].
    #[must_use]
    pub const fn default_timeout_s(self) -> u64 {
        match self {
            Self::None => 2,
            Self::Established => 900,
            Self::SynSent | Self::FinWait | Self::TimeWait | Self::Listen | Self::SynAck => 120,
            Self::SynRecv | Self::CloseWait => 60,
            Self::Close => 10,
            Self::LastAck => 30,
        }
    }
}

/// State number of a UDP flow.
pub const UDP_STATE: u8 = 0;

const SECOND_NS: u64 = 1_000_000_000;

impl Default for Settings {
    fn default() -> Self {
        let mut tcp_timeout_ns = [2 * SECOND_NS; 16];
        let mut i = 0;
        while i < TcpState::ALL.len() {
            tcp_timeout_ns[i] = TcpState::ALL[i].default_timeout_s() * SECOND_NS;
            i += 1;
        }
        Self {
            layout_version: crate::LAYOUT_VERSION,
            reserved: 0,
            tcp_timeout_ns,
            udp_timeout_ns: 300 * SECOND_NS,
            // The constant key of IPVS [ip_vs_mh.c]: exact placement unless the operator sets a secret one.
            mh_key: [2_654_435_761, 2_654_435_761],
            // Linux' own default for ICMP errors to all peers together [net.ipv4.icmp_msgs_per_sec].
            answers_per_second_max: 1000,
            overflow_key: [0, 0],
        }
    }
}
