//! `keepalived.conf`: its virtual servers, and of its VRRP instances what names a director.

use super::draft::{
    ALERTS, Draft, HOST, HOT_STANDBY, OWN_RUNNING, Real, Service, UNKNOWN, persistence, real_spec,
    service_spec,
};
use super::keepalived_checks::{Defaults, check};
use super::lines::{Node, blocks};
use crate::resolve::DeclaredDirector;
use api::{
    Fallback, Family, Forwarding, HealthSpec, OnFailure, Protocol, RealId, ServiceId, Tunnel, TunnelChecksum,
};
use std::collections::HashMap;
use std::net::IpAddr;

/// Persistence without a time.
const PERSISTENCE_S: u32 = 360;

/// Services that one line may stand for.
const IDENTITIES_MAX: usize = 4096;

pub(super) fn import(text: &str, draft: &mut Draft) {
    let (nodes, wrong) = blocks(text, &['#', '!']);
    for (line, why) in wrong {
        draft.leave(line, text.lines().nth(line - 1).unwrap_or_default(), why);
    }
    let of_key = |key: &'static str| nodes.iter().filter(move |node| node.key() == key);
    let groups: HashMap<&str, &Node> =
        of_key("virtual_server_group").map(|node| (node.argument(), node)).collect();
    for node in &nodes {
        match node.key() {
            "virtual_server" => virtual_server(node, &groups, draft),
            // It says something where a virtual server names it.
            "virtual_server_group" => {
                let named = |it: &Node| {
                    it.words.get(1).is_some_and(|word| word == "group")
                        && it.words.get(2) == node.words.get(1)
                };
                if !of_key("virtual_server").any(named) {
                    draft.leave(node.line, &node.text(), "no virtual server names this group");
                }
            }
            "vrrp_instance" => vrrp_instance(node, draft),
            key if key.starts_with("vrrp")
                || matches!(key, "bfd_instance" | "garp_group" | "track_process") =>
            {
                draft.leave(node.line, &node.text(), HOT_STANDBY);
            }
            "global_defs" => draft.leave(node.line, &node.text(), OWN_RUNNING),
            key if key.starts_with("static_") => draft.leave(node.line, &node.text(), HOST),
            key if key.starts_with("include") => draft.leave(node.line, &node.text(), "import that file too"),
            key if key.starts_with(['@', '$']) => {
                draft.leave(
                    node.line,
                    &node.text(),
                    "conditions and variables of keepalived are not followed",
                );
            }
            "SSL" => draft.leave(node.line, &node.text(), "give certificates in `tls' of the checks"),
            _ => draft.leave(node.line, &node.text(), UNKNOWN),
        }
    }
}

/// A director, if the instance says which address is its own.
fn vrrp_instance(node: &Node, draft: &mut Draft) {
    let of = |key: &str| node.inside().iter().find(|node| node.key() == key);
    let source = of("unicast_src_ip").or(of("mcast_src_ip"));
    let Some(address) = source.and_then(|node| draft.host(node.argument())) else {
        draft.leave(node.line, &node.text(), HOT_STANDBY);
        return;
    };
    let priority =
        of("priority").and_then(|node| node.argument().parse().ok()).filter(|it| (1..=254).contains(it));
    let name: String = node
        .argument()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(50)
        .collect();
    let taken = |name: &str| draft.hints.directors.iter().any(|it| it.name == name);
    if name.is_empty() || taken(&name) {
        draft.leave(node.line, &node.text(), "a director needs a name of its own");
        return;
    }
    let interfaces = of("interface").map(|node| node.argument().to_owned()).into_iter().collect();
    let director =
        DeclaredDirector { name, addresses: vec![address], interfaces, priority: priority.unwrap_or(100) };
    draft.hints.directors.push(director);
    for it in node.inside() {
        let carried = matches!(it.key(), "unicast_src_ip" | "mcast_src_ip" | "interface")
            || it.key() == "priority" && priority.is_some();
        if !carried {
            draft.leave(it.line, &it.text(), HOT_STANDBY);
        }
    }
}

/// What `virtual_server` names.
fn identities(
    node: &Node,
    protocol: Protocol,
    family: Family,
    groups: &HashMap<&str, &Node>,
    draft: &mut Draft,
) -> Vec<ServiceId> {
    let arguments = node.arguments();
    match (node.argument(), arguments.get(1)) {
        ("group", Some(name)) => match groups.get(name.as_str()) {
            Some(group) => {
                let lines = group.inside().iter();
                lines.flat_map(|line| line_identities(line, &line.words, protocol, family, draft)).collect()
            }
            None => {
                draft.leave(node.line, &node.text(), format!("there is no group `{name}'"));
                Vec::new()
            }
        },
        _ => line_identities(node, arguments, protocol, family, draft),
    }
}

/// `VIP PORT`, `VIP-LAST PORT`, `VIP FIRST-LAST` or `fwmark N`.
fn line_identities(
    node: &Node,
    words: &[String],
    protocol: Protocol,
    family: Family,
    draft: &mut Draft,
) -> Vec<ServiceId> {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    if word(0) == "fwmark" {
        return match word(1).parse() {
            Ok(mark) if mark > 0 => vec![ServiceId::Fwmark { mark, family }],
            _ => {
                draft.leave(node.line, &node.text(), "a mark is a number from 1");
                Vec::new()
            }
        };
    }
    let (first, last) = word(1).split_once('-').unwrap_or((word(1), word(1)));
    let ports = match word(1) {
        "" => Some((0, 0)),
        _ => first.parse::<u16>().ok().zip(last.parse::<u16>().ok()),
    };
    match (addresses(word(0)), ports) {
        (Some(addresses), Some((first, last)))
            if first <= last && addresses.len() * (usize::from(last - first) + 1) <= IDENTITIES_MAX =>
        {
            let ports =
                move |address| (first..=last).map(move |port| ServiceId::Address { protocol, address, port });
            addresses.into_iter().flat_map(ports).collect()
        }
        _ => {
            draft.leave(
                node.line,
                &node.text(),
                "expected a VIP and a port, or fwmark and a number; ranges of 4096 at most",
            );
            Vec::new()
        }
    }
}

/// One address, or a range of the last part of IPv4 ones.
fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = text.parse() {
        return Some(vec![address]);
    }
    let (first, last) = text.split_once('-')?;
    let (IpAddr::V4(first), last) = (first.parse().ok()?, last.parse::<u8>().ok()?) else { return None };
    let [a, b, c, from] = first.octets();
    (from <= last).then(|| (from..=last).map(|d| IpAddr::from([a, b, c, d])).collect())
}

fn virtual_server(node: &Node, groups: &HashMap<&str, &Node>, draft: &mut Draft) {
    let of = |key: &str| node.inside().iter().find(|node| node.key() == key);
    let protocol = of("protocol").and_then(|node| node.argument().parse().ok()).unwrap_or(Protocol::Tcp);
    let is_v6 = of("ip_family").is_some_and(|node| node.argument() == "inet6");
    let family = if is_v6 { Family::Ipv6 } else { Family::Ipv4 };
    let ids = identities(node, protocol, family, groups, draft);
    let name = (node.argument() == "group").then(|| node.words.get(2).cloned()).flatten();
    let mut service = Service {
        line: node.line,
        ids,
        name,
        spec: service_spec("wlc"),
        reals: Vec::new(),
        health: HealthSpec::default(),
    };
    let (mut forwarding, mut tunnel) = (Forwarding::Masquerade, Tunnel::default());
    let mut defaults = Defaults::default();
    // What all of its servers start from must be known before them.
    for it in node.inside() {
        match it.key() {
            "lvs_method" | "lb_kind" => match method(it) {
                Some((way, wrap)) => (forwarding, tunnel) = (way, wrap),
                None => draft.leave(it.line, &it.text(), "expected NAT, DR or TUN"),
            },
            "inhibit_on_failure" if is_on(it) => service.health.on_failure = OnFailure::Quiesce,
            key if Defaults::knows(key) => defaults.take(it, draft),
            _ => {}
        }
    }
    let mut inhibited = Vec::new();
    for it in node.inside() {
        match it.key() {
            "real_server" => {
                let spec = api::RealSpec { tunnel, ..real_spec(forwarding, 1) };
                if let Some((real, inhibits)) = real_server(it, spec, &defaults, draft) {
                    service.reals.push(real);
                    inhibited.push((it.line, inhibits));
                }
            }
            _ => option(it, &mut service, forwarding, tunnel, draft),
        }
    }
    inhibit(&inhibited, &mut service, draft);
    draft.add(&service);
}

/// What becomes of failed servers is a matter of the whole service here.
fn inhibit(inhibited: &[(usize, bool)], service: &mut Service, draft: &mut Draft) {
    if service.health.on_failure == OnFailure::Quiesce || inhibited.iter().all(|(_, inhibits)| !inhibits) {
        return;
    }
    if inhibited.iter().all(|(_, inhibits)| *inhibits) {
        service.health.on_failure = OnFailure::Quiesce;
        return;
    }
    for (line, _) in inhibited.iter().filter(|(_, inhibits)| *inhibits) {
        draft.leave(
            *line,
            "inhibit_on_failure",
            "here it is for all servers of a service or for none: `on_failure'",
        );
    }
}

/// Options of a virtual server that do not belong to its servers.
fn option(node: &Node, service: &mut Service, forwarding: Forwarding, tunnel: Tunnel, draft: &mut Draft) {
    let family = service.ids.first().map_or(Family::Ipv4, ServiceId::family);
    let flags = &mut service.spec.scheduler_flags;
    match node.key() {
        "protocol" if node.argument().parse::<Protocol>().is_ok() => {}
        "ip_family" if matches!(node.argument(), "inet" | "inet6") => {}
        "lvs_method" | "lb_kind" => {}
        "inhibit_on_failure" => {}
        key if Defaults::knows(key) => {}
        // A server gets no work before its first pass, so this is how it is.
        "alpha" if is_on(node) => {}
        "quorum" if node.argument() == "1" => {}
        "hysteresis" if node.argument() == "0" => {}
        "lvs_sched" | "lb_algo" => service.spec.scheduler = node.argument().to_owned(),
        "flag-1" | "sh-fallback" | "mh-fallback" => flags.flag_1 = true,
        "flag-2" | "sh-port" | "mh-port" => flags.flag_2 = true,
        "flag-3" => flags.flag_3 = true,
        "ops" => service.spec.one_packet = true,
        "persistence_engine" => service.spec.persistence_engine = Some(node.argument().to_owned()),
        "persistence_timeout" | "persistence_granularity" => persist(node, family, service, draft),
        "sorry_server" => sorry_server(node, service, real_spec_of(forwarding, tunnel), draft),
        "sorry_server_lvs_method" => match (method(node), &mut service.health.fallback) {
            (Some((way, wrap)), Some(fallback)) => {
                (fallback.spec.forwarding, fallback.spec.tunnel) = (way, wrap);
            }
            _ => draft.leave(node.line, &node.text(), "expected NAT, DR or TUN, behind a sorry_server"),
        },
        "quorum_up" | "quorum_down" | "smtp_alert" => draft.leave(node.line, &node.text(), ALERTS),
        "quorum" | "hysteresis" => {
            draft.leave(
                node.line,
                &node.text(),
                "the fallback gets work when no server is left; `panic_percent' is near it",
            );
        }
        "ha_suspend" => draft.leave(node.line, &node.text(), HOT_STANDBY),
        "omega" | "sorry_server_inhibit" => {
            draft.leave(node.line, &node.text(), "there is no such choice here")
        }
        _ => draft.leave(node.line, &node.text(), UNKNOWN),
    }
}

fn real_spec_of(forwarding: Forwarding, tunnel: Tunnel) -> api::RealSpec {
    api::RealSpec { tunnel, ..real_spec(forwarding, 1) }
}

fn persist(node: &Node, family: Family, service: &mut Service, draft: &mut Draft) {
    let known = service.spec.persistence;
    let made = match (node.key(), node.arguments().first()) {
        ("persistence_timeout", None) => persistence(PERSISTENCE_S, None, family),
        ("persistence_timeout", Some(text)) => {
            text.parse().ok().filter(|time| *time > 0).and_then(|time| persistence(time, None, family))
        }
        (_, mask) => {
            persistence(known.map_or(PERSISTENCE_S, |it| it.timeout_s), mask.map(String::as_str), family)
        }
    };
    let Some(mut made) = made else {
        draft.leave(node.line, &node.text(), "expected seconds, a netmask or a prefix length");
        return;
    };
    // The time may stand before the mask or behind it.
    if let (Some(known), "persistence_timeout") = (known, node.key()) {
        made.mask = known.mask;
    }
    service.spec.persistence = Some(made);
}

fn sorry_server(node: &Node, service: &mut Service, spec: api::RealSpec, draft: &mut Draft) {
    let Some(id) = place(node.arguments(), draft) else {
        draft.leave(node.line, &node.text(), "expected an address and a port");
        return;
    };
    // One that is not masqueraded keeps the port of the service.
    let own = match service.ids.first() {
        Some(ServiceId::Address { port, .. }) => *port,
        _ => id.port,
    };
    let port = if spec.forwarding == Forwarding::Masquerade { id.port } else { own };
    service.health.fallback = Some(Fallback { real: RealId { port, ..id }, spec });
}

/// `IP PORT`.
fn place(words: &[String], draft: &Draft) -> Option<RealId> {
    let address = draft.host(words.first()?)?;
    let port = words.get(1).map_or(Some(0), |text| draft.port(text, Protocol::Tcp))?;
    Some(RealId { address, port })
}

/// A real server, and whether its weight is 0 when it failed.
fn real_server(
    node: &Node,
    spec: api::RealSpec,
    defaults: &Defaults,
    draft: &mut Draft,
) -> Option<(Real, bool)> {
    let Some(id) = place(node.arguments(), draft) else {
        draft.leave(node.line, &node.text(), "expected an address and a port");
        return None;
    };
    let mut real = Real { line: node.line, id, spec, checks: Vec::new() };
    let mut inhibits = false;
    let mut defaults = defaults.clone();
    node.inside().iter().filter(|it| Defaults::knows(it.key())).for_each(|it| defaults.take(it, draft));
    for it in node.inside() {
        let number = it.argument().parse::<u32>().ok();
        match (it.key(), number) {
            (key, _) if Defaults::knows(key) => {}
            ("weight", Some(weight)) => real.spec.weight = weight,
            ("uthreshold", Some(upper)) => real.spec.upper_threshold = upper,
            ("lthreshold", Some(lower)) => real.spec.lower_threshold = lower,
            ("lvs_method", _) if method(it).is_some() => {
                if let Some((way, wrap)) = method(it) {
                    (real.spec.forwarding, real.spec.tunnel) = (way, wrap);
                }
            }
            ("inhibit_on_failure", _) => inhibits = is_on(it),
            ("alpha", _) if is_on(it) => {}
            ("notify_up" | "notify_down" | "smtp_alert", _) => draft.leave(it.line, &it.text(), ALERTS),
            (key, _) if key.ends_with("_CHECK") || key.ends_with("_GET") => {
                real.checks.extend(check(it, &defaults, draft))
            }
            _ => draft.leave(it.line, &it.text(), UNKNOWN),
        }
    }
    Some((real, inhibits))
}

/// A switch without a word is on.
fn is_on(node: &Node) -> bool {
    matches!(node.argument(), "" | "on" | "true" | "yes")
}

/// `NAT`, `DR`, or `TUN` with its encapsulation.
fn method(node: &Node) -> Option<(Forwarding, Tunnel)> {
    match node.argument() {
        "NAT" => Some((Forwarding::Masquerade, Tunnel::default())),
        "DR" => Some((Forwarding::DirectRouting, Tunnel::default())),
        "TUN" => {
            let words = node.arguments();
            let behind =
                |key: &str| words.iter().position(|word| word == key).and_then(|at| words.get(at + 1));
            let has = |key: &str| words.iter().any(|word| word == key);
            let checksum = match (has("csum"), has("remcsum")) {
                (true, _) => TunnelChecksum::Full,
                (_, true) => TunnelChecksum::Remote,
                _ => TunnelChecksum::None,
            };
            let tunnel = match behind("type").map_or("ipip", String::as_str) {
                "ipip" => Tunnel::Ipip,
                "gre" => Tunnel::Gre { checksum },
                "gue" => Tunnel::Gue { port: behind("port")?.parse().ok()?, checksum },
                _ => return None,
            };
            Some((Forwarding::Tunnel, tunnel))
        }
        _ => None,
    }
}
