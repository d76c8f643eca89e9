//! ICMP errors to the client: time exceeded and port unreachable (RFC 792, RFC 4443).
//!
//! The answer quotes the network header and the first eight bytes behind it, which is what the client's
//! stack needs to find the connection, and leaves by the interface the packet came by. It comes from
//! the VIP, as IPVS sends it. Answers are limited for each CPU and second: a stranger can ask for them.

use crate::decide::Step;
use crate::packet::Work;
use crate::tables::Tables;
use abi::{Answers, Verdict, protocol};
use wire::{Bytes, Short, checksum, ethernet, ipv4, ipv6};

/// A frame that can change its length at both ends.
pub trait Resize: Bytes + Sized {
    /// Makes the frame `len` bytes long, then adds `front` bytes before it. The old value is gone: offsets
    /// into it are dead.
    ///
    /// # Errors
    /// [`Short`] when there is no room.
    fn resize(self, len: usize, front: usize) -> Result<Self, (Short, Self)>;
}

const ICMP_LEN: usize = 8;
const QUOTED_TRANSPORT: usize = 8;
/// Most bytes quoted: an IPv6 header, extensions and eight bytes; an even number.
const QUOTE_MAX: usize = 128;
const TTL: u8 = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// Turns the packet into the ICMP error that `work.verdict` names.
#[inline(always)]
pub fn answer<B: Resize, T: Tables>(bytes: B, tables: &T, work: &Work, now_ns: u64) -> (Step, B) {
    let verdict = if work.verdict as u32 == Verdict::AnswerTimeExceeded.number() {
        Verdict::AnswerTimeExceeded
    } else {
        Verdict::AnswerPortUnreachable
    };
    let (verdict, bytes) = if !may_answer(tables, now_ns) {
        (Verdict::DropAnswerLimit, bytes)
    } else {
        match build(bytes, work, verdict) {
            Ok(bytes) => (verdict, bytes),
            Err(bytes) => (Verdict::DropTruncated, bytes),
        }
    };
    (Step::stop(tables, verdict), bytes)
}

/// Takes one answer out of this second's allowance.
#[inline(always)]
fn may_answer<T: Tables>(tables: &T, now_ns: u64) -> bool {
    let second = now_ns.checked_div(SECOND_NS).unwrap_or_default();
    let most = tables.settings().map(|s| s.answers_per_second_max).unwrap_or_default();
    let answers = tables.answers();
    let sent = if answers.second == second { answers.sent } else { 0 };
    if sent >= most {
        return false;
    }
    tables.set_answers(Answers { second, sent: sent.wrapping_add(1) });
    true
}

#[inline(always)]
fn build<B: Resize>(bytes: B, work: &Work, verdict: Verdict) -> Result<B, B> {
    let l3 = work.l3();
    let v4 = work.key.virtual_address.is_v4();
    let header = if v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let quote = (work.l4 as usize).wrapping_sub(l3).wrapping_add(QUOTED_TRANSPORT).min(QUOTE_MAX) & !1;
    let Ok(link) = Link::read(&bytes, l3) else { return Err(bytes) };
    let front = header.wrapping_add(ICMP_LEN);
    let mut bytes = match bytes.resize(l3.wrapping_add(quote), front) {
        Ok(bytes) => bytes,
        Err((Short, bytes)) => return Err(bytes),
    };
    let written = link.write(&mut bytes, l3).and_then(|()| {
        if v4 {
            write_v4(&mut bytes, work, verdict, l3, quote)
        } else {
            write_v6(&mut bytes, work, verdict, l3, quote)
        }
    });
    match written {
        Ok(()) => Ok(bytes),
        Err(Short) => Err(bytes),
    }
}

/// The link-layer header, kept while the frame moves.
struct Link {
    addresses: [u8; 12],
    /// Type without tags; or the first tag.
    rest: [u8; 2],
    tags: [u8; 8],
}

impl Link {
    #[inline(always)]
    fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short> {
        let mut tags = [0; 8];
        if l3 > ethernet::HEADER_LEN {
            let [a, b, c, d] = bytes.get::<4>(ethernet::HEADER_LEN)?;
            let [e, f, g, h] = if l3 > 18 { bytes.get::<4>(18)? } else { [0; 4] };
            tags = [a, b, c, d, e, f, g, h];
        }
        Ok(Self { addresses: bytes.get(0)?, rest: bytes.get(12)?, tags })
    }

    /// Writes it with the addresses exchanged.
    #[inline(always)]
    fn write<B: Bytes>(&self, bytes: &mut B, l3: usize) -> Result<(), Short> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.addresses;
        bytes.put(0, [g, h, i, j, k, l, a, b, c, d, e, f])?;
        bytes.put(12, self.rest)?;
        let [a, b, c, d, e, f, g, h] = self.tags;
        if l3 > ethernet::HEADER_LEN {
            bytes.put(14, [a, b, c, d])?;
        }
        if l3 > 18 {
            bytes.put(18, [e, f, g, h])?;
        }
        Ok(())
    }
}

#[inline(always)]
fn write_v4<B: Bytes>(
    bytes: &mut B,
    work: &Work,
    verdict: Verdict,
    l3: usize,
    quote: usize,
) -> Result<(), Short> {
    let [.., va, vb, vc, vd] = work.key.virtual_address.octets();
    let [.., ca, cb, cc, cd] = work.key.client.octets();
    let total = (ipv4::HEADER_LEN.wrapping_add(ICMP_LEN).wrapping_add(quote)) as u16;
    let [len_hi, len_lo] = total.to_be_bytes();
    // TOS 0xc0 (internetwork control), DF, no identification: as RFC 1812 section 4.3.2.5 and RFC 6864 want.
    let first = [0x45, 0xc0, len_hi, len_lo, 0, 0, 0x40, 0, TTL, protocol::ICMP];
    let sum = sum_words(&first)
        .wrapping_add(sum_words(&[va, vb, vc, vd]))
        .wrapping_add(sum_words(&[ca, cb, cc, cd]));
    let [sum_hi, sum_lo] = (!checksum::fold(sum)).to_be_bytes();
    let [a, b, c, d, e, f, g, h, i, j] = first;
    bytes.put(l3, [a, b, c, d, e, f, g, h, i, j, sum_hi, sum_lo, va, vb, vc, vd, ca, cb, cc, cd])?;
    let (kind, code) = if verdict == Verdict::AnswerTimeExceeded { (11, 0) } else { (3, 3) };
    write_icmp(bytes, l3.wrapping_add(ipv4::HEADER_LEN), kind, code, quote, 0)
}

#[inline(always)]
fn write_v6<B: Bytes>(
    bytes: &mut B,
    work: &Work,
    verdict: Verdict,
    l3: usize,
    quote: usize,
) -> Result<(), Short> {
    let len = ICMP_LEN.wrapping_add(quote) as u16;
    let [len_hi, len_lo] = len.to_be_bytes();
    bytes.put(l3, [0x60, 0, 0, 0, len_hi, len_lo, protocol::ICMPV6, TTL])?;
    let source = work.key.virtual_address.octets();
    let destination = work.key.client.octets();
    bytes.put(l3.wrapping_add(8), source)?;
    bytes.put(l3.wrapping_add(24), destination)?;
    // The pseudo-header of RFC 8200 section 8.1.
    let pseudo = sum_words(&source)
        .wrapping_add(sum_words(&destination))
        .wrapping_add(u32::from(len))
        .wrapping_add(u32::from(protocol::ICMPV6));
    let (kind, code) = if verdict == Verdict::AnswerTimeExceeded { (3, 0) } else { (1, 4) };
    write_icmp(bytes, l3.wrapping_add(ipv6::HEADER_LEN), kind, code, quote, pseudo)
}

/// Writes the ICMP header before the quoted bytes, with its checksum over both.
#[inline(always)]
fn write_icmp<B: Bytes>(
    bytes: &mut B,
    offset: usize,
    kind: u8,
    code: u8,
    quote: usize,
    pseudo: u32,
) -> Result<(), Short> {
    let mut sum = pseudo.wrapping_add(u32::from(u16::from_be_bytes([kind, code])));
    let start = offset.wrapping_add(ICMP_LEN);
    let mut at = 0;
    for _ in 0..QUOTE_MAX >> 1 {
        if at >= quote {
            break;
        }
        sum = sum.wrapping_add(u32::from(u16::from_be_bytes(bytes.get::<2>(start.wrapping_add(at))?)));
        at = at.wrapping_add(2);
    }
    let [hi, lo] = (!checksum::fold(sum)).to_be_bytes();
    bytes.put(offset, [kind, code, hi, lo, 0, 0, 0, 0])
}

/// Sum of the 16-bit words of an even number of bytes.
#[inline(always)]
fn sum_words(bytes: &[u8]) -> u32 {
    let mut sum = 0_u32;
    for pair in bytes.chunks_exact(2) {
        if let [hi, lo] = pair {
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes([*hi, *lo])));
        }
    }
    sum
}
