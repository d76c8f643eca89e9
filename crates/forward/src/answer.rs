//! ICMP errors to the client: time exceeded, port unreachable and packet too big (RFC 792, RFC 1191, RFC 4443).
//!
//! The answer quotes the network header and the first eight bytes behind it, which is what the client's
//! stack needs to find the connection, and leaves by the interface the packet came by. It comes from
//! the VIP, as IPVS sends it. Answers are limited for each CPU and second: a stranger can ask for them.

use crate::decide::Step;
use crate::link::Link;
use crate::mtu;
use crate::packet::{MARK_ICMP_ERROR, MARK_LATER_PIECE, Work};
use crate::tables::Tables;
use abi::{Answers, FlowKey, Verdict, protocol};
use wire::{Bytes, Short, checksum, ipv4, ipv6};

/// A frame that can change its length at both ends.
pub trait Resize: Bytes + Sized {
    /// Makes the frame `len` bytes long, then adds `front` bytes before it. The old value is gone: offsets
    /// into it are dead.
    ///
    /// # Errors
    /// [`Short`] when there is no room.
    fn resize(self, len: usize, front: usize) -> Result<Self, (Short, Self)>;

    /// Takes `len` bytes off the front. The old value is gone, as above.
    ///
    /// # Errors
    /// [`Short`] when the frame is not longer.
    fn cut_front(self, len: usize) -> Result<Self, (Short, Self)>;

    /// Sum of the 16-bit words of `len` bytes from `offset` on (RFC 1071), in whichever buffers they are. An odd last
    /// byte counts as followed by a zero.
    ///
    /// # Errors
    /// [`Short`] when the frame ends before them.
    fn sum(&self, offset: usize, len: usize) -> Result<u16, Short>;
}

pub(crate) const ICMP_LEN: usize = 8;
pub(crate) const QUOTED_TRANSPORT: usize = 8;
/// Most bytes quoted: an IPv6 header, extensions and eight bytes; an even number.
pub(crate) const QUOTE_MAX: usize = 128;
const TTL: u8 = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// Turns the packet into the ICMP error that `work.verdict` names.
#[inline(always)]
pub fn answer<B: Resize, T: Tables>(bytes: B, tables: &T, work: &Work, now_ns: u64) -> (Step, B) {
    let message = Message::of(tables, work);
    let verdict = message.verdict;
    // RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e).
    let (verdict, bytes) = if work.marks & (MARK_ICMP_ERROR | MARK_LATER_PIECE) != 0 {
        (Verdict::DropUnanswered, bytes)
    } else if !may_answer(tables, now_ns) {
        (Verdict::DropAnswerLimit, bytes)
    } else {
        match build(bytes, work, &message) {
            Ok(bytes) => (verdict, bytes),
            Err(bytes) => (Verdict::DropTruncated, bytes),
        }
    };
    (Step::stop(tables, verdict), bytes)
}

/// An ICMP error.
pub(crate) struct Message {
    pub(crate) verdict: Verdict,
    /// Type and code for IPv4, then for IPv6.
    pub(crate) kind: ([u8; 2], [u8; 2]),
    /// The word behind the checksum.
    pub(crate) rest: u32,
}

impl Message {
    /// The one that `work` asks for.
    #[inline(always)]
    fn of<T: Tables>(tables: &T, work: &Work) -> Self {
        let is = |verdict: Verdict| u32::from(work.verdict) == verdict.number();
        if is(Verdict::AnswerTimeExceeded) {
            return Self { verdict: Verdict::AnswerTimeExceeded, kind: ([11, 0], [3, 0]), rest: 0 };
        }
        if is(Verdict::AnswerTooBig) {
            let rest = tables.real(work.real).map(|real| mtu::largest(&real)).unwrap_or_default();
            return Self { verdict: Verdict::AnswerTooBig, kind: ([3, 4], [2, 0]), rest };
        }
        Self { verdict: Verdict::AnswerPortUnreachable, kind: ([3, 3], [1, 4]), rest: 0 }
    }
}

/// Takes one answer out of this second's allowance.
#[inline(always)]
pub(crate) fn may_answer<T: Tables>(tables: &T, now_ns: u64) -> bool {
    let second = now_ns.checked_div(SECOND_NS).unwrap_or_default();
    let most = tables.settings().map(|s| s.answers_per_second_max).unwrap_or_default();
    let answers = tables.answers();
    let sent = if answers.second == second { answers.sent } else { 0 };
    if sent >= most {
        return false;
    }
    tables.set_answers(Answers { second, sent: sent.wrapping_add(1), ..answers });
    true
}

#[inline(always)]
fn build<B: Resize>(bytes: B, work: &Work, message: &Message) -> Result<B, B> {
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
    let written =
        link.write_back(&mut bytes, l3).and_then(|()| write(&mut bytes, &work.key, message, l3, quote));
    match written {
        Ok(()) => Ok(bytes),
        Err(Short) => Err(bytes),
    }
}

/// Writes the headers at `l3`, from the VIP to the client, before the quoted bytes.
#[inline(always)]
pub(crate) fn write<B: Bytes>(
    bytes: &mut B,
    key: &FlowKey,
    message: &Message,
    l3: usize,
    quote: usize,
) -> Result<(), Short> {
    if key.virtual_address.is_v4() {
        write_v4(bytes, key, message, l3, quote)
    } else {
        write_v6(bytes, key, message, l3, quote)
    }
}

#[inline(always)]
fn write_v4<B: Bytes>(
    bytes: &mut B,
    key: &FlowKey,
    message: &Message,
    l3: usize,
    quote: usize,
) -> Result<(), Short> {
    let [.., va, vb, vc, vd] = key.virtual_address.octets();
    let [.., ca, cb, cc, cd] = key.client.octets();
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
    let (kind, _) = message.kind;
    // RFC 1191 section 4: the MTU stands in the low half, and cannot be more.
    let rest = message.rest.min(0xffff);
    write_icmp(bytes, l3.wrapping_add(ipv4::HEADER_LEN), kind, rest, quote, 0)
}

#[inline(always)]
fn write_v6<B: Bytes>(
    bytes: &mut B,
    key: &FlowKey,
    message: &Message,
    l3: usize,
    quote: usize,
) -> Result<(), Short> {
    let len = ICMP_LEN.wrapping_add(quote) as u16;
    let [len_hi, len_lo] = len.to_be_bytes();
    bytes.put(l3, [0x60, 0, 0, 0, len_hi, len_lo, protocol::ICMPV6, TTL])?;
    let source = key.virtual_address.octets();
    let destination = key.client.octets();
    bytes.put(l3.wrapping_add(8), source)?;
    bytes.put(l3.wrapping_add(24), destination)?;
    // The pseudo-header of RFC 8200 section 8.1.
    let pseudo = sum_words(&source)
        .wrapping_add(sum_words(&destination))
        .wrapping_add(u32::from(len))
        .wrapping_add(u32::from(protocol::ICMPV6));
    let (_, kind) = message.kind;
    write_icmp(bytes, l3.wrapping_add(ipv6::HEADER_LEN), kind, message.rest, quote, pseudo)
}

/// Writes the ICMP header before the quoted bytes, with its checksum over both.
#[inline(always)]
fn write_icmp<B: Bytes>(
    bytes: &mut B,
    offset: usize,
    [kind, code]: [u8; 2],
    rest: u32,
    quote: usize,
    pseudo: u32,
) -> Result<(), Short> {
    let mut sum = pseudo.wrapping_add(u32::from(u16::from_be_bytes([kind, code])));
    sum = sum.wrapping_add(rest >> 16).wrapping_add(rest & 0xffff);
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
    let [e, f, g, h] = rest.to_be_bytes();
    bytes.put(offset, [kind, code, hi, lo, e, f, g, h])
}

/// Sum of the 16-bit words of an even number of bytes.
#[inline(always)]
pub(crate) fn sum_words(bytes: &[u8]) -> u32 {
    let mut sum = 0_u32;
    for pair in bytes.chunks_exact(2) {
        if let [hi, lo] = pair {
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes([*hi, *lo])));
        }
    }
    sum
}
