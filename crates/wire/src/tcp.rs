//! What a director needs of TCP (RFC 9293 section 3.1) and UDP (RFC 768): ports, flags, lengths.
//!
//! ```text
//!  0            2                 4     8     12             13      14
//! | source port| destination port| seq | ack | data offset  | flags | window ...   TCP
//! | source port| destination port| length | checksum | payload                     UDP
//! ```

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
