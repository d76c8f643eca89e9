//! Golden cases: tables, packet in, verdict, packet out, effects. Read from `cases/*.toml`.
//!
//! A case knows nothing of who runs it. `compile` turns its tables into what the packet path reads;
//! a runner fills those in, feeds the packets, and hands what it saw to `check`.

mod admission;
mod affinity;
mod check;
mod compile;
mod persistence;
mod read;
mod rings;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

pub use admission::Client;
pub use affinity::Remembered;
pub use check::{Seen, SeenFlow};
pub use compile::{CompileError, Compiled, endpoint, flow_key};
pub use persistence::{Template, TemplateIs, sort_templates};
pub use read::{CaseError, read_all};

/// Where the cases of this repository are.
#[must_use]
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../cases")
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `file: name`.
    pub name: String,
    /// Services, real servers and flows before the first packet.
    pub tables: Tables,
    /// True when the case is also run with real frames across namespaces.
    pub wire: bool,
    /// The packets, in order.
    pub steps: Vec<Step>,
}

/// The state before the first packet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// Virtual services.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Tracked connections.
    #[serde(default)]
    pub flows: Vec<Flow>,
    /// Persistence templates.
    #[serde(default)]
    pub templates: Vec<Template>,
    /// The established table takes no more flows, and that of templates no more templates.
    #[serde(default)]
    pub established_full: bool,
    /// The established table was full a moment ago, so new flows are placed by consistent hash.
    #[serde(default)]
    pub overflowed: bool,
    /// ICMP errors the director may send a second.
    pub answers_per_second_max: Option<u64>,
    /// Routers must not fragment what a tunnel carries where its sender forbids it; the default.
    pub pmtu_disc: Option<bool>,
    /// Settings by the names of IPVS, `drop_rate` (every how many-th attempt is dropped) among them.
    #[serde(default)]
    pub settings: BTreeMap<String, u32>,
    /// What the routing table knows; of other destinations it knows nothing.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Ports that source translation may give, lowest and highest.
    pub source_ports: Option<[u16; 2]>,
}

/// A route to one host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    pub to: IpAddr,
    /// Interface packets leave by; without it the route forbids the way.
    pub interface: Option<u32>,
}

/// A virtual service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `tcp 192.0.2.10:80`, `udp [2001:db8::10]:53`, `sctp 192.0.2.10:36412`, `mark 7`, `mark 7 ipv6`.
    pub at: String,
    /// What a service by mark matches, as `at`; port 0 for any. Overrides services before it.
    #[serde(default)]
    pub matches: Vec<String>,
    /// Life of its templates in seconds; 0 without persistence.
    #[serde(default)]
    pub persistence: u32,
    /// Which clients share one: `255.255.255.0`, or a prefix length; by default each has its own.
    pub mask: Option<String>,
    /// As ipvsadm calls it.
    pub scheduler: String,
    /// `fallback`, `port`, `one-packet`, `sip`, `exact`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Picks that a ring with a cursor has made already.
    #[serde(default)]
    pub cursor: u32,
    /// Networks of clients that it serves, such as `10.0.0.0/8`; where there are any, no others.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Networks of clients that it does not serve.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Connections that one client may have; 0 for any number.
    #[serde(default)]
    pub connections_per_client: u32,
    /// Flows that one client may open a second; 0 for any number.
    #[serde(default)]
    pub rate_per_client: u32,
    /// What is known of its clients.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// What lblc or lblcr remembers.
    #[serde(default)]
    pub remembers: Vec<Remembered>,
    /// In list order: the newest first.
    pub reals: Vec<Real>,
}

/// A real server of a service. Addresses are unique among the tables of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Real {
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    #[serde(default = "one")]
    pub weight: u32,
    /// The last weight that was not 0, where that matters (`mh`); by default the weight.
    pub last_weight: Option<u32>,
    /// MAC address of the next hop; by default `02:00:00:00:01:XX`, XX being the last byte of the address.
    pub mac: Option<String>,
    /// Interface packets leave by.
    #[serde(default = "default_ifindex")]
    pub ifindex: u32,
    /// Active flows.
    #[serde(default)]
    pub active: i32,
    /// Inactive flows.
    #[serde(default)]
    pub inactive: i32,
    /// Persistence templates.
    #[serde(default)]
    pub persistent: i32,
    /// It has reached its upper threshold.
    #[serde(default)]
    pub overloaded: bool,
    /// Its health checks took its work from it.
    #[serde(default)]
    pub failed: bool,
    /// Deleted, but with flows left.
    #[serde(default)]
    pub removed: bool,
    /// Its MAC address is not known.
    #[serde(default)]
    pub unresolved: bool,
    /// The address is one of the director's own.
    #[serde(default)]
    pub local: bool,
    /// Largest packet on the way to it; 0 when unknown.
    #[serde(default)]
    pub mtu: u32,
    /// The director's own address on the way to it.
    pub source: Option<IpAddr>,
    /// Source translation.
    #[serde(default)]
    pub translate_source: bool,
    /// Its port, where it is not the service's.
    pub port: Option<u16>,
    /// Forwarding method: `direct` unless said otherwise.
    pub method: Option<String>,
    /// Encapsulation of the method `tunnel`: `ipip` unless said otherwise, `gre`, `gre csum`, `gue 6080`, `gue 6080 csum`,
    /// `gue 6080 remcsum`.
    pub tunnel: Option<String>,
    /// Upper connection threshold, 0 for none.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Lower connection threshold.
    #[serde(default)]
    pub lower_threshold: u32,
    /// `gone-keep`, `gone-reset`, `rescue`.
    #[serde(default)]
    pub policy: Vec<String>,
    /// So many milliseconds ago a connection to it finished its handshake; by default none did.
    pub progressed: Option<u64>,
}

/// A tracked connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// `tcp 198.51.100.1:40000 > 192.0.2.10:80`.
    pub flow: String,
    /// Address of its real server.
    pub real: IpAddr,
    /// TCP or SCTP state as in listings; `UDP` for UDP.
    pub state: String,
    /// Seconds until it ends; negative: it has ended and was not swept yet.
    pub expires_in: i64,
    /// `embryonic` or `established`; by default what the state implies.
    pub table: Option<String>,
    /// With source translation, the port in place of the client's.
    pub source_port: Option<u16>,
    /// The way back of its replies is not known (any more).
    #[serde(default)]
    pub no_way_back: bool,
}

/// One packet and what becomes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The packet, in the packet language.
    #[serde(rename = "in")]
    pub input: String,
    /// The verdict's stable name.
    pub verdict: String,
    /// Shorthand for a packet sent on by direct routing: address of the real server. Implies MAC
    /// addresses, TTL less one and the interface, and one packet in the real's statistics.
    pub to: Option<IpAddr>,
    /// The packet that leaves, in full. A packet that passes is unchanged without saying so.
    pub out: Option<String>,
    /// The packet that leaves, as changes of the one that came.
    pub change: Option<String>,
    /// Interface that the packet leaves by; 0 is the one it came by.
    pub interface: Option<u32>,
    /// The packet's flow afterwards.
    pub flow: Option<FlowAfter>,
    /// Which flow that is, where the packet's own ends do not say so: it comes from a real server.
    pub of: Option<String>,
    /// Active and inactive flows afterwards, by real server; others are not looked at.
    #[serde(default)]
    pub load: BTreeMap<IpAddr, (i32, i32)>,
    /// Templates afterwards, by real server; others are not looked at.
    #[serde(default)]
    pub persistent: BTreeMap<IpAddr, i32>,
    /// Real servers that have reached their upper threshold afterwards: all of them.
    pub overloaded: Option<Vec<IpAddr>>,
    /// The templates afterwards: all of them.
    pub expect_templates: Option<Vec<TemplateIs>>,
    /// What the step adds to the statistics of a real server; others must not change.
    #[serde(default)]
    pub stats: BTreeMap<IpAddr, StatsAdded>,
}

/// What is known about the packet's flow after the step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum FlowAfter {
    /// `none`: there must be no flow.
    Word(String),
    /// There must be this flow.
    Is(FlowIs),
}

/// A flow that must be there after the step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowIs {
    /// Address of its real server.
    pub real: IpAddr,
    /// TCP state as in listings; `UDP` for UDP.
    pub state: String,
    /// Seconds until it ends, counted from the packet.
    pub expires_in: i64,
    /// `embryonic` or `established`.
    pub table: String,
}

/// Change of a real server's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsAdded {
    /// Flows scheduled.
    #[serde(default)]
    pub connections: u64,
    /// Packets.
    #[serde(default)]
    pub packets: u64,
    /// Bytes from the IP header on.
    #[serde(default)]
    pub bytes: u64,
    /// Packets from the real server.
    #[serde(default)]
    pub out_packets: u64,
    /// Their bytes.
    #[serde(default)]
    pub out_bytes: u64,
}

fn one() -> u32 {
    1
}

/// Interface index of real servers when a case does not say: far from any real one.
fn default_ifindex() -> u32 {
    7
}
