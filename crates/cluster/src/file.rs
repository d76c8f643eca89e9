//! The tables of the file and their keys. What is said of them here is what the schema and the reference say.

use crate::read::{At, Sections, record, words};
use crate::settings::{MarksTable, SettingsTable};
use crate::values::{
    Address, Int, Many, Millis, Name, Netmask, Network, Ports, SchedulerName, Seconds, Short, Shortened, Text,
};

pub use crate::check_table::Check;

/// Largest weight and threshold: a C `int` in IPVS.
pub(crate) const INT_MAX: u32 = i32::MAX.cast_unsigned();
/// Milliseconds of an hour.
const HOUR_MS: u32 = 3_600_000;
/// Milliseconds of a day.
const DAY_MS: u32 = 86_400_000;
/// Seconds of 31 days, the longest time IPVS knows.
const MONTH_S: u32 = 2_678_400;

record! { "the file"
/// The whole file.
#[derive(Default)]
pub struct File {
    /// The three classic timeouts of connections, as `ipvsadm --set`.
    may timeouts: Timeouts,
    /// What IPVS has as sysctls, as `sluice set`.
    may settings: SettingsTable,
    /// What services do beyond the classic options, unless they choose themselves; as `sluice policy default`.
    may policy: Policy,
    /// The directors, for hot standby. Nothing follows from them in this release.
    may director: Sections<Director>,
    /// The real servers.
    may server: Sections<Server>,
    /// Logical clusters, which divide the servers among them.
    may cluster: Sections<LogicalCluster>,
    /// Health checks.
    may check: Sections<Check>,
    /// What several services have in common.
    may template: Sections<Service>,
    /// The virtual services.
    may service: Sections<Service>,
    /// Firewall marks of packets, beyond those that services with `mark` give; as `sluice mark add`.
    may marks: MarksTable,
}}

record! { "[timeouts]"
/// The three classic timeouts.
#[derive(Default)]
pub struct Timeouts {
    /// An established TCP connection without packets. Default 15m.
    may tcp: Seconds<1, MONTH_S>,
    /// A TCP connection after a FIN. Default 2m.
    may tcp_fin: Seconds<1, MONTH_S>,
    /// A UDP flow without packets. Default 5m.
    may udp: Seconds<1, MONTH_S>,
}}

record! { "[policy]"
/// Choices for all services that leave them open.
#[derive(Default)]
pub struct Policy {
    /// Flows whose real server is gone: dropped, rescheduled when opened anew, or their clients reset. Default `reschedule`.
    may gone: Gone,
    /// Whether a repeated SYN whose real server never got on goes to another one. Default true.
    may rescue: bool,
    /// Whether masquerading replaces the client's address too, so that servers need no route back through the
    /// director. Default false.
    may source_nat: bool,
    /// How sh, dh and mh place clients: by the directors' secret, or exactly as IPVS does. Default `keyed`.
    may placement: Placement,
}}

record! { "a director"
/// A director of the cluster.
pub struct Director {
    /// Its addresses, one of each family at most.
    must address: Many<Address>,
    /// The interfaces it balances on.
    may interfaces: Many<Text>,
    /// Which of them goes first: the highest. Default 100.
    may priority: Int<1, 254>,
}}

record! { "a server"
/// A real server.
pub struct Server {
    /// Its address; of each family one at most.
    must address: Many<Address>,
    /// Its share of the work; 0: no new work. Default 1.
    may weight: Int<0, INT_MAX>,
    /// With so many connections it gets no new ones. Default 0: no bound.
    may upper_threshold: Int<0, INT_MAX>,
    /// With fewer it gets new ones again. Default 0: three quarters of the upper threshold.
    may lower_threshold: Int<0, INT_MAX>,
    /// How packets reach it; goes before what the service says.
    may forward: Forward,
    /// What packets are wrapped in with `forward = "tunnel"`; goes before what the service says.
    may tunnel: Short<Tunnel>,
    /// Its own health checks, in place of the service's; `[]`: none.
    may checks: Many<Name>,
    /// true: it gets no new work, in any service.
    may drain: bool,
}}

record! { "a cluster"
/// A logical cluster: a part of the servers. A server is in one at most.
pub struct LogicalCluster {
    /// Its servers, by name.
    must servers: Many<Name>,
}}

record! { "a service"
/// A virtual service, or a template for some. Each VIP with each port is one service of IPVS, unless they share a mark.
#[derive(Default)]
pub struct Service {
    /// A template: what is not said here is taken from it. Templates may have templates.
    may template: Name,
    /// The addresses that clients use.
    may vip: Many<Address>,
    /// The protocols and ports that clients use. `tcp/*`: every port that no other service has.
    may ports: Many<Ports>,
    /// All VIPs and ports become one service with this firewall mark, so that clients stick over all of them.
    may mark: Int<1, { u32::MAX }>,
    /// Of a service with a mark and without VIPs. Default `ipv4`.
    may family: Family,
    /// A logical cluster: only its servers may be used; all of them, unless `servers` says which.
    may cluster: Name,
    /// Its real servers, by name or address.
    may servers: Many<Short<Use>>,
    /// How a server is chosen. Default `wlc`.
    may scheduler: SchedulerName,
    /// Flags of the scheduler.
    may scheduler_flags: Many<Flag>,
    /// A client keeps its server for so long after its last connection. Default: not at all.
    may persistence: Short<Persistence>,
    /// What tells clients apart besides their address.
    may persistence_engine: Engine,
    /// Every UDP packet is scheduled by itself.
    may one_packet: bool,
    /// How packets reach the servers. Default `direct`.
    may forward: Forward,
    /// What packets are wrapped in with `forward = "tunnel"`. Default `ipip`.
    may tunnel: Short<Tunnel>,
    /// The port of the servers, with `forward = "nat"`. Default: the port of the service.
    may server_port: Int<1, 65535>,
    /// What every server must pass. Default: nothing, all count as up.
    may checks: Many<Name>,
    /// What becomes of a server that failed: taken out, or no new work. Default `remove`.
    may on_failure: OnFailure,
    /// When less than so many hundredths of the weight are up, the checks are not believed. Default 0: always believed.
    may panic_percent: Int<0, 100>,
    /// A "sorry server": gets the work when no other may.
    may fallback: Short<Fallback>,
    /// Keeps a server out that comes and goes.
    may hold_down: HoldDown,
    /// A server that came back gets its weight by and by over this time. Default 0s.
    may slow_start_time: Millis<0, HOUR_MS>,
    /// A drained server is taken out after this time at most. Default 0s: when its last flow has ended.
    may drain_time: Millis<0, DAY_MS>,
    /// Weights follow the load that checks of type `load` or `program` report.
    may adaptive: bool,
    /// What the packet path sees of a server counts too.
    may passive: Passive,
    /// As in `[policy]`, for this service.
    may gone: Gone,
    /// As in `[policy]`, for this service.
    may rescue: bool,
    /// As in `[policy]`, for this service.
    may source_nat: bool,
    /// As in `[policy]`, for this service.
    may placement: Placement,
    /// Only these clients are served. Of two networks that a client is in, here or in `deny`, the narrower one decides.
    may allow: Many<Network>,
    /// These clients are not served.
    may deny: Many<Network>,
    /// Connections of one client at a time. A client is an IPv4 address, or an IPv6 network of 64 bits.
    may connections_per_client: Int<1, INT_MAX>,
    /// New connections of one client a second; a second's worth may come at once.
    may rate_per_client: Int<1, 1_000_000>,
}}

record! { "a server of a service"
/// A server as one service uses it. What is not said here is as in `[server.NAME]`, then as in the service.
pub struct Use {
    /// Its name, or its address if it has no table of its own.
    must server: Name,
    /// Its port, with `forward = "nat"`. Default: as the service says.
    may port: Int<0, 65535>,
    /// Its share of the work; 0: no new work.
    may weight: Int<0, INT_MAX>,
    /// The last weight that was not 0. The scheduler mh goes by it, so that it moves no clients of other servers.
    may last_weight: Int<0, INT_MAX>,
    /// With so many connections it gets no new ones.
    may upper_threshold: Int<0, INT_MAX>,
    /// With fewer it gets new ones again.
    may lower_threshold: Int<0, INT_MAX>,
    /// How packets reach it.
    may forward: Forward,
    /// What packets are wrapped in with `forward = "tunnel"`.
    may tunnel: Short<Tunnel>,
    /// Its own health checks, in place of the service's; `[]`: none.
    may checks: Many<Name>,
    /// true: it gets no new work.
    may drain: bool,
}}

record! { "a fallback"
/// A server that gets work only when no other may.
pub struct Fallback {
    /// Its name, or its address if it has no table of its own.
    must server: Name,
    /// Its port, with `forward = "nat"`. Default: as the service says.
    may port: Int<0, 65535>,
    /// Its weight. Default 1.
    may weight: Int<1, INT_MAX>,
    /// With so many connections it gets no new ones.
    may upper_threshold: Int<0, INT_MAX>,
    /// With fewer it gets new ones again.
    may lower_threshold: Int<0, INT_MAX>,
    /// How packets reach it.
    may forward: Forward,
    /// What packets are wrapped in with `forward = "tunnel"`.
    may tunnel: Short<Tunnel>,
}}

record! { "persistence"
/// How long, and how widely, a client sticks to its server.
pub struct Persistence {
    /// Since its last connection.
    must time: Seconds<1, MONTH_S>,
    /// IPv4 clients of one network are one client. Default 255.255.255.255.
    may netmask: Netmask,
    /// IPv6 clients of one network are one client: the length of its prefix. Default 128.
    may prefix: Int<1, 128>,
}}

record! { "a tunnel"
/// An encapsulation.
pub struct Tunnel {
    /// Which.
    must r#type: TunnelType,
    /// UDP destination port of `gue`.
    may port: Int<1, 65535>,
    /// Checksum of `gue` and `gre`; `remote` is remote checksum offload, of `gue` only. Default `none`.
    may checksum: Checksum,
}}

record! { "hold_down"
/// Keeps a server out that comes and goes.
pub struct HoldDown {
    /// After so many failures
    must failures: Int<2, 100>,
    /// within this time
    must within: Millis<1000, DAY_MS>,
    /// it is kept out for this time from the last one.
    must hold: Millis<1000, DAY_MS>,
}}

record! { "passive"
/// What the packet path sees of a server, in each interval of two seconds.
pub struct Passive {
    /// With at least so many new flows,
    must flows: Int<1, 1_000_000>,
    /// of which so many hundredths did not get on, it has failed.
    must failed_percent: Int<1, 100>,
}}

words! {
/// How packets reach a server.
pub enum Forward {
    /// By its MAC address (`-g`).
    Direct = "direct",
    /// Masqueraded (`-m`).
    Nat = "nat",
    /// Masqueraded, and the client's address replaced too.
    FullNat = "full-nat",
    /// In a tunnel (`-i`).
    Tunnel = "tunnel",
    /// To this very machine.
    Local = "local",
}}

words! {
/// An encapsulation.
pub enum TunnelType {
    /// IP in IP.
    Ipip = "ipip",
    /// Generic UDP encapsulation.
    Gue = "gue",
    /// Generic routing encapsulation.
    Gre = "gre",
}}

words! {
/// Checksum of an encapsulation.
pub enum Checksum {
    /// None.
    None = "none",
    /// Filled in.
    Full = "full",
    /// Remote checksum offload.
    Remote = "remote",
}}

words! {
/// A flag of the scheduler.
pub enum Flag {
    /// sh and mh: another server if the chosen one has weight 0 (`flag-1`).
    Fallback = "fallback",
    /// sh and mh: the client's port counts (`flag-2`).
    Port = "port",
    /// For schedulers of one's own.
    Flag3 = "flag-3",
}}

words! {
/// A persistence engine.
pub enum Engine {
    /// The Call-ID of SIP over UDP.
    Sip = "sip",
}}

words! {
/// An address family.
pub enum Family {
    /// IPv4.
    Ipv4 = "ipv4",
    /// IPv6.
    Ipv6 = "ipv6",
}}

words! {
/// What becomes of a server that failed.
pub enum OnFailure {
    /// Weight 0.
    Quiesce = "quiesce",
    /// Taken out.
    Remove = "remove",
}}

words! {
/// What becomes of a flow whose server is gone.
pub enum Gone {
    /// Dropped.
    Keep = "keep",
    /// Scheduled anew when opened anew.
    Reschedule = "reschedule",
    /// The client is reset.
    Reset = "reset",
}}

words! {
/// How hash schedulers place clients.
pub enum Placement {
    /// By the directors' secret.
    Keyed = "keyed",
    /// As IPVS does.
    Exact = "exact",
}}

impl Use {
    /// A server used as it is declared.
    pub(crate) fn of(server: At<Name>) -> Self {
        Self {
            server,
            port: None,
            weight: None,
            last_weight: None,
            upper_threshold: None,
            lower_threshold: None,
            forward: None,
            tunnel: None,
            checks: None,
            drain: None,
        }
    }
}

impl Shortened for Use {
    type Alone = Name;
    fn from_alone(server: At<Name>) -> Self {
        Self::of(server)
    }
    fn alone(&self) -> Option<&Name> {
        Some(&self.server.value)
    }
}

impl Shortened for Fallback {
    type Alone = Name;
    fn from_alone(server: At<Name>) -> Self {
        let upper_threshold = None;
        let (port, weight, lower_threshold, forward, tunnel) = (None, None, None, None, None);
        Self { server, port, weight, upper_threshold, lower_threshold, forward, tunnel }
    }
    fn alone(&self) -> Option<&Name> {
        Some(&self.server.value)
    }
}

impl Shortened for Persistence {
    type Alone = Seconds<1, MONTH_S>;
    fn from_alone(time: At<Self::Alone>) -> Self {
        Self { time, netmask: None, prefix: None }
    }
    fn alone(&self) -> Option<&Self::Alone> {
        Some(&self.time.value)
    }
}

impl Shortened for Tunnel {
    type Alone = TunnelType;
    fn from_alone(r#type: At<TunnelType>) -> Self {
        Self { r#type, port: None, checksum: None }
    }
    fn alone(&self) -> Option<&TunnelType> {
        Some(&self.r#type.value)
    }
}
