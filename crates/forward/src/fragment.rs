//! Pieces of fragmented datagrams (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Only the first piece has the ports. It is served like a whole packet and leaves a note, under source, destination,
//! protocol and identification, of where it went; later pieces go there too. Nothing is put together, so nothing
//! is held: a later piece that overtakes its first one has no note and is left to the host. IPVS, which puts
//! datagrams together first, would serve it; here the datagram is lost, as it is when a piece is lost.
//!
//! [`remember`] is called by whoever gives a packet to a real server, [`leave_to_host`] by whoever does not.

use crate::decide::{Onward, Outcome};
use crate::deliver::send;
use crate::enter::find;
use crate::packet::{
    MARK_FIRST_PIECE, MARK_FROM_SERVER, MARK_LATER_PIECE, TRANSLATE_KNOWN, TRANSLATE_NOT, Unserved, Work,
    has_addresses, or_pass, truncated,
};
use crate::tables::Tables;
use abi::{
    FRAGMENT_PLAIN, FRAGMENT_REPLY, FRAGMENT_SOURCE, FRAGMENT_TO_HOST, FRAGMENT_TRANSLATED, FlowKey,
    Fragment, Program, REAL_AVAILABLE, Reply, Verdict, protocol,
};
use wire::{Bytes, ipv4, ipv6, tcp};

/// Life of a note in ns: what Linux gives a datagram to become whole (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_NS: u64 = 30_000_000_000;

/// Serves a piece of a datagram.
#[inline(always)]
pub fn fragment<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
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
    if work.l3().wrapping_add(work.ip_len as usize) > bytes.len() {
        return Err(Verdict::DropBadLength.into());
    }
    let offset = if work.key.virtual_address.is_v4() {
        let header = ipv4::Header::read(bytes, work.l3()).map_err(truncated)?;
        work.identification = u32::from(header.identification());
        header.fragment_offset()
    } else {
        let piece = ipv6::Piece::read(bytes, work.l4()).map_err(truncated)?;
        work.identification = piece.identification;
        work.key.protocol = u32::from(piece.next);
        piece.offset
    };
    if offset == 0 {
        work.marks |= MARK_FIRST_PIECE;
        first(bytes, tables, work, now_ns)
    } else {
        work.marks |= MARK_LATER_PIECE;
        later(bytes, tables, work, offset, now_ns)
    }
}

/// Serves the first piece as if it were the whole.
#[inline(always)]
fn first<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    if !work.key.virtual_address.is_v4() {
        let next = work.key.protocol as u8;
        let behind = work.l4().wrapping_add(ipv6::FRAGMENT_LEN);
        match ipv6::transport(bytes, next, behind).map_err(truncated)? {
            ipv6::Chain::Transport { protocol, offset } => {
                work.key.protocol = u32::from(protocol);
                work.l4 = offset as u16;
            }
            ipv6::Chain::Fragment { .. } | ipv6::Chain::TooDeep => {
                leave_to_host(tables, work, now_ns);
                return Err(Verdict::PassTooDeep.into());
            }
        }
    }
    let l4 = work.l4();
    let room = work.room(l4);
    if work.key.protocol == u32::from(protocol::TCP) {
        // RFC 3128: what the flags say decides, so they must not come in another piece.
        if room < tcp::HEADER_LEN {
            return Err(Verdict::DropTinyFragment.into());
        }
        let header = tcp::parse(bytes, l4).map_err(truncated)?;
        if header.header_len < tcp::HEADER_LEN {
            return Err(Verdict::DropBadLength.into());
        }
        if header.header_len > room {
            return Err(Verdict::DropTinyFragment.into());
        }
        work.key.client_port_be = header.source_be;
        work.key.virtual_port_be = header.destination_be;
        work.tcp_flags = u32::from(header.flags);
    } else if work.key.protocol == u32::from(protocol::UDP) {
        if room < tcp::UDP_HEADER_LEN {
            return Err(Verdict::DropTinyFragment.into());
        }
        let header = tcp::parse_udp(bytes, l4).map_err(truncated)?;
        if (header.len as usize) < tcp::UDP_HEADER_LEN {
            return Err(Verdict::DropBadLength.into());
        }
        work.key.client_port_be = header.source_be;
        work.key.virtual_port_be = header.destination_be;
    } else if work.key.protocol == u32::from(protocol::SCTP) {
        return Err(Unserved::Next(Program::Sctp));
    } else {
        return Err(Unserved::Next(Program::Related));
    }
    if work.marks & MARK_FROM_SERVER != 0 {
        return Err(Unserved::Next(Program::Reply));
    }
    find::<B, T, false>(bytes, tables, work, now_ns)
}

/// Sends a later piece after its first one.
#[inline(always)]
fn later<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    offset: u32,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    // RFC 3128: a piece at offset 8 would overwrite the flags of the TCP header in the first one.
    if work.key.protocol == u32::from(protocol::TCP) && offset < tcp::HEADER_LEN as u32 {
        return Err(Verdict::DropTinyFragment.into());
    }
    let note = note(tables, work, now_ns).ok_or(Verdict::PassFragmentLost)?;
    if note.kind == FRAGMENT_REPLY {
        return Err(Unserved::Next(Program::ReplyPiece));
    }
    if note.real == FRAGMENT_TO_HOST {
        return Err(Verdict::PassFragment.into());
    }
    let real = tables.real(note.real).ok_or(Verdict::DropInternal)?;
    if real.flags & REAL_AVAILABLE == 0 {
        return Err(Verdict::DropRealGone.into());
    }
    work.real = note.real;
    if note.kind != FRAGMENT_PLAIN {
        work.translate = TRANSLATE_KNOWN;
        // Any port: what is asked of it is whether there is one.
        work.source_port_be = u16::from(note.kind == FRAGMENT_SOURCE);
    }
    tables.count_in(note.real, work.ip_len, false);
    send(bytes, tables, work, &real, Verdict::ForwardFragment)
}

/// If the packet is the first piece of a datagram: the others go to this real server.
#[inline(always)]
pub(crate) fn remember<T: Tables>(tables: &T, work: &Work, real: u32, now_ns: u64) {
    if work.marks & MARK_FIRST_PIECE != 0 {
        let expires_ns = now_ns.wrapping_add(FRAGMENT_NS);
        let kind = match (work.translate == TRANSLATE_NOT, work.source_port_be) {
            (true, _) => FRAGMENT_PLAIN,
            (false, 0) => FRAGMENT_TRANSLATED,
            (false, _) => FRAGMENT_SOURCE,
        };
        tables.insert_fragment(&note_key(work), &Fragment { expires_ns, real, kind, ..Fragment::default() });
    }
}

/// The same for one that comes from a masqueraded real server.
#[inline(always)]
pub(crate) fn remember_reply<T: Tables>(tables: &T, work: &Work, reply: &Reply, now_ns: u64) {
    if work.marks & MARK_FIRST_PIECE != 0 {
        let expires_ns = now_ns.wrapping_add(FRAGMENT_NS);
        let note = Fragment { expires_ns, real: reply.real, kind: FRAGMENT_REPLY, reply: *reply };
        tables.insert_fragment(&note_key(work), &note);
    }
}

/// What the first piece left for this one.
#[inline(always)]
pub(crate) fn note<T: Tables>(tables: &T, work: &Work, now_ns: u64) -> Option<Fragment> {
    tables.fragment(&note_key(work)).filter(|note| now_ns < note.expires_ns)
}

/// If the packet is the first piece of a datagram: the others go up the director's own stack.
#[inline(always)]
pub(crate) fn leave_to_host<T: Tables>(tables: &T, work: &Work, now_ns: u64) {
    remember(tables, work, FRAGMENT_TO_HOST, now_ns);
}

/// The key of a note. In IPv6 the pieces need not agree on a protocol (RFC 8200 section 4.5).
#[inline(always)]
fn note_key(work: &Work) -> FlowKey {
    let v4 = work.key.virtual_address.is_v4();
    FlowKey {
        client: work.key.client,
        virtual_address: work.key.virtual_address,
        client_port_be: work.identification as u16,
        virtual_port_be: (work.identification >> 16) as u16,
        protocol: if v4 { work.key.protocol } else { ipv6::NEXT_FRAGMENT as u32 },
    }
}
