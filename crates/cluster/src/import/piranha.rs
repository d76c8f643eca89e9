//! `lvs.cf` of Piranha.

use super::draft::{
    Draft, HOST, HOT_STANDBY, OWN_RUNNING, Real, Service, UNKNOWN, check, persistence, real_spec, seconds,
    service_spec,
};
use super::lines::{Node, blocks};
use crate::resolve::DeclaredDirector;
use api::{
    Change, Check, CheckKind, Exchange, Expect, Family, Forwarding, HealthSpec, MarkMatch, Octets, OnFailure,
    Ports, Protocol, RealId, Rhythm, ServiceId, Transport,
};
use std::collections::HashMap;
use std::net::IpAddr;

/// Seconds until a server that does not answer has failed, and until one that came back gets work.
const TIMEOUT_MS: u32 = 6_000;
const REENTRY_MS: u32 = 15_000;

/// The key and the value of `key = value`.
fn entry(node: &Node) -> (&str, String) {
    match node.words.get(1).map(String::as_str) {
        Some("=") => (node.key(), node.words.get(2..).unwrap_or_default().join(" ")),
        _ => match node.key().split_once('=') {
            Some((key, value)) => {
                let rest = node.arguments().iter().map(String::as_str);
                (key, std::iter::once(value).chain(rest).collect::<Vec<_>>().join(" "))
            }
            None => (node.key(), node.arguments().join(" ")),
        },
    }
}

pub(super) fn import(text: &str, draft: &mut Draft) {
    let (nodes, wrong) = blocks(text, &['#']);
    for (line, why) in wrong {
        draft.leave(line, text.lines().nth(line - 1).unwrap_or_default(), why);
    }
    let network = nodes.iter().map(entry).find(|(key, _)| *key == "network").map(|(_, value)| value);
    let forwarding = match network.as_deref() {
        Some("direct") => Forwarding::DirectRouting,
        Some("tunnel") => Forwarding::Tunnel,
        _ => Forwarding::Masquerade,
    };
    // The first virtual server of each mark has its service.
    let mut marks = HashMap::new();
    for node in &nodes {
        let (key, value) = entry(node);
        match key {
            "network" if matches!(value.as_str(), "direct" | "tunnel" | "nat") => {}
            "virtual" if node.block.is_some() => virtual_server(node, forwarding, &mut marks, draft),
            "primary" | "backup" => director(node, key, &value, draft),
            "nat_router" | "nat_nmask" => draft.leave(node.line, &node.text(), HOST),
            "serial_no" | "service" | "rsh_command" | "debug_level" | "tcp_timeout" | "tcpfin_timeout"
            | "udp_timeout" => {
                draft.leave(node.line, &node.text(), OWN_RUNNING);
            }
            "backup_active"
            | "heartbeat"
            | "heartbeat_port"
            | "keepalive"
            | "deadtime"
            | "monitor_links"
            | "primary_private"
            | "backup_private"
            | "syncdaemon"
            | "syncd_iface"
            | "syncd_id"
            | "reservation_conflict_action"
            | "failover" => {
                draft.leave(node.line, &node.text(), HOT_STANDBY);
            }
            _ => draft.leave(node.line, &node.text(), UNKNOWN),
        }
    }
}

fn director(node: &Node, name: &str, value: &str, draft: &mut Draft) {
    let known = draft.hints.directors.iter().any(|it| it.name == name);
    let Some(address) = draft.host(value).filter(|_| !known) else {
        draft.leave(node.line, &node.text(), HOT_STANDBY);
        return;
    };
    let priority = if name == "primary" { 200 } else { 100 };
    let director = DeclaredDirector {
        name: name.to_owned(),
        addresses: vec![address],
        interfaces: Vec::new(),
        priority,
    };
    draft.hints.directors.push(director);
}

/// What the entries of a virtual server say, as far as they belong together.
struct Entries<'n>(Vec<(&'n Node, &'n str, String)>);

impl Entries<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(_, known, _)| *known == key).map(|(_, _, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.text(key).and_then(|text| text.parse().ok())
    }
}

fn virtual_server(node: &Node, forwarding: Forwarding, marks: &mut HashMap<u32, String>, draft: &mut Draft) {
    let name = node.argument().to_owned();
    let plain = node.inside().iter().filter(|it| it.block.is_none());
    let entries =
        Entries(plain.map(|it| (it, entry(it))).map(|(it, (key, value))| (it, key, value)).collect());
    if entries.text("active") == Some("0") {
        draft.leave(node.line, &node.text(), "it is not active");
        return;
    }
    let protocol = entries.text("protocol").and_then(|text| text.parse().ok()).unwrap_or(Protocol::Tcp);
    let address = entries.text("address").and_then(|text| draft.host(text.split_whitespace().next()?));
    let Some(address) = address else {
        draft.leave(node.line, &node.text(), "it has no address; all of it is left");
        return;
    };
    let port = entries.number("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let family = Family::of(address);
    let mark = entries.number("fwmark").filter(|mark| *mark > 0);
    let id = match mark {
        Some(mark) => ServiceId::Fwmark { mark, family },
        None => ServiceId::Address { protocol, address, port },
    };
    let mut service = Service {
        line: node.line,
        ids: vec![id],
        name: Some(name.clone()),
        spec: service_spec(entries.text("scheduler").unwrap_or("wlc")),
        reals: Vec::new(),
        health: HealthSpec::default(),
    };
    options(&entries, family, &mut service, draft);
    let checks = check_of(&entries, protocol, draft);
    for it in node.inside().iter().filter(|it| it.block.is_some()) {
        match it.key() {
            "server" => service.reals.extend(server(it, port, forwarding, &checks, draft)),
            _ => draft.leave(it.line, &it.text(), UNKNOWN),
        }
    }
    if let Some(mark) = mark {
        marked(mark, MarkPlace { address, port, protocol }, &service, marks, draft);
    } else {
        draft.add(&service);
    }
}

struct MarkPlace {
    address: IpAddr,
    port: u16,
    protocol: Protocol,
}

/// Virtual servers of one mark are one service; each says which packets have the mark.
fn marked(
    mark: u32,
    place: MarkPlace,
    service: &Service,
    marks: &mut HashMap<u32, String>,
    draft: &mut Draft,
) {
    let MarkPlace { address, port, protocol } = place;
    let what = service.name.clone().unwrap_or_default();
    let ports = if port == 0 { Ports::Any } else { Ports::Range { first: port, last: port } };
    let matched = MarkMatch { protocol, address, ports };
    draft.apply(service.line, &what, &Change::AddMark { matched, mark });
    match marks.get(&mark) {
        Some(first) => {
            let why = format!(
                "mark {mark} is the service of `{first}': only which packets have the mark is carried over"
            );
            draft.leave(service.line, &what, why);
        }
        None => {
            marks.insert(mark, what);
            draft.add(service);
        }
    }
}

fn options(entries: &Entries, family: Family, service: &mut Service, draft: &mut Draft) {
    let has_time = entries.number("persistent").filter(|time| *time > 0);
    service.spec.persistence = has_time.and_then(|time| persistence(time, entries.text("pmask"), family));
    for (node, key, value) in &entries.0 {
        match *key {
            "active" | "port" | "scheduler" | "protocol" | "timeout" | "reentry" | "send" | "expect"
            | "use_regex" | "fwmark" => {}
            "load_monitor" if value == "none" => {}
            "quiesce_server" if value == "0" => {}
            "quiesce_server" if value == "1" => service.health.on_failure = OnFailure::Quiesce,
            "persistent" if service.spec.persistence.is_some() || value == "0" => {}
            "pmask" if service.spec.persistence.is_some() => {}
            "pmask" => draft.leave(node.line, &node.text(), "it says nothing without `persistent'"),
            // Its device is the host's.
            "address" if value.split_whitespace().count() == 1 => {}
            "address" => draft.leave(
                node.line,
                &node.text(),
                format!("the VIP is carried over; of its device: {HOST}"),
            ),
            "vip_nmask" => draft.leave(node.line, &node.text(), HOST),
            "load_monitor" => {
                draft.leave(
                    node.line,
                    &node.text(),
                    "here servers report their load to a check of type `load'",
                );
            }
            "send_program" => {
                draft.leave(
                    node.line,
                    &node.text(),
                    "a check of type `program' tells by its exit code, not by what it prints",
                );
            }
            _ => draft.leave(node.line, &node.text(), UNKNOWN),
        }
    }
}

fn check_of(entries: &Entries, protocol: Protocol, draft: &mut Draft) -> Vec<Check> {
    let timeout_ms = entries.text("timeout").and_then(seconds).filter(|ms| *ms > 0).unwrap_or(TIMEOUT_MS);
    let reentry_ms = entries.text("reentry").and_then(seconds).unwrap_or(REENTRY_MS);
    // A server is looked at once in each time-out, and must be good for as long as the time of re-entry.
    let rise = u16::try_from(reentry_ms.div_ceil(timeout_ms).clamp(1, 1000)).unwrap_or(1000);
    let rhythm = Rhythm { interval_ms: timeout_ms, timeout_ms, rise, fall: 1, ..Rhythm::default() };
    let expect = match (entries.text("expect"), entries.text("use_regex")) {
        (None, _) => Expect::Nothing,
        (Some(text), Some("1")) => Expect::Matches(text.to_owned()),
        (Some(text), _) => Expect::Begins(Octets(text.as_bytes().to_vec())),
    };
    let send = Octets(entries.text("send").unwrap_or_default().as_bytes().to_vec());
    let over = if protocol == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
    let kind = match (&expect, entries.text("send_program")) {
        // What the program prints is expected, not what the server sends.
        (_, Some(_)) if protocol != Protocol::Udp => CheckKind::Tcp,
        (_, Some(_)) => return Vec::new(),
        (Expect::Nothing, _) if send.0.is_empty() && over == Transport::Tcp => CheckKind::Tcp,
        (Expect::Nothing, _) if send.0.is_empty() => return Vec::new(),
        _ => CheckKind::Exchange(Exchange { over, send, expect }),
    };
    let made = check(kind, rhythm);
    if let Err(why) = plan::health_check(&made) {
        let line = entries.0.first().map_or(1, |(node, ..)| node.line);
        draft.leave(line, "send, expect", why);
        return Vec::new();
    }
    vec![made]
}

fn server(
    node: &Node,
    port: u16,
    forwarding: Forwarding,
    checks: &[Check],
    draft: &mut Draft,
) -> Option<Real> {
    let entries: Vec<(&Node, (&str, String))> = node.inside().iter().map(|it| (it, entry(it))).collect();
    let text = |key: &str| {
        entries.iter().find(|(_, (known, _))| *known == key).map(|(_, (_, value))| value.as_str())
    };
    let number = |key: &str| text(key).and_then(|text| text.parse::<u32>().ok());
    let Some(address) = text("address").and_then(|text| draft.host(text)) else {
        draft.leave(node.line, &node.text(), "it has no address");
        return None;
    };
    if text("active") == Some("0") {
        draft.leave(node.line, &node.text(), "it is not active");
        return None;
    }
    for (it, (key, _)) in &entries {
        if !matches!(*key, "address" | "active" | "weight" | "port") {
            draft.leave(it.line, &it.text(), UNKNOWN);
        }
    }
    let port = number("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(port);
    let spec = real_spec(forwarding, number("weight").unwrap_or(1));
    Some(Real { line: node.line, id: RealId { address, port }, spec, checks: checks.to_vec() })
}
