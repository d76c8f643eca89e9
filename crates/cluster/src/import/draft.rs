//! What an importer fills.

use super::{Import, Left, Names};
use crate::render::{Hints, render};
use api::{
    Change, Check, CheckKind, Family, Forwarding, HealthSpec, Persistence, Protocol, RealHealth, RealId,
    RealSpec, Rhythm, SchedulerFlags, ServiceId, ServiceSpec, Tunnel,
};
use plan::{Model, Options};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

/// Characters of a line that are shown in the list of what was left.
const SHOWN_MAX: usize = 100;

/// Why things that all these programs have were left.
pub(super) const HOT_STANDBY: &str = "hot standby is not in this release";
pub(super) const ALERTS: &str = "mail and scripts for events are not in this release";
pub(super) const OWN_RUNNING: &str = "it is about the running of that program";
pub(super) const UNKNOWN: &str = "the importer does not know it";
pub(super) const HOST: &str = "it sets up the host, which sluice leaves to its network configuration";

/// A model under construction, and what did not get into it.
pub(super) struct Draft<'a> {
    model: Model,
    pub(super) hints: Hints,
    left: Vec<Left>,
    /// Where each service stands.
    lines: HashMap<ServiceId, usize>,
    names: &'a dyn Names,
}

/// A virtual service with everything in it.
pub(super) struct Service {
    /// Where it stands.
    pub(super) line: usize,
    pub(super) ids: Vec<ServiceId>,
    /// Its name there, if it has one.
    pub(super) name: Option<String>,
    pub(super) spec: ServiceSpec,
    pub(super) reals: Vec<Real>,
    /// Without its checks, which are the real servers'.
    pub(super) health: HealthSpec,
}

/// A real server.
pub(super) struct Real {
    pub(super) line: usize,
    pub(super) id: RealId,
    pub(super) spec: RealSpec,
    pub(super) checks: Vec<Check>,
}

/// A service of the defaults that all these programs share.
pub(super) fn service_spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    }
}

/// A real server of this weight without thresholds.
pub(super) fn real_spec(forwarding: Forwarding, weight: u32) -> RealSpec {
    RealSpec { forwarding, weight, upper_threshold: 0, lower_threshold: 0, tunnel: Tunnel::default() }
}

/// A check at the real server's own address and port.
pub(super) fn check(kind: CheckKind, rhythm: Rhythm) -> Check {
    Check { kind, address: None, port: None, rhythm }
}

/// Persistence for one client address, or for networks of this netmask or prefix length.
pub(super) fn persistence(timeout_s: u32, mask: Option<&str>, family: Family) -> Option<Persistence> {
    let mask = match (family, mask) {
        (Family::Ipv4, None) => u32::MAX,
        (Family::Ipv6, None) => 128,
        (Family::Ipv4, Some(text)) => text.parse::<Ipv4Addr>().ok()?.to_bits(),
        (Family::Ipv6, Some(text)) => text.parse().ok().filter(|prefix| (1..=128).contains(prefix))?,
    };
    Some(Persistence { timeout_s, mask })
}

/// Seconds, which may have a fraction, in milliseconds.
pub(super) fn seconds(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(digits.parse().ok()?)
}

impl<'a> Draft<'a> {
    pub(super) fn new(options: &Options, names: &'a dyn Names) -> Self {
        Self {
            model: Model::new(*options),
            hints: Hints::default(),
            left: Vec::new(),
            lines: HashMap::new(),
            names,
        }
    }

    pub(super) fn finish(mut self) -> Import {
        self.tell_of_marks();
        self.left.sort_by_key(|left| left.line);
        Import { text: render(&self.model, &self.hints), left: self.left }
    }

    /// Says of which marks the file does not say what has them: there it was the packet filter that gave them.
    fn tell_of_marks(&mut self) {
        let matched: HashSet<u32> = self.model.marks().map(|mark| mark.mark).collect();
        let mut marked = Vec::new();
        for (id, line) in &self.lines {
            if let ServiceId::Fwmark { mark, .. } = id
                && !matched.contains(mark)
            {
                marked.push((*line, id.to_string(), *mark));
            }
        }
        for (line, what, mark) in marked {
            let why = format!(
                "packets are balanced before the packet filter marks them: say in [marks] which have mark {mark}"
            );
            self.leave(line, &what, why);
        }
    }

    /// The name services.
    pub(super) fn names(&self) -> &'a dyn Names {
        self.names
    }

    /// Notes what is not carried over.
    pub(super) fn leave(&mut self, line: usize, what: &str, why: impl Into<String>) {
        let what: String = what.trim().chars().take(SHOWN_MAX).collect();
        self.left.push(Left { line, what, why: why.into() });
    }

    /// Applies a change; a refusal is a reason to leave what asked for it.
    pub(super) fn apply(&mut self, line: usize, what: &str, change: &Change) -> bool {
        match self.model.apply(change) {
            Ok(()) => {
                if let Change::AddService { service, .. } = change {
                    self.lines.insert(*service, line);
                }
                true
            }
            Err(refusal) => {
                self.leave(line, what, refusal.message);
                false
            }
        }
    }

    /// An address, or the first IPv4 address of a name.
    pub(super) fn host(&self, text: &str) -> Option<IpAddr> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let named = || self.names.host_address(text).map(IpAddr::V4);
        bare.parse().ok().or_else(named)
    }

    /// A port, or that of a service's name.
    pub(super) fn port(&self, text: &str, protocol: Protocol) -> Option<u16> {
        text.parse().ok().or_else(|| self.names.service_port(text, protocol))
    }

    /// `HOST:PORT`, `[IPV6]:PORT`; a port that is left out is 0.
    pub(super) fn endpoint(&self, text: &str, protocol: Protocol) -> Option<(IpAddr, u16)> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') && host.ends_with(']') => {
                Some((self.host(host)?, self.port(port, protocol)?))
            }
            _ => Some((self.host(text)?, 0)),
        }
    }

    /// Adds a service and all that belongs to it.
    pub(super) fn add(&mut self, service: &Service) {
        for &id in &service.ids {
            let what = service.name.clone().unwrap_or_else(|| id.to_string());
            if !self.apply(
                service.line,
                &what,
                &Change::AddService { service: id, spec: service.spec.clone() },
            ) {
                continue;
            }
            if let Some(name) = &service.name {
                self.hints.names.insert(id, name.clone());
            }
            let mut added = Vec::new();
            for real in &service.reals {
                let (place, checks) = placed(&id, real);
                let change = Change::AddReal { service: id, real: place, spec: real.spec };
                if self.apply(real.line, &place.to_string(), &change) {
                    added.push((real.line, place, checks));
                }
            }
            self.watch(id, service, &added);
        }
    }

    /// Checks that are the same for all real servers are the service's.
    fn watch(&mut self, service: ServiceId, of: &Service, added: &[(usize, RealId, Vec<Check>)]) {
        let first = added.first().map(|(_, _, checks)| checks.clone()).unwrap_or_default();
        let same = added.iter().all(|(_, _, checks)| *checks == first);
        let checks = if same { first } else { Vec::new() };
        let health = HealthSpec { checks, ..of.health.clone() };
        if health != HealthSpec::default() {
            let done = self.apply(
                of.line,
                &service.to_string(),
                &Change::SetHealth { service, health: health.clone() },
            );
            // It is only the fallback that can be in the way of the rest.
            if !done && health.fallback.is_some() {
                let health = HealthSpec { fallback: None, ..health };
                self.apply(of.line, &service.to_string(), &Change::SetHealth { service, health });
            }
        }
        for (line, real, checks) in added.iter().filter(|(_, _, checks)| !same && !checks.is_empty()) {
            let health = RealHealth { checks: Some(checks.clone()), drain: false };
            let change = Change::SetRealHealth { service, real: *real, health };
            self.apply(*line, &real.to_string(), &change);
        }
    }
}

/// A real server as the service has it: packets that are not masqueraded keep their port, whatever the file says, which
/// then is only where it is checked.
fn placed(id: &ServiceId, real: &Real) -> (RealId, Vec<Check>) {
    let ServiceId::Address { port, .. } = *id else { return (real.id, real.checks.clone()) };
    let keeps = real.spec.forwarding != Forwarding::Masquerade;
    if !keeps || real.id.port == port {
        return (real.id, real.checks.clone());
    }
    let mut checks = real.checks.clone();
    if real.id.port != 0 {
        checks.iter_mut().for_each(|check| check.port = check.port.or(Some(real.id.port)));
    }
    (RealId { port, ..real.id }, checks)
}
