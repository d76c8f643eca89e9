//! Source translation: the director's own address and a port of its own in place of the client's.
//!
//! The real server then answers the director, whatever its routes, and two clients with one port stay apart. A port is
//! free when no other flow to the same address and port of a real server has it: that is when the way back of the replies
//! can be told. It is looked for from a keyed hash on, so that a stranger cannot aim at taken ones.

use crate::decide::{Onward, Outcome};
use crate::fragment::remember;
use crate::hash::siphash13_pair;
use crate::masquerade::{real_side, way_back};
use crate::packet::{TRANSLATE_KEEPS_PORT, TRANSLATE_KNOWN, Work, truncated};
use crate::place;
use crate::tables::Tables;
use abi::{Address, Program, Real, Verdict};
use wire::Bytes;

/// Ports tried for one flow.
pub const PORTS_TRIED_MAX: u32 = 8;

/// Serves a packet that opens a flow to `work.real`, whose packets get another source.
#[inline(always)]
pub fn source<B: Bytes, T: Tables>(bytes: &B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    match begin(bytes, tables, work, now_ns) {
        Ok(()) => {
            remember(tables, work, work.real, now_ns);
            let opens = work.verdict != Verdict::ForwardStateless as u8;
            tables.count_in(work.real, work.ip_len, opens);
            Onward::To(Program::Masquerade)
        }
        Err(verdict) => Onward::Done(Outcome::count(tables, verdict)),
    }
}

#[inline(always)]
fn begin<B: Bytes, T: Tables>(bytes: &B, tables: &T, work: &mut Work, now_ns: u64) -> Result<(), Verdict> {
    let real = tables.real(work.real).ok_or(Verdict::DropInternal)?;
    work.source_port_be = take_port(bytes, tables, work, &real, now_ns)?;
    work.translate = TRANSLATE_KNOWN | work.translate & TRANSLATE_KEEPS_PORT;
    place::begin(tables, work, &real, now_ns)
}

/// Takes a port for a new flow and keeps its way back. Network order; never 0.
#[inline(always)]
fn take_port<B: Bytes, T: Tables>(
    bytes: &B,
    tables: &T,
    work: &Work,
    real: &Real,
    now_ns: u64,
) -> Result<u16, Verdict> {
    if real.source == (Address([0; 4])) {
        return Err(Verdict::DropUnresolved);
    }
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    let [low, high] = settings.source_ports;
    let [k0, k1] = settings.overflow_key;
    let ports = u32::from(high).saturating_sub(u32::from(low)).wrapping_add(1);
    let keeps_port = work.translate & TRANSLATE_KEEPS_PORT != 0;
    let reply = way_back(bytes, work).map_err(truncated)?;
    let client_port = u32::from(work.key.client_port_be) << 16 | u32::from(work.key.virtual_port_be);
    // The first try is the same at any time: a flow that was evicted and comes back mostly gets its port again.
    let mut salt = 0_u32;
    for _ in 0..PORTS_TRIED_MAX {
        let word = work.key.client.fold() ^ salt;
        let hash = siphash13_pair([k0, k1], word, client_port) as u32;
        let port = u32::from(low).wrapping_add(hash.checked_rem(ports).unwrap_or_default()) as u16;
        let key = real_side(&work.key, real, port.max(1).to_be(), keeps_port);
        if tables.reply(&key).is_none() && tables.add_embryonic_reply(&key, &reply) {
            return Ok(key.client_port_be);
        }
        salt = hash ^ now_ns as u32 | 1;
    }
    Err(Verdict::DropNoPort)
}
