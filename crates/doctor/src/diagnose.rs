//! The rules: one function for each examination.

use crate::facts::{Attached, Facts, ForwardedPath, PathResult, Server, Vip, WayBack};
use crate::{Examination, Finding, Severity};
use api::{Tunnel, TunnelChecksum};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Clocks may differ by so many milliseconds.
const CLOCK_MS: i64 = 1000;
/// Hundredths of a table that may be used.
const FULL_PERCENT: u64 = 90;
/// Permissions that only others than the owner have.
const OTHERS: u32 = 0o077;
/// Bytes of IP and TCP headers around a segment.
const HEADERS_IPV4: u32 = 40;
const HEADERS_IPV6: u32 = 60;

/// What is wrong, as far as these examinations see; the worst first, then in their order.
#[must_use]
pub fn diagnose(facts: &Facts, examinations: &[Examination]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for examination in Examination::ALL.into_iter().filter(|it| examinations.contains(it)) {
        let mut tell = |severity, place: String, what: String, fix: String| {
            findings.push(Finding { severity, examination, place, what, fix });
        };
        match examination {
            Examination::Interface => facts.attached.iter().for_each(|it| interface(it, &mut tell)),
            Examination::Xdp => facts.attached.iter().for_each(|it| xdp(it, &mut tell)),
            Examination::Offload => offload(facts, &mut tell),
            Examination::Neighbour => facts.servers.iter().for_each(|it| neighbour(it, &mut tell)),
            Examination::Service => service(facts, &mut tell),
            Examination::Arp => facts.vips.iter().for_each(|it| arp(facts, it, &mut tell)),
            Examination::Path => facts.paths.iter().for_each(|it| path(it, &mut tell)),
            Examination::WayBack => facts.servers.iter().for_each(|it| way_back(it, &mut tell)),
            Examination::Forwarding => forwarding(facts, &mut tell),
            Examination::RpFilter => rp_filter(facts, &mut tell),
            Examination::Mtu => mtu(facts, &mut tell),
            Examination::Clock => facts.servers.iter().for_each(|it| clock(it, &mut tell)),
            Examination::Limits => limits(facts, &mut tell),
            Examination::Secret => secret(facts, &mut tell),
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Takes a finding: severity, place, what is wrong, and the fix.
type Tell<'a> = dyn FnMut(Severity, String, String, String) + 'a;

fn interface(it: &Attached, tell: &mut Tell) {
    let name = it.name.clone();
    let fix = format!("ip link set {name} up");
    match (it.up, it.carrier) {
        (false, _) => tell(Severity::Error, name, "the interface is down".to_owned(), fix),
        (true, false) => {
            let what = "the interface is up, but its other end is not".to_owned();
            let fix = format!("look at the cable or the switch; `ethtool {name}' says what the card sees");
            tell(Severity::Error, name, what, fix);
        }
        (true, true) => {}
    }
}

fn xdp(it: &Attached, tell: &mut Tell) {
    if !it.generic {
        return;
    }
    let name = it.name.clone();
    let what = "its driver has no native XDP, so the packet path runs in generic mode, which is several times slower";
    let fix = format!(
        "give the director an interface below it, or a card whose driver has XDP; `ethtool -i {name}' names the driver"
    );
    tell(Severity::Warning, name, what.to_owned(), fix);
}

fn offload(facts: &Facts, tell: &mut Tell) {
    for it in facts.attached.iter().filter(|it| it.joins_segments) {
        let what =
            "the card joins received segments (LRO), which then fit no way to a real server".to_owned();
        tell(Severity::Error, it.name.clone(), what, format!("ethtool -K {} lro off", it.name));
    }
    for it in facts.servers.iter().filter(|it| it.unfinished_checksums) {
        let what =
            "its packets come with unfinished checksums, which masquerading cannot put right".to_owned();
        let fix = format!("on {}: ethtool -K eth0 tx off tso off gso off", it.address);
        tell(Severity::Error, it.address.to_string(), what, fix);
    }
}

fn neighbour(it: &Server, tell: &mut Tell) {
    if it.is_local || it.mac.is_some() {
        return;
    }
    let address = it.address;
    let what = "no MAC address is known for this real server: nobody answered, or no route leads there";
    let fix =
        format!("ip route get {address}; ping -c 3 {address}; until it answers: sluice drain {address}");
    tell(Severity::Error, address.to_string(), what.to_owned(), fix);
}

fn service(facts: &Facts, tell: &mut Tell) {
    for it in facts.services.iter().filter(|it| it.working == 0) {
        let (what, fix) = match it.declared {
            0 => {
                ("the service has no real servers", "add some: ipvsadm -a, or `servers' in the cluster file")
            }
            _ => (
                "no real server of this service may get work: clients are told that nobody serves",
                "sluice health, which says why each is out; sluice undrain gives work back",
            ),
        };
        tell(Severity::Error, it.id.to_string(), what.to_owned(), fix.to_owned());
    }
}

fn arp(facts: &Facts, vip: &Vip, tell: &mut Tell) {
    let address = vip.address;
    let protocol = if address.is_ipv4() { "ARP" } else { "neighbour solicitations" };
    for answer in &vip.answers {
        let (interface, mac) = (&answer.interface, &answer.mac);
        let is_it = |server: &&Server| server.is_on_link && server.mac.as_ref() == Some(mac);
        // A machine may be two servers, one of each family.
        let is_same = |server: &&Server| server.address.is_ipv4() == address.is_ipv4();
        let mut servers = facts.servers.iter().filter(is_it);
        match servers.clone().find(is_same).or_else(|| servers.next()) {
            Some(server) => {
                let what = format!(
                    "real server {} ({mac}) answers {protocol} for it on {interface}: clients that believe it pass the director by",
                    server.address
                );
                tell(Severity::Error, address.to_string(), what, keep_quiet(address, server.address));
            }
            None => {
                let what = format!(
                    "{mac}, which is no real server, answers {protocol} for it on {interface}: two machines have this address"
                );
                let fix = format!(
                    "find that machine (on a switch by its MAC address {mac}) and take {address} off it"
                );
                tell(Severity::Error, address.to_string(), what, fix);
            }
        }
    }
    if let Some(interface) = &vip.on_link
        && !vip.is_own
        && vip.answers.is_empty()
    {
        let what = format!(
            "nobody answers {protocol} for it on {interface}, of whose network it is: no client finds it"
        );
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        tell(
            Severity::Error,
            address.to_string(),
            what,
            format!("ip addr add {address}/{prefix} dev {interface}"),
        );
    }
}

fn keep_quiet(vip: IpAddr, server: IpAddr) -> String {
    match vip {
        IpAddr::V4(_) => format!(
            "on {server}: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, and the VIP on lo: ip addr \
             add {vip}/32 dev lo"
        ),
        IpAddr::V6(_) => {
            format!("on {server}: take it off the interface, and put it on lo: ip addr add {vip}/128 dev lo")
        }
    }
}

fn path(it: &ForwardedPath, tell: &mut Tell) {
    let (vip, real) = (it.vip, it.real.address);
    let place = format!("{} at {real}", it.service);
    let prefix = if vip.is_ipv4() { 32 } else { 128 };
    match (&it.result, it.tunnel) {
        (None | Some(PathResult::Open { .. }), _) => {}
        (Some(PathResult::Closed), _) => {
            let what = "the server refuses connections to the VIP: nobody listens on this port".to_owned();
            let fix = format!("on {real}: ss -ltn, and have the server listen on {vip} or on every address");
            tell(Severity::Error, place, what, fix);
        }
        (Some(PathResult::Silent), None) => {
            let what = format!("nobody answers for VIP {vip} there: the server does not have it");
            let announce = if vip.is_ipv4() { "; sysctl -w net.ipv4.conf.all.arp_announce=2" } else { "" };
            let fix = format!("on {real}: ip addr add {vip}/{prefix} dev lo{announce}");
            tell(Severity::Error, place, what, fix);
        }
        (Some(PathResult::Silent), Some(tunnel)) => {
            let what =
                format!("nobody answers for VIP {vip} through the tunnel: it has no end there, or no VIP");
            let device = match tunnel {
                Tunnel::Ipip => "ip link set tunl0 up; ".to_owned(),
                Tunnel::Gre { .. } => "ip link set gre0 up; ".to_owned(),
                Tunnel::Gue { port, .. } => format!("ip fou add port {port} gue; ip link set tunl0 up; "),
            };
            let device = if vip.is_ipv4() && real.is_ipv4() { device } else { String::new() };
            let fix = format!(
                "on {real}: {device}ip addr add {vip}/{prefix} dev lo; sysctl -w net.ipv4.conf.all.rp_filter=0, and of the tunnel's \
                 device too"
            );
            tell(Severity::Error, place, what, fix);
        }
    }
}

fn way_back(it: &Server, tell: &mut Tell) {
    if it.way_back != Some(WayBack::Elsewhere) {
        return;
    }
    let what =
        "its answers to clients do not come through this machine, which must translate them".to_owned();
    let fix = format!(
        "on {}: ip route replace default via an address of this director; or here: full NAT, by sluice policy SERVICE \
         --source-nat on",
        it.address
    );
    tell(Severity::Error, it.address.to_string(), what, fix);
}

fn forwarding(facts: &Facts, tell: &mut Tell) {
    let keys = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    for (key, (masquerades, forwards)) in
        keys.into_iter().zip(facts.masquerades.into_iter().zip(facts.forwards))
    {
        if masquerades && forwards == Some(false) {
            let what = "masquerading is used, and this machine does not forward: replies go back only where the client's last new \
                        connection came from, and what else the servers send is dropped";
            tell(Severity::Warning, key.to_owned(), what.to_owned(), format!("sysctl -w {key}=1"));
        }
    }
}

fn rp_filter(facts: &Facts, tell: &mut Tell) {
    let Some(default) = &facts.default_interface else { return };
    if facts.attached.iter().any(|it| it.name == *default) {
        return;
    }
    for it in facts.attached.iter().filter(|it| it.rp_filter == Some(1)) {
        let name = &it.name;
        let what = format!(
            "clients from afar come by an attached interface, but the way to them is {default}, so a strict rp_filter drops what of \
             theirs is left to the host: ping, ICMP errors, other ports"
        );
        // A dot in a name, as VLAN interfaces have it, takes slashes around it.
        let fix = match name.contains('.') {
            true => format!("sysctl -w net/ipv4/conf/{name}/rp_filter=2"),
            false => format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        };
        tell(Severity::Warning, name.clone(), what, fix);
    }
}

/// Bytes in front of a packet in this tunnel to an address of this family.
fn overhead(tunnel: Tunnel, to: IpAddr) -> u32 {
    let outer = if to.is_ipv4() { 20 } else { 40 };
    outer
        + match tunnel {
            Tunnel::Ipip => 0,
            Tunnel::Gre { checksum: TunnelChecksum::None } => 4,
            Tunnel::Gre { .. } => 8,
            Tunnel::Gue { .. } => 12,
        }
}

fn mtu(facts: &Facts, tell: &mut Tell) {
    let clients = facts.attached.iter().map(|it| it.mtu).max().unwrap_or(0);
    let mut told = BTreeSet::new();
    for it in &facts.paths {
        let Some(tunnel) = it.tunnel else { continue };
        let address = it.real.address;
        let Some(server) = facts.servers.iter().find(|it| it.address == address && it.mac.is_some()) else {
            continue;
        };
        let room = server.mtu.saturating_sub(overhead(tunnel, address));
        let headers = if it.vip.is_ipv4() { HEADERS_IPV4 } else { HEADERS_IPV6 };
        // A server that says so gets no longer segments.
        let length = match it.result {
            Some(PathResult::Open { mss: Some(mss) }) => clients.min(u32::from(mss) + headers),
            _ => clients,
        };
        if length <= room || !told.insert((address, it.vip.is_ipv4())) {
            continue;
        }
        let what = format!(
            "packets of {length} bytes do not fit its tunnel, which takes {room}: each client must be told by ICMP, which some \
             never get"
        );
        let fix = format!(
            "on {address}: ip route change default ... advmss {}; or raise the MTU of the way to it to {}",
            room.saturating_sub(headers),
            length + overhead(tunnel, address)
        );
        tell(Severity::Warning, address.to_string(), what, fix);
    }
}

fn clock(it: &Server, tell: &mut Tell) {
    let Some(ahead) = it.ahead_ms.filter(|ahead| ahead.abs() > CLOCK_MS) else { return };
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let (seconds, tenths) = (ahead.abs() / 1000, ahead.abs() % 1000 / 100);
    let what = format!("its clock is {seconds}.{tenths} s {direction} this machine's");
    let fix = format!("on {} and here: timedatectl set-ntp true", it.address);
    tell(Severity::Warning, it.address.to_string(), what, fix);
}

fn limits(facts: &Facts, tell: &mut Tell) {
    for it in facts.fillings.iter().filter(|it| it.used * 100 >= it.max * FULL_PERCENT && it.max > 0) {
        let what = format!("{} of {} {} are used", it.used, it.max, it.what);
        let fix = format!(
            "sluice director --remove, which forgets all flows, and start it with --{} {}",
            it.option,
            it.max * 2
        );
        tell(Severity::Warning, it.what.to_owned(), what, fix);
    }
}

fn secret(facts: &Facts, tell: &mut Tell) {
    let Some(it) = facts.secret.as_ref().filter(|it| it.mode & OTHERS != 0) else { return };
    let what = format!(
        "others than its owner may use the cluster's secret (mode {:04o}): who knows it can choose addresses that all meet one server",
        it.mode & 0o7777
    );
    tell(Severity::Warning, it.path.clone(), what, format!("chmod 600 {}", it.path));
}

#[cfg(test)]
mod tests;
