//! The tracked flows, page by page.
//!
//! The cursor that goes to the client and back is a place in the kernel's table, so the director keeps nothing between
//! two pages. Flows that come and go meanwhile may or may not be seen.

use crate::convert::{ip, socket};
use abi::{FLOW_ASSURED, FLOW_CONTROLLED, FLOW_KEEPS_PORT, FLOW_TEMPLATE, Flow, FlowKey, TcpState, protocol};
use api::{Connection, Connections, Protocol};
use kernel::{Cursor, HashTable, TableError, Tables as Maps};
use std::net::SocketAddr;

/// Flows on a page.
pub(crate) const PAGE: usize = 2048;
/// Pages of expired flows passed over before an empty page is returned with a cursor.
pub(crate) const EMPTY_MAX: usize = 16;

/// Which table, and whether a place inside it; without one the cursor is at its start.
const TABLE_SHIFT: u32 = 33;
const INSIDE: u64 = 1 << 32;

/// The tables in the order they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Established,
    Embryonic,
    Templates,
}

impl Table {
    const ALL: [Self; 3] = [Self::Established, Self::Embryonic, Self::Templates];

    /// Where its entries are.
    pub(crate) fn of(self, maps: &Maps) -> &HashTable<FlowKey, Flow> {
        match self {
            Self::Established => &maps.established,
            Self::Embryonic => &maps.embryonic,
            Self::Templates => &maps.templates,
        }
    }
}

/// `None` for a cursor that no page has given.
pub(crate) fn decode(cursor: u64) -> Option<(Table, Cursor)> {
    let place = if cursor & INSIDE != 0 { Cursor::At(cursor as u32) } else { Cursor::Start };
    let table = usize::try_from(cursor >> TABLE_SHIFT).ok()?;
    Some((*Table::ALL.get(table)?, place))
}

pub(crate) fn encode(table: Table, cursor: Cursor) -> Option<u64> {
    let number = table as u64;
    match cursor {
        Cursor::Start => Some(number << TABLE_SHIFT),
        Cursor::At(bucket) => Some(number << TABLE_SHIFT | INSIDE | u64::from(bucket)),
        Cursor::End if table == Table::Templates => None,
        Cursor::End => Some((number + 1) << TABLE_SHIFT),
    }
}

/// One page from a cursor on; 0 is the beginning.
pub(crate) fn page(maps: &Maps, cursor: u64, now_ns: u64) -> Result<Connections, TableError> {
    let mut connections = Vec::new();
    let Some((mut table, mut place)) = decode(cursor) else {
        return Ok(Connections { connections, next_cursor: None });
    };
    for _ in 0..EMPTY_MAX {
        for (key, flow) in table.of(maps).scan(&mut place, PAGE)? {
            if lives(&flow, now_ns) {
                connections.push(connection(maps, &key, &flow, table, now_ns)?);
            }
        }
        let next = encode(table, place);
        match next.and_then(decode) {
            Some(there) if connections.is_empty() => (table, place) = there,
            _ => return Ok(Connections { connections, next_cursor: next }),
        }
    }
    Ok(Connections { connections, next_cursor: encode(table, place) })
}

/// Whether an entry still counts.
pub(crate) fn lives(flow: &Flow, now_ns: u64) -> bool {
    // A template with flows under it has not ended when its time is over.
    let holds_flows = flow.flags & FLOW_TEMPLATE != 0 && flow.flags & FLOW_CONTROLLED != 0;
    holds_flows || now_ns < flow.expires_ns
}

/// The port that the real server gets packets at, network order.
pub(crate) fn real_port_be(key: &FlowKey, flow: &Flow, real: &abi::Real) -> u16 {
    let is_template = flow.flags & FLOW_TEMPLATE != 0;
    match real.port_be {
        // A template of all ports has none on the other side either.
        _ if is_template && key.virtual_port_be == 0 => 0,
        _ if !is_template && flow.flags & FLOW_KEEPS_PORT != 0 => key.virtual_port_be,
        0 => key.virtual_port_be,
        port_be => port_be,
    }
}

/// The name of an entry's state.
pub(crate) fn flow_state(key: &FlowKey, flow: &Flow) -> String {
    match flow.flags & FLOW_TEMPLATE != 0 {
        true if flow.flags & FLOW_ASSURED != 0 => "ASSURED".to_owned(),
        true => "NONE".to_owned(),
        false => state_name(key.protocol, flow.state),
    }
}

/// The name of an entry's protocol.
pub(crate) fn flow_protocol(key: &FlowKey, flow: &Flow) -> String {
    if flow.flags & FLOW_TEMPLATE != 0 && key.protocol == 0 {
        return "IP".to_owned();
    }
    protocol_name(key.protocol)
}

fn connection(
    maps: &Maps,
    key: &FlowKey,
    flow: &Flow,
    table: Table,
    now_ns: u64,
) -> Result<Connection, TableError> {
    const SECOND_NS: u64 = 1_000_000_000;
    let real = maps.reals.get(flow.real)?.unwrap_or_default();
    let is_template = table == Table::Templates;
    let port_be = real_port_be(key, flow, &real);
    let call = if is_template { maps.calls.get(key)? } else { None };
    let client = call.map_or(key.client, |call| call.client);
    Ok(Connection {
        protocol: flow_protocol(key, flow),
        expires_s: flow.expires_ns.saturating_sub(now_ns) / SECOND_NS,
        state: flow_state(key, flow),
        client: socket(&client, key.client_port_be),
        virtual_address: socket(&key.virtual_address, key.virtual_port_be),
        real: SocketAddr::new(ip(&real.address), u16::from_be(port_be)),
        embryonic: table == Table::Embryonic,
        engine: call.map(|_| "sip".to_owned()),
        engine_data: call.map(|call| String::from_utf8_lossy(call.id()).into_owned()),
    })
}

pub(crate) fn protocol_name(number: u32) -> String {
    let known = u8::try_from(number).ok().and_then(Protocol::from_number);
    known.map_or_else(|| number.to_string(), |protocol| protocol.to_string())
}

pub(crate) fn state_name(number: u32, state: u8) -> String {
    if number == u32::from(protocol::SCTP) {
        return abi::SCTP_STATES.get(usize::from(state)).map_or("ERR!", |(name, _)| name).to_owned();
    }
    if number != u32::from(protocol::TCP) {
        return protocol_name(number);
    }
    let known = TcpState::ALL.into_iter().find(|known| *known as u8 == state);
    known.map_or("ERR!", TcpState::name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_lead_through_all_tables_to_the_end() {
        assert_eq!(decode(0), Some((Table::Established, Cursor::Start)));
        let places = [Cursor::At(0), Cursor::At(u32::MAX), Cursor::At(7)];
        for (table, place) in Table::ALL.into_iter().zip(places) {
            let cursor = encode(table, place).expect("not the end");
            assert_eq!(decode(cursor), Some((table, place)));
        }
        for pair in Table::ALL.windows(2) {
            let next = encode(pair[0], Cursor::End).expect("another table follows");
            assert_eq!(decode(next), Some((pair[1], Cursor::Start)));
        }
        assert_eq!(encode(Table::Templates, Cursor::End), None);
        assert_eq!(decode(u64::MAX), None);
    }

    #[test]
    fn states_have_the_names_of_the_listing() {
        assert_eq!(state_name(6, 1), "ESTABLISHED");
        assert_eq!(state_name(6, 99), "ERR!");
        assert_eq!(state_name(17, 0), "UDP");
        assert_eq!(state_name(132, 8), "ESTABLISHED");
        assert_eq!(state_name(132, 10), "S-RECEIVED");
        assert_eq!(state_name(132, 14), "ERR!");
        assert_eq!(protocol_name(132), "SCTP");
        assert_eq!(protocol_name(47), "47");
    }
}
