//! A case's tables -> what the packet path reads.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use abi::{
    AccessKey, Address, Affinity, AffinityKey, ClientKey, ClientLimits, FlowKey, Load, ServiceKey, Settings,
    Slot, Span, TcpState,
};

use super::rings::{self, Member};
use super::{Flow, Real, Route, Service, Tables};
use crate::strict::INGRESS;

/// The MAC address of the director's interface towards the real servers.
pub(super) const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// The MAC address of the client, or of the router before it.
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Nanoseconds a second.
pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// How long the consistent hash of an overflowed case goes on: longer than any runner takes.
const OVERFLOW_NS: u64 = 600 * SECOND_NS;

/// Why tables cannot be compiled: a mistake in the case.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {expected}")]
pub struct CompileError {
    what: &'static str,
    value: String,
    expected: &'static str,
}

pub(super) fn wrong(what: &'static str, value: impl ToString, expected: &'static str) -> CompileError {
    CompileError { what, value: value.to_string(), expected }
}

/// Tables in the form of the packet path. Places in a list are the indexes used by the others.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Virtual services.
    pub services: Vec<(ServiceKey, abi::Service)>,
    /// Picks made so far, by service index.
    pub cursors: Vec<u32>,
    /// Rings and pools.
    pub slots: Vec<Slot>,
    /// Real servers.
    pub reals: Vec<abi::Real>,
    /// Their load.
    pub loads: Vec<Load>,
    /// When a connection to each last finished its handshake, in ns.
    pub progress: Vec<u64>,
    /// Their addresses, as the case names them.
    pub addresses: Vec<IpAddr>,
    /// Tracked connections; `FLOW_EMBRYONIC` says which table.
    pub flows: Vec<(FlowKey, abi::Flow)>,
    /// Persistence templates.
    pub templates: Vec<(FlowKey, abi::Flow)>,
    /// Networks that services let in or keep out.
    pub access: Vec<(AccessKey, u32)>,
    /// What each client may have, by service index.
    pub client_limits: Vec<ClientLimits>,
    /// Connections of clients.
    pub client_connections: Vec<(ClientKey, i32)>,
    /// Until when clients have opened as many flows as they may, in ns.
    pub client_rates: Vec<(ClientKey, u64)>,
    /// Which real servers serve a destination.
    pub affinities: Vec<(AffinityKey, Affinity)>,
    /// The ways back of translated flows, and whether the flow is embryonic.
    pub replies: Vec<(FlowKey, abi::Reply, bool)>,
    /// What the routing table says, by destination.
    pub routes: Vec<(Address, forward::Route)>,
    /// Settings of the director.
    pub settings: Settings,
    /// The established table takes no more flows.
    pub established_full: bool,
    /// New flows are placed by consistent hash until then; 0 when they are not.
    pub overflow_until_ns: u64,
}

impl Compiled {
    /// Compiles tables as they are at the moment `now_ns`.
    ///
    /// # Errors
    /// The first value that means nothing.
    pub fn new(tables: &Tables, now_ns: u64) -> Result<Self, CompileError> {
        let mut settings = Settings::default();
        if let Some(limit) = tables.answers_per_second_max {
            settings.answers_per_second_max = limit;
        }
        if tables.pmtu_disc == Some(false) {
            settings.sysctls.switches &= !abi::SYSCTL_PMTU_DISC;
        }
        for (name, value) in &tables.settings {
            set(&mut settings.sysctls, name, *value)?;
        }
        if let Some(ports) = tables.source_ports {
            settings.source_ports = ports;
        }
        let mut compiled = Self {
            services: Vec::new(),
            cursors: Vec::new(),
            slots: Vec::new(),
            reals: Vec::new(),
            loads: Vec::new(),
            progress: Vec::new(),
            addresses: Vec::new(),
            flows: Vec::new(),
            templates: Vec::new(),
            access: Vec::new(),
            client_limits: Vec::new(),
            client_connections: Vec::new(),
            client_rates: Vec::new(),
            affinities: Vec::new(),
            replies: Vec::new(),
            routes: tables.routes.iter().map(route).collect(),
            settings,
            established_full: tables.established_full,
            overflow_until_ns: if tables.overflowed { now_ns + OVERFLOW_NS } else { 0 },
        };
        for service in &tables.services {
            compiled.add_service(service, now_ns)?;
        }
        for flow in &tables.flows {
            let added = compiled.flow(flow, now_ns)?;
            compiled.flows.push(added);
            if added.1.flags & abi::FLOW_TRANSLATED != 0 && !flow.no_way_back {
                compiled.add_reply(&added);
            }
        }
        for template in &tables.templates {
            let added = compiled.template(template, now_ns)?;
            compiled.templates.push(added);
        }
        Ok(compiled)
    }

    /// The index of the real server with this address.
    ///
    /// # Errors
    /// There is none.
    pub fn real(&self, address: IpAddr) -> Result<u32, CompileError> {
        let index = self.addresses.iter().position(|known| *known == address);
        index.map(|index| index as u32).ok_or_else(|| wrong("real server", address, "not in the tables"))
    }

    /// The filter bits of the real servers whose packets may be replies.
    #[must_use]
    pub fn masquerade_filter(&self) -> BTreeSet<(u32, u64)> {
        let translated = self.reals.iter().filter(|real| real.flags & abi::REAL_TRANSLATED != 0);
        translated.map(|real| abi::vip_filter_bit(&real.address)).collect()
    }

    /// The way back of a flow, by the client's own link.
    fn add_reply(&mut self, (key, flow): &(FlowKey, abi::Flow)) {
        let Some(real) = self.reals.get(flow.real as usize) else { return };
        let reply = abi::Reply {
            client: key.client,
            virtual_address: key.virtual_address,
            client_port_be: key.client_port_be,
            virtual_port_be: key.virtual_port_be,
            real: flow.real,
            ifindex: INGRESS,
            macs: abi::Real::macs_of(CLIENT_MAC, DIRECTOR_MAC),
        };
        let ends = forward::real_side(key, real, flow.source_port_be, flow.flags & abi::FLOW_KEEPS_PORT != 0);
        self.replies.push((ends, reply, flow.flags & abi::FLOW_EMBRYONIC != 0));
    }

    fn add_service(&mut self, written: &Service, now_ns: u64) -> Result<(), CompileError> {
        let place = service_place(written)?;
        let index = self.cursors.len() as u32;
        let mut pool = Vec::new();
        for real in &written.reals {
            let number = self.add_real(real, written, (index, place.port), now_ns)?;
            if !real.removed {
                let slot = Slot { real: number, weight: real.weight };
                pool.push(Member {
                    slot,
                    address: address(real.address),
                    port: place.port,
                    last_weight: real.last_weight.unwrap_or(real.weight),
                });
            }
        }
        let (scheduler, ring) = match written.scheduler.as_str() {
            "rr" => (abi::SCHEDULER_RR, rings::rr(&pool)),
            "wrr" => (abi::SCHEDULER_WRR, rings::wrr(&pool)),
            "sh" => (abi::SCHEDULER_SH, rings::sh(&pool)),
            "mh" => (abi::SCHEDULER_MH, rings::mh(&pool)),
            "dh" => (abi::SCHEDULER_DH, rings::dh(&pool)),
            "lc" => (abi::SCHEDULER_LC, Vec::new()),
            "wlc" => (abi::SCHEDULER_WLC, Vec::new()),
            "sed" => (abi::SCHEDULER_SED, Vec::new()),
            "nq" => (abi::SCHEDULER_NQ, Vec::new()),
            "fo" => (abi::SCHEDULER_FO, Vec::new()),
            "ovf" => (abi::SCHEDULER_OVF, Vec::new()),
            "twos" => (abi::SCHEDULER_TWOS, rings::twos(&pool)),
            "lblc" => (abi::SCHEDULER_LBLC, Vec::new()),
            "lblcr" => (abi::SCHEDULER_LBLCR, Vec::new()),
            "none" => (abi::SCHEDULER_NONE, Vec::new()),
            other => return Err(wrong("scheduler", other, "no scheduler is called so")),
        };
        let admits = self.admission(index, written, now_ns)?;
        let ring = self.add_span(&ring);
        let members: Vec<Slot> = pool.iter().map(|member| member.slot).collect();
        let pool = self.add_span(&members);
        let service = abi::Service {
            index,
            scheduler,
            flags: flags(written)? | admits,
            ring,
            pool,
            port_be: place.port.to_be(),
            mark: place.mark,
            persistence_s: written.persistence,
            mask: mask(written.mask.as_deref(), place.v6)?,
            ..Default::default()
        };
        for key in place.keys {
            let switches = &mut self.settings.sysctls.switches;
            if key.port_be == 0 {
                *switches |= abi::SETTING_PORT_ZERO;
            }
            if key.port_be == 21_u16.to_be() && place.mark == 0 {
                *switches |= abi::SETTING_FTP;
            }
            // A match of a mark comes before an exact service.
            self.services.retain(|(known, _)| *known != key);
            self.services.push((key, service));
        }
        self.cursors.push(written.cursor);
        written.remembers.iter().try_for_each(|entry| self.remember(entry, index, now_ns))
    }

    fn add_span(&mut self, slots: &[Slot]) -> Span {
        let start = self.slots.len() as u32;
        self.slots.extend_from_slice(slots);
        Span { start, len: slots.len() as u32 }
    }

    fn add_real(
        &mut self,
        written: &Real,
        of: &Service,
        (service, port): (u32, u16),
        now_ns: u64,
    ) -> Result<u32, CompileError> {
        if self.addresses.contains(&written.address) {
            return Err(wrong("real server", written.address, "addresses are unique in a case"));
        }
        let resolved = if written.unresolved { 0 } else { abi::REAL_RESOLVED };
        let available = if written.removed { 0 } else { abi::REAL_AVAILABLE };
        let local = if written.local { abi::REAL_LOCAL } else { 0 };
        let translate = if written.translate_source { abi::REAL_TRANSLATE_SOURCE } else { 0 };
        let method = match written.method.as_deref() {
            None | Some("direct") => abi::METHOD_DIRECT_ROUTING,
            Some("tunnel") => abi::METHOD_TUNNEL,
            Some("masquerade") => abi::METHOD_MASQUERADE,
            Some("bypass") => abi::METHOD_BYPASS,
            Some(other) => {
                return Err(wrong("method", other, "expected direct, tunnel, masquerade or bypass"));
            }
        };
        let (tunnel, tunnel_port, tunnel_flags) = tunnel(written.tunnel.as_deref().unwrap_or("ipip"))?;
        let translated = if method == abi::METHOD_MASQUERADE { abi::REAL_TRANSLATED } else { 0 };
        self.reals.push(abi::Real {
            address: address(written.address),
            macs: abi::Real::macs_of(mac(written)?, DIRECTOR_MAC),
            ifindex: written.ifindex,
            port_be: written.port.unwrap_or(port).to_be(),
            method,
            flags: resolved | available | local | translate | translated | policy_flags(&written.policy)?,
            mtu: written.mtu,
            source: written.source.map(address).unwrap_or_default(),
            weight: written.weight,
            service,
            tunnel,
            tunnel_flags,
            tunnel_port_be: tunnel_port.to_be(),
            failed: written.failed.into(),
            counts_clients: (of.connections_per_client != 0).into(),
            upper_threshold: written.upper_threshold,
            lower_threshold: written.lower_threshold,
            ..abi::Real::default()
        });
        let &Real { active, inactive, persistent, overloaded, .. } = written;
        self.loads.push(Load { active, inactive, persistent, overloaded: overloaded.into() });
        let progressed = written.progressed.map(|ago_ms| now_ns.saturating_sub(ago_ms * 1_000_000));
        self.progress.push(progressed.unwrap_or_default());
        self.addresses.push(written.address);
        Ok(self.reals.len() as u32 - 1)
    }

    fn flow(&self, written: &Flow, now_ns: u64) -> Result<(FlowKey, abi::Flow), CompileError> {
        let key = flow_key(&written.flow)?;
        let tcp = key.protocol == u32::from(abi::protocol::TCP);
        let sctp = key.protocol == u32::from(abi::protocol::SCTP);
        let state = state(key.protocol, &written.state)?;
        let active = tcp && is_active(state) || sctp && written.state == "ESTABLISHED";
        let real = self.real(written.real)?;
        let method = self.reals.get(real as usize).map_or(0, |real| real.method);
        let translated = method == abi::METHOD_MASQUERADE;
        let source_port_be = written.source_port.unwrap_or(0).to_be();
        // An established flow proved itself by a second packet; so has every later state.
        let embryonic = match written.table.as_deref() {
            None => tcp && state == TcpState::SynRecv as u8 || sctp && !active,
            Some("embryonic") => true,
            Some("established") => false,
            Some(other) => return Err(wrong("table", other, "expected embryonic or established")),
        };
        let flags = if active { 0 } else { abi::FLOW_INACTIVE }
            | if embryonic { abi::FLOW_EMBRYONIC } else { 0 }
            | if translated { abi::FLOW_TRANSLATED } else { abi::FLOW_NO_OUTPUT };
        let expires_ns = now_ns.saturating_add_signed(written.expires_in * SECOND_NS as i64);
        Ok((key, abi::Flow { expires_ns, real, state, flags, source_port_be, ..Default::default() }))
    }
}

/// What the policy of its service is to a real server.
fn policy_flags(words: &[String]) -> Result<u8, CompileError> {
    words.iter().try_fold(0, |flags, word| {
        let flag = match word.as_str() {
            "gone-keep" => abi::REAL_GONE_KEEP,
            "gone-reset" => abi::REAL_GONE_RESET,
            "rescue" => abi::REAL_RESCUE,
            other => return Err(wrong("policy", other, "expected gone-keep, gone-reset or rescue")),
        };
        Ok(flags | flag)
    })
}

/// One setting by its name.
fn set(sysctls: &mut abi::Sysctls, name: &str, value: u32) -> Result<(), CompileError> {
    let switch = match name {
        "conn_reuse_mode" => {
            sysctls.conn_reuse_mode = value;
            return Ok(());
        }
        "drop_rate" => {
            sysctls.drop_rate = value;
            return Ok(());
        }
        "lblc_expiration" => {
            sysctls.lblc_expiration_s = value;
            return Ok(());
        }
        "lblcr_expiration" => {
            sysctls.lblcr_expiration_s = value;
            return Ok(());
        }
        "secure_tcp" => {
            sysctls.secure_tcp = value;
            return Ok(());
        }
        "expire_nodest_conn" => abi::SYSCTL_EXPIRE_NODEST_CONN,
        "expire_quiescent_template" => abi::SYSCTL_EXPIRE_QUIESCENT_TEMPLATE,
        "sloppy_tcp" => abi::SYSCTL_SLOPPY_TCP,
        "sloppy_sctp" => abi::SYSCTL_SLOPPY_SCTP,
        "cache_bypass" => abi::SYSCTL_CACHE_BYPASS,
        "schedule_icmp" => abi::SYSCTL_SCHEDULE_ICMP,
        "pmtu_disc" => abi::SYSCTL_PMTU_DISC,
        other => return Err(wrong("setting", other, "there is none of that name")),
    };
    sysctls.switches = if value == 0 { sysctls.switches & !switch } else { sysctls.switches | switch };
    Ok(())
}

/// Where a service is reached.
struct Place {
    keys: Vec<ServiceKey>,
    port: u16,
    mark: u32,
    v6: bool,
}

fn service_place(written: &Service) -> Result<Place, CompileError> {
    let key = |text: &str| {
        let (protocol, at) = endpoint(text)?;
        let (address, port_be) = (address(at.ip()), at.port().to_be());
        Ok(ServiceKey { address, port_be, protocol: protocol.into() })
    };
    let Some(mark) = written.at.strip_prefix("mark ") else {
        let key = key(&written.at)?;
        let (port, v6) = (u16::from_be(key.port_be), !key.address.is_v4());
        return Ok(Place { keys: vec![key], port, mark: 0, v6 });
    };
    let (mark, v6) = mark.strip_suffix(" ipv6").map_or((mark, false), |mark| (mark, true));
    let mark = mark.parse().map_err(|_| wrong("mark", mark, "expected a number"))?;
    let keys = written.matches.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
    Ok(Place { keys, port: 0, mark, v6 })
}

fn flags(written: &Service) -> Result<u16, CompileError> {
    let mut flags = 0;
    for flag in &written.flags {
        flags |= match flag.as_str() {
            "fallback" => abi::SERVICE_FALLBACK,
            "port" => abi::SERVICE_PORT,
            "one-packet" => abi::SERVICE_ONE_PACKET,
            "sip" => abi::SERVICE_SIP,
            "exact" => abi::SERVICE_EXACT,
            other => {
                return Err(wrong(
                    "service flag",
                    other,
                    "expected fallback, port, one-packet, sip or exact",
                ));
            }
        };
    }
    if written.reals.iter().any(|real| real.upper_threshold > 0) {
        flags |= abi::SERVICE_THRESHOLDS;
    }
    Ok(flags)
}

fn mask(written: Option<&str>, v6: bool) -> Result<u32, CompileError> {
    let bad = |text: &str| wrong("mask", text, "expected an IPv4 mask or an IPv6 prefix length");
    match written {
        None if v6 => Ok(128),
        None => Ok(u32::MAX),
        Some(text) if v6 => text.parse().map_err(|_| bad(text)),
        Some(text) => {
            text.parse().map(|mask: std::net::Ipv4Addr| u32::from(mask).to_be()).map_err(|_| bad(text))
        }
    }
}

fn route(written: &Route) -> (Address, forward::Route) {
    let to = address(written.to);
    let says = match written.interface {
        Some(ifindex) => {
            let last = to.octets()[15];
            let macs = abi::Real::macs_of([2, 0, 0, 0, 3, last], [2, 0, 0, 0, 0, 0xfd]);
            forward::Route::Known { ifindex, macs }
        }
        None => forward::Route::Refused,
    };
    (to, says)
}

/// The number of a state of this protocol by its name in listings; `UDP` for the only one of UDP.
pub(super) fn state(protocol: u32, name: &str) -> Result<u8, CompileError> {
    if name == "UDP" {
        return Ok(abi::UDP_STATE);
    }
    if protocol == u32::from(abi::protocol::SCTP) {
        let place = abi::SCTP_STATES.iter().position(|(known, _)| *known == name);
        return place
            .map(|place| place as u8)
            .ok_or_else(|| wrong("state", name, "no SCTP state is called so"));
    }
    let state = TcpState::ALL.into_iter().find(|state| state.name() == name);
    state.map(|state| state as u8).ok_or_else(|| wrong("state", name, "no state is called so"))
}

fn is_active(state: u8) -> bool {
    let active = [TcpState::Established, TcpState::SynSent, TcpState::SynRecv, TcpState::SynAck];
    active.iter().any(|active| *active as u8 == state)
}

/// Kind, port and flags of an encapsulation.
fn tunnel(text: &str) -> Result<(u8, u16, u8), CompileError> {
    let expected = "expected ipip, gre, gre csum, gue PORT, gue PORT csum or gue PORT remcsum";
    let port = |text: &str| text.parse().map_err(|_| wrong("tunnel", text, expected));
    let words: Vec<&str> = text.split(' ').collect();
    Ok(match words.as_slice() {
        ["ipip"] => (abi::TUNNEL_IPIP, 0, 0),
        ["gre"] => (abi::TUNNEL_GRE, 0, 0),
        ["gre", "csum"] => (abi::TUNNEL_GRE, 0, abi::TUNNEL_CHECKSUM),
        ["gue", number] => (abi::TUNNEL_GUE, port(number)?, 0),
        ["gue", number, "csum"] => (abi::TUNNEL_GUE, port(number)?, abi::TUNNEL_CHECKSUM),
        ["gue", number, "remcsum"] => (abi::TUNNEL_GUE, port(number)?, abi::TUNNEL_REMOTE_CHECKSUM),
        _ => return Err(wrong("tunnel", text, expected)),
    })
}

fn mac(written: &Real) -> Result<[u8; 6], CompileError> {
    let Some(text) = &written.mac else {
        let last = match written.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        return Ok([2, 0, 0, 0, 1, last]);
    };
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    let bytes = bytes.ok().and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes.ok_or_else(|| wrong("MAC address", text, "expected six bytes such as 02:00:00:00:01:01"))
}

/// An address in the form of the packet path.
pub(super) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(address.octets()),
    }
}

/// `tcp 192.0.2.10:80` -> protocol number and address.
///
/// # Errors
/// The text is not of that form.
pub fn endpoint(text: &str) -> Result<(u8, SocketAddr), CompileError> {
    let expected = "expected such as tcp 192.0.2.10:80 or udp [2001:db8::10]:53";
    let (protocol, at) = text.split_once(' ').ok_or_else(|| wrong("endpoint", text, expected))?;
    let protocol = match protocol {
        "tcp" => abi::protocol::TCP,
        "udp" => abi::protocol::UDP,
        "sctp" => abi::protocol::SCTP,
        _ => return Err(wrong("endpoint", text, expected)),
    };
    Ok((protocol, at.parse().map_err(|_| wrong("endpoint", text, expected))?))
}

/// `tcp 198.51.100.1:40000 > 192.0.2.10:80` -> the key of the flow.
///
/// # Errors
/// The text is not of that form.
pub fn flow_key(text: &str) -> Result<FlowKey, CompileError> {
    let expected = "expected such as tcp 198.51.100.1:40000 > 192.0.2.10:80";
    let (client, virtual_side) = text.split_once(" > ").ok_or_else(|| wrong("flow", text, expected))?;
    let (protocol, client) = endpoint(client)?;
    let virtual_side: SocketAddr = virtual_side.parse().map_err(|_| wrong("flow", text, expected))?;
    Ok(FlowKey {
        client: address(client.ip()),
        virtual_address: address(virtual_side.ip()),
        client_port_be: client.port().to_be(),
        virtual_port_be: virtual_side.port().to_be(),
        protocol: u32::from(protocol),
    })
}
