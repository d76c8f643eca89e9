//! Services of a model -> `[service.NAME]` and `[marks]`.

use super::{Known, marks_table, policy_fields, section};
use crate::file::{
    Checksum, Engine, Fallback, Family, Flag, Forward, HoldDown, OnFailure, Passive, Persistence, Server,
    Service, Tunnel, TunnelType, Use,
};
use crate::read::{At, Record as _, Section, Value};
use crate::settings::MarksTable;
use crate::values::{
    Address, Int, Many, Match, Name, Netmask, Network, Ports, SchedulerName, Short, Shortened as _, Time,
};
use api::{Forwarding, Protocol, RealId, RealSpec, ServiceId};
use indexmap::IndexMap;
use plan::{Model, RealEntry, ServiceEntry};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

/// Ports that share a table, and VIPs times ports that do: below what a table may stand for.
const PORTS_MAX: usize = 1024;
const EXPANDED_MAX: usize = 4096;

/// Ports with their protocols; 0 stands for every port.
pub(crate) type PortSet = BTreeSet<(Protocol, u16)>;

/// Services that are the same but for VIP and port.
struct Group {
    addresses: Vec<IpAddr>,
    ports: PortSet,
    name: Option<String>,
    service: Service,
}

/// The tables of services that are wanted, and those of the marks that they do not say.
pub(crate) fn services(
    model: &Model,
    marks: impl Iterator<Item = api::Mark>,
    known: &mut Known,
    names: &mut HashSet<String>,
    wanted: impl Fn(&ServiceId) -> bool,
) -> (Vec<Section<Service>>, Option<MarksTable>) {
    let mut matches: IndexMap<(u32, api::Family), Vec<api::MarkMatch>> = IndexMap::new();
    for api::Mark { matched, mark } in marks {
        matches.entry((mark, api::Family::of(matched.address))).or_default().push(matched);
    }
    let mut sections = Vec::new();
    let mut groups = Groups::default();
    for (id, entry) in model.services().filter(|(id, _)| wanted(id)) {
        let service = table(id, entry, &common_of(id, entry), known);
        let name = known.services.get(id);
        match *id {
            ServiceId::Address { protocol, address, port } => {
                groups.add(name, protocol, address, port, service);
            }
            ServiceId::Fwmark { mark, family } => {
                let own = matches.get(&(mark, family)).and_then(|own| product(own));
                let service = match own {
                    Some((vips, ports)) => {
                        matches.shift_remove(&(mark, family));
                        let vip = Some(Many::of(vips.into_iter().map(Address)).into());
                        Service { vip, ports: Some(Many::of(ports).into()), ..service }
                    }
                    None => {
                        let is_v6 = family == api::Family::Ipv6;
                        Service { family: is_v6.then(|| Family::Ipv6.into()), ..service }
                    }
                };
                let service = Service { mark: Some(Int(mark).into()), ..service };
                let made = if family == api::Family::Ipv4 {
                    format!("mark-{mark}")
                } else {
                    format!("mark-{mark}-ipv6")
                };
                sections.push(section(unique(name.unwrap_or(&made), names), service));
            }
        }
    }
    for group in groups.joined() {
        let made = group.made_name();
        let name = unique(group.name.as_ref().unwrap_or(&made), names);
        let vip = Some(Many::of(group.addresses.into_iter().map(Address)).into());
        let ports = Some(Many::of(ranges(&group.ports)).into());
        sections.push(section(name, Service { vip, ports, ..group.service }));
    }
    (
        sections,
        marks_of(matches.into_iter().flat_map(|((mark, _), all)| all.into_iter().map(move |it| (mark, it)))),
    )
}

/// The table of these marks.
pub(crate) fn marks_of(all: impl Iterator<Item = (u32, api::MarkMatch)>) -> Option<MarksTable> {
    let mut left: IndexMap<u32, Vec<Match>> = IndexMap::new();
    for (mark, matched) in all {
        left.entry(mark).or_default().push(Match(matched));
    }
    marks_table(left)
}

/// A name that nothing else has.
pub(crate) fn unique(name: &str, names: &mut HashSet<String>) -> String {
    let mut tries = std::iter::once(name.to_owned()).chain((2_u32..).map(|n| format!("{name}-{n}")));
    let name = tries.find(|name| !names.contains(name)).unwrap_or_default();
    names.insert(name.clone());
    name
}

/// A name out of whatever text.
pub(super) fn clean(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '-' };
    let name: String = text.chars().take(50).map(clean).collect();
    if name.is_empty() { "service".to_owned() } else { name }
}

/// VIPs and ports, if the matches are each VIP with each port.
fn product(matches: &[api::MarkMatch]) -> Option<(Vec<IpAddr>, Vec<Ports>)> {
    let mut by_address: IndexMap<IpAddr, Vec<Ports>> = IndexMap::new();
    for matched in matches {
        let ports = Ports { protocol: matched.protocol, ports: matched.ports };
        by_address.entry(matched.address).or_default().push(ports);
    }
    let (_, first) = by_address.first()?;
    // They come sorted, so equal sets are equal lists.
    by_address
        .values()
        .all(|ports| ports == first)
        .then(|| (by_address.keys().copied().collect(), first.clone()))
}

/// Consecutive ports as ranges.
pub(crate) fn ranges(ports: &PortSet) -> Vec<Ports> {
    let mut ranges: Vec<Ports> = Vec::new();
    for &(protocol, port) in ports {
        if port == 0 {
            ranges.push(Ports { protocol, ports: api::Ports::Any });
            continue;
        }
        match ranges.last_mut() {
            Some(Ports { protocol: known, ports: api::Ports::Range { last, .. } })
                if *known == protocol && last.checked_add(1) == Some(port) =>
            {
                *last = port;
            }
            _ => ranges.push(Ports { protocol, ports: api::Ports::Range { first: port, last: port } }),
        }
    }
    ranges
}

/// Services by VIP and what else they say.
#[derive(Default)]
struct Groups(IndexMap<(IpAddr, String), Vec<Group>>);

impl Groups {
    fn add(
        &mut self,
        name: Option<&String>,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        service: Service,
    ) {
        let name = name.cloned();
        let groups = self.0.entry((address, format!("{name:?} {:?}", service.pairs()))).or_default();
        match groups.last_mut().filter(|group| group.ports.len() < PORTS_MAX) {
            Some(group) => {
                group.ports.insert((protocol, port));
            }
            None => {
                let ports = BTreeSet::from([(protocol, port)]);
                groups.push(Group { addresses: vec![address], ports, name, service });
            }
        }
    }

    /// Groups of the same ports and the same rest become one with several VIPs.
    fn joined(self) -> Vec<Group> {
        let mut joined: IndexMap<(PortSet, String), Vec<Group>> = IndexMap::new();
        for ((_, rest), groups) in self.0 {
            for group in groups {
                let same = joined.entry((group.ports.clone(), rest.clone())).or_default();
                let room = |it: &&mut Group| (it.addresses.len() + 1) * it.ports.len() <= EXPANDED_MAX;
                match same.last_mut().filter(room) {
                    Some(known) => known.addresses.extend(group.addresses),
                    None => same.push(group),
                }
            }
        }
        joined.into_values().flatten().collect()
    }
}

impl Group {
    fn made_name(&self) -> String {
        let address = self.addresses.first().map(ToString::to_string).unwrap_or_default();
        clean(&match self.ports.first() {
            Some((protocol, 0)) => format!("{protocol}-{address}").to_lowercase(),
            Some((protocol, port)) => format!("{protocol}-{address}-{port}").to_lowercase(),
            None => address,
        })
    }
}

/// What a service says for all its servers, so that they need not.
pub(crate) struct Common {
    pub(crate) forwarding: Forwarding,
    pub(crate) tunnel: api::Tunnel,
    pub(crate) port: u16,
}

/// What its first server says.
pub(crate) fn common_of(id: &ServiceId, entry: &ServiceEntry) -> Common {
    // Oldest first, as they must be added.
    let reals: Vec<(&RealId, &RealEntry)> = entry.reals().rev().collect();
    let mut ports = reals.iter().map(|(real, _)| real.port);
    let first_port = ports.next().filter(|port| *port != 0 && ports.all(|other| other == *port));
    Common {
        forwarding: reals.first().map_or(Forwarding::DirectRouting, |(_, real)| real.spec.forwarding),
        tunnel: reals.first().map_or(api::Tunnel::Ipip, |(_, real)| meant(&real.spec)),
        port: first_port.unwrap_or(own_port(id)),
    }
}

/// The port of its servers unless something else is said.
pub(crate) fn own_port(id: &ServiceId) -> u16 {
    match *id {
        ServiceId::Address { port, .. } => port,
        ServiceId::Fwmark { .. } => 0,
    }
}

/// A service without its identity.
pub(crate) fn table(id: &ServiceId, entry: &ServiceEntry, common: &Common, known: &mut Known) -> Service {
    let spec = entry.spec();
    // Oldest first, as they must be added.
    let reals: Vec<(&RealId, &RealEntry)> = entry.reals().rev().collect();
    let uses: Vec<Short<Use>> =
        reals.iter().map(|(real, it)| Short(of_real(id, real, it, common, entry, known))).collect();
    let flags = [
        (spec.scheduler_flags.flag_1, Flag::Fallback),
        (spec.scheduler_flags.flag_2, Flag::Port),
        (spec.scheduler_flags.flag_3, Flag::Flag3),
    ];
    let flags: Vec<Flag> = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect();
    let (gone, rescue, source_nat, placement) = policy_fields(entry.policy_choices());
    let service = Service {
        cluster: known.clusters.get(id).map(|name| Name(name.clone()).into()),
        servers: Some(Many::of(uses).into()),
        scheduler: Some(SchedulerName(entry.scheduler()).into()),
        scheduler_flags: (!flags.is_empty()).then(|| Many::of(flags).into()),
        persistence: spec.persistence.map(|it| Short(of_persistence(id, it)).into()),
        persistence_engine: spec.persistence_engine.as_ref().map(|_| Engine::Sip.into()),
        one_packet: spec.one_packet.then(|| true.into()),
        forward: (common.forwarding != Forwarding::DirectRouting).then(|| forward(common.forwarding).into()),
        tunnel: (common.tunnel != api::Tunnel::Ipip).then(|| Short(of_tunnel(common.tunnel)).into()),
        server_port: (common.port != own_port(id)).then(|| Int(common.port.into()).into()),
        gone,
        rescue,
        source_nat,
        placement,
        ..Service::default()
    };
    with_admission(with_health(service, id, entry, common, known), entry)
}

fn with_admission(service: Service, entry: &ServiceEntry) -> Service {
    let api::Admission { allow, deny, connections_per_client, rate_per_client } = entry.admission();
    let networks = |networks: &[ipnet::IpNet]| {
        (!networks.is_empty()).then(|| Many::of(networks.iter().copied().map(Network)).into())
    };
    Service {
        allow: networks(allow),
        deny: networks(deny),
        connections_per_client: number(*connections_per_client, 0),
        rate_per_client: number(*rate_per_client, 0),
        ..service
    }
}

fn with_health(
    service: Service,
    id: &ServiceId,
    entry: &ServiceEntry,
    common: &Common,
    known: &mut Known,
) -> Service {
    let health = entry.health();
    let time = |ms: u32| (ms != 0).then_some(ms);
    Service {
        checks: (!health.checks.is_empty()).then(|| known.checks.names(&health.checks).into()),
        on_failure: (health.on_failure == api::OnFailure::Quiesce).then(|| OnFailure::Quiesce.into()),
        panic_percent: (health.panic_percent != 0).then(|| Int(health.panic_percent.into()).into()),
        fallback: health.fallback.as_ref().map(|it| Short(of_fallback(id, it, common, known)).into()),
        hold_down: health.hold_down.map(|it| {
            At::from(HoldDown {
                failures: Int(it.failures.into()).into(),
                within: Time(it.within_ms).into(),
                hold: Time(it.hold_ms).into(),
            })
        }),
        slow_start_time: time(health.slow_start_ms).map(|ms| Time(ms).into()),
        drain_time: time(health.drain_ms).map(|ms| Time(ms).into()),
        adaptive: health.adaptive.then(|| true.into()),
        passive: health.passive.map(|it| {
            At::from(Passive {
                flows: Int(it.flows_min).into(),
                failed_percent: Int(it.failed_percent.into()).into(),
            })
        }),
        ..service
    }
}

fn number<const LOW: u32, const HIGH: u32>(value: u32, default: u32) -> Option<At<Int<LOW, HIGH>>> {
    (value != default).then(|| Int(value).into())
}

/// Its encapsulation; of one that is in no tunnel it means nothing, and need not even be one that could be.
fn meant(spec: &RealSpec) -> api::Tunnel {
    match spec.tunnel {
        api::Tunnel::Gue { port: 0, .. } | api::Tunnel::Gre { checksum: api::TunnelChecksum::Remote } => {
            api::Tunnel::Ipip
        }
        tunnel => tunnel,
    }
}

/// What the table of a server says, where it says something.
fn said<'a, T, V>(
    server: Option<&'a Server>,
    field: impl Fn(&'a Server) -> &'a Option<At<T>>,
    value: impl Fn(&'a T) -> V,
) -> Option<V>
where
    T: 'a,
{
    server.and_then(|server| field(server).as_ref()).map(|at| value(&at.value))
}

fn of_real(
    service: &ServiceId,
    id: &RealId,
    real: &RealEntry,
    common: &Common,
    entry: &ServiceEntry,
    known: &mut Known,
) -> Use {
    let RealEntry { spec, last_weight, .. } = real;
    let health = entry.real_health(id);
    let section = known.servers.named(id.address, service.family(), spec.forwarding);
    let name = section.map_or_else(|| id.address.to_string(), |section| section.name.value.clone());
    let server = section.and_then(|section| section.record.as_ref());
    let own_checks = health.and_then(|health| health.checks.as_ref()).map(|own| known.checks.names(own));
    let is_said = said(server, |it| &it.checks, |it| Some(it) == own_checks.as_ref()).unwrap_or(false);
    let drain = health.is_some_and(|health| health.drain);
    let (forward, tunnel) = way(spec, server, common);
    Use {
        port: number(id.port.into(), common.port.into()),
        weight: number(spec.weight, said(server, |it| &it.weight, |it| it.0).unwrap_or(1)),
        last_weight: number(*last_weight, spec.weight),
        upper_threshold: number(
            spec.upper_threshold,
            said(server, |it| &it.upper_threshold, |it| it.0).unwrap_or(0),
        ),
        lower_threshold: number(
            spec.lower_threshold,
            said(server, |it| &it.lower_threshold, |it| it.0).unwrap_or(0),
        ),
        forward,
        tunnel,
        checks: own_checks.filter(|_| !is_said).map(At::from),
        drain: (drain != said(server, |it| &it.drain, |it| *it).unwrap_or(false)).then(|| drain.into()),
        ..Use::of(Name(name).into())
    }
}

type Way = (Option<At<Forward>>, Option<At<Short<Tunnel>>>);

/// How packets reach it, where neither its table nor the service says so.
fn way(spec: &RealSpec, server: Option<&Server>, common: &Common) -> Way {
    let wanted = (forward(spec.forwarding), Short(of_tunnel(meant(spec))));
    let usual = (
        said(server, |it| &it.forward, |it| *it).unwrap_or(forward(common.forwarding)),
        said(server, |it| &it.tunnel, Clone::clone).unwrap_or_else(|| Short(of_tunnel(common.tunnel))),
    );
    ((wanted.0 != usual.0).then(|| wanted.0.into()), (wanted.1 != usual.1).then(|| wanted.1.into()))
}

fn of_fallback(service: &ServiceId, fallback: &api::Fallback, common: &Common, known: &Known) -> Fallback {
    let api::Fallback { real, spec } = fallback;
    let section = known.servers.named(real.address, service.family(), spec.forwarding);
    let name = section.map_or_else(|| real.address.to_string(), |section| section.name.value.clone());
    let (forward, tunnel) = way(spec, section.and_then(|section| section.record.as_ref()), common);
    Fallback {
        port: number(real.port.into(), common.port.into()),
        weight: number(spec.weight, 1),
        upper_threshold: number(spec.upper_threshold, 0),
        lower_threshold: number(spec.lower_threshold, 0),
        forward,
        tunnel,
        ..Fallback::from_alone(Name(name).into())
    }
}

/// The servers of a table, each as it is written.
pub(crate) fn item_texts(service: &Service) -> Vec<String> {
    service.servers.iter().flat_map(|at| at.value.values()).map(Value::write).collect()
}

fn of_persistence(id: &ServiceId, persistence: api::Persistence) -> Persistence {
    let mask = persistence.mask;
    let is_v4 = id.family() == api::Family::Ipv4;
    Persistence {
        time: Time(persistence.timeout_s).into(),
        netmask: (is_v4 && mask != u32::MAX).then(|| Netmask(mask).into()),
        prefix: (!is_v4 && mask != 128).then(|| Int(mask).into()),
    }
}

fn forward(forwarding: Forwarding) -> Forward {
    match forwarding {
        Forwarding::DirectRouting => Forward::Direct,
        Forwarding::Masquerade => Forward::Nat,
        Forwarding::Tunnel => Forward::Tunnel,
        Forwarding::Local => Forward::Local,
    }
}

fn of_tunnel(tunnel: api::Tunnel) -> Tunnel {
    let sum = |checksum| match checksum {
        api::TunnelChecksum::None => None,
        api::TunnelChecksum::Full => Some(Checksum::Full.into()),
        api::TunnelChecksum::Remote => Some(Checksum::Remote.into()),
    };
    match tunnel {
        api::Tunnel::Ipip => Tunnel::from_alone(TunnelType::Ipip.into()),
        api::Tunnel::Gre { checksum } => {
            Tunnel { checksum: sum(checksum), ..Tunnel::from_alone(TunnelType::Gre.into()) }
        }
        api::Tunnel::Gue { port, checksum } => Tunnel {
            port: Some(Int(port.into()).into()),
            checksum: sum(checksum),
            ..Tunnel::from_alone(TunnelType::Gue.into())
        },
    }
}
