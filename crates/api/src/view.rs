//! What the director shows: configured state, traffic state and counters.

use crate::change::Timeouts;
use crate::service::{RealId, RealSpec, ServiceId, ServiceSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The director as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Number of the present configuration.
    pub generation: u64,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Whether this daemon adopted programs and maps of an earlier one.
    pub adopted: bool,
    /// Entries of tables that this daemon has written or taken away since it started.
    #[serde(default)]
    pub tables_changed: u64,
    /// Interfaces the programs are attached to.
    pub interfaces: Vec<InterfaceStatus>,
    /// Embryonic flows now (estimate of the last sweep) and their limit.
    pub embryonic_flows: u64,
    /// Limit of embryonic flows.
    pub embryonic_flows_max: u64,
    /// Established flows now (estimate of the last sweep).
    pub established_flows: u64,
    /// Limit of established flows.
    pub established_flows_max: u64,
    /// Persistence templates now (as of the last sweep).
    #[serde(default)]
    pub templates: u64,
    /// Limit of persistence templates.
    #[serde(default)]
    pub templates_max: u64,
    /// What was declared.
    #[serde(default)]
    pub configured: ConfiguredStatus,
    /// What checks say of it.
    #[serde(default)]
    pub health: HealthStatus,
    /// What the packet path does.
    #[serde(default)]
    pub traffic: TrafficStatus,
}

/// What was declared, whatever checks say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredStatus {
    /// Services.
    pub services: u64,
    /// Real servers over all services.
    pub real_servers: u64,
    /// Milliseconds since 1970 until which the configuration must be confirmed; `None` when it need not be.
    pub confirm_until_ms: Option<u64>,
}

/// What checks say of the real servers that they examine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// How many have each standing, by its name; those that none has are left out.
    pub standings: BTreeMap<String, u64>,
    /// Services whose checks are not believed, because too many failed.
    pub panicking_services: u64,
    /// Services whose fallback has the work.
    pub services_on_fallback: u64,
}

/// What the packet path does, over all services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Sums of all services.
    pub counters: Counters,
    /// Packets with a verdict that drops, since the tables were made.
    pub dropped_packets: u64,
    /// Whether somebody captures packets now.
    pub capturing: bool,
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// `native` or `generic`.
    pub mode: String,
}

/// All services, sorted as the classic tool sorts them is the reader's business.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Connection table size shown in the listing header.
    pub connection_table_size: u32,
    /// The three timeouts.
    pub timeouts: Timeouts,
    /// The services, in the order they were added.
    pub services: Vec<ServiceView>,
}

/// A service with its real servers and counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Which.
    pub id: ServiceId,
    /// What was configured.
    pub spec: ServiceSpec,
    /// Counters, real servers deleted meanwhile included.
    pub counters: Counters,
    /// Real servers, newest first.
    pub reals: Vec<RealView>,
}

/// A real server of a service with its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealView {
    /// Which.
    pub id: RealId,
    /// What was configured.
    pub spec: RealSpec,
    /// Active flows.
    pub active: u32,
    /// Inactive flows.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Hardware address and interface packets are sent to, such as
    /// `02:00:00:00:00:01 dev eth0`; `None` while the neighbour is unresolved.
    pub neighbour: Option<String>,
    /// Counters since the last zeroing.
    pub counters: Counters,
}

/// Counters and their smoothed rates (2-second estimator).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Scheduled connections.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients that passed the director.
    pub out_packets: u64,
    /// IP bytes from clients.
    pub in_bytes: u64,
    /// IP bytes to clients that passed the director.
    pub out_bytes: u64,
    /// Connections per second.
    pub connections_per_s: u64,
    /// Packets per second from clients.
    pub in_packets_per_s: u64,
    /// Packets per second to clients.
    pub out_packets_per_s: u64,
    /// Bytes per second from clients.
    pub in_bytes_per_s: u64,
    /// Bytes per second to clients.
    pub out_bytes_per_s: u64,
}

/// A page of tracked flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The flows of this page.
    pub connections: Vec<Connection>,
    /// Ask again with this cursor for the next page; `None` at the end.
    pub next_cursor: Option<u64>,
}

/// One tracked flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `TCP`, `UDP`, `SCTP`, or `IP` for a template of a fwmark service.
    pub protocol: String,
    /// Seconds until it expires.
    pub expires_s: u64,
    /// State name as in the specification, such as `ESTABLISHED`.
    pub state: String,
    /// Client side.
    pub client: SocketAddr,
    /// Virtual side.
    pub virtual_address: SocketAddr,
    /// Real server.
    pub real: SocketAddr,
    /// Whether it is in the embryonic table.
    pub embryonic: bool,
    /// Persistence engine name, if it carries engine data.
    #[serde(default)]
    pub engine: Option<String>,
    /// Persistence engine data.
    #[serde(default)]
    pub engine_data: Option<String>,
}

/// Counts of every verdict since the tables were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// One for each verdict, in the order of their numbers.
    pub verdicts: Vec<VerdictCount>,
}

/// How often one verdict was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictCount {
    /// Stable number.
    pub number: u32,
    /// Stable name.
    pub name: String,
    /// One sentence for the operator.
    pub sentence: String,
    /// Packets.
    pub packets: u64,
}

/// "Where would this flow go?"
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// Transport protocol.
    pub protocol: crate::Protocol,
    /// Client address and port.
    pub client: SocketAddr,
    /// VIP and port.
    pub virtual_address: SocketAddr,
}

/// The answer: the verdict and the steps that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Verdict name.
    pub verdict: String,
    /// Verdict sentence.
    pub sentence: String,
    /// The chosen real server, if any.
    pub real: Option<SocketAddr>,
    /// What was looked at, in order, one sentence each.
    pub steps: Vec<String>,
}
