//! ICMP errors about our own tunnel packets: the client is told about the packet that was inside [`ip_vs_core.c`,
//! `ip_vs_in_icmp`].
//!
//! ```text
//! | link | IP, router > director | ICMP | outer IP | GUE, GRE | packet, cut |   as it came
//!                        | link | IP, VIP > client | ICMP | packet, cut |       as it leaves
//! ```
//!
//! The packet inside must be of a flow whose real server is at the end of that tunnel, else the error is for the host. The MTU that
//! it tells is less by what the tunnel adds. IPVS does so for IPv4 outside; here either family is inside the other.

use crate::answer::{ICMP_LEN, Message, QUOTE_MAX, QUOTED_TRANSPORT, Resize, may_answer, write};
use crate::decide::{Outcome, Step};
use crate::error::{icmp_of, is_unreachable};
use crate::link::Link;
use crate::mtu::{GRE_CHECKSUM_LEN, GRE_LEN, GUE_LEN, overhead};
use crate::packet::{Work, truncated};
use crate::related::flow;
use crate::tables::{Route, Tables};
use abi::{
    Address, Failure, FlowKey, METHOD_TUNNEL, Real, TUNNEL_GRE, TUNNEL_GUE, TUNNEL_IPIP, Verdict, protocol,
};
use core::hint::black_box;
use wire::{Bytes, Short, ethernet, icmp, ipv4, ipv6};

/// The only flag of a GRE header that our tunnels set: it has a checksum.
const GRE_CHECKSUM_PRESENT: u8 = 0x80;
/// Length of the options in a GUE header, in words; above it are version and control flag.
const GUE_OPTIONS: u8 = 0x1f;

/// Tells the client, or leaves the error to the host.
#[inline(always)]
pub fn unwrap<B: Resize, T: Tables>(bytes: B, tables: &T, work: &Work, now_ns: u64) -> (Step, B) {
    // First: once later bytes were read, the compiler drops the checks of earlier ones.
    let Ok(link) = Link::read(&bytes, work.l3()) else {
        return (Step::stop(tables, Verdict::DropTruncated), bytes);
    };
    let planned = match plan(&bytes, tables, work, now_ns) {
        Ok(planned) => planned,
        Err(verdict) => return (Step::stop(tables, verdict), bytes),
    };
    match tell(bytes, work, &link, &planned) {
        Ok(bytes) => (Step::Done(Outcome::leave(tables, Verdict::ForwardError, planned.ifindex)), bytes),
        Err(bytes) => (Step::stop(tables, Verdict::DropTruncated), bytes),
    }
}

/// What the client is told.
struct Planned {
    key: FlowKey,
    message: Message,
    ifindex: u32,
    macs: [u32; 3],
    /// Offset of the packet that was inside, and how much of it is quoted again.
    inner: usize,
    quote: usize,
}

#[inline(always)]
fn plan<B: Bytes, T: Tables>(bytes: &B, tables: &T, work: &Work, now_ns: u64) -> Result<Planned, Verdict> {
    let (tunnel, inner) = shim(bytes, work)?;
    let packet = inside(bytes, work, inner)?;
    let (_, flow) = flow(tables, &packet.key, now_ns).ok_or(Verdict::PassUnrelated)?;
    let real = tables.real(flow.real).ok_or(Verdict::DropInternal)?;
    if real.method != METHOD_TUNNEL || real.tunnel != tunnel || real.address != work.key.client {
        return Err(Verdict::PassUnrelated);
    }
    let message = message(bytes, work, &real, &packet)?;
    let [kind, code] = bytes.get::<2>(work.l4()).map_err(truncated)?;
    if is_unreachable(&work.key, kind, code) {
        tables.count_failure(flow.real, Failure::Unreachable);
    }
    if !may_answer(tables, now_ns) {
        return Err(Verdict::DropAnswerLimit);
    }
    let ends = FlowKey {
        client: packet.key.virtual_address,
        virtual_address: packet.key.client,
        protocol: icmp_of(&packet.key),
        ..FlowKey::default()
    };
    let Route::Known { ifindex, macs } = tables.route(bytes.ingress(), &ends, packet.quote as u32) else {
        return Err(Verdict::DropNoRoute);
    };
    Ok(Planned { key: packet.key, message, ifindex, macs, inner, quote: packet.quote })
}

/// What kind of tunnel the quoted packet was in, and where the packet inside begins.
#[inline(always)]
fn shim<B: Bytes>(bytes: &B, work: &Work) -> Result<(u8, usize), Verdict> {
    let at = work.quoted();
    let (tunnel, len) = match work.key.protocol as u8 {
        protocol::IPIP | protocol::IPV6 => (TUNNEL_IPIP, 0),
        protocol::GRE => {
            let [flags, ..] = bytes.get::<GRE_LEN>(at).map_err(truncated)?;
            match flags {
                0 => (TUNNEL_GRE, GRE_LEN),
                GRE_CHECKSUM_PRESENT => (TUNNEL_GRE, GRE_LEN.wrapping_add(GRE_CHECKSUM_LEN)),
                _ => return Err(Verdict::PassUnrelated),
            }
        }
        _ => {
            let behind = at.wrapping_add(wire::tcp::UDP_HEADER_LEN);
            if work.room(behind) < GUE_LEN {
                return Err(Verdict::PassUnrelated);
            }
            let [first, ..] = bytes.get::<GUE_LEN>(behind).map_err(truncated)?;
            if first & !GUE_OPTIONS != 0 {
                return Err(Verdict::PassUnrelated);
            }
            let options = ((first & GUE_OPTIONS) as usize) << 2;
            (TUNNEL_GUE, wire::tcp::UDP_HEADER_LEN.wrapping_add(GUE_LEN).wrapping_add(options))
        }
    };
    Ok((tunnel, at.wrapping_add(len)))
}

/// The packet inside.
struct Inside {
    key: FlowKey,
    /// How much of it is quoted again.
    quote: usize,
    /// Whether its sender looks for the path's MTU.
    forbids_fragments: bool,
}

/// Reads the packet inside, which begins at `inner`.
#[inline(always)]
fn inside<B: Bytes>(bytes: &B, work: &Work, inner: usize) -> Result<Inside, Verdict> {
    if work.room(inner) < ipv4::HEADER_LEN {
        return Err(Verdict::PassUnrelated);
    }
    let header = ipv4::Header::read(bytes, inner).map_err(truncated)?;
    let (client, virtual_address, protocol, header_len, forbids_fragments) = if header.version() == 4 {
        let len = header.header_len();
        if len < ipv4::HEADER_LEN || header.fragment_offset() != 0 {
            return Err(Verdict::PassUnrelated);
        }
        let ends = (Address::v4(header.source()), Address::v4(header.destination()));
        (ends.0, ends.1, header.protocol(), len, header.forbids_fragments())
    } else {
        if header.version() != 6 || work.room(inner) < ipv6::HEADER_LEN {
            return Err(Verdict::PassUnrelated);
        }
        let header = ipv6::Header::read(bytes, inner).map_err(truncated)?;
        let (source, destination) = (Address(header.source()), Address(header.destination()));
        (source, destination, header.next_header(), ipv6::HEADER_LEN, true)
    };
    // Behind extension headers there is little left of a quoted packet: not looked for.
    let known = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let l4 = inner.wrapping_add(header_len);
    if !known || work.room(l4) < QUOTED_TRANSPORT {
        return Err(Verdict::PassUnrelated);
    }
    let [a, b, c, d] = bytes.get::<4>(l4).map_err(truncated)?;
    let key = FlowKey {
        client,
        virtual_address,
        client_port_be: u16::from_ne_bytes([a, b]),
        virtual_port_be: u16::from_ne_bytes([c, d]),
        protocol: u32::from(protocol),
    };
    Ok(Inside { key, quote: header_len.wrapping_add(QUOTED_TRANSPORT), forbids_fragments })
}

/// The error in the family of the packet inside.
#[inline(always)]
fn message<B: Bytes>(bytes: &B, work: &Work, real: &Real, packet: &Inside) -> Result<Message, Verdict> {
    let [kind, code, _, _, e, f, g, h] = bytes.get::<{ icmp::HEADER_LEN }>(work.l4()).map_err(truncated)?;
    let word = u32::from_be_bytes([e, f, g, h]);
    let outer_v4 = work.key.virtual_address.is_v4();
    let (v4, v6, mtu) = match (outer_v4, kind, code) {
        (true, icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => (TOO_BIG.0, TOO_BIG.1, word & 0xffff),
        (false, icmp::V6_TOO_BIG, _) => (TOO_BIG.0, TOO_BIG.1, word),
        (true, icmp::UNREACHABLE, _) => ([kind, code], NO_WAY.1, 0),
        (true, icmp::TIME_EXCEEDED, _) => ([kind, code], LATE.1, 0),
        (false, icmp::V6_UNREACHABLE, _) => (NO_WAY.0, [kind, code], 0),
        (false, icmp::V6_TIME_EXCEEDED, _) => (LATE.0, [kind, code], 0),
        _ => return Err(Verdict::PassUnrelated),
    };
    if v4 != TOO_BIG.0 {
        return Ok(Message { verdict: Verdict::ForwardError, kind: (v4, v6), rest: 0 });
    }
    let overhead = overhead(real) as u32;
    // Such a router is lying, or from before RFC 1191.
    if mtu <= overhead.wrapping_add(MTU_MIN) {
        return Err(Verdict::PassUnrelated);
    }
    if !packet.forbids_fragments {
        return Err(Verdict::DropUnanswered);
    }
    let rest = mtu.wrapping_sub(overhead);
    Ok(Message { verdict: Verdict::ForwardError, kind: (v4, v6), rest })
}

/// Narrowest path of IPv4 (RFC 791 section 3.2), in bytes.
const MTU_MIN: u32 = 68;
/// Type and code over IPv4 and over IPv6: too big, address or host unreachable, time exceeded.
const TOO_BIG: ([u8; 2], [u8; 2]) = ([3, 4], [2, 0]);
const NO_WAY: ([u8; 2], [u8; 2]) = ([3, 1], [1, 3]);
const LATE: ([u8; 2], [u8; 2]) = ([11, 0], [3, 0]);

/// Takes off what is in front of the packet inside, and writes the client's error there.
#[inline(always)]
fn tell<B: Resize>(bytes: B, work: &Work, link: &Link, planned: &Planned) -> Result<B, B> {
    let l3 = work.l3();
    let v4 = planned.key.virtual_address.is_v4();
    let (header, ethertype) =
        if v4 { (ipv4::HEADER_LEN, ethernet::TYPE_IPV4) } else { (ipv6::HEADER_LEN, ethernet::TYPE_IPV6) };
    let front = l3.wrapping_add(header).wrapping_add(ICMP_LEN);
    let cut = planned.inner.wrapping_sub(front) & 0xffff;
    let bytes = match bytes.cut_front(cut) {
        Ok(bytes) => bytes,
        Err((Short, bytes)) => return Err(bytes),
    };
    // The compiler knows that this is less than the most that `write` takes, and would leave the loop there without a bound that
    // the verifier of 6.1 sees.
    let quote = black_box(planned.quote).min(QUOTE_MAX) & !1;
    let mut bytes = match bytes.resize(front.wrapping_add(quote), 0) {
        Ok(bytes) => bytes,
        Err((Short, bytes)) => return Err(bytes),
    };
    let written = link
        .write_to(&mut bytes, l3, planned.macs, ethertype)
        .and_then(|()| write(&mut bytes, &planned.key, &planned.message, l3, quote));
    match written {
        Ok(()) => Ok(bytes),
        Err(Short) => Err(bytes),
    }
}
