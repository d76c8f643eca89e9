//! A TCP reset to the client whose real server was taken out, so that it connects anew instead of waiting in vain
//! (RFC 9293, section 3.5.2, third kind: the connection is known to be gone).
//!
//! The reset comes from the VIP and the virtual port, with the sequence number that the client's segment asks for, so
//! that the client believes it (section 3.10.7.4; RFC 5961). The flow ends with it.

use crate::answer::{Resize, may_answer, sum_words};
use crate::decide::Step;
use crate::link::Link;
use crate::packet::Work;
use crate::place::forget_stale;
use crate::tables::Tables;
use abi::{Verdict, protocol};
use wire::tcp::{ACK, FIN, HEADER_LEN, RST, SYN};
use wire::{Bytes, Short, checksum, ipv4, ipv6};

const TTL: u8 = 64;

/// Answers the segment with a reset, and forgets its flow. Resets count as answers, which are limited a second; one that
/// may not be sent leaves the flow, so that the next segment tries again.
#[inline(always)]
pub fn reset<B: Resize, T: Tables>(bytes: B, tables: &T, work: &Work, now_ns: u64) -> (Step, B) {
    if !may_answer(tables, now_ns) {
        return (Step::stop(tables, Verdict::DropAnswerLimit), bytes);
    }
    forget_stale(tables, work);
    let (verdict, bytes) = match build(bytes, work) {
        Ok(bytes) => (Verdict::AnswerReset, bytes),
        Err(bytes) => (Verdict::DropTruncated, bytes),
    };
    (Step::stop(tables, verdict), bytes)
}

/// What the reset says about the segment it answers.
#[derive(Clone, Copy)]
struct Numbers {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
}

#[inline(always)]
fn build<B: Resize>(bytes: B, work: &Work) -> Result<B, B> {
    let l3 = work.l3();
    let header = if work.key.virtual_address.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let (Ok(link), Ok(numbers)) = (Link::read(&bytes, l3), numbers(&bytes, work)) else { return Err(bytes) };
    let mut bytes = match bytes.resize(l3.wrapping_add(header).wrapping_add(HEADER_LEN), 0) {
        Ok(bytes) => bytes,
        Err((Short, bytes)) => return Err(bytes),
    };
    let written = link.write_back(&mut bytes, l3).and_then(|()| {
        let pseudo = if header == ipv4::HEADER_LEN {
            write_v4(&mut bytes, work, l3)
        } else {
            write_v6(&mut bytes, work, l3)
        }?;
        write_tcp(&mut bytes, work, l3.wrapping_add(header), numbers, pseudo)
    });
    match written {
        Ok(()) => Ok(bytes),
        Err(Short) => Err(bytes),
    }
}

/// RFC 9293, section 3.5.2: a segment with an acknowledgment is answered with that as sequence number, any other with
/// sequence number 0 and an acknowledgment of everything in it.
#[inline(always)]
fn numbers<B: Bytes>(bytes: &B, work: &Work) -> Result<Numbers, Short> {
    let l4 = work.l4 as usize;
    let [_, _, _, _, a, b, c, d, e, f, g, h, offset, flags, ..] = bytes.get::<HEADER_LEN>(l4)?;
    let (sequence, acknowledged) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if flags & ACK != 0 {
        return Ok(Numbers { sequence: acknowledged, acknowledged: 0, flags: RST });
    }
    let headers = (l4 as u32).wrapping_sub(u32::from(work.l3)).wrapping_add(u32::from(offset >> 4) << 2);
    let controls = u32::from(flags & SYN != 0).wrapping_add(u32::from(flags & FIN != 0));
    let len = work.ip_len.wrapping_sub(headers).wrapping_add(controls);
    Ok(Numbers { sequence: 0, acknowledged: sequence.wrapping_add(len), flags: RST | ACK })
}

/// Writes the IPv4 header. Gives the sum of the pseudo-header.
#[inline(always)]
fn write_v4<B: Bytes>(bytes: &mut B, work: &Work, l3: usize) -> Result<u32, Short> {
    let [.., va, vb, vc, vd] = work.key.virtual_address.octets();
    let [.., ca, cb, cc, cd] = work.key.client.octets();
    let addresses = sum_words(&[va, vb, vc, vd]).wrapping_add(sum_words(&[ca, cb, cc, cd]));
    // DF, no identification: RFC 6864.
    let first = [0x45, 0, 0, 40, 0, 0, 0x40, 0, TTL, protocol::TCP];
    let [sum_hi, sum_lo] = (!checksum::fold(sum_words(&first).wrapping_add(addresses))).to_be_bytes();
    let [a, b, c, d, e, f, g, h, i, j] = first;
    bytes.put(l3, [a, b, c, d, e, f, g, h, i, j, sum_hi, sum_lo, va, vb, vc, vd, ca, cb, cc, cd])?;
    Ok(addresses)
}

/// Writes the IPv6 header. Gives the sum of the pseudo-header's addresses.
#[inline(always)]
fn write_v6<B: Bytes>(bytes: &mut B, work: &Work, l3: usize) -> Result<u32, Short> {
    let (source, destination) = (work.key.virtual_address.octets(), work.key.client.octets());
    bytes.put(l3, [0x60, 0, 0, 0, 0, HEADER_LEN as u8, protocol::TCP, TTL])?;
    bytes.put(l3.wrapping_add(8), source)?;
    bytes.put(l3.wrapping_add(24), destination)?;
    Ok(sum_words(&source).wrapping_add(sum_words(&destination)))
}

#[inline(always)]
fn write_tcp<B: Bytes>(
    bytes: &mut B,
    work: &Work,
    offset: usize,
    numbers: Numbers,
    pseudo: u32,
) -> Result<(), Short> {
    let [sa, sb] = work.key.virtual_port_be.to_ne_bytes();
    let [da, db] = work.key.client_port_be.to_ne_bytes();
    let [qa, qb, qc, qd] = numbers.sequence.to_be_bytes();
    let [ka, kb, kc, kd] = numbers.acknowledged.to_be_bytes();
    let first = [sa, sb, da, db, qa, qb, qc, qd, ka, kb, kc, kd, 0x50, numbers.flags];
    let sum = sum_words(&first)
        .wrapping_add(pseudo)
        .wrapping_add(u32::from(protocol::TCP))
        .wrapping_add(HEADER_LEN as u32);
    let [hi, lo] = (!checksum::fold(sum)).to_be_bytes();
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = first;
    bytes.put(offset, [a, b, c, d, e, f, g, h, i, j, k, l, m, n, 0, 0, hi, lo, 0, 0])
}
