//! Settings read for every packet, and the one word that programs write for each other.

use bytemuck::{Pod, Zeroable};

/// Settings of the whole director; one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// [`crate::LAYOUT_VERSION`].
    pub layout_version: u32,
    /// Lowest and highest port, host order, that source translation gives a flow.
    pub source_ports: [u16; 2],
    /// Time-out of each TCP state in ns, indexed by [`TcpState`]; 16 places so that an index can be masked.
    pub tcp_timeout_ns: [u64; 16],
    /// Time-out of a UDP flow in ns.
    pub udp_timeout_ns: u64,
    /// Key of the hash schedulers: secret, and the same on every director of a cluster.
    pub placement_key: [u64; 2],
    /// ICMP errors the director may send on each CPU per second.
    pub answers_per_second_max: u64,
    /// Key of the stateless placement used when the established table is full.
    pub overflow_key: [u64; 2],
    /// Time-out of each SCTP state in ns, by state number.
    pub sctp_timeout_ns: [u64; 16],
    /// The settings of IPVS, with its names and defaults.
    pub sysctls: Sysctls,
}

/// The settings under `net.ipv4.vs` that the packet path obeys [`ip_vs_ctl.c`, `ipvs-sysctl.rst`]. What the
/// automatic modes come to is worked out by user space: the packet path sees rates and switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sysctls {
    /// 0: a reused flow keeps its real server; 1: TIME_WAIT and CLOSE are rescheduled; 2, 3: FIN_WAIT too.
    pub conn_reuse_mode: u32,
    /// Every how many-th packet that would open a flow is dropped; 0 for none.
    pub drop_rate: u32,
    /// The TCP state table under attack is used.
    pub secure_tcp: u32,
    /// `SYSCTL_*` switches.
    pub switches: u32,
    /// After how many seconds without a new flow `lblc` forgets a destination address.
    pub lblc_expiration_s: u32,
    /// The same for `lblcr`; also how long a set of real servers stays before it loses its busiest one.
    pub lblcr_expiration_s: u32,
}

/// Flows of a deleted or quiesced real server are rescheduled (`expire_nodest_conn`).
pub const SYSCTL_EXPIRE_NODEST_CONN: u32 = 1;
/// Templates of a quiesced real server do not count (`expire_quiescent_template`).
pub const SYSCTL_EXPIRE_QUIESCENT_TEMPLATE: u32 = 2;
/// Any TCP segment but RST opens a flow (`sloppy_tcp`).
pub const SYSCTL_SLOPPY_TCP: u32 = 4;
/// Any SCTP packet but ABORT opens a flow (`sloppy_sctp`).
pub const SYSCTL_SLOPPY_SCTP: u32 = 8;
/// Packets of a service by mark without a real server go to their own destination (`cache_bypass`).
pub const SYSCTL_CACHE_BYPASS: u32 = 16;
/// ICMP errors may open flows (`schedule_icmp`).
pub const SYSCTL_SCHEDULE_ICMP: u32 = 64;
/// Too large packets into tunnels are answered (`pmtu_disc`).
pub const SYSCTL_PMTU_DISC: u32 = 128;
/// There is a service of FTP's port 21, so ports 20 and 1024 and up may belong to it.
pub const SETTING_FTP: u32 = 1 << 30;
/// There is a service of port 0.
pub const SETTING_PORT_ZERO: u32 = 1 << 31;

impl Default for Sysctls {
    fn default() -> Self {
        Self {
            conn_reuse_mode: 1,
            drop_rate: 0,
            secure_tcp: 0,
            switches: SYSCTL_PMTU_DISC,
            lblc_expiration_s: 86_400,
            lblcr_expiration_s: 86_400,
        }
    }
}

/// State that the packet path itself writes; one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Shared {
    /// Until when (ns) new flows are placed by a consistent hash, because the established table was full.
    pub overflow_until_ns: u64,
}

/// What one CPU counts for itself: answers sent in the present second, attempts to open flows; per CPU, one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Answers {
    /// Which second of `CLOCK_MONOTONIC_COARSE` is counted.
    pub second: u64,
    /// How many were sent in it.
    pub sent: u64,
    /// Packets that would have opened a flow, while some of them are dropped (`drop_packet`).
    pub attempts: u64,
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

/// SCTP states as IPVS numbers them: name in listings, time-out in seconds [`ip_vs_proto_sctp.c`].
pub const SCTP_STATES: [(&str, u64); 14] = [
    ("NONE", 2),
    ("INIT1", 4),
    ("INIT", 61),
    ("C-SENT", 61),
    ("C-REPLIED", 61),
    ("C-WAIT", 61),
    ("COOKIE", 61),
    ("C-ECHOED", 61),
    ("ESTABLISHED", 900),
    ("S-SENT", 61),
    ("S-RECEIVED", 61),
    ("S-ACK-SENT", 61),
    ("REJECTED", 4),
    ("CLOSED", 61),
];

/// State number of a UDP flow.
pub const UDP_STATE: u8 = 0;

/// Default of [`Settings::source_ports`]: below the range from which Linux takes ports for the director's own
/// connections, which may go to the same real servers [`net.ipv4.ip_local_port_range`].
pub const SOURCE_PORTS: [u16; 2] = [1024, 32_767];

const SECOND_NS: u64 = 1_000_000_000;

impl Default for Settings {
    fn default() -> Self {
        let mut tcp_timeout_ns = [2 * SECOND_NS; 16];
        let mut i = 0;
        while i < TcpState::ALL.len() {
            tcp_timeout_ns[i] = TcpState::ALL[i].default_timeout_s() * SECOND_NS;
            i += 1;
        }
        let mut sctp_timeout_ns = [2 * SECOND_NS; 16];
        let mut i = 0;
        while i < SCTP_STATES.len() {
            sctp_timeout_ns[i] = SCTP_STATES[i].1 * SECOND_NS;
            i += 1;
        }
        Self {
            layout_version: crate::LAYOUT_VERSION,
            source_ports: SOURCE_PORTS,
            tcp_timeout_ns,
            udp_timeout_ns: 300 * SECOND_NS,
            placement_key: [0, 0],
            // Linux' own default for ICMP errors to all peers together [net.ipv4.icmp_msgs_per_sec].
            answers_per_second_max: 1000,
            overflow_key: [0, 0],
            sctp_timeout_ns,
            sysctls: Sysctls::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    /// Sections 3.4 and 3.5 of the specification, typed again: state and seconds, by number.
    const TCP: &str = "NONE 2 ESTABLISHED 900 SYN_SENT 120 SYN_RECV 60 FIN_WAIT 120 TIME_WAIT 120 CLOSE 10 \
        CLOSE_WAIT 60 LAST_ACK 30 LISTEN 120 SYNACK 120";
    const SCTP: &str = "NONE 2 INIT1 4 INIT 61 C-SENT 61 C-REPLIED 61 C-WAIT 61 COOKIE 61 C-ECHOED 61 \
        ESTABLISHED 900 S-SENT 61 S-RECEIVED 61 S-ACK-SENT 61 REJECTED 4 CLOSED 61";

    fn line<'a>(states: impl Iterator<Item = (&'a str, u64)>) -> String {
        let words = states.flat_map(|(name, ns)| [name.to_string(), (ns / SECOND_NS).to_string()]);
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_time_out_is_that_of_the_specification() {
        let settings = Settings::default();
        let tcp = TcpState::ALL.iter().map(|state| state.name()).zip(settings.tcp_timeout_ns);
        assert_eq!(line(tcp), TCP);
        let sctp = SCTP_STATES.iter().map(|(name, _)| *name).zip(settings.sctp_timeout_ns);
        assert_eq!(line(sctp), SCTP);
        assert_eq!(settings.udp_timeout_ns, 300 * SECOND_NS);
    }
}
