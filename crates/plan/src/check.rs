//! The rules of IPVS that a change must obey whatever the release, in the order the kernel tries them.

use crate::options::{Options, TIMEOUT_S_MAX};
use api::{
    Family, Forwarding, RealId, RealSpec, Refusal, RefusalKind, Scheduler, ServiceId, ServiceSpec, Timeouts,
    Tunnel, TunnelChecksum,
};
use forward::tables::SCAN_MAX;
use std::net::IpAddr;

/// Weights and thresholds are C `int` in the kernel.
const INT_MAX: u32 = i32::MAX.cast_unsigned();
/// Persistence engines the kernel has a module for.
const ENGINES: [&str; 1] = ["sip"];

/// The scheduler a service asks for, and whether its persistence engine exists.
pub(crate) fn names(spec: &ServiceSpec) -> Result<Scheduler, Refusal> {
    let scheduler = Scheduler::from_name(&spec.scheduler).ok_or_else(|| {
        let known = Scheduler::all().map(Scheduler::name).collect::<Vec<_>>().join(", ");
        let asked = &spec.scheduler;
        Refusal::new(RefusalKind::NoSuchScheduler, format!("no scheduler `{asked}': use one of {known}"))
    })?;
    match &spec.persistence_engine {
        Some(engine) if !ENGINES.contains(&engine.as_str()) => Err(Refusal::new(
            RefusalKind::NoSuchScheduler,
            format!("no persistence engine `{engine}': use one of {}", ENGINES.join(", ")),
        )),
        _ => Ok(scheduler),
    }
}

/// Whether a VIP can be written into the tables at all.
pub(crate) fn virtual_address(id: &ServiceId) -> Result<(), Refusal> {
    match id {
        ServiceId::Address { address, .. } => marked_address(*address),
        ServiceId::Fwmark { .. } => Ok(()),
    }
}

/// The same for the address of a match.
pub(crate) fn marked_address(address: IpAddr) -> Result<(), Refusal> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(Refusal::new(
            RefusalKind::Invalid,
            format!("{v6}: an IPv4-mapped IPv6 address must not appear on the wire; use the IPv4 address"),
        )),
        _ => Ok(()),
    }
}

/// How long clients stay.
pub(crate) fn persistence(id: &ServiceId, spec: &ServiceSpec) -> Result<(), Refusal> {
    let Some(persistence) = &spec.persistence else { return Ok(()) };
    let refuse = |message| Err(Refusal::new(RefusalKind::Invalid, message));
    if persistence.timeout_s == 0 || persistence.timeout_s > TIMEOUT_S_MAX {
        let seconds = persistence.timeout_s;
        return refuse(format!("{id}: persistence of {seconds} s is out of range: 1 to {TIMEOUT_S_MAX} s"));
    }
    if id.family() == Family::Ipv6 && !(1..=128).contains(&persistence.mask) {
        let prefix = persistence.mask;
        return refuse(format!("{id}: prefix length {prefix} is out of range: 1 to 128"));
    }
    Ok(())
}

/// Numbers of a real server.
pub(crate) fn real_numbers(id: &RealId, spec: &RealSpec) -> Result<(), Refusal> {
    let refuse = |kind, message: String| Err(Refusal::new(kind, format!("real server {id}: {message}")));
    if spec.upper_threshold > INT_MAX {
        let upper = spec.upper_threshold;
        return refuse(
            RefusalKind::Invalid,
            format!("upper threshold {upper} is too large: at most {INT_MAX}"),
        );
    }
    if spec.weight > INT_MAX {
        return refuse(
            RefusalKind::OutOfRange,
            format!("weight {} is too large: at most {INT_MAX}", spec.weight),
        );
    }
    if spec.lower_threshold > spec.upper_threshold {
        let (lower, upper) = (spec.lower_threshold, spec.upper_threshold);
        return refuse(
            RefusalKind::OutOfRange,
            format!("lower threshold {lower} is above the upper one {upper}: give -x at least {lower}"),
        );
    }
    Ok(())
}

/// Family of a real server against that of its service: only tunnels may mix them.
pub(crate) fn real_family(service: &ServiceId, id: &RealId, spec: &RealSpec) -> Result<(), Refusal> {
    if Family::of(id.address) == service.family() || spec.forwarding == Forwarding::Tunnel {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalKind::Invalid,
        format!("real server {id}: its address family differs from {service}; only tunneling allows that"),
    ))
}

/// Whether a new real server's address is one machine's. Broadcast addresses of a subnet need the host's
/// routes and are not seen here.
pub(crate) fn real_unicast(id: &RealId) -> Result<(), Refusal> {
    let wrong = match id.address {
        IpAddr::V4(a) if a.is_multicast() => Some("a multicast address"),
        IpAddr::V4(a) if a.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("an address of network 0"),
        IpAddr::V6(a) if a.is_multicast() => Some("a multicast address"),
        IpAddr::V6(a) if a.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("an IPv4-mapped IPv6 address"),
        _ => None,
    };
    match wrong {
        None => Ok(()),
        Some(what) => Err(Refusal::new(
            RefusalKind::Invalid,
            format!("real server {id} is {what}: use the unicast address of one machine"),
        )),
    }
}

/// Encapsulation of a real server behind a tunnel.
pub(crate) fn real_tunnel(id: &RealId, spec: &RealSpec) -> Result<(), Refusal> {
    let wrong = match spec.tunnel {
        _ if spec.forwarding != Forwarding::Tunnel => return Ok(()),
        Tunnel::Gue { port: 0, .. } => "a GUE tunnel needs a port, 1 to 65535",
        Tunnel::Gre { checksum: TunnelChecksum::Remote } => "a GRE tunnel has no remote checksum offload",
        Tunnel::Ipip | Tunnel::Gue { .. } | Tunnel::Gre { .. } => return Ok(()),
    };
    Err(Refusal::new(RefusalKind::Invalid, format!("real server {id}: {wrong}")))
}

/// Port of a real server that packets reach unchanged: they keep theirs, so another one would never be reached.
pub(crate) fn real_port(service: &ServiceId, id: &RealId, spec: &RealSpec) -> Result<(), Refusal> {
    match *service {
        ServiceId::Address { port, .. }
            if matches!(spec.forwarding, Forwarding::DirectRouting | Forwarding::Tunnel)
                && id.port != port =>
        {
            let method = if spec.forwarding == Forwarding::Tunnel { "tunneling" } else { "direct routing" };
            Err(Refusal::new(
                RefusalKind::Invalid,
                format!("real server {id}: {method} cannot change the port; use port {port}"),
            ))
        }
        _ => Ok(()),
    }
}

/// The three classic timeouts.
pub(crate) fn timeouts(timeouts: &Timeouts) -> Result<(), Refusal> {
    for (name, seconds) in [("tcp", timeouts.tcp_s), ("tcpfin", timeouts.tcp_fin_s), ("udp", timeouts.udp_s)]
    {
        if seconds > TIMEOUT_S_MAX {
            return Err(Refusal::new(
                RefusalKind::Invalid,
                format!(
                    "timeout {name} of {seconds} s is too long: 0 to {TIMEOUT_S_MAX} s, 0 keeps the value"
                ),
            ));
        }
    }
    Ok(())
}

/// Real servers an `mh` ring has room for.
pub(crate) fn mh_reals(id: &ServiceId, reals: usize, options: &Options) -> Result<(), Refusal> {
    let slots = options.mh_table.slots();
    if u32::try_from(reals).is_ok_and(|reals| reals <= slots) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalKind::Invalid,
        format!("{id}: scheduler mh has room for {slots} real servers, not {reals}; set a larger mh table"),
    ))
}

/// Real servers of one service that the packet path can scan.
pub(crate) fn service_reals(id: &ServiceId, reals: usize) -> Result<(), Refusal> {
    if u32::try_from(reals).is_ok_and(|reals| reals <= SCAN_MAX) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalKind::Limit,
        format!("limit of {SCAN_MAX} real servers of {id} is reached: delete some"),
    ))
}

/// A configured limit: `have` is the number after the change.
pub(crate) fn limit(name: &str, what: &str, have: usize, max: u32) -> Result<(), Refusal> {
    if u32::try_from(have).is_ok_and(|have| have <= max) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalKind::Limit,
        format!(
            "limit {name} of {max} {what} is reached: delete some, or start the director with a higher --{}",
            name.replace('_', "-")
        ),
    ))
}

/// The answers to an atomic list that ended with a refusal.
pub(crate) fn aborted(mut refusals: Vec<Option<Refusal>>, len: usize) -> Vec<Option<Refusal>> {
    let aborted = Refusal::new(
        RefusalKind::Aborted,
        format!("not done: change {} of the same atomic list was refused", refusals.len()),
    );
    refusals.iter_mut().filter(|it| it.is_none()).for_each(|it| *it = Some(aborted.clone()));
    refusals.resize(len, Some(aborted));
    refusals
}
