//! Servers of a service -> real servers.

use super::Resolver;
use crate::file::{Checksum, Fallback, Forward, Server, Service, Tunnel, TunnelType, Use};
use crate::read::At;
use crate::values::{Int, Name, Short};
use api::{Change, Family, Forwarding, RealHealth, RealId, RealSpec, ServiceId};
use std::net::IpAddr;
use std::ops::Range;

/// What a service says of one server, whichever table said it.
struct Wanted<'w> {
    server: &'w At<Name>,
    port: Option<u32>,
    weight: Option<u32>,
    upper_threshold: Option<u32>,
    lower_threshold: Option<u32>,
    forward: Option<&'w At<Forward>>,
    tunnel: Option<&'w At<Short<Tunnel>>>,
}

fn number<const LOW: u32, const HIGH: u32>(field: &Option<At<Int<LOW, HIGH>>>) -> Option<u32> {
    field.as_ref().map(|at| at.value.0)
}

impl<'a> Resolver<'a> {
    /// Adds a real server; returns what differs for it, to be applied when all are there.
    pub(super) fn add_real(
        &mut self,
        id: &ServiceId,
        service: &Service,
        at: &At<Short<Use>>,
    ) -> Option<(Change, Range<usize>)> {
        let Short(used) = &at.value;
        let wanted = Wanted {
            server: &used.server,
            port: number(&used.port),
            weight: number(&used.weight),
            upper_threshold: number(&used.upper_threshold),
            lower_threshold: number(&used.lower_threshold),
            forward: used.forward.as_ref(),
            tunnel: used.tunnel.as_ref(),
        };
        let declared = self.declared(&used.server);
        let (real, spec) = self.real(id, service, &wanted)?;
        // One of weight 0 that had another weight is added with that and then quiesced, as it came about.
        let last = number(&used.last_weight).filter(|_| spec.weight == 0).unwrap_or(spec.weight);
        let service = *id;
        if !self.apply(&Change::AddReal { service, real, spec: RealSpec { weight: last, ..spec } }, &at.span)
        {
            return None;
        }
        if last != spec.weight {
            self.apply(&Change::EditReal { service, real, spec }, &at.span);
        }
        let checks = used.checks.as_ref().or(declared.and_then(|server| server.checks.as_ref()));
        let drain = used.drain.as_ref().or(declared.and_then(|server| server.drain.as_ref()));
        let health = RealHealth {
            checks: checks.map(|at| self.checks_of(&at.value)),
            drain: drain.is_some_and(|at| at.value),
        };
        let change = Change::SetRealHealth { service, real, health: health.clone() };
        (health != RealHealth::default()).then(|| (change, at.span.clone()))
    }

    /// The fallback of a service.
    pub(super) fn fallback(
        &mut self,
        id: &ServiceId,
        service: &Service,
        at: &At<Short<Fallback>>,
    ) -> Option<api::Fallback> {
        let Short(fallback) = &at.value;
        let wanted = Wanted {
            server: &fallback.server,
            port: number(&fallback.port),
            weight: Some(number(&fallback.weight).unwrap_or(1)),
            upper_threshold: number(&fallback.upper_threshold),
            lower_threshold: number(&fallback.lower_threshold),
            forward: fallback.forward.as_ref(),
            tunnel: fallback.tunnel.as_ref(),
        };
        self.real(id, service, &wanted).map(|(real, spec)| api::Fallback { real, spec })
    }

    /// `[server.NAME]`, if it has a table.
    fn declared(&self, name: &At<Name>) -> Option<&'a Server> {
        self.names.servers.get(name.value.0.as_str()).and_then(|section| section.record.as_ref())
    }

    fn real(&mut self, id: &ServiceId, service: &Service, wanted: &Wanted) -> Option<(RealId, RealSpec)> {
        let declared = self.declared(wanted.server);
        let addresses: Vec<IpAddr> = match (declared, wanted.server.value.0.parse()) {
            (Some(server), _) => server.address.value.values().map(|address| address.0).collect(),
            (None, Ok(address)) => vec![address],
            // There is no such server, or it could not be read: both were reported.
            (None, Err(_)) => return None,
        };
        let forward = wanted.forward.or(declared.and_then(|server| server.forward.as_ref()));
        if let Some(at) = forward.filter(|at| at.value == Forward::FullNat) {
            let span = at.span.clone();
            self.error(&span, "\"full-nat\" is for a whole service: write it there, and \"nat\" here");
            return None;
        }
        let forwarding = match forward.or(service.forward.as_ref()).map(|at| at.value) {
            Some(Forward::Direct) | None => Forwarding::DirectRouting,
            Some(Forward::Nat | Forward::FullNat) => Forwarding::Masquerade,
            Some(Forward::Tunnel) => Forwarding::Tunnel,
            Some(Forward::Local) => Forwarding::Local,
        };
        let tunnel =
            wanted.tunnel.or(declared.and_then(|server| server.tunnel.as_ref())).or(service.tunnel.as_ref());
        let of_server = |field: fn(&Server) -> Option<u32>| declared.and_then(field);
        let weight = wanted.weight.or(of_server(|server| number(&server.weight))).unwrap_or(1);
        let upper = wanted.upper_threshold.or(of_server(|server| number(&server.upper_threshold)));
        let lower = wanted.lower_threshold.or(of_server(|server| number(&server.lower_threshold)));
        let tunnel = tunnel.cloned();
        let spec = RealSpec {
            forwarding,
            weight,
            upper_threshold: upper.unwrap_or(0),
            lower_threshold: lower.unwrap_or(0),
            tunnel: tunnel.map_or(Some(api::Tunnel::Ipip), |at| self.tunnel(&at))?,
        };
        let address = self.address(id, &addresses, forwarding, wanted.server)?;
        let own = match *id {
            ServiceId::Address { port, .. } => port,
            ServiceId::Fwmark { .. } => 0,
        };
        let port = wanted
            .port
            .or(number(&service.server_port))
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(own);
        Some((RealId { address, port }, spec))
    }

    /// Its address in the family of the service; only a tunnel may have the other one.
    fn address(
        &mut self,
        id: &ServiceId,
        addresses: &[IpAddr],
        forwarding: Forwarding,
        at: &At<Name>,
    ) -> Option<IpAddr> {
        let same = addresses.iter().copied().find(|address| Family::of(*address) == id.family());
        let other = addresses.first().copied().filter(|_| forwarding == Forwarding::Tunnel);
        let found = same.or(other);
        if found.is_none() && !addresses.is_empty() {
            let family = match id.family() {
                Family::Ipv4 => "IPv4",
                Family::Ipv6 => "IPv6",
            };
            let name = &at.value.0;
            let message = format!(
                "server `{name}' has no {family} address for {id}: give it one in [server.NAME], or forward = \"tunnel\""
            );
            let span = at.span.clone();
            if !self.is_told(&span) {
                self.error(&span, message);
            }
        }
        found
    }

    fn tunnel(&mut self, at: &At<Short<Tunnel>>) -> Option<api::Tunnel> {
        tunnel_of(&at.value.0).map_err(|wrong| self.error(&at.span, wrong)).ok()
    }
}

/// The encapsulation that a table says, or what is wrong with it.
pub(crate) fn tunnel_of(tunnel: &Tunnel) -> Result<api::Tunnel, &'static str> {
    let Tunnel { r#type, port, checksum } = tunnel;
    let sum = match checksum.as_ref().map(|at| at.value) {
        Some(Checksum::Full) => api::TunnelChecksum::Full,
        Some(Checksum::Remote) => api::TunnelChecksum::Remote,
        Some(Checksum::None) | None => api::TunnelChecksum::None,
    };
    match (r#type.value, port, checksum) {
        (TunnelType::Ipip, None, None) => Ok(api::Tunnel::Ipip),
        (TunnelType::Gue, Some(port), _) => Ok(api::Tunnel::Gue { port: port.value.short(), checksum: sum }),
        (TunnelType::Gre, None, _) => Ok(api::Tunnel::Gre { checksum: sum }),
        (TunnelType::Ipip, _, _) => Err("a tunnel of type \"ipip\" has neither `port' nor `checksum'"),
        (TunnelType::Gue, None, _) => {
            Err("a tunnel of type \"gue\" needs its UDP port: { type = \"gue\", port = 6080 }")
        }
        (TunnelType::Gre, Some(_), _) => Err("a tunnel of type \"gre\" has no `port'"),
    }
}
