//! The IPv6 header and the extension headers that may stand before the transport (RFC 8200).
//!
//! ```text
//!  0              4        6      7        8        24            40
//! |ver|class|flow| length | next |hop lim.| source | destination | extensions, transport
//! ```

use crate::bytes::words;
use crate::checksum::Change;
use crate::{Bytes, Short};

/// Length without extensions, in bytes.
pub const HEADER_LEN: usize = 40;
const HOP_LIMIT_OFFSET: usize = 7;
const SOURCE_OFFSET: usize = 8;

/// Most extension headers that are followed; RFC 8200 section 4.1 lists four that can precede the transport
/// of a packet that is not encrypted, one of them twice.
pub const EXTENSIONS_MAX: usize = 6;

/// Hop-by-hop options.
pub const NEXT_HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const NEXT_ROUTING: u8 = 43;
/// Fragment header.
pub const NEXT_FRAGMENT: u8 = 44;
/// Authentication header (RFC 4302).
pub const NEXT_AUTHENTICATION: u8 = 51;
/// Destination options.
pub const NEXT_DESTINATION: u8 = 60;

/// The fixed header, as words in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    first: u32,
    second: u32,
    source: [u32; 4],
    destination: [u32; 4],
}

impl Header {
    /// Reads the fixed header at `offset`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    #[inline(always)]
    pub fn read<B: Bytes>(bytes: &B, offset: usize) -> Result<Self, Short> {
        let raw = bytes.get::<HEADER_LEN>(offset)?;
        let [a, b, c, d, e, f, g, h, rest @ ..] = raw;
        let [first, second] = words(&[[a, b, c, d], [e, f, g, h]]);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, rest @ ..] = rest;
        let source = words(&[[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]]);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = rest;
        let destination = words(&[[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]]);
        Ok(Self { first, second, source, destination })
    }

    /// Version number; 6 in a valid header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        (u32::from_be(self.first) >> 28) as u8
    }

    /// Length of what follows the fixed header, in bytes; 0 for a jumbogram (RFC 2675).
    #[inline(always)]
    #[must_use]
    pub const fn payload_len(&self) -> u16 {
        (u32::from_be(self.second) >> 16) as u16
    }

    /// Type of the first header that follows.
    #[inline(always)]
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        (u32::from_be(self.second) >> 8) as u8
    }

    /// Hop limit.
    #[inline(always)]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        u32::from_be(self.second) as u8
    }

    /// Source address, four words in network order.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> [u32; 4] {
        self.source
    }

    /// Destination address, four words in network order.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> [u32; 4] {
        self.destination
    }
}

/// Where the chain of extension headers ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// At a header that is no extension.
    Transport {
        /// Its type.
        protocol: u8,
        /// Its offset in the frame.
        offset: usize,
    },
    /// At a fragment header that says: more pieces, or not the first one.
    Fragment {
        /// Its offset in the frame.
        offset: usize,
    },
    /// Not within [`EXTENSIONS_MAX`] headers.
    TooDeep,
}

/// A fragment header (RFC 8200 section 4.5).
///
/// ```text
///  0      1     2              4
/// | next | 0   | offset |  |M | identification |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Type of the header that follows it in the first piece.
    pub next: u8,
    /// Where this piece belongs in the fragmentable part, in bytes.
    pub offset: u32,
    /// The same in all pieces of a datagram.
    pub identification: u32,
}

/// Length of a fragment header, in bytes.
pub const FRAGMENT_LEN: usize = 8;

impl Piece {
    /// Reads the fragment header at `offset`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    #[inline(always)]
    pub fn read<B: Bytes>(bytes: &B, offset: usize) -> Result<Self, Short> {
        let [next, _, hi, lo, a, b, c, d] = bytes.get::<FRAGMENT_LEN>(offset)?;
        let place = u16::from_be_bytes([hi, lo]) & 0xfff8;
        Ok(Self { next, offset: place as u32, identification: u32::from_be_bytes([a, b, c, d]) })
    }
}

/// Follows the extension headers from `next`, whose header is at `offset`.
///
/// # Errors
/// [`Short`] when the frame ends inside one of them.
#[inline(always)]
pub fn transport<B: Bytes>(bytes: &B, next: u8, offset: usize) -> Result<Chain, Short> {
    let (mut protocol, mut offset) = (next, offset);
    for _ in 0..EXTENSIONS_MAX {
        match protocol {
            NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_DESTINATION => {
                let [next, len] = bytes.get::<2>(offset)?;
                protocol = next;
                offset = offset.wrapping_add((len as usize).wrapping_add(1) << 3);
            }
            NEXT_AUTHENTICATION => {
                let [next, len] = bytes.get::<2>(offset)?;
                protocol = next;
                offset = offset.wrapping_add((len as usize).wrapping_add(2) << 2);
            }
            NEXT_FRAGMENT => {
                let [next, _, hi, lo] = bytes.get::<4>(offset)?;
                // An "atomic" fragment (RFC 6946) is whole: offset 0 and no more to come.
                if u16::from_be_bytes([hi, lo]) & 0xfff9 != 0 {
                    return Ok(Chain::Fragment { offset });
                }
                protocol = next;
                offset = offset.wrapping_add(8);
            }
            _ => return Ok(Chain::Transport { protocol, offset }),
        }
    }
    match protocol {
        NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_DESTINATION | NEXT_AUTHENTICATION | NEXT_FRAGMENT => {
            Ok(Chain::TooDeep)
        }
        _ => Ok(Chain::Transport { protocol, offset }),
    }
}

/// Takes one off the hop limit of the header at `offset`. The caller has checked that it is above 1.
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn decrement_hop_limit<B: Bytes>(bytes: &mut B, offset: usize) -> Result<(), Short> {
    let at = offset.wrapping_add(HOP_LIMIT_OFFSET);
    let [limit] = bytes.get::<1>(at)?;
    bytes.put(at, [limit.wrapping_sub(1)])
}

/// Replaces both addresses of the header at `offset`, as they stand in the packet; what that does to a checksum that covers
/// them. Word by word, in order, for the reason given at [`crate::ipv4::translate`].
///
/// # Errors
/// [`Short`] when the frame ends inside the header; what was written until then stays.
#[inline(always)]
pub fn translate<B: Bytes>(bytes: &mut B, offset: usize, addresses: [u32; 8]) -> Result<Change, Short> {
    let mut change = Change::NONE;
    let mut at = offset.wrapping_add(SOURCE_OFFSET);
    for new in addresses {
        change = change.word(u32::from_ne_bytes(bytes.get(at)?), new);
        bytes.put_words(at, [new])?;
        at = at.wrapping_add(4);
    }
    Ok(change)
}

/// Replaces source and destination address of the header at `offset`, both as they stand in the packet.
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn set_addresses<B: Bytes>(bytes: &mut B, offset: usize, addresses: [u32; 8]) -> Result<(), Short> {
    bytes.put_words(offset.wrapping_add(SOURCE_OFFSET), addresses)
}
