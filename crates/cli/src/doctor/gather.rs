//! The facts: what the director says, what the kernel says, and what the network answers.

use super::network;
use api::{Forwarding, MarkMatch, Ports, Protocol, RealId, RealSpec, ServiceId, Services, Status};
use doctor::{
    Attached, Examination, Facts, Filling, ForwardedPath, Missed, Secret, Server, ServiceState, Vip,
};
use host::neighbours::machine::Timing;
use host::netlink::Netlink;
use host::{Interface, Neighbours, OwnAddress, Resolved, Route};
use plan::{Model, ServiceEntry};
use probe::{Hop, NextHop};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long next hops are waited for.
const NEXT_HOPS_WAIT: Duration = Duration::from_secs(3);
/// VLAN interfaces that are asked on.
const VLANS_MAX: usize = 256;
/// An address far away, to find the default route by: of the benchmark network, where nobody is.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// What the director said.
pub(super) struct Answers {
    pub(super) status: Status,
    pub(super) services: Services,
    /// What is declared.
    pub(super) model: Model,
}

/// What was seen, and what could not be.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) facts: Facts,
    pub(super) missed: Vec<Missed>,
}

impl Gathered {
    /// It could not be examined, and why.
    pub(super) fn miss(&mut self, examination: Examination, why: impl Into<String>) {
        self.missed.push(Missed { examination, why: why.into() });
    }
}

/// Where the packets to each real server go, of those that is known of.
pub(super) type NextHops = BTreeMap<IpAddr, NextHop>;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Looks at everything that these examinations need.
pub(super) async fn gather(
    answers: &Answers,
    wanted: &[Examination],
    progress: fn(&str),
) -> Result<Gathered, Error> {
    let mut gathered = Gathered::default();
    let netlink = Netlink::open()?;
    let own = host::own_addresses()?;
    progress("looking at this machine");
    let mut links = attached(answers, &netlink, &mut gathered).await?;
    links.append(&mut vlans(&links, Interface::list(&netlink).await?, &mut gathered));
    vips(answers, &own, &links, &mut gathered);
    states(answers, &mut gathered);
    this_machine(answers, &netlink, &mut gathered).await;
    if wanted.contains(&Examination::Secret) {
        secret(answers.status.pid, &mut gathered);
    }
    progress("asking for next hops");
    let next_hops = servers(answers, &netlink, &mut gathered).await?;
    paths(answers, &mut gathered);
    let has = |examinations: &[Examination]| examinations.iter().any(|it| wanted.contains(it));
    if has(&[Examination::Arp]) {
        progress("asking who has the VIPs");
        network::owners(&links, &own, &mut gathered).await;
    }
    if has(&[Examination::Path, Examination::Mtu]) {
        progress("opening services by every real server");
        network::try_paths(&next_hops, &mut gathered).await;
    }
    if has(&[Examination::WayBack, Examination::Offload]) {
        progress("waiting for answers of masqueraded servers");
        network::ways_back(&masqueraded(&answers.model), &next_hops, &netlink, &mut gathered).await;
    }
    if has(&[Examination::Clock]) {
        progress("asking for the time");
        network::clocks(&mut gathered).await;
    }
    Ok(gathered)
}

/// The attached interfaces.
async fn attached(
    answers: &Answers,
    netlink: &Netlink,
    gathered: &mut Gathered,
) -> Result<Vec<Interface>, Error> {
    let mut links = Vec::new();
    for it in &answers.status.interfaces {
        let link = Interface::by_index(netlink, it.index).await?;
        let filter =
            |name: &str| number(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).unwrap_or_default();
        gathered.facts.attached.push(Attached {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()),
            up: link.up,
            carrier: link.carrier,
            mtu: link.mtu,
            generic: it.mode == "generic",
            // A driver that does not say joins nothing.
            joins_segments: host::offload::joins_segments(&link.name).unwrap_or(false),
            rp_filter: Some(filter("all").max(filter(&link.name))),
        });
        links.push(link);
    }
    Ok(links)
}

/// The VLAN interfaces above these, and those above them: their clients ask for VIPs there.
fn vlans(below: &[Interface], mut others: Vec<Interface>, gathered: &mut Gathered) -> Vec<Interface> {
    let mut indices: BTreeSet<u32> = below.iter().map(|link| link.index).collect();
    let mut found: Vec<Interface> = Vec::new();
    loop {
        let is_above = |link: &Interface| {
            !indices.contains(&link.index) && link.vlan_of.is_some_and(|below| indices.contains(&below))
        };
        let (above, rest) = others.into_iter().partition::<Vec<_>, _>(is_above);
        if above.is_empty() {
            break;
        }
        indices.extend(above.iter().map(|link| link.index));
        found.extend(above);
        others = rest;
    }
    if found.len() > VLANS_MAX {
        let why = format!("only the first {VLANS_MAX} of {} VLAN interfaces were asked on", found.len());
        gathered.miss(Examination::Arp, why);
        found.truncate(VLANS_MAX);
    }
    found
}

/// A number that a file of the kernel holds.
fn number(path: &str) -> Option<u8> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn vips(answers: &Answers, own: &[OwnAddress], links: &[Interface], gathered: &mut Gathered) {
    let of_services = answers.model.services().filter_map(|(id, _)| match id {
        ServiceId::Address { address, .. } => Some(*address),
        ServiceId::Fwmark { .. } => None,
    });
    let of_marks = answers.model.marks().map(|mark| mark.matched.address);
    let all: BTreeSet<IpAddr> = of_services.chain(of_marks).collect();
    for address in all {
        let is_attached = |it: &&OwnAddress| links.iter().any(|link| link.name == it.interface);
        let on_link =
            own.iter().find(|it| it.address != address && it.is_neighbour(address) && is_attached(it));
        let on_link = on_link.map(|it| it.interface.clone());
        let is_own = own.iter().any(|it| it.address == address);
        gathered.facts.vips.push(Vip { address, is_own, on_link, answers: Vec::new() });
    }
}

fn states(answers: &Answers, gathered: &mut Gathered) {
    let facts = &mut gathered.facts;
    for view in &answers.services.services {
        let declared = answers.model.service(&view.id).map_or(0, |entry| entry.reals().len());
        let working = view.reals.iter().filter(|real| real.spec.weight > 0).count();
        facts.services.push(ServiceState { id: view.id, declared, working });
    }
    let status = &answers.status;
    facts.fillings = vec![
        Filling {
            what: "established flows",
            option: "established-flows-max",
            used: status.established_flows,
            max: status.established_flows_max,
        },
        Filling {
            what: "persistence templates",
            option: "templates-max",
            used: status.templates,
            max: status.templates_max,
        },
    ];
}

/// What the kernel of this machine does with packets.
async fn this_machine(answers: &Answers, netlink: &Netlink, gathered: &mut Gathered) {
    let facts = &mut gathered.facts;
    for (id, entry) in answers.model.services() {
        if reals(entry).any(|(_, spec)| spec.forwarding == Forwarding::Masquerade) {
            facts.masquerades[usize::from(id.family() == api::Family::Ipv6)] = true;
        }
    }
    let files = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
    facts.forwards = files.map(|file| number(file).map(|value| value > 0));
    if let Ok(route) = Route::to(netlink, FAR.into()).await
        && let Ok(interface) = Interface::by_index(netlink, route.interface_index).await
    {
        facts.default_interface = Some(interface.name);
    }
}

/// The file of the secret, by the words that the director was started with.
fn secret(pid: u32, gathered: &mut Gathered) {
    let looked = secret_path(pid).and_then(|path| {
        let mode = std::fs::metadata(&path)?.permissions().mode();
        Ok(Secret { path: path.display().to_string(), mode })
    });
    match looked {
        Ok(secret) => gathered.facts.secret = Some(secret),
        Err(error) => gathered.miss(Examination::Secret, format!("its file cannot be looked at: {error}")),
    }
}

fn secret_path(pid: u32) -> std::io::Result<PathBuf> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let words: Vec<OsString> =
        words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let value = |option: &str| {
        words.iter().enumerate().find_map(|(at, word)| {
            let word = word.to_str()?;
            if word == option {
                return words.get(at + 1).cloned();
            }
            word.strip_prefix(option)?.strip_prefix('=').map(OsString::from)
        })
    };
    let in_state = || {
        let state = value("--state").map_or_else(|| PathBuf::from("/var/lib/sluice"), PathBuf::from);
        state.join("secret")
    };
    let path = value("--secret-file").map_or_else(in_state, PathBuf::from);
    // Where it is not absolute, it is the director's.
    Ok(std::fs::read_link(format!("/proc/{pid}/cwd"))?.join(path))
}

/// The machines of all real servers, and their next hops.
async fn servers(answers: &Answers, netlink: &Netlink, gathered: &mut Gathered) -> Result<NextHops, Error> {
    let reals = answers.model.services().flat_map(|(_, entry)| reals(entry).map(|(real, _)| real.address));
    let addresses: BTreeSet<IpAddr> = reals.collect();
    let (neighbours, mut events) = Neighbours::start(Timing::default()).await?;
    neighbours.watch(addresses.clone()).await?;
    let end = Instant::now() + NEXT_HOPS_WAIT;
    let mut found = BTreeMap::new();
    while found.len() < addresses.len() {
        let Ok(Some(event)) = timeout_at(end, events.recv()).await else { break };
        match event.resolved {
            Some(resolved) => drop(found.insert(event.address, resolved)),
            None => drop(found.remove(&event.address)),
        }
    }
    let mut next_hops = NextHops::new();
    for address in addresses {
        let mut server = Server {
            address,
            is_local: false,
            mac: None,
            is_on_link: false,
            mtu: 0,
            ahead_ms: None,
            way_back: None,
            unfinished_checksums: false,
        };
        match found.get(&address) {
            Some(Resolved::Local) => {
                server.is_local = true;
                next_hops.insert(address, NextHop::Local);
            }
            Some(Resolved::Hop(hop)) => {
                server.mac = Some(hop.destination.to_string());
                let route = Route::to(netlink, address).await;
                server.is_on_link = route.is_ok_and(|route| route.next_hop == address);
                server.mtu = hop.mtu;
                let hop = Hop {
                    interface: hop.interface_index,
                    destination: hop.destination.0,
                    source: hop.source.0,
                    address: hop.source_address,
                };
                next_hops.insert(address, NextHop::Link(hop));
            }
            None => {}
        }
        gathered.facts.servers.push(server);
    }
    Ok(next_hops)
}

/// The ways to be tried.
fn paths(answers: &Answers, gathered: &mut Gathered) {
    for (id, entry) in answers.model.services() {
        let Some((vip, port)) = virtual_place(&answers.model, id) else { continue };
        for (real, spec) in reals(entry) {
            let tunnel = match spec.forwarding {
                Forwarding::DirectRouting => None,
                Forwarding::Tunnel => Some(spec.tunnel),
                Forwarding::Masquerade | Forwarding::Local => continue,
            };
            // The packet keeps its port.
            let real = RealId { address: real.address, port };
            gathered.facts.paths.push(ForwardedPath { service: *id, real, vip, tunnel, result: None });
        }
    }
}

/// VIP and port of a service; 0 where it is not one of TCP with a port: then it cannot be opened.
fn virtual_place(model: &Model, id: &ServiceId) -> Option<(IpAddr, u16)> {
    match *id {
        ServiceId::Address { protocol: Protocol::Tcp, address, port } => Some((address, port)),
        ServiceId::Address { address, .. } => Some((address, 0)),
        ServiceId::Fwmark { mark, family } => {
            let matches = || {
                let marks = model.marks().filter(|it| it.mark == mark).map(|it| it.matched);
                marks.filter(|it| api::Family::of(it.address) == family)
            };
            let port = |matched: &MarkMatch| match matched.ports {
                Ports::Range { first, .. } if matched.protocol == Protocol::Tcp => first,
                Ports::Range { .. } | Ports::Any => 0,
            };
            let best = matches().find(|it| port(it) > 0).or_else(|| matches().next())?;
            Some((best.address, port(&best)))
        }
    }
}

/// The real servers of a service, and its fallback.
fn reals(entry: &ServiceEntry) -> impl Iterator<Item = (RealId, RealSpec)> {
    let fallback = entry.health().fallback.map(|it| (it.real, it.spec));
    entry.reals().map(|(real, it)| (*real, it.spec)).chain(fallback)
}

/// A port of each server whose replies this machine must translate; 0 where none is known.
fn masqueraded(model: &Model) -> Vec<SocketAddr> {
    let mut found: BTreeMap<IpAddr, u16> = BTreeMap::new();
    for (id, entry) in model.services().filter(|(_, entry)| !model.policy(entry).source_nat) {
        let own = match *id {
            ServiceId::Address { port, .. } => port,
            ServiceId::Fwmark { .. } => 0,
        };
        for (real, _) in reals(entry).filter(|(_, spec)| spec.forwarding == Forwarding::Masquerade) {
            let port = found.entry(real.address).or_default();
            if *port == 0 {
                *port = if real.port == 0 { own } else { real.port };
            }
        }
    }
    found.into_iter().map(SocketAddr::from).collect()
}
