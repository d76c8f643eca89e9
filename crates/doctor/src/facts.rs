//! What was seen of a cluster, from its director.

use crate::Examination;
use api::{RealId, ServiceId, Tunnel};
use serde::Serialize;
use std::net::IpAddr;

/// All of it. What was not looked at is empty.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Interfaces that the packet path is attached to.
    pub attached: Vec<Attached>,
    /// The addresses that clients know.
    pub vips: Vec<Vip>,
    /// The machines behind them, each address once.
    pub servers: Vec<Server>,
    /// Services and what they have.
    pub services: Vec<ServiceState>,
    /// Ways of direct routing and tunnels that were tried.
    pub paths: Vec<ForwardedPath>,
    /// Whether some service masquerades, of IPv4 and of IPv6.
    pub masquerades: [bool; 2],
    /// Whether this machine forwards, IPv4 and IPv6.
    pub forwards: [Option<bool>; 2],
    /// The interface that leads to clients beyond the links: that of the default route of IPv4.
    pub default_interface: Option<String>,
    /// Tables and how full they are.
    pub fillings: Vec<Filling>,
    /// The file of the cluster's secret.
    pub secret: Option<Secret>,
}

/// An interface with the packet path.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its Ethernet address as text.
    pub mac: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is connected to something that is up.
    pub carrier: bool,
    /// Longest packet in bytes.
    pub mtu: u32,
    /// Not in the driver, but behind it.
    pub generic: bool,
    /// Whether its card joins received segments (LRO).
    pub joins_segments: bool,
    /// The rp_filter that holds for it, 0 to 2.
    pub rp_filter: Option<u8>,
}

/// A VIP.
#[derive(Clone, Debug)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Whether this machine has it.
    pub is_own: bool,
    /// The attached interface, or the VLAN above one, whose network it is of, so that its clients ask for its MAC address there.
    pub on_link: Option<String>,
    /// Who answers for it on these interfaces, this machine left out.
    pub answers: Vec<Answerer>,
}

/// Somebody who says that a VIP is his.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answerer {
    /// On which of these interfaces.
    pub interface: String,
    /// The Ethernet address, as text.
    pub mac: String,
}

/// A real server's machine.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// It is this machine itself.
    pub is_local: bool,
    /// The Ethernet address of its next hop, as text; `None`: it was asked for in vain.
    pub mac: Option<String>,
    /// Whether that is its own, not a gateway's.
    pub is_on_link: bool,
    /// Longest packet on the way to it in bytes.
    pub mtu: u32,
    /// By how many milliseconds its clock is ahead, if it says what time it is.
    pub ahead_ms: Option<i64>,
    /// What became of a packet whose answer must come through this machine; `None` where nothing needs it.
    pub way_back: Option<WayBack>,
    /// What it sends has its checksums unfinished.
    pub unfinished_checksums: bool,
}

/// Whether replies come this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// The answer came here.
    Here,
    /// It did not, and one to this machine's own address did.
    Elsewhere,
    /// It answers nobody at this port, so nothing is known.
    Silent {
        /// The port that was tried.
        port: u16,
    },
}

/// A service and what it has.
#[derive(Clone, Debug)]
pub struct ServiceState {
    /// Which.
    pub id: ServiceId,
    /// Declared real servers.
    pub declared: usize,
    /// Those with a weight above 0 in the packet path, a fallback included.
    pub working: usize,
}

/// A way from the director through a real server to a VIP.
#[derive(Clone, Debug)]
pub struct ForwardedPath {
    /// Of which service.
    pub service: ServiceId,
    /// By which real server.
    pub real: RealId,
    /// To which VIP.
    pub vip: IpAddr,
    /// Through which tunnel; `None`: direct routing.
    pub tunnel: Option<Tunnel>,
    /// What came of it; `None`: it was not tried, as for services of UDP.
    pub result: Option<PathResult>,
}

/// What an attempt to open a VIP ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathResult {
    /// Accepted.
    Open {
        /// Longest segment that the server takes, in bytes, if it said so.
        mss: Option<u16>,
    },
    /// Reset: nobody listens.
    Closed,
    /// No answer.
    Silent,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Filling {
    /// What is in it, in the plural.
    pub what: &'static str,
    /// The director's option that says how many it takes.
    pub option: &'static str,
    /// Entries now.
    pub used: u64,
    /// Entries that fit.
    pub max: u64,
}

/// A file that is nobody's business.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its path.
    pub path: String,
    /// Its permissions, as of chmod.
    pub mode: u32,
}

/// What could not be examined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missed {
    /// Which examination is incomplete.
    pub examination: Examination,
    /// Why, as a sentence without its full stop.
    pub why: String,
}
