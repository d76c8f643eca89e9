//! Tunneling: the packet goes to the real server whole, as the payload of another one [`ip_vs_xmit.c`, `ip_vs_tunnel_xmit`].
//!
//! ```text
//! | link | outer IPv4 or IPv6 |                              | packet |   IPIP (RFC 2003, RFC 2473, RFC 4213)
//! | link | outer IPv4 or IPv6 | UDP (8)  | GUE (4)           | packet |   GUE (draft-ietf-intarea-gue)
//! | link | outer IPv4 or IPv6 | GRE (4)  | checksum (4)      | packet |   GRE (RFC 2784)
//! ```
//!
//! The outer header says what the inner one does: type of service with ECN by RFC 6040, time to live after this hop,
//! and that routers must not fragment. A packet from the wire has its checksum complete, so there is nothing that
//! remote checksum offload could offload: as in IPVS it then is GUE without a checksum.

use crate::answer::Resize;
use crate::decide::{Outcome, Step};
use crate::deliver::leave;
use crate::link::Link;
use crate::mtu::{self, shim_len};
use crate::packet::{MARK_LATER_PIECE, Work, truncated};
use crate::tables::Tables;
use abi::{
    Address, Real, SYSCTL_PMTU_DISC, TUNNEL_CHECKSUM, TUNNEL_GRE, TUNNEL_GUE, TUNNEL_REMOTE_CHECKSUM,
    Verdict, protocol,
};
use wire::{Bytes, Short, checksum, ethernet, ipv4, ipv6};

/// Explicit congestion notification: both bits set mean that congestion was met.
const ECN_MASK: u8 = 3;
/// Capable of it, first codepoint.
const ECN_CAPABLE_0: u8 = 2;
/// The GRE header has a checksum.
const GRE_CHECKSUM_PRESENT: u16 = 0x8000;
/// The first of the ports that are nobody's (RFC 6335), as RFC 8086 wants for the source of a tunnel; a power of two below
/// the end.
const SOURCE_PORTS: u16 = 0xc000;
const SOURCE_PORT_BITS: u32 = 14;
const DONT_FRAGMENT: u32 = 0x4000;

/// Encapsulates a packet that was counted for its real server, and sends it there.
#[inline(always)]
pub fn tunnel<B: Resize, T: Tables>(bytes: B, tables: &T, work: &Work) -> (Step, B) {
    let (real, outer) = match plan(&bytes, tables, work) {
        Ok(planned) => planned,
        Err(Verdict::AnswerTooBig) => {
            tables.take_back_known();
            return (Step::answer(work, Verdict::AnswerTooBig), bytes);
        }
        Err(verdict) => return (take_back(tables, verdict), bytes),
    };
    let bytes = match wrap(bytes, work, &real, &outer) {
        Ok(bytes) => bytes,
        Err(bytes) => return (take_back(tables, Verdict::DropTruncated), bytes),
    };
    (Step::Done(leave(tables, work, real.ifindex)), bytes)
}

#[inline(always)]
fn take_back<T: Tables>(tables: &T, verdict: Verdict) -> Step {
    tables.take_back_known();
    Step::Done(Outcome::count(tables, verdict))
}

/// What the outer headers say.
struct Outer {
    /// Type of service, or traffic class.
    tos: u8,
    ttl: u8,
    /// Identification and flags of an IPv4 header.
    fragment: u32,
    /// Source port of GUE.
    source_port: u16,
    /// Length of the packet inside.
    inner_len: usize,
    /// Whether that is IPv4.
    inner_v4: bool,
}

/// Checks the way, and decides what the outer headers say.
#[inline(always)]
fn plan<B: Bytes, T: Tables>(bytes: &B, tables: &T, work: &Work) -> Result<(Real, Outer), Verdict> {
    let real = tables.real(work.real).ok_or(Verdict::DropInternal)?;
    if mtu::is_too_narrow(&real) || real.source == Address::default() {
        return Err(Verdict::DropTunnel);
    }
    if work.ip_len > mtu::largest(&real) {
        return Err(Verdict::AnswerTooBig);
    }
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    let may_forbid = settings.sysctls.switches & SYSCTL_PMTU_DISC != 0;
    let l3 = work.l3();
    let inner_v4 = work.key.virtual_address.is_v4();
    let [a, b, _, _, id_hi, id_lo, flags, offset_lo] = bytes.get::<8>(l3).map_err(truncated)?;
    let (class, forbids, id) = if inner_v4 {
        // The pieces of a datagram have one identification, but go in packets of their own.
        let offset = u16::from_be_bytes([flags & 0x1f, offset_lo]);
        (b, flags & 0x40 != 0, u16::from_be_bytes([id_hi, id_lo]) ^ offset)
    } else {
        ((a << 4) | (b >> 4), false, sequence(bytes, work))
    };
    let hash = hash(work);
    let fragment = if forbids && may_forbid {
        DONT_FRAGMENT
    } else {
        // All packets to the real server share the two outer addresses: what flow they are of keeps them apart.
        u32::from(id ^ hash as u16) << 16
    };
    let outer = Outer {
        tos: encapsulate_ecn(class),
        ttl: work.ttl.wrapping_sub(1) as u8,
        fragment,
        source_port: SOURCE_PORTS | (hash >> (32 - SOURCE_PORT_BITS)) as u16,
        inner_len: work.ip_len as usize,
        inner_v4,
    };
    Ok((*real, outer))
}

/// The class of the outer header (RFC 6040 section 4.1, normal mode as Linux has it): congestion met before the tunnel is
/// not told to its end, which would tell it again.
#[inline(always)]
const fn encapsulate_ecn(class: u8) -> u8 {
    let ecn = class & ECN_MASK;
    let outer = if ecn == ECN_MASK { ECN_CAPABLE_0 } else { ecn };
    (class & !ECN_MASK) | outer
}

/// A number of the flow, spread over all 32 bits.
#[inline(always)]
const fn hash(work: &Work) -> u32 {
    let key = &work.key;
    let ports = (u16::from_be(key.client_port_be) as u32) << 16 | u16::from_be(key.virtual_port_be) as u32;
    let mixed = key.client.fold().wrapping_mul(0x85eb_ca6b) ^ key.virtual_address.fold() ^ key.protocol;
    crate::hash::hash32((mixed ^ mixed >> 15).wrapping_add(ports), 32)
}

/// For a packet without identification, two bytes that differ from one to the next: of a TCP segment the low half of its
/// sequence number, of a UDP datagram its checksum, of a piece what its fragment header says. 0 when there are none.
#[inline(always)]
fn sequence<B: Bytes>(bytes: &B, work: &Work) -> u16 {
    let Ok([_, _, offset_hi, offset_lo, _, _, hi, lo]) = bytes.get::<8>(work.l4()) else { return 0 };
    let later = work.marks & MARK_LATER_PIECE != 0;
    let offset = if later { u16::from_be_bytes([offset_hi, offset_lo]) } else { 0 };
    u16::from_be_bytes([hi, lo]) ^ offset
}

/// Moves the beginning of the frame, writes the outer headers and takes the hop off the packet.
#[inline(always)]
fn wrap<B: Resize>(bytes: B, work: &Work, real: &Real, outer: &Outer) -> Result<B, B> {
    let l3 = work.l3();
    let Ok(link) = Link::read(&bytes, l3) else { return Err(bytes) };
    let front = mtu::overhead(real);
    // Padding behind the packet goes: it belonged to the shorter frame.
    let mut bytes = match bytes.resize(l3.wrapping_add(outer.inner_len), front) {
        Ok(bytes) => bytes,
        Err((Short, bytes)) => return Err(bytes),
    };
    let inner = l3.wrapping_add(front);
    let ethertype = if real.address.is_v4() { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
    let written = link
        .write_to(&mut bytes, l3, real.macs, ethertype)
        .and_then(|()| write_ip(&mut bytes, l3, real, outer))
        .and_then(|at| {
            if outer.inner_v4 {
                ipv4::decrement_ttl(&mut bytes, inner)?;
            } else {
                ipv6::decrement_hop_limit(&mut bytes, inner)?;
            }
            write_shim(&mut bytes, at, inner, real, outer)
        });
    match written {
        Ok(()) => Ok(bytes),
        Err(Short) => Err(bytes),
    }
}

/// Protocol number of what follows the outer IP header.
#[inline(always)]
const fn next_protocol(real: &Real, outer: &Outer) -> u8 {
    match real.tunnel {
        TUNNEL_GUE => protocol::UDP,
        TUNNEL_GRE => protocol::GRE,
        _ => inner_protocol(outer),
    }
}

#[inline(always)]
const fn inner_protocol(outer: &Outer) -> u8 {
    if outer.inner_v4 { protocol::IPIP } else { protocol::IPV6 }
}

/// Writes the outer IP header and says where the next one goes.
#[inline(always)]
fn write_ip<B: Bytes>(bytes: &mut B, l3: usize, real: &Real, outer: &Outer) -> Result<usize, Short> {
    let next = next_protocol(real, outer);
    let payload = shim_len(real).wrapping_add(outer.inner_len) as u32;
    if real.address.is_v4() {
        let ([.., source], [.., destination]) = (real.source.0, real.address.0);
        let total = payload.wrapping_add(ipv4::HEADER_LEN as u32);
        let first = 0x4500_0000 | u32::from(outer.tos) << 16 | total;
        let third = u32::from(outer.ttl) << 24 | u32::from(next) << 16;
        let sum = halves(first)
            .wrapping_add(halves(outer.fragment))
            .wrapping_add(halves(third))
            .wrapping_add(halves(u32::from_be(source)))
            .wrapping_add(halves(u32::from_be(destination)));
        let third = third | u32::from(!checksum::fold(sum));
        bytes.put_words(l3, [first.to_be(), outer.fragment.to_be(), third.to_be(), source, destination])?;
        return Ok(l3.wrapping_add(ipv4::HEADER_LEN));
    }
    let ([a, b, c, d], [e, f, g, h]) = (real.source.0, real.address.0);
    let first = 0x6000_0000 | u32::from(outer.tos) << 20;
    let second = payload << 16 | u32::from(next) << 8 | u32::from(outer.ttl);
    bytes.put_words(l3, [first.to_be(), second.to_be(), a, b, c, d, e, f, g, h])?;
    Ok(l3.wrapping_add(ipv6::HEADER_LEN))
}

/// Whether the encapsulation has a checksum. Remote checksum offload is only for packets whose own checksum is not there yet,
/// which none from a wire is; what is left of it is the checksum of UDP [`ip_vs_xmit.c`, `ip_vs_tunnel_xmit`].
#[inline(always)]
fn is_summed(real: &Real) -> bool {
    real.tunnel_flags & TUNNEL_CHECKSUM != 0
        || (real.tunnel == TUNNEL_GUE && real.tunnel_flags & TUNNEL_REMOTE_CHECKSUM != 0)
}

/// Writes what stands between the outer IP header and the packet, which starts at `inner`.
#[inline(always)]
fn write_shim<B: Resize>(
    bytes: &mut B,
    at: usize,
    inner: usize,
    real: &Real,
    outer: &Outer,
) -> Result<(), Short> {
    let summed = is_summed(real);
    match real.tunnel {
        TUNNEL_GUE => {
            let len = shim_len(real).wrapping_add(outer.inner_len) as u32;
            let ports = u32::from(outer.source_port) << 16 | u32::from(u16::from_be(real.tunnel_port_be));
            // Version 0, no control message, no options, no flags.
            let gue = u32::from(inner_protocol(outer)) << 16;
            let mut field = 0;
            if summed {
                let headers = halves(ports).wrapping_add(len).wrapping_add(halves(gue));
                let sum = bytes.sum(inner, outer.inner_len)?;
                field = !checksum::fold(pseudo(real, len).wrapping_add(headers).wrapping_add(u32::from(sum)));
                // RFC 768: nought would mean that there is none.
                field = if field == 0 { u16::MAX } else { field };
            }
            let second = len << 16 | u32::from(field);
            bytes.put_words(at, [ports.to_be(), second.to_be(), gue.to_be()])
        }
        TUNNEL_GRE => {
            let ethertype = if outer.inner_v4 { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
            if !summed {
                return bytes.put_words(at, [u32::from(ethertype).to_be()]);
            }
            let first = u32::from(GRE_CHECKSUM_PRESENT) << 16 | u32::from(ethertype);
            let sum = bytes.sum(inner, outer.inner_len)?;
            let field = !checksum::fold(halves(first).wrapping_add(u32::from(sum)));
            bytes.put_words(at, [first.to_be(), (u32::from(field) << 16).to_be()])
        }
        _ => Ok(()),
    }
}

/// Sum over the pseudo-header of UDP between the director and the real server (RFC 768, RFC 8200 section 8.1). Of an IPv4
/// address all words but the last are the same in both, and none of it.
#[inline(always)]
fn pseudo(real: &Real, len: u32) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (real.source.0, real.address.0);
    let mut sum = len.wrapping_add(u32::from(protocol::UDP));
    sum = sum.wrapping_add(halves(u32::from_be(d))).wrapping_add(halves(u32::from_be(h)));
    if !real.address.is_v4() {
        for word in [a, b, c, e, f, g] {
            sum = sum.wrapping_add(halves(u32::from_be(word)));
        }
    }
    sum
}

/// Both halves of a word, added up.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word >> 16).wrapping_add(word & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn congestion_is_not_told_twice() {
        // Class of the packet, class of the outer header.
        for (inner, outer) in [(0x00, 0x00), (0xb9, 0xb9), (0xba, 0xba), (0xbb, 0xba), (0x03, 0x02)] {
            assert_eq!(encapsulate_ecn(inner), outer);
        }
    }

    #[test]
    fn flows_spread_over_the_source_ports() {
        let port = |client: u8, port: u16| {
            let mut work = Work::default();
            work.key.client = Address::v4([10, 0, 0, client]);
            work.key.virtual_address = Address::v4([192, 0, 2, 10]);
            work.key.client_port_be = port.to_be();
            hash(&work) >> (32 - SOURCE_PORT_BITS)
        };
        let mut seen = [0_u32; 16];
        for client in 0..32 {
            for number in 0..32 {
                seen[port(client, 40_000 + number) as usize >> 10] += 1;
            }
        }
        // 64 each if they were drawn at random; seven deviations to either side.
        assert!(seen.iter().all(|count| (10..=120).contains(count)), "{seen:?}");
    }
}
