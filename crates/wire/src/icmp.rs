//! ICMP error messages (RFC 792, RFC 4443): a header of eight bytes, then the packet that the error is about.
//!
//! ```text
//!  0      1      2          4                     8
//! | type | code | checksum | unused, MTU, pointer | the packet, cut
//! ```

use crate::checksum::Change;
use crate::{Bytes, Short};

/// Length of the header in bytes; the quoted packet starts behind it.
pub const HEADER_LEN: usize = 8;
const CHECKSUM_OFFSET: usize = 2;

/// Destination unreachable, IPv4; code 4 is fragmentation needed.
pub const UNREACHABLE: u8 = 3;
/// The code of [`UNREACHABLE`] that means that the packet is too long.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Source quench (deprecated by RFC 6633), IPv4.
pub const SOURCE_QUENCH: u8 = 4;
/// Time exceeded, IPv4.
pub const TIME_EXCEEDED: u8 = 11;
/// Destination unreachable, IPv6.
pub const V6_UNREACHABLE: u8 = 1;
/// Packet too big, IPv6.
pub const V6_TOO_BIG: u8 = 2;
/// Time exceeded, IPv6.
pub const V6_TIME_EXCEEDED: u8 = 3;
/// The lowest ICMPv6 type that is no error (RFC 4443 section 2.1).
pub const V6_INFORMATIONAL: u8 = 128;

/// The type of the message at `offset`.
///
/// # Errors
/// [`Short`] when the frame ends inside its header.
#[inline(always)]
pub fn kind<B: Bytes>(bytes: &B, offset: usize) -> Result<u8, Short> {
    let [kind, ..] = bytes.get::<HEADER_LEN>(offset)?;
    Ok(kind)
}

/// Whether the type of an IPv4 message is that of an error that is about a packet. Redirect and parameter problem
/// are not followed, as in IPVS.
#[inline(always)]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    kind == UNREACHABLE || kind == SOURCE_QUENCH || kind == TIME_EXCEEDED
}

/// The same for ICMPv6: all errors.
#[inline(always)]
#[must_use]
pub const fn is_error_v6(kind: u8) -> bool {
    kind < V6_INFORMATIONAL
}

/// Mends the checksum of the message at `offset` for a change of what it covers; of ICMPv6, the pseudo-header included.
///
/// # Errors
/// [`Short`] when the frame ends inside its header.
#[inline(always)]
pub fn mend_checksum<B: Bytes>(bytes: &mut B, offset: usize, change: Change) -> Result<(), Short> {
    let at = offset.wrapping_add(CHECKSUM_OFFSET);
    let field = u16::from_ne_bytes(bytes.get(at)?);
    bytes.put(at, change.apply(field).to_ne_bytes())
}
