//! The flows that hit cases find.

use super::error::BenchError;
use super::frame::{CLIENTS_V6, TCP_PORT, UDP_PORT, VIP_V4, VIP_V6};
use super::reset::client;
use abi::{Address, FLOW_INACTIVE, FLOW_NO_OUTPUT, Flow, FlowKey, Real, TcpState, UDP_STATE};
use api::{Family, Protocol};
use kernel::Tables;

/// Flows written at once.
const CHUNK: u64 = 65_536;

/// Key of a client's flow to the hit service of this family and protocol.
pub(super) fn key(family: Family, protocol: Protocol, number: u64) -> FlowKey {
    let (low, port) = client(number);
    let (client, virtual_address) = match family {
        Family::Ipv4 => (Address::v4(low.to_be_bytes()), Address::v4(VIP_V4.octets())),
        Family::Ipv6 => {
            let mut octets = CLIENTS_V6.octets();
            octets[12..].copy_from_slice(&low.to_be_bytes());
            (Address::v6(octets), Address::v6(VIP_V6.octets()))
        }
    };
    let virtual_port = if protocol == Protocol::Tcp { TCP_PORT } else { UDP_PORT };
    FlowKey {
        client,
        virtual_address,
        client_port_be: port.to_be(),
        virtual_port_be: virtual_port.to_be(),
        protocol: u32::from(protocol.number()),
    }
}

/// Place, among the real servers of the service, of the one that a client's flow goes to.
pub(super) fn real_of(number: u64, reals: usize) -> usize {
    usize::try_from(number % reals.max(1) as u64).unwrap_or_default()
}

/// An established flow.
pub(super) fn established(protocol: Protocol, real: u32) -> Flow {
    let (state, flags) = match protocol {
        Protocol::Tcp => (TcpState::Established as u8, FLOW_NO_OUTPUT),
        _ => (UDP_STATE, FLOW_NO_OUTPUT | FLOW_INACTIVE),
    };
    // The end of time: the first hit sets the real one.
    Flow { expires_ns: u64::MAX, real, state, flags, ..Flow::default() }
}

/// Fills the established table with the flows of one family and protocol.
pub(super) fn fill(
    tables: &Tables,
    family: Family,
    protocol: Protocol,
    count: u32,
    reals: &[(u32, Real)],
) -> Result<(), BenchError> {
    let all = u64::from(count);
    let mut from = 0;
    while from < all {
        let to = (from + CHUNK).min(all);
        let keys: Vec<FlowKey> = (from..to).map(|number| key(family, protocol, number)).collect();
        let flow = |number| {
            let real = reals.get(real_of(number, reals.len())).map_or(0, |(index, _)| *index);
            established(protocol, real)
        };
        let flows: Vec<Flow> = (from..to).map(flow).collect();
        tables.established.put_batch(&keys, &flows)?;
        from = to;
    }
    Ok(())
}
