//! A director in memory that refuses what the recorded kernel refused, and the names of the recorded machine.

use api::{
    Change, Connection, Counters, Protocol, RealId, RealSpec, RealView, Refusal, RefusalKind, ServiceId,
    ServiceSpec, ServiceView, Services, Timeouts,
};
use ipvsadm::{Daemon, DaemonRefusal, DaemonRole, Director, Names, Unreachable};
use std::net::{IpAddr, Ipv4Addr};

const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "none"];

pub(crate) struct Model {
    pub(crate) services: Services,
    pub(crate) connections: Vec<Connection>,
    daemons: Vec<Daemon>,
}

impl Default for Model {
    fn default() -> Self {
        let timeouts = Timeouts { tcp_s: 900, tcp_fin_s: 120, udp_s: 300 };
        let services = Services { connection_table_size: 4096, timeouts, services: Vec::new() };
        Self { services, connections: Vec::new(), daemons: Vec::new() }
    }
}

impl Model {
    fn find(&mut self, id: ServiceId) -> Result<&mut ServiceView, RefusalKind> {
        self.services.services.iter_mut().find(|s| s.id == id).ok_or(RefusalKind::NoSuchService)
    }

    fn apply(&mut self, change: Change) -> Result<(), RefusalKind> {
        match change {
            Change::AddService { service, spec } => {
                if self.find(service).is_ok() {
                    return Err(RefusalKind::ServiceExists);
                }
                check_spec(&spec)?;
                let counters = Counters::default();
                self.services.services.push(ServiceView { id: service, spec, counters, reals: Vec::new() });
            }
            Change::EditService { service, spec } => {
                let found = self.find(service)?;
                check_spec(&spec)?;
                found.spec = spec;
            }
            Change::DeleteService { service } => {
                self.find(service)?;
                self.services.services.retain(|s| s.id != service);
            }
            Change::Flush => self.services.services.clear(),
            Change::AddReal { service, real, spec } => add_real(self.find(service)?, real, spec)?,
            Change::EditReal { service, real, spec } => {
                let found = self.find(service)?;
                check_thresholds(&spec)?;
                let found = found.reals.iter_mut().find(|r| r.id == real).ok_or(RefusalKind::NoSuchReal)?;
                found.spec = spec;
            }
            Change::DeleteReal { service, real } => {
                let found = self.find(service)?;
                let before = found.reals.len();
                found.reals.retain(|r| r.id != real);
                if found.reals.len() == before {
                    return Err(RefusalKind::NoSuchReal);
                }
            }
            Change::Zero { service: Some(service) } => {
                self.find(service)?;
            }
            Change::Zero { service: None }
            | Change::SetPolicy { .. }
            | Change::SetSetting { .. }
            | Change::SetAdmission { .. }
            | Change::SetHealth { .. }
            | Change::SetRealHealth { .. }
            | Change::SetDrain { .. }
            | Change::AddMark { .. }
            | Change::DeleteMark { .. } => {}
            Change::SetTimeouts { timeouts } => {
                let now = &mut self.services.timeouts;
                for (now, new) in [
                    (&mut now.tcp_s, timeouts.tcp_s),
                    (&mut now.tcp_fin_s, timeouts.tcp_fin_s),
                    (&mut now.udp_s, timeouts.udp_s),
                ] {
                    if new != 0 {
                        *now = new;
                    }
                }
            }
        }
        Ok(())
    }
}

fn add_real(service: &mut ServiceView, real: RealId, spec: RealSpec) -> Result<(), RefusalKind> {
    check_thresholds(&spec)?;
    if service.reals.iter().any(|r| r.id == real) {
        return Err(RefusalKind::RealExists);
    }
    let unicast = match real.address {
        IpAddr::V4(v4) => {
            // The last one is the broadcast address of the recorded machine's network.
            !v4.is_unspecified()
                && !v4.is_multicast()
                && !v4.is_broadcast()
                && v4 != Ipv4Addr::new(10, 77, 0, 255)
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
    };
    if !unicast {
        return Err(RefusalKind::Invalid);
    }
    let counters = Counters::default();
    let view = RealView { id: real, spec, active: 0, inactive: 0, persistent: 0, neighbour: None, counters };
    service.reals.insert(0, view);
    Ok(())
}

fn check_spec(spec: &ServiceSpec) -> Result<(), RefusalKind> {
    let engine_known = spec.persistence_engine.as_deref().is_none_or(|engine| engine == "sip");
    let known = SCHEDULERS.contains(&spec.scheduler.as_str()) && engine_known;
    if known { Ok(()) } else { Err(RefusalKind::NoSuchScheduler) }
}

fn check_thresholds(spec: &RealSpec) -> Result<(), RefusalKind> {
    let fits = spec.lower_threshold <= spec.upper_threshold;
    if fits { Ok(()) } else { Err(RefusalKind::OutOfRange) }
}

impl Director for Model {
    fn change(&mut self, changes: Vec<Change>) -> Result<Vec<Option<Refusal>>, Unreachable> {
        let refuse = |kind| Refusal::new(kind, "refused by the model");
        Ok(changes.into_iter().map(|change| self.apply(change).err().map(refuse)).collect())
    }

    fn services(&mut self) -> Result<Services, Unreachable> {
        Ok(self.services.clone())
    }

    fn connections(&mut self) -> Result<Vec<Connection>, Unreachable> {
        Ok(self.connections.clone())
    }

    fn daemons(&mut self) -> Result<Vec<Daemon>, Unreachable> {
        Ok(self.daemons.clone())
    }

    fn start_daemon(&mut self, wish: &Daemon) -> Result<Option<DaemonRefusal>, Unreachable> {
        if self.daemons.iter().any(|d| d.role == wish.role) {
            return Ok(Some(DaemonRefusal::AlreadyRuns));
        }
        if !["eth0", "eth1"].contains(&wish.interface.as_str()) {
            return Ok(Some(DaemonRefusal::NoSuchInterface));
        }
        let mut daemon = wish.clone();
        let group = *daemon.group.get_or_insert(IpAddr::from([224, 0, 0, 81]));
        for (value, default) in
            [(&mut daemon.maxlen, if group.is_ipv4() { 1472 } else { 1452 }), (&mut daemon.port, 8848)]
        {
            if *value == 0 {
                *value = default;
            }
        }
        daemon.ttl = daemon.ttl.max(1);
        self.daemons.push(daemon);
        self.daemons.sort_by_key(|d| d.role == DaemonRole::Backup);
        Ok(None)
    }

    fn stop_daemon(&mut self, role: DaemonRole) -> Result<Option<DaemonRefusal>, Unreachable> {
        let before = self.daemons.len();
        self.daemons.retain(|d| d.role != role);
        Ok((self.daemons.len() == before).then_some(DaemonRefusal::NotRunning))
    }
}

/// Names of the recorded machine; the hosts are [`HOSTS`] or [`TRAFFIC_HOSTS`].
pub(crate) struct Hosts(pub(crate) &'static [(&'static str, &'static str)]);

const LONG: &str = "averyveryverylonghostname.example.internal";
const LONG_6: &str = "averyveryverylonghostname6.example.internal";
const LONGER: &str = "a23456789-b23456789-c23456789-d23456789-e23456789-f23456789.example.internal";
const LONGER_6: &str = "a23456789-b23456789-c23456789-d23456789-e23456789-f2345678x.example.internal";

/// Hosts while command lines were recorded.
pub(crate) const HOSTS: &[(&str, &str)] = &[
    ("localhost", "127.0.0.1"),
    (LONG, "10.5.5.5"),
    ("short", "10.5.5.6"),
    ("short-alias", "10.5.5.6"),
    (LONGER, "10.5.5.7"),
    (LONG_6, "2001:db8::77"),
    ("six", "2001:db8::78"),
    (LONGER_6, "2001:db8::79"),
];

/// Hosts while listings with traffic were recorded.
pub(crate) const TRAFFIC_HOSTS: &[(&str, &str)] =
    &[("vip.example.internal", "10.9.9.9"), ("real.example.internal", "10.77.0.1")];

const PORTS: [(&str, u16, Protocol); 12] = [
    ("http", 80, Protocol::Tcp),
    ("https", 443, Protocol::Tcp),
    ("ssh", 22, Protocol::Tcp),
    ("gopher", 70, Protocol::Tcp),
    ("http-alt", 8080, Protocol::Tcp),
    ("tproxy", 8081, Protocol::Tcp),
    ("discard", 9, Protocol::Tcp),
    ("discard", 9, Protocol::Udp),
    ("domain", 53, Protocol::Tcp),
    ("domain", 53, Protocol::Udp),
    ("ntp", 123, Protocol::Udp),
    ("sip", 5060, Protocol::Udp),
];

impl Names for Hosts {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        self.0.iter().find(|(host, _)| *host == name).and_then(|(_, address)| address.parse().ok())
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        PORTS.iter().find(|(service, _, of)| *service == name && *of == protocol).map(|(_, port, _)| *port)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        self.0.iter().find(|(_, host)| host.parse() == Ok(address)).map(|(name, _)| (*name).to_owned())
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        PORTS
            .iter()
            .find(|(_, of, kind)| *of == port && *kind == protocol)
            .map(|(name, ..)| (*name).to_owned())
    }
}
