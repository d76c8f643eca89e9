//! The IPv4 header (RFC 791 section 3.1).
//!
//! ```text
//!  0       1       2       4     6       8    9      10      12      16      20
//! |ver|ihl| TOS   | length| id  |flg|frag|TTL|proto |checksum| source| dest. | options
//! ```

use crate::bytes::words;
use crate::checksum::Change;
use crate::{Bytes, Short};

/// Length without options, in bytes.
pub const HEADER_LEN: usize = 20;
const TTL_OFFSET: usize = 8;
const SOURCE_OFFSET: usize = 12;

/// The fixed part, as words in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    words: [u32; 5],
}

impl Header {
    /// Reads the fixed part at `offset`. The length fields are not checked yet.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    #[inline(always)]
    pub fn read<B: Bytes>(bytes: &B, offset: usize) -> Result<Self, Short> {
        let raw = bytes.get::<HEADER_LEN>(offset)?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = raw;
        let quads = [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p], [q, r, s, t]];
        Ok(Self { words: words(&quads) })
    }

    #[inline(always)]
    const fn word(&self, which: Word) -> u32 {
        let [first, second, third, fourth, fifth] = self.words;
        u32::from_be(match which {
            Word::Lengths => first,
            Word::Fragment => second,
            Word::Ttl => third,
            Word::Source => fourth,
            Word::Destination => fifth,
        })
    }

    /// Version number; 4 in a valid header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        (self.word(Word::Lengths) >> 28) as u8
    }

    /// Header length with options in bytes, 0 to 60; under 20 is invalid.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        ((self.word(Word::Lengths) >> 22) & 60) as usize
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn total_len(&self) -> u16 {
        self.word(Word::Lengths) as u16
    }

    /// Whether this is a piece of a datagram: more fragments follow, or the offset is not zero.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.word(Word::Fragment) & 0x3fff != 0
    }

    /// Identification: the same in all pieces of a datagram.
    #[inline(always)]
    #[must_use]
    pub const fn identification(&self) -> u16 {
        (self.word(Word::Fragment) >> 16) as u16
    }

    /// Whether routers must not fragment the packet.
    #[inline(always)]
    #[must_use]
    pub const fn forbids_fragments(&self) -> bool {
        self.word(Word::Fragment) & 0x4000 != 0
    }

    /// Where this piece belongs in the datagram, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn fragment_offset(&self) -> u32 {
        (self.word(Word::Fragment) & 0x1fff) << 3
    }

    /// Time to live.
    #[inline(always)]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        (self.word(Word::Ttl) >> 24) as u8
    }

    /// Protocol number of the payload.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        (self.word(Word::Ttl) >> 16) as u8
    }

    /// Source address.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> [u8; 4] {
        self.word(Word::Source).to_be_bytes()
    }

    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> [u8; 4] {
        self.word(Word::Destination).to_be_bytes()
    }
}

/// The words of the header, named after what is read from them.
#[derive(Clone, Copy)]
enum Word {
    Lengths,
    Fragment,
    Ttl,
    Source,
    Destination,
}

/// Takes one off the TTL of the header at `offset` and mends the header checksum. The caller has
/// checked that the TTL is above 1.
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn decrement_ttl<B: Bytes>(bytes: &mut B, offset: usize) -> Result<(), Short> {
    let at = offset.wrapping_add(TTL_OFFSET);
    let [ttl, protocol, a, b] = bytes.get::<4>(at)?;
    // RFC 1624 for this one change: the field becomes one more in its upper byte, and a carry comes back in. One is added to
    // the sum before the carry is taken, so that 0xffff becomes 0, which is the form that equation 3 gives.
    let sum = u32::from(u16::from_ne_bytes([a, b])).wrapping_add(u32::from(u16::from_ne_bytes([1, 0])));
    let [a, b] = (sum.wrapping_add(sum.wrapping_add(1) >> 16) as u16).to_ne_bytes();
    bytes.put(at, [ttl.wrapping_sub(1), protocol, a, b])
}

/// The same, and the checksum is mended for another change of the header too.
///
/// # Errors
/// As for [`decrement_ttl`].
#[inline(always)]
pub fn decrement_ttl_and<B: Bytes>(bytes: &mut B, offset: usize, change: Change) -> Result<(), Short> {
    let at = offset.wrapping_add(TTL_OFFSET);
    let [ttl, protocol, a, b] = bytes.get::<4>(at)?;
    let new_ttl = ttl.wrapping_sub(1);
    let change = change.half(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes([new_ttl, protocol]));
    let [a, b] = change.apply(u16::from_ne_bytes([a, b])).to_ne_bytes();
    bytes.put(at, [new_ttl, protocol, a, b])
}

/// Replaces both addresses of the header at `offset`, as they stand in the packet, takes `hops` off its time to live, and mends
/// its checksum; what that does to a checksum that covers the header. One read and one write, in this order: the
/// verifier forgets what was checked about bytes before those that were checked last.
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn translate<B: Bytes>(
    bytes: &mut B,
    offset: usize,
    addresses: [u32; 2],
    hops: u8,
) -> Result<Change, Short> {
    let at = offset.wrapping_add(TTL_OFFSET);
    let [ttl, protocol, x, y, a, b, c, d, e, f, g, h] = bytes.get::<12>(at)?;
    let old = u16::from_ne_bytes([x, y]);
    let change = Change::NONE
        .words([u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])], addresses)
        .half(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes([ttl.wrapping_sub(hops), protocol]));
    let new = change.apply(old);
    let [x, y] = new.to_ne_bytes();
    let first = u32::from_ne_bytes([ttl.wrapping_sub(hops), protocol, x, y]);
    let [source, destination] = addresses;
    bytes.put_words(at, [first, source, destination])?;
    Ok(change.half(old, new))
}

/// Replaces source and destination address of the header at `offset`, both as they stand in the packet. The
/// checksum is another matter ([`decrement_ttl_and`]).
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn set_addresses<B: Bytes>(bytes: &mut B, offset: usize, addresses: [u32; 2]) -> Result<(), Short> {
    bytes.put_words(offset.wrapping_add(SOURCE_OFFSET), addresses)
}
