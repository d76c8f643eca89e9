//! The IPv4 header (RFC 791 section 3.1).
//!
//! ```text
//!  0       1       2       4     6       8    9      10      12      16      20
//! |ver|ihl| TOS   | length| id  |flg|frag|TTL|proto |checksum| source| dest. | options
//! ```

use crate::{Bytes, Short, checksum};

/// Length without options, in bytes.
pub const HEADER_LEN: usize = 20;
const TTL_OFFSET: usize = 8;

/// The fields a director needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    raw: [u8; HEADER_LEN],
}

impl Header {
    /// Reads the fixed part at `offset`. The length fields are not checked yet.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    #[inline(always)]
    pub fn read<B: Bytes>(bytes: &B, offset: usize) -> Result<Self, Short> {
        Ok(Self { raw: bytes.get(offset)? })
    }

    /// Version number; 4 in a valid header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        let [first, ..] = self.raw;
        first >> 4
    }

    /// Header length with options in bytes, 0 to 60; under 20 is invalid.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        let [first, ..] = self.raw;
        ((first & 15) as usize) << 2
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn total_len(&self) -> u16 {
        let [_, _, hi, lo, ..] = self.raw;
        u16::from_be_bytes([hi, lo])
    }

    /// Whether this is a piece of a datagram: more fragments follow, or the offset is not zero.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        let [_, _, _, _, _, _, hi, lo, ..] = self.raw;
        u16::from_be_bytes([hi, lo]) & 0x3fff != 0
    }

    /// Time to live.
    #[inline(always)]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        let [_, _, _, _, _, _, _, _, ttl, ..] = self.raw;
        ttl
    }

    /// Protocol number of the payload.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        let [_, _, _, _, _, _, _, _, _, protocol, ..] = self.raw;
        protocol
    }

    /// Source address.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> [u8; 4] {
        let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, ..] = self.raw;
        [a, b, c, d]
    }

    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.raw;
        [a, b, c, d]
    }
}

/// Takes one off the TTL of the header at `offset` and mends the header checksum. The caller has
/// checked that the TTL is above 1.
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn decrement_ttl<B: Bytes>(bytes: &mut B, offset: usize) -> Result<(), Short> {
    let at = offset.wrapping_add(TTL_OFFSET);
    let [ttl, protocol, hi, lo] = bytes.get::<4>(at)?;
    let new_ttl = ttl.wrapping_sub(1);
    let old = u16::from_be_bytes([ttl, protocol]);
    let new = u16::from_be_bytes([new_ttl, protocol]);
    let [hi, lo] = checksum::replace_word(u16::from_be_bytes([hi, lo]), old, new).to_be_bytes();
    bytes.put(at, [new_ttl, protocol, hi, lo])
}
