//! The tracked flows, page by page.
//!
//! The cursor that goes to the client and back is a place in the kernel's table, so the director keeps nothing between
//! two pages. Flows that come and go meanwhile may or may not be seen.

use crate::convert::{ip, socket};
use abi::{Flow, FlowKey, TcpState, protocol};
use api::{Connection, Connections, Protocol};
use kernel::{Cursor, TableError, Tables as Maps};
use std::net::SocketAddr;

/// Flows on a page.
const PAGE: usize = 2048;
/// Pages of expired flows passed over before an empty page is returned with a cursor.
const EMPTY_MAX: usize = 16;

/// Marks the embryonic table.
const EMBRYONIC: u64 = 1 << 33;
/// Marks a place inside a table; without it the cursor is at its start.
const INSIDE: u64 = 1 << 32;

fn decode(cursor: u64) -> (bool, Cursor) {
    let place = if cursor & INSIDE != 0 { Cursor::At(cursor as u32) } else { Cursor::Start };
    (cursor & EMBRYONIC != 0, place)
}

fn encode(embryonic: bool, cursor: Cursor) -> Option<u64> {
    let table = if embryonic { EMBRYONIC } else { 0 };
    match cursor {
        Cursor::Start => Some(table),
        Cursor::At(bucket) => Some(table | INSIDE | u64::from(bucket)),
        Cursor::End if embryonic => None,
        Cursor::End => Some(EMBRYONIC),
    }
}

/// One page from a cursor on; 0 is the beginning.
pub(crate) fn page(maps: &Maps, cursor: u64, now_ns: u64) -> Result<Connections, TableError> {
    let (mut embryonic, mut place) = decode(cursor);
    let mut connections = Vec::new();
    for _ in 0..EMPTY_MAX {
        let table = if embryonic { &maps.embryonic } else { &maps.established };
        for (key, flow) in table.scan(&mut place, PAGE)? {
            if now_ns < flow.expires_ns {
                connections.push(connection(maps, &key, &flow, embryonic, now_ns)?);
            }
        }
        let next = encode(embryonic, place);
        match next {
            Some(cursor) if connections.is_empty() => (embryonic, place) = decode(cursor),
            _ => return Ok(Connections { connections, next_cursor: next }),
        }
    }
    Ok(Connections { connections, next_cursor: encode(embryonic, place) })
}

fn connection(
    maps: &Maps,
    key: &FlowKey,
    flow: &Flow,
    embryonic: bool,
    now_ns: u64,
) -> Result<Connection, TableError> {
    const SECOND_NS: u64 = 1_000_000_000;
    let real = maps.reals.get(flow.real)?.unwrap_or_default();
    let port_be = if real.port_be == 0 { key.virtual_port_be } else { real.port_be };
    Ok(Connection {
        protocol: protocol_name(key.protocol),
        expires_s: flow.expires_ns.saturating_sub(now_ns) / SECOND_NS,
        state: state_name(key.protocol, flow.state),
        client: socket(&key.client, key.client_port_be),
        virtual_address: socket(&key.virtual_address, key.virtual_port_be),
        real: SocketAddr::new(ip(&real.address), u16::from_be(port_be)),
        embryonic,
        engine: None,
        engine_data: None,
    })
}

pub(crate) fn protocol_name(number: u32) -> String {
    let known = u8::try_from(number).ok().and_then(Protocol::from_number);
    known.map_or_else(|| number.to_string(), |protocol| protocol.to_string())
}

pub(crate) fn state_name(number: u32, state: u8) -> String {
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
    fn cursors_lead_through_both_tables_to_the_end() {
        assert_eq!(decode(0), (false, Cursor::Start));
        let places = [(false, Cursor::At(0)), (false, Cursor::At(u32::MAX)), (true, Cursor::At(7))];
        for (embryonic, place) in places {
            let cursor = encode(embryonic, place).expect("not the end");
            assert_eq!(decode(cursor), (embryonic, place));
        }
        let second = encode(false, Cursor::End).expect("the other table follows");
        assert_eq!(decode(second), (true, Cursor::Start));
        assert_eq!(encode(true, Cursor::End), None);
    }

    #[test]
    fn states_have_the_names_of_the_listing() {
        assert_eq!(state_name(6, 1), "ESTABLISHED");
        assert_eq!(state_name(6, 99), "ERR!");
        assert_eq!(state_name(17, 0), "UDP");
        assert_eq!(protocol_name(132), "SCTP");
        assert_eq!(protocol_name(47), "47");
    }
}
