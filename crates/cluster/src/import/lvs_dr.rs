//! `lvs_dr.conf`, `lvs_nat.conf` and `lvs_tun.conf`: what the configure script of the LVS-HOWTO reads.

use super::draft::{Draft, HOST, OWN_RUNNING, Real, Service, UNKNOWN, persistence, real_spec, service_spec};
use super::lines::{pair, words};
use api::{Family, Forwarding, HealthSpec, Protocol, RealId, ServiceId};
use std::net::IpAddr;

pub(super) fn import(text: &str, draft: &mut Draft) {
    let (mut forwarding, mut vip) = (None, None);
    let mut services = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let body = text.split('#').next().unwrap_or_default();
        if body.trim().is_empty() {
            continue;
        }
        let Some((key, value)) = pair(body) else {
            draft.leave(line, text, "expected KEY=VALUE");
            continue;
        };
        match key {
            "LVS_TYPE" => match value {
                "VS_DR" => forwarding = Some(Forwarding::DirectRouting),
                "VS_NAT" => forwarding = Some(Forwarding::Masquerade),
                "VS_TUN" => forwarding = Some(Forwarding::Tunnel),
                _ => draft.leave(line, text, "expected VS_DR, VS_NAT or VS_TUN"),
            },
            "VIP" => match value.split_whitespace().nth(1).and_then(|host| draft.host(host)) {
                Some(address) => {
                    vip = Some(address);
                    draft.leave(
                        line,
                        text,
                        format!("the VIP is carried over; of device, netmask and broadcast: {HOST}"),
                    );
                }
                None => draft.leave(line, text, "expected DEVICE VIP NETMASK BROADCAST"),
            },
            "SERVICE" => services.push((line, value.to_owned())),
            "LVSCONF_FORMAT" | "INITIAL_STATE" | "CLEAR_IPVS_TABLES" => draft.leave(line, text, OWN_RUNNING),
            key if key == "DIP"
                || key.starts_with("DIRECTOR_")
                || key.starts_with("SERVER_")
                || key.starts_with("RIP_") =>
            {
                draft.leave(line, text, HOST);
            }
            _ => draft.leave(line, text, UNKNOWN),
        }
    }
    for (line, value) in services {
        match (vip, forwarding) {
            (Some(vip), Some(forwarding)) => service(line, &value, vip, forwarding, draft),
            _ => draft.leave(line, &format!("SERVICE={value}"), "LVS_TYPE and VIP do not say how and where"),
        }
    }
}

/// `PROTOCOL PORT SCHEDULER [PERSISTENCE] SERVER...`; a server is `HOST[:PORT][,WEIGHT]`.
fn service(line: usize, value: &str, vip: IpAddr, forwarding: Forwarding, draft: &mut Draft) {
    let what = format!("SERVICE={value}");
    let words = words(value, &[]);
    let protocol = match words.first().map(String::as_str) {
        Some("t") => Some(Protocol::Tcp),
        Some("u") => Some(Protocol::Udp),
        _ => None,
    };
    let port = protocol.zip(words.get(1)).and_then(|(protocol, port)| draft.port(port, protocol));
    let (Some(protocol), Some(port), Some(scheduler)) = (protocol, port, words.get(2)) else {
        draft.leave(line, &what, "expected t or u, a port, a scheduler, and servers");
        return;
    };
    let mut service = Service {
        line,
        ids: vec![ServiceId::Address { protocol, address: vip, port }],
        name: None,
        spec: service_spec(scheduler),
        reals: Vec::new(),
        health: HealthSpec::default(),
    };
    let mut servers = words.get(3..).unwrap_or_default();
    if let Some(time) = servers.first().and_then(|word| word.parse().ok()).filter(|time| *time > 0) {
        service.spec.persistence = persistence(time, None, Family::of(vip));
        servers = &servers[1..];
    }
    for server in servers {
        match real(server, protocol, port, forwarding, draft) {
            Some((id, weight)) => {
                service.reals.push(Real {
                    line,
                    id,
                    spec: real_spec(forwarding, weight),
                    checks: Vec::new(),
                });
            }
            None => draft.leave(
                line,
                server,
                "expected HOST:PORT,WEIGHT with an address, or a name that can be looked up",
            ),
        }
    }
    draft.add(&service);
}

fn real(
    text: &str,
    protocol: Protocol,
    own: u16,
    forwarding: Forwarding,
    draft: &Draft,
) -> Option<(RealId, u32)> {
    let (place, weight) = text.split_once(',').unwrap_or((text, "1"));
    let (address, port) = draft.endpoint(place, protocol)?;
    let port = if port == 0 || forwarding != Forwarding::Masquerade { own } else { port };
    Some((RealId { address, port }, weight.parse().ok()?))
}
