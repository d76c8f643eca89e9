//! Services of a model -> `[service.NAME]` and `[marks]`.

use super::checks::Checks;
use super::{Hints, marks_table, policy_fields, section};
use crate::file::{
    Checksum, Engine, Fallback, Family, Flag, Forward, HoldDown, OnFailure, Passive, Persistence, Service,
    Tunnel, TunnelType, Use,
};
use crate::read::{At, Record as _, Section};
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
type PortSet = BTreeSet<(Protocol, u16)>;

/// Services that are the same but for VIP and port.
struct Group {
    addresses: Vec<IpAddr>,
    ports: PortSet,
    name: Option<String>,
    service: Service,
}

/// The tables of all services, and the marks that they do not say.
pub(super) fn services(
    model: &Model,
    hints: &Hints,
    checks: &mut Checks,
) -> (Vec<Section<Service>>, Option<MarksTable>) {
    let mut matches: IndexMap<(u32, api::Family), Vec<api::MarkMatch>> = IndexMap::new();
    for api::Mark { matched, mark } in model.marks() {
        matches.entry((mark, api::Family::of(matched.address))).or_default().push(matched);
    }
    let mut names = HashSet::new();
    let mut sections = Vec::new();
    let mut groups = Groups::default();
    for (id, entry) in model.services() {
        let service = table(id, entry, checks);
        match *id {
            ServiceId::Address { protocol, address, port } => {
                groups.add(hints.names.get(id), protocol, address, port, service);
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
                sections.push(section(unique(hints.names.get(id).unwrap_or(&made), &mut names), service));
            }
        }
    }
    for group in groups.joined() {
        let made = group.made_name();
        let name = unique(group.name.as_ref().unwrap_or(&made), &mut names);
        let vip = Some(Many::of(group.addresses.into_iter().map(Address)).into());
        let ports = Some(Many::of(ranges(&group.ports)).into());
        sections.push(section(name, Service { vip, ports, ..group.service }));
    }
    let mut left: IndexMap<u32, Vec<Match>> = IndexMap::new();
    for ((mark, _), matches) in matches {
        left.entry(mark).or_default().extend(matches.into_iter().map(Match));
    }
    (sections, marks_table(left))
}

/// A name that nothing else has.
fn unique(name: &str, names: &mut HashSet<String>) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '-' };
    let name: String = name.chars().take(50).map(clean).collect();
    let name = if name.is_empty() { "service".to_owned() } else { name };
    let mut tries = std::iter::once(name.clone()).chain((2_u32..).map(|n| format!("{name}-{n}")));
    let name = tries.find(|name| !names.contains(name)).unwrap_or_default();
    names.insert(name.clone());
    name
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
fn ranges(ports: &PortSet) -> Vec<Ports> {
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
        match self.ports.first() {
            Some((protocol, 0)) => format!("{protocol}-{address}").to_lowercase(),
            Some((protocol, port)) => format!("{protocol}-{address}-{port}").to_lowercase(),
            None => address,
        }
    }
}

/// What a service says for all its servers, so that they need not.
struct Common {
    forwarding: Forwarding,
    tunnel: api::Tunnel,
    port: u16,
}

/// A service without its identity.
fn table(id: &ServiceId, entry: &ServiceEntry, checks: &mut Checks) -> Service {
    let spec = entry.spec();
    let own = match *id {
        ServiceId::Address { port, .. } => port,
        ServiceId::Fwmark { .. } => 0,
    };
    // Oldest first, as they must be added.
    let reals: Vec<(&RealId, &RealEntry)> = entry.reals().rev().collect();
    let mut ports = reals.iter().map(|(real, _)| real.port);
    let first_port = ports.next().filter(|port| *port != 0 && ports.all(|other| other == *port));
    let common = Common {
        forwarding: reals.first().map_or(Forwarding::DirectRouting, |(_, real)| real.spec.forwarding),
        tunnel: reals.first().map_or(api::Tunnel::Ipip, |(_, real)| meant(&real.spec)),
        port: first_port.unwrap_or(own),
    };
    let uses: Vec<Short<Use>> =
        reals.iter().map(|(id, real)| Short(of_real(id, real, &common, entry, checks))).collect();
    let flags = [
        (spec.scheduler_flags.flag_1, Flag::Fallback),
        (spec.scheduler_flags.flag_2, Flag::Port),
        (spec.scheduler_flags.flag_3, Flag::Flag3),
    ];
    let flags: Vec<Flag> = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect();
    let (gone, rescue, source_nat, placement) = policy_fields(entry.policy_choices());
    let service = Service {
        servers: Some(Many::of(uses).into()),
        scheduler: Some(SchedulerName(entry.scheduler()).into()),
        scheduler_flags: (!flags.is_empty()).then(|| Many::of(flags).into()),
        persistence: spec.persistence.map(|it| Short(of_persistence(id, it)).into()),
        persistence_engine: spec.persistence_engine.as_ref().map(|_| Engine::Sip.into()),
        one_packet: spec.one_packet.then(|| true.into()),
        forward: (common.forwarding != Forwarding::DirectRouting).then(|| forward(common.forwarding).into()),
        tunnel: (common.tunnel != api::Tunnel::Ipip).then(|| Short(of_tunnel(common.tunnel)).into()),
        server_port: (common.port != own).then(|| Int(common.port.into()).into()),
        gone,
        rescue,
        source_nat,
        placement,
        ..Service::default()
    };
    with_admission(with_health(service, entry, &common, checks), entry)
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

fn with_health(service: Service, entry: &ServiceEntry, common: &Common, checks: &mut Checks) -> Service {
    let health = entry.health();
    let time = |ms: u32| (ms != 0).then_some(ms);
    Service {
        checks: (!health.checks.is_empty()).then(|| checks.names(&health.checks).into()),
        on_failure: (health.on_failure == api::OnFailure::Quiesce).then(|| OnFailure::Quiesce.into()),
        panic_percent: (health.panic_percent != 0).then(|| Int(health.panic_percent.into()).into()),
        fallback: health.fallback.as_ref().map(|it| Short(of_fallback(it, common)).into()),
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

fn of_real(id: &RealId, real: &RealEntry, common: &Common, entry: &ServiceEntry, checks: &mut Checks) -> Use {
    let RealEntry { spec, last_weight } = real;
    let health = entry.real_health(id);
    let own_checks = health.and_then(|health| health.checks.as_ref());
    let tunnel = meant(spec);
    Use {
        port: number(id.port.into(), common.port.into()),
        weight: number(spec.weight, 1),
        last_weight: number(*last_weight, spec.weight),
        upper_threshold: number(spec.upper_threshold, 0),
        lower_threshold: number(spec.lower_threshold, 0),
        forward: (spec.forwarding != common.forwarding).then(|| forward(spec.forwarding).into()),
        tunnel: (tunnel != common.tunnel).then(|| Short(of_tunnel(tunnel)).into()),
        checks: own_checks.map(|own| checks.names(own).into()),
        drain: health.is_some_and(|health| health.drain).then(|| true.into()),
        ..Use::of(Name(id.address.to_string()).into())
    }
}

fn of_fallback(fallback: &api::Fallback, common: &Common) -> Fallback {
    let api::Fallback { real, spec } = fallback;
    let tunnel = meant(spec);
    Fallback {
        port: number(real.port.into(), common.port.into()),
        weight: number(spec.weight, 1),
        upper_threshold: number(spec.upper_threshold, 0),
        lower_threshold: number(spec.lower_threshold, 0),
        forward: (spec.forwarding != common.forwarding).then(|| forward(spec.forwarding).into()),
        tunnel: (tunnel != common.tunnel).then(|| Short(of_tunnel(tunnel)).into()),
        ..Fallback::from_alone(Name(real.address.to_string()).into())
    }
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
