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
