//! What messages say.

use std::net::{IpAddr, SocketAddr};

/// UDP port unless another one is asked for.
pub const DEFAULT_PORT: u16 = 8848;

/// The bits of [`Record::flags`] that are the method, below.
pub const FLAG_METHOD: u32 = 0x0007;
/// Masquerading.
pub const FLAG_MASQUERADE: u32 = 0;
/// The director itself.
pub const METHOD_LOCAL: u32 = 1;
/// Tunneling.
pub const METHOD_TUNNEL: u32 = 2;
/// Direct routing.
pub const METHOD_DIRECT_ROUTING: u32 = 3;
/// No packet from the real server is seen.
pub const FLAG_NO_OUTPUT: u32 = 0x0080;
/// Counts as inactive.
pub const FLAG_INACTIVE: u32 = 0x0100;
/// Numbers of sequences are moved; parameters of that follow.
pub const FLAG_SEQUENCES: u32 = 0x0600;
/// The client's port is not known yet.
pub const FLAG_NO_CLIENT_PORT: u32 = 0x0800;
/// A persistence template.
pub const FLAG_TEMPLATE: u32 = 0x1000;

/// The three ends of a connection. All are of one family: the wire has no place for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client; of a template with port 0.
    pub client: SocketAddr,
    /// The VIP; of a template of a mark, the mark as an address.
    pub vip: SocketAddr,
    /// The real server, with the port it gets packets at.
    pub real: SocketAddr,
}

impl Ends {
    /// Whether the wire has a place for them.
    #[must_use]
    pub fn are_of_one_family(&self) -> bool {
        let is_v4 = |end: &SocketAddr| matches!(end.ip(), IpAddr::V4(_));
        is_v4(&self.client) == is_v4(&self.vip) && is_v4(&self.vip) == is_v4(&self.real)
    }
}

/// A connection or template as it is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// IANA protocol number; 0 for templates of marks.
    pub protocol: u8,
    /// `FLAG_*` and method. Version 0 has sixteen bits of them.
    pub flags: u32,
    /// State number of the protocol's table.
    pub state: u16,
    /// Who is connected.
    pub ends: Ends,
    /// The firewall mark of its service, or 0.
    pub mark: u32,
    /// Its state's time-out in seconds, not what is left of it. Version 0 does not tell.
    pub timeout_s: Option<u32>,
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Synchronisation group, 0 to 255.
    pub syncid: u8,
    /// What it announces.
    pub records: Vec<Record>,
    /// Records that could not be understood.
    pub skipped: usize,
}

impl Message {
    /// Whether it announces nothing: a backup that has started asks for everything so. IPVS never sends one, and passes it over.
    #[must_use]
    pub fn is_question(&self) -> bool {
        self.records.is_empty() && self.skipped == 0
    }
}
