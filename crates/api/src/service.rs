//! What an operator declares: virtual services and their real servers.

use crate::names::{Family, Protocol};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a virtual service answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceId {
    /// A VIP, a protocol and a port. Port 0 stands for every port.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// The VIP.
        address: IpAddr,
        /// Port, 0 to 65535.
        port: u16,
    },
    /// A firewall mark that groups several matches.
    Fwmark {
        /// The mark, 1 to 4294967295.
        mark: u32,
        /// Address family of the packets.
        family: Family,
    },
}

impl ServiceId {
    /// Address family of the service's packets.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Fwmark { family, .. } => *family,
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address, port } => {
                write!(f, "{protocol} {}", SocketAddr::new(*address, *port))
            }
            Self::Fwmark { mark, family: Family::Ipv4 } => write!(f, "FWM {mark}"),
            Self::Fwmark { mark, family: Family::Ipv6 } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// Everything about a virtual service but its identity and its real servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Scheduler name as typed; the director refuses one it does not have.
    pub scheduler: String,
    /// Scheduler flags (`-b`).
    #[serde(default)]
    pub scheduler_flags: SchedulerFlags,
    /// Client persistence (`-p`), if any.
    #[serde(default)]
    pub persistence: Option<Persistence>,
    /// Persistence engine (`--pe`); kept even without [`Self::persistence`].
    #[serde(default)]
    pub persistence_engine: Option<String>,
    /// One-packet scheduling (`-o`).
    #[serde(default)]
    pub one_packet: bool,
}

/// Flags given to the scheduler; their meaning depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerFlags {
    /// `flag-1`: `sh-fallback`, `mh-fallback`.
    #[serde(default)]
    pub flag_1: bool,
    /// `flag-2`: `sh-port`, `mh-port`.
    #[serde(default)]
    pub flag_2: bool,
    /// `flag-3`.
    #[serde(default)]
    pub flag_3: bool,
}

impl SchedulerFlags {
    /// Whether any flag is set.
    #[must_use]
    pub fn any(self) -> bool {
        self.flag_1 || self.flag_2 || self.flag_3
    }
}

/// How long, and how widely, a client sticks to its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Seconds, 1 to 2678400.
    pub timeout_s: u32,
    /// IPv4: the mask as a number in host order. IPv6: the prefix length, 1 to 128.
    pub mask: u32,
}

/// A real server of a service: its address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RealId {
    /// Address of the real server.
    pub address: IpAddr,
    /// Port; 0 keeps the packet's own destination port.
    pub port: u16,
}

impl fmt::Display for RealId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Everything about a real server but its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealSpec {
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// 0 to 2147483647; 0 quiesces it: no new flows, old ones go on.
    pub weight: u32,
    /// Upper connection threshold, 0 for none.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
    /// Encapsulation, used by [`Forwarding::Tunnel`].
    #[serde(default)]
    pub tunnel: Tunnel,
}

/// A forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// NAT (`-m`).
    Masquerade,
    /// The director itself.
    Local,
    /// Tunneling (`-i`).
    Tunnel,
    /// Direct routing (`-g`).
    DirectRouting,
}

impl Forwarding {
    /// The word in the listings of `ipvsadm`.
    #[must_use]
    pub fn listing_name(self) -> &'static str {
        match self {
            Self::Masquerade => "Masq",
            Self::Local => "Local",
            Self::Tunnel => "Tunnel",
            Self::DirectRouting => "Route",
        }
    }
}

/// An encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// UDP destination port, 1 to 65535.
        port: u16,
        /// Checksum mode.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// Checksum mode; never [`TunnelChecksum::Remote`].
        checksum: TunnelChecksum,
    },
}

/// Checksum mode of an encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None (`--tun-nocsum`).
    #[default]
    None,
    /// Filled in (`--tun-csum`).
    Full,
    /// Remote checksum offload (`--tun-remcsum`), GUE only.
    Remote,
}
