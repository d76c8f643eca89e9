//! What is examined, by name.

use serde::Serialize;
use std::fmt;

/// One examination. Its name is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Examination {
    /// Attached interfaces.
    Interface,
    /// Modes of XDP.
    Xdp,
    /// What cards do on their own.
    Offload,
    /// Next hops.
    Neighbour,
    /// Services with nobody to serve them.
    Service,
    /// Who answers for VIPs.
    Arp,
    /// VIPs on real servers.
    Path,
    /// Replies of masqueraded servers.
    WayBack,
    /// Routing by this machine.
    Forwarding,
    /// The filter for asymmetric routes.
    RpFilter,
    /// Rooms of tunnels.
    Mtu,
    /// Clocks.
    Clock,
    /// Tables that fill up.
    Limits,
    /// Who may read the secret.
    Secret,
}

impl Examination {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 14] = [
        Self::Interface,
        Self::Xdp,
        Self::Offload,
        Self::Neighbour,
        Self::Service,
        Self::Arp,
        Self::Path,
        Self::WayBack,
        Self::Forwarding,
        Self::RpFilter,
        Self::Mtu,
        Self::Clock,
        Self::Limits,
        Self::Secret,
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Xdp => "xdp",
            Self::Offload => "offload",
            Self::Neighbour => "neighbour",
            Self::Service => "service",
            Self::Arp => "arp",
            Self::Path => "path",
            Self::WayBack => "way-back",
            Self::Forwarding => "forwarding",
            Self::RpFilter => "rp-filter",
            Self::Mtu => "mtu",
            Self::Clock => "clock",
            Self::Limits => "limits",
            Self::Secret => "secret",
        }
    }

    /// What it asks, and how, in one or two sentences.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Interface => "Are the interfaces up that the packet path is attached to, and connected?",
            Self::Xdp => {
                "Does the packet path run in the driver of each interface, not in the slower generic mode?"
            }
            Self::Offload => {
                "Do packets come as they were on the wire: no card joins received segments (LRO), and masqueraded servers \
                 finish their checksums?"
            }
            Self::Neighbour => "Is there a route and a MAC address for every real server?",
            Self::Service => "Has every service a real server with work?",
            Self::Arp => {
                "Does nobody but this machine answer for a VIP? Asks for each on the attached interfaces and the VLANs \
                 above them, by ARP and neighbour solicitation."
            }
            Self::Path => {
                "Has every real server of direct routing and tunnels the VIP? Opens each service of TCP by each server's own MAC \
                 address or tunnel."
            }
            Self::WayBack => {
                "Do the replies of masqueraded servers come through this machine? Opens a port of each from an address far away, \
                 and waits for the answer here."
            }
            Self::Forwarding => "Does this machine forward packets, where masquerading needs it?",
            Self::RpFilter => {
                "Does no strict rp_filter drop what clients send, because the way to them is another interface?"
            }
            Self::Mtu => "Do packets of the length that clients send fit into the tunnels?",
            Self::Clock => {
                "Do the real servers' clocks agree with this machine's within a second? Asks them by ICMP timestamps (IPv4)."
            }
            Self::Limits => "Are the tables of flows and templates less than nine tenths full?",
            Self::Secret => "May only its owner read the cluster's secret?",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
