//! What a director needs of TCP (RFC 9293 section 3.1) and UDP (RFC 768): ports, flags, lengths.
//!
//! ```text
//!  0            2                 4     8     12             13      14
//! | source port| destination port| seq | ack | data offset  | flags | window ...   TCP
//! | source port| destination port| length | checksum | payload                     UDP
//! ```

use crate::checksum::Change;
use crate::{Bytes, Short};

/// Length of a TCP header without options.
pub const HEADER_LEN: usize = 20;
/// Length of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// ACK.
pub const ACK: u8 = 16;

/// The fields of a TCP header that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port, network order.
    pub source_be: u16,
    /// Destination port, network order.
    pub destination_be: u16,
    /// Header length with options in bytes, 0 to 60; under 20 is invalid.
    pub header_len: usize,
    /// The flag byte.
    pub flags: u8,
}

/// Reads a TCP header at `offset`.
///
/// # Errors
/// [`Short`] when the frame ends inside its fixed part.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, offset: usize) -> Result<Header, Short> {
    let raw = bytes.get::<HEADER_LEN>(offset)?;
    let [a, b, c, d, _, _, _, _, _, _, _, _, data_offset, flags, ..] = raw;
    Ok(Header {
        source_be: u16::from_ne_bytes([a, b]),
        destination_be: u16::from_ne_bytes([c, d]),
        header_len: ((data_offset >> 4) as usize) << 2,
        flags,
    })
}

/// The fields of a UDP header that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Source port, network order.
    pub source_be: u16,
    /// Destination port, network order.
    pub destination_be: u16,
    /// Length of header and payload in bytes; under 8 is invalid.
    pub len: u16,
}

/// Reads a UDP header at `offset`.
///
/// # Errors
/// [`Short`] when the frame ends inside it.
#[inline(always)]
pub fn parse_udp<B: Bytes>(bytes: &B, offset: usize) -> Result<UdpHeader, Short> {
    let [a, b, c, d, hi, lo, _, _] = bytes.get::<UDP_HEADER_LEN>(offset)?;
    Ok(UdpHeader {
        source_be: u16::from_ne_bytes([a, b]),
        destination_be: u16::from_ne_bytes([c, d]),
        len: u16::from_be_bytes([hi, lo]),
    })
}

/// Offset of the checksum in a TCP header.
pub const CHECKSUM_OFFSET: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM_OFFSET: usize = 6;

/// Replaces both ports of a TCP, UDP or SCTP header at `offset`: source and destination, network order.
///
/// # Errors
/// [`Short`] when the frame ends inside them.
#[inline(always)]
pub fn set_ports<B: Bytes>(bytes: &mut B, offset: usize, source: u16, destination: u16) -> Result<(), Short> {
    let ([a, b], [c, d]) = (source.to_ne_bytes(), destination.to_ne_bytes());
    bytes.put(offset, [a, b, c, d])
}

/// Mends the checksum of the TCP header at `offset` for a change of what it covers, the pseudo-header included.
///
/// # Errors
/// [`Short`] when the frame ends before it.
#[inline(always)]
pub fn mend_checksum<B: Bytes>(bytes: &mut B, offset: usize, change: Change) -> Result<(), Short> {
    let at = offset.wrapping_add(CHECKSUM_OFFSET);
    let field = u16::from_ne_bytes(bytes.get(at)?);
    bytes.put(at, change.apply(field).to_ne_bytes())
}

/// The same for UDP, where a field of 0 means that there is no checksum, and stays, and a checksum that comes to 0 is
/// sent as 0xffff (RFC 768).
///
/// # Errors
/// [`Short`] when the frame ends before it.
#[inline(always)]
pub fn mend_udp_checksum<B: Bytes>(bytes: &mut B, offset: usize, change: Change) -> Result<(), Short> {
    let at = offset.wrapping_add(UDP_CHECKSUM_OFFSET);
    let field = u16::from_ne_bytes(bytes.get(at)?);
    if field == 0 {
        return Ok(());
    }
    let mended = change.apply(field);
    bytes.put(at, if mended == 0 { u16::MAX } else { mended }.to_ne_bytes())
}
