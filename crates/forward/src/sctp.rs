//! SCTP (RFC 9260): reads the common header and the first chunks, then serves the packet as the entry would.
//!
//! Deliberately absent: multi-homing. An association that moves to another address of its client is another flow.

use crate::decide::{Onward, Outcome};
use crate::enter::find;
use crate::packet::{
    MARK_FIRST_PIECE, MARK_FROM_SERVER, MARK_OPENS, Unserved, Work, has_addresses, or_pass, truncated,
};
use crate::sctp_state::Event;
use crate::tables::Tables;
use abi::{Program, SYSCTL_SLOPPY_SCTP, Verdict};
use wire::{Bytes, Short, sctp};

/// Serves an SCTP packet.
#[inline(always)]
pub fn sctp<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve(bytes, tables, work, now_ns);
    Onward::of(tables, or_pass(work, served))
}

#[inline(always)]
fn serve<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    has_addresses(bytes)?;
    let l4 = work.l4();
    if work.room(l4) < sctp::HEADER_LEN.wrapping_add(sctp::CHUNK_LEN) {
        let piece = work.marks & MARK_FIRST_PIECE != 0;
        return Err(Unserved::Stop(if piece { Verdict::DropTinyFragment } else { Verdict::DropBadLength }));
    }
    let header = sctp::parse(bytes, l4).map_err(truncated)?;
    work.key.client_port_be = header.source_be;
    work.key.virtual_port_be = header.destination_be;
    let event = event(bytes, work, l4).map_err(truncated)?;
    work.tcp_flags = event as u32;
    let switches = tables.settings().map(|s| s.sysctls.switches).unwrap_or_default();
    let sloppy = switches & SYSCTL_SLOPPY_SCTP != 0 && event != Event::Abort;
    if event == Event::Init || sloppy {
        work.marks |= MARK_OPENS;
    }
    if work.marks & MARK_FROM_SERVER != 0 {
        return Err(Unserved::Next(Program::Reply));
    }
    find::<B, T, false>(bytes, tables, work, now_ns)
}

/// What the packet does to the state of its flow: its first chunk says so, but an ABORT behind a COOKIE-ECHO or
/// COOKIE-ACK counts before them [`ip_vs_proto_sctp.c`].
#[inline(always)]
fn event<B: Bytes>(bytes: &B, work: &Work, l4: usize) -> Result<Event, Short> {
    let at = l4.wrapping_add(sctp::HEADER_LEN);
    let first = sctp::chunk(bytes, at)?;
    let event = Event::of(first.kind);
    if event != Event::CookieEcho && event != Event::CookieAck {
        return Ok(event);
    }
    let second = at.wrapping_add(first.padded_len());
    let whole = first.padded_len() >= sctp::CHUNK_LEN && work.room(second) >= sctp::CHUNK_LEN;
    if whole && Event::of(sctp::chunk(bytes, second)?.kind) == Event::Abort {
        return Ok(Event::Abort);
    }
    Ok(event)
}
