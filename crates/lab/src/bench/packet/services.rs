//! The services of the benchmark, compiled by `plan` as the director's are.

use super::case::Case;
use super::error::BenchError;
use super::frame::{DIRECTOR_MAC, TCP_PORT, UDP_PORT, VIP_V4, VIP_V6};
use abi::{Limits, Real, TcpState};
use api::{Change, Forwarding, Protocol, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Tunnel};
use plan::{Cursors, Layout, Model, Neighbours, Resolved, Tables};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The interface test runs are made on: loopback, which the kernel takes when none is named. The same one for
/// the real servers gives `XDP_TX`.
const INTERFACE: u32 = 1;
/// Port of the first new-flow service.
const NEW_PORT: u16 = 2_000;
/// Real servers of the hit services.
const HIT_REALS: u32 = 3;
/// Time-out of established and UDP flows: none may expire during the benchmark.
const TIMEOUT_NS: u64 = 86_400_000_000_000;

/// What the tables hold, and which real servers belong to whom.
pub(super) struct Services {
    pub(super) tables: Tables,
    layout: Layout,
}

impl Services {
    /// The services that these cases need.
    pub(super) fn new(cases: &[Case], limits: &Limits) -> Result<Self, BenchError> {
        let mut model = Model::new(plan::Options { limits: *limits, ..plan::Options::default() });
        let mut neighbours = Neighbours::new();
        for vip in [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)] {
            for (protocol, port) in [(Protocol::Tcp, TCP_PORT), (Protocol::Udp, UDP_PORT)] {
                let service = ServiceId::Address { protocol, address: vip, port };
                add(&mut model, &mut neighbours, service, "rr", HIT_REALS)?;
            }
        }
        for (at, case) in cases.iter().enumerate() {
            if let Case::New { scheduler, reals } = case {
                add(&mut model, &mut neighbours, new_service(at), scheduler, *reals)?;
            }
        }
        let mut layout = Layout::new(*limits);
        let compiled = plan::compile(&mut layout, &model, &neighbours, &Cursors::new())
            .map_err(|error| BenchError::Services(error.to_string()))?;
        let mut tables = compiled.tables;
        tables.settings.udp_timeout_ns = TIMEOUT_NS;
        tables.settings.tcp_timeout_ns[TcpState::Established as usize] = TIMEOUT_NS;
        Ok(Self { tables, layout })
    }

    /// Real servers, by index, of the service that a case's packets are for; none for a case without one.
    pub(super) fn reals_of(&self, at: usize, case: &Case) -> Vec<(u32, Real)> {
        let service = match *case {
            Case::Hit { family, protocol, .. } => {
                let port = if protocol == Protocol::Tcp { TCP_PORT } else { UDP_PORT };
                let address = match family {
                    api::Family::Ipv4 => IpAddr::V4(VIP_V4),
                    api::Family::Ipv6 => IpAddr::V6(VIP_V6),
                };
                ServiceId::Address { protocol, address, port }
            }
            Case::SynAgain => {
                ServiceId::Address { protocol: Protocol::Tcp, address: IpAddr::V4(VIP_V4), port: TCP_PORT }
            }
            Case::New { .. } => new_service(at),
            Case::FloorTx | Case::FloorParse | Case::PassNoVip | Case::PassNonIp => return Vec::new(),
        };
        let real = |index| Some((index, *self.tables.reals.get(&index)?));
        self.layout.reals_of(&service).filter_map(real).collect()
    }
}

/// Port of the service of a new-flow case, by the place of the case.
pub(super) fn new_port(at: usize) -> u16 {
    NEW_PORT.saturating_add(u16::try_from(at).unwrap_or(u16::MAX))
}

fn new_service(at: usize) -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: IpAddr::V4(VIP_V4), port: new_port(at) }
}

fn add(
    model: &mut Model,
    neighbours: &mut Neighbours,
    service: ServiceId,
    scheduler: &str,
    reals: u32,
) -> Result<(), BenchError> {
    let spec = ServiceSpec {
        scheduler: scheduler.to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    };
    let refused = |refusal| BenchError::Services(format!("{service}: {refusal:?}"));
    model.apply(&Change::AddService { service, spec }).map_err(refused)?;
    for number in 1..=reals {
        let address = match service.family() {
            api::Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(0x0a80_0000 + number)),
            api::Family::Ipv6 => {
                IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + (2 << 64) + u128::from(number)))
            }
        };
        let [_, _, high, low] = number.to_be_bytes();
        let destination_mac = [2, 1, 0, 0, high, low];
        let source_mac = DIRECTOR_MAC;
        let hop =
            Resolved { ifindex: INTERFACE, destination_mac, source_mac, mtu: 1500, ..Resolved::default() };
        neighbours.insert(address, hop);
        let spec = RealSpec {
            forwarding: Forwarding::DirectRouting,
            weight: 1 + number % 3,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::Ipip,
        };
        let real = RealId { address, port: service_port(&service) };
        model.apply(&Change::AddReal { service, real, spec }).map_err(refused)?;
    }
    Ok(())
}

fn service_port(service: &ServiceId) -> u16 {
    match service {
        ServiceId::Address { port, .. } => *port,
        ServiceId::Fwmark { .. } => 0,
    }
}
