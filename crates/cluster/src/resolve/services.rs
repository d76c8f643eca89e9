//! `[service.NAME]` -> changes.

use super::Resolver;
use crate::file::{self, Flag, Gone, Placement, Service, Use};
use crate::read::{At, Section, Word};
use crate::values::{self, Address, Many, Name, Network, Short};
use api::{
    Admission, Change, Family, HealthSpec, HoldDown, MarkMatch, OnFailure, Passive, Persistence,
    PolicyChoices, Ports, Protocol, SchedulerFlags, ServiceId, ServiceSpec,
};
use std::net::IpAddr;
use std::ops::Range;

/// Services that one table may stand for.
const EXPANDED_MAX: usize = 4096;

impl<'a> Resolver<'a> {
    /// Everything that a table of `[service]` declares.
    pub(super) fn resolve_service(&mut self, section: &'a Section<Service>) {
        let Some((service, broken)) = self.filled(section) else { return };
        let servers = self.servers(section, &service, broken);
        for (id, span) in self.identities(section, &service, broken) {
            if !self.take(id, section, &span) {
                continue;
            }
            let spec = self.service_spec(&service, &id);
            if !self.apply(&Change::AddService { service: id, spec }, &span) {
                continue;
            }
            self.services.push((id, section.name.value.clone()));
            let mut choices =
                choices(&service.gone, &service.rescue, &service.source_nat, &service.placement);
            self.full_nat(&service, &mut choices);
            if !choices.is_empty() {
                self.apply(
                    &Change::SetPolicy { service: Some(id), forget: true, choices },
                    &section.name.span,
                );
            }
            self.set_admission(id, &service);
            let mut healths = Vec::new();
            for used in &servers {
                healths.extend(self.add_real(&id, &service, used));
            }
            // First, as those with checks of their own may be ones that the service's cannot be made of.
            for (change, span) in healths {
                self.apply(&change, &span);
            }
            let health = self.health_spec(&service, &id);
            if health != HealthSpec::default() {
                self.set_health(id, health, &service, section);
            }
        }
    }

    /// A refusal stands at the key that it is about.
    fn set_admission(&mut self, id: ServiceId, service: &Service) {
        let networks = |at: &Option<At<Many<Network>>>| {
            at.as_ref().map(|at| at.value.values().map(|network| network.0).collect()).unwrap_or_default()
        };
        let admission = Admission {
            allow: networks(&service.allow),
            deny: networks(&service.deny),
            connections_per_client: service.connections_per_client.as_ref().map_or(0, |at| at.value.0),
            rate_per_client: service.rate_per_client.as_ref().map_or(0, |at| at.value.0),
        };
        if admission == Admission::default() {
            return;
        }
        let change = Change::SetAdmission { service: id, admission };
        let Err(refusal) = self.model.apply(&change) else { return };
        let key = |key| refusal.message.contains(key);
        let connections = service.connections_per_client.as_ref().filter(|_| key("connections_per_client"));
        let networks = service.deny.as_ref().or(service.allow.as_ref());
        let span = connections.map(|at| &at.span).or(networks.map(|at| &at.span));
        if let Some(span) = span {
            self.apply(&change, span);
        }
    }

    /// Full NAT is a way to forward for the operator, and a policy for the model.
    fn full_nat(&mut self, service: &Service, choices: &mut PolicyChoices) {
        let Some(at) = service.forward.as_ref().filter(|at| at.value == file::Forward::FullNat) else {
            return;
        };
        if choices.source_nat == Some(false) {
            self.error(
                &at.span,
                "\"full-nat\" replaces the client's address, and `source_nat = false' forbids it: keep one",
            );
        }
        choices.source_nat = Some(true);
    }

    /// The servers it uses: those it names, or all of its cluster.
    fn servers(
        &mut self,
        section: &Section<Service>,
        service: &Service,
        broken: bool,
    ) -> Vec<At<Short<Use>>> {
        match (&service.servers, &service.cluster) {
            (Some(servers), cluster) => {
                let mut servers = servers.value.0.clone();
                if let Some(cluster) = cluster {
                    servers.retain(|at| self.check_membership(&cluster.value.0, &at.value.0.server));
                }
                servers
            }
            (None, Some(cluster)) => self.members(&cluster.value.0),
            (None, None) => {
                if !broken {
                    let name = &section.name.value;
                    let message = format!(
                        "service `{name}' has no servers: give `servers' or `cluster' (`servers = []' for none)"
                    );
                    self.error(&section.name.span, message);
                }
                Vec::new()
            }
        }
    }

    /// The services of IPVS that it stands for, and where each was said; marks on the way.
    fn identities(
        &mut self,
        section: &Section<Service>,
        service: &Service,
        broken: bool,
    ) -> Vec<(ServiceId, Range<usize>)> {
        let name = &section.name.value;
        let span = &section.name.span;
        let (vips, ports) = match (&service.vip, &service.ports, &service.mark) {
            (Some(vips), Some(ports), _) => (&vips.value, ports),
            (None, None, Some(mark)) => {
                let family = match service.family.as_ref().map(|at| at.value) {
                    Some(file::Family::Ipv6) => Family::Ipv6,
                    Some(file::Family::Ipv4) | None => Family::Ipv4,
                };
                return vec![(ServiceId::Fwmark { mark: mark.value.0, family }, mark.span.clone())];
            }
            (vip, ports, _) if !broken => {
                let missing = match (vip, ports) {
                    (Some(_), _) => "has a VIP but no ports: give `ports', such as \"tcp/80\"",
                    (None, Some(_)) => "has ports but no VIP: give `vip'",
                    (None, None) => "has no VIP: give `vip' and `ports', or a `mark'",
                };
                self.error(span, format!("service `{name}' {missing}"));
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        if let Some(at) = &service.family {
            self.error(&at.span, "`family' is for a service with a mark and without VIPs: the VIPs tell it");
        }
        let addresses: Vec<&At<_>> = vips.0.iter().collect();
        self.warn_of_useless(service, &addresses, ports);
        match &service.mark {
            Some(mark) => {
                for vip in &addresses {
                    for at in &ports.value.0 {
                        let matched = MarkMatch {
                            protocol: at.value.protocol,
                            address: vip.value.0,
                            ports: at.value.ports,
                        };
                        self.add_mark(matched, mark.value.0, &at.span);
                    }
                }
                let families = [Family::Ipv4, Family::Ipv6].into_iter();
                let has = |family: &Family| addresses.iter().any(|vip| Family::of(vip.value.0) == *family);
                families
                    .filter(has)
                    .map(|family| (ServiceId::Fwmark { mark: mark.value.0, family }, mark.span.clone()))
                    .collect()
            }
            None => {
                let addresses: Vec<IpAddr> = addresses.iter().map(|at| at.value.0).collect();
                self.expanded(service, &addresses, ports)
            }
        }
    }

    /// What is taken, as by IPVS, and does nothing.
    fn warn_of_useless(&mut self, service: &Service, vips: &[&At<Address>], ports: &At<Many<values::Ports>>) {
        for vip in vips {
            if let Some(what) = never_balanced(vip.value.0) {
                self.warn(&vip.span, format!("VIP {} is {what}: no client reaches it", vip.value.0));
            }
        }
        if let Some(at) = service.one_packet.as_ref().filter(|at| at.value)
            && ports.value.values().all(|it| it.protocol != Protocol::Udp)
        {
            self.warn(&at.span, "`one_packet' does nothing here: no port is of UDP");
        }
    }

    /// Each VIP with each port.
    fn expanded(
        &mut self,
        service: &Service,
        vips: &[IpAddr],
        ports: &At<Many<crate::values::Ports>>,
    ) -> Vec<(ServiceId, Range<usize>)> {
        let count = |ports| match ports {
            Ports::Any => 1,
            Ports::Range { first, last } => usize::from(last.saturating_sub(first)) + 1,
        };
        let all = vips.len() * ports.value.values().map(|it| count(it.ports)).sum::<usize>();
        if all > EXPANDED_MAX {
            let message = format!(
                "this would be {all} services, and {EXPANDED_MAX} is the most: give a `mark', and all of it is one service"
            );
            self.error(&ports.span, message);
            return Vec::new();
        }
        let mut identities = Vec::with_capacity(all);
        for at in &ports.value.0 {
            let (first, last) = match at.value.ports {
                Ports::Any if service.persistence.is_none() => {
                    self.warn(
                        &at.span,
                        "a service of every port serves nobody without `persistence', as in IPVS",
                    );
                    (0, 0)
                }
                Ports::Any => (0, 0),
                Ports::Range { first, last } => (first, last),
            };
            let protocol = at.value.protocol;
            identities.extend(vips.iter().flat_map(|&address| {
                let id = move |port| ServiceId::Address { protocol, address, port };
                (first..=last).map(move |port| (id(port), at.span.clone()))
            }));
        }
        identities
    }

    /// Whether nobody has this service yet.
    fn take(&mut self, id: ServiceId, section: &Section<Service>, span: &Range<usize>) -> bool {
        let name = &section.name.value;
        let Some((other, place)) = self.taken.get(&id).cloned() else {
            self.taken.insert(id, (name.clone(), span.clone()));
            return true;
        };
        let line = self.line(&place);
        let message = match other == *name {
            true => format!("{id} is in this service twice: keep one"),
            false => format!(
                "{id} is in service `{other}' already (line {line}): each VIP and port is in one service"
            ),
        };
        // A template's ports stand elsewhere than in the service that is too much.
        let is_own = section.record.as_ref().is_some_and(|it| it.ports.is_some() || it.mark.is_some());
        let span = if is_own { span } else { &section.name.span };
        if !self.is_told(span) {
            self.error(span, message);
        }
        false
    }

    fn service_spec(&mut self, service: &Service, id: &ServiceId) -> ServiceSpec {
        let flags =
            |flag| service.scheduler_flags.iter().flat_map(|at| at.value.values()).any(|it| *it == flag);
        let persistence = service.persistence.as_ref().map(|at| {
            let file::Persistence { time, netmask, prefix } = &at.value.0;
            let mask = match id.family() {
                Family::Ipv4 => netmask.as_ref().map_or(u32::MAX, |at| at.value.0),
                Family::Ipv6 => prefix.as_ref().map_or(128, |at| at.value.0),
            };
            Persistence { timeout_s: time.value.0, mask }
        });
        ServiceSpec {
            scheduler: service.scheduler.as_ref().map_or("wlc", |at| at.value.0.name()).to_owned(),
            scheduler_flags: SchedulerFlags {
                flag_1: flags(Flag::Fallback),
                flag_2: flags(Flag::Port),
                flag_3: flags(Flag::Flag3),
            },
            persistence,
            persistence_engine: service.persistence_engine.as_ref().map(|at| at.value.word().to_owned()),
            one_packet: service.one_packet.as_ref().is_some_and(|at| at.value),
        }
    }

    /// A refusal stands at the key that it is about.
    fn set_health(
        &mut self,
        id: ServiceId,
        health: HealthSpec,
        service: &Service,
        section: &Section<Service>,
    ) {
        let change = Change::SetHealth { service: id, health };
        let Err(refusal) = self.model.apply(&change) else { return };
        let passive = service.passive.as_ref().filter(|_| refusal.message.contains("passive"));
        let too_many = service.checks.as_ref().filter(|_| refusal.message.contains("check"));
        let fallback = service.fallback.as_ref();
        let span = passive.map(|at| &at.span).or(too_many.map(|at| &at.span)).or(fallback.map(|at| &at.span));
        self.apply(&change, span.unwrap_or(&section.name.span));
    }

    /// The checks of these names; those that are wrong were reported.
    pub(super) fn checks_of(&self, names: &Many<Name>) -> Vec<api::Check> {
        names.values().filter_map(|name| self.checks.get(name.0.as_str()).cloned().flatten()).collect()
    }

    fn health_spec(&mut self, service: &Service, id: &ServiceId) -> HealthSpec {
        let on_failure = match service.on_failure.as_ref().map(|at| at.value) {
            Some(file::OnFailure::Quiesce) => OnFailure::Quiesce,
            Some(file::OnFailure::Remove) | None => OnFailure::Remove,
        };
        HealthSpec {
            checks: service.checks.as_ref().map(|at| self.checks_of(&at.value)).unwrap_or_default(),
            on_failure,
            panic_percent: service.panic_percent.as_ref().map_or(0, |at| at.value.byte()),
            fallback: service.fallback.as_ref().and_then(|at| self.fallback(id, service, at)),
            hold_down: service.hold_down.as_ref().map(|at| HoldDown {
                failures: at.value.failures.value.short(),
                within_ms: at.value.within.value.0,
                hold_ms: at.value.hold.value.0,
            }),
            slow_start_ms: service.slow_start_time.as_ref().map_or(0, |at| at.value.0),
            drain_ms: service.drain_time.as_ref().map_or(0, |at| at.value.0),
            adaptive: service.adaptive.as_ref().is_some_and(|at| at.value),
            passive: service.passive.as_ref().map(|at| Passive {
                flows_min: at.value.flows.value.0,
                failed_percent: at.value.failed_percent.value.byte(),
            }),
        }
    }
}

/// What an address is that no client can reach a service by.
fn never_balanced(vip: IpAddr) -> Option<&'static str> {
    match vip {
        _ if vip.is_multicast() => Some("a multicast address"),
        _ if vip.is_loopback() => Some("a loopback address"),
        _ if vip.is_unspecified() => Some("no address of a machine"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        _ => None,
    }
}

/// Choices of policy out of the keys for them.
pub(super) fn choices(
    gone: &Option<At<Gone>>,
    rescue: &Option<At<bool>>,
    source_nat: &Option<At<bool>>,
    placement: &Option<At<Placement>>,
) -> PolicyChoices {
    PolicyChoices {
        gone: gone.as_ref().map(|at| match at.value {
            Gone::Keep => api::Gone::Keep,
            Gone::Reschedule => api::Gone::Reschedule,
            Gone::Reset => api::Gone::Reset,
        }),
        rescue: rescue.as_ref().map(|at| at.value),
        source_nat: source_nat.as_ref().map(|at| at.value),
        placement: placement.as_ref().map(|at| match at.value {
            Placement::Keyed => api::Placement::Keyed,
            Placement::Exact => api::Placement::Exact,
        }),
    }
}
