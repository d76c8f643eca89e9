//! What a director needs of SCTP (RFC 9260 section 3): ports, and which chunks come first.
//!
//! ```text
//!  0            2                 4                  8         12
//! | source port| destination port| verification tag | CRC32c  | chunks      common header
//! | type | flags | length with these four bytes | value, padded to 4 bytes  chunk
//! ```

use crate::{Bytes, Short};

/// Length of the common header in bytes.
pub const HEADER_LEN: usize = 12;
/// Length of the header of a chunk in bytes.
pub const CHUNK_LEN: usize = 4;

/// The fields of the common header that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port, network order.
    pub source_be: u16,
    /// Destination port, network order.
    pub destination_be: u16,
}

/// Reads the common header at `offset`.
///
/// # Errors
/// [`Short`] when the frame ends inside it.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, offset: usize) -> Result<Header, Short> {
    let [a, b, c, d, ..] = bytes.get::<HEADER_LEN>(offset)?;
    Ok(Header { source_be: u16::from_ne_bytes([a, b]), destination_be: u16::from_ne_bytes([c, d]) })
}

/// The header of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its type.
    pub kind: u8,
    /// Its length without padding; under 4 is invalid.
    pub len: u16,
}

impl Chunk {
    /// Where the next chunk starts, counted from this one.
    #[inline(always)]
    #[must_use]
    pub const fn padded_len(&self) -> usize {
        (self.len as usize).wrapping_add(3) & 0x1_fffc
    }
}

/// Reads the header of the chunk at `offset`.
///
/// # Errors
/// [`Short`] when the frame ends inside it.
#[inline(always)]
pub fn chunk<B: Bytes>(bytes: &B, offset: usize) -> Result<Chunk, Short> {
    let [kind, _, hi, lo] = bytes.get::<CHUNK_LEN>(offset)?;
    Ok(Chunk { kind, len: u16::from_be_bytes([hi, lo]) })
}

/// Offset of the checksum in the common header.
pub const CHECKSUM_OFFSET: usize = 8;

/// Replaces both ports of the SCTP packet of `len` bytes at `offset`: source and destination, network order. The checksum
/// is mended and not computed anew: a wrong one stays wrong.
///
/// # Errors
/// [`Short`] when the frame ends inside the header.
#[inline(always)]
pub fn set_ports<B: Bytes>(
    bytes: &mut B,
    offset: usize,
    len: u32,
    source: u16,
    destination: u16,
) -> Result<(), Short> {
    let old = bytes.get::<4>(offset)?;
    let ([a, b], [c, d]) = (source.to_ne_bytes(), destination.to_ne_bytes());
    let new = [a, b, c, d];
    if old == new {
        return Ok(());
    }
    let at = offset.wrapping_add(CHECKSUM_OFFSET);
    let field = u32::from_le_bytes(bytes.get(at)?);
    let change = change_of_first_word(u32::from_le_bytes(old) ^ u32::from_le_bytes(new), len);
    bytes.put(at, (field ^ change).to_le_bytes())?;
    bytes.put(offset, new)
}

/// The Castagnoli polynomial without its first term, lowest power in the highest bit (RFC 9260 appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1, and x^8.
const ONE: u32 = 1 << 31;
const ONE_BYTE: u32 = 1 << 23;
/// Bits of a length in bytes.
const LEN_BITS: u32 = 16;

/// What a change of the first four bytes of a message of `len` bytes does to its CRC32c: the CRC is the remainder of a
/// polynomial, so it is the change times x^(8 len), whatever else the message holds.
#[inline(always)]
const fn change_of_first_word(change: u32, len: u32) -> u32 {
    let (mut change, mut power, mut bit) = (change, ONE_BYTE, 0_u32);
    while bit < LEN_BITS {
        let factor = if (len >> bit) & 1 != 0 { power } else { ONE };
        change = product(factor, change);
        power = product(power, power);
        bit = bit.wrapping_add(1);
    }
    change
}

/// The product of two polynomials, modulo that of the CRC.
// Without branches: the verifier would follow each both ways.
#[inline(never)]
const fn product(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut sum, mut bit) = (a, b, 0_u32, 0_u32);
    while bit < 32 {
        sum ^= b & (a >> 31).wrapping_neg();
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit = bit.wrapping_add(1);
    }
    sum
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Bit by bit, as RFC 9260 appendix A has it.
    fn crc32c(message: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in message {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn other_ports_equal_computing_anew() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        for len in [12, 13, 16, 52, 1480, 8999, 65_515] {
            let mut message: Vec<u8> = (0..len).map(|at: u32| (at * 7 + at / 251) as u8).collect();
            for ports in [[0, 0, 0, 0], [255, 255, 255, 255], [0x8e, 0x3c, 0x13, 0x88]] {
                let before = crc32c(&message);
                let old: [u8; 4] = message[..4].try_into().unwrap();
                message[..4].copy_from_slice(&ports);
                let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(ports);
                assert_eq!(before ^ change_of_first_word(change, len), crc32c(&message), "{len} bytes");
            }
        }
    }
}
