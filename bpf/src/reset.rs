//! What the benchmark's reset program restores before each pass: written by user space, read by the kernel.
//!
//! Both sides include this file, as the layout concerns nobody else.

use bytemuck::{Pod, Zeroable};

/// Frames are restored in words of eight bytes that start at offset 6, so that no field of an untagged IPv4 or
/// IPv6 frame lies across two of them: a load across two recent stores would stall, and the program under test
/// would be blamed for it.
pub const WORDS_FROM: usize = 6;
/// Words of an IPv4 or non-IP frame; also its length: 62 bytes.
pub const WORDS_V4: usize = 7;
/// Words of an IPv6 frame; also its length: 78 bytes.
pub const WORDS_V6: usize = 9;

/// Offset of the low four bytes of the client address in an untagged IPv4 frame.
pub const ADDRESS_V4: usize = 26;
/// Offset of the client port in an untagged IPv4 frame without options.
pub const PORT_V4: usize = 34;
/// Offset of the low four bytes of the client address in an untagged IPv6 frame.
pub const ADDRESS_V6: usize = 34;
/// Offset of the client port in an untagged IPv6 frame without extension headers.
pub const PORT_V6: usize = 54;

/// Every pass sees the same frame.
pub const CLIENT_FIXED: u32 = 0;
/// Every pass sees one of `flows` clients, drawn at random.
pub const CLIENT_RANDOM: u32 = 1;
/// Every pass sees the next client.
pub const CLIENT_NEXT: u32 = 2;

/// Low four bytes of the address of client 0, host order (10.0.0.0).
pub const CLIENT_BASE: u32 = 0x0a00_0000;
/// Clients of one port; the next ones have the next port.
pub const CLIENTS_PER_PORT: u64 = 1 << 24;
/// Port of the first ones.
pub const CLIENT_PORT: u16 = 1024;

/// What is restored, and how the client is chosen; one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Reset {
    /// The first eight bytes.
    pub head: [u8; 8],
    /// The words from [`WORDS_FROM`] on.
    pub words: [[u8; 8]; WORDS_V6],
    /// `CLIENT_*`.
    pub client: u32,
    /// Number of clients to draw from.
    pub flows: u32,
    /// State of the random numbers, or number of the next client. Changed by every pass.
    pub state: u64,
}

/// Low four bytes of the address, and port, of a client.
#[inline(always)]
#[must_use]
pub const fn client(number: u64) -> (u32, u16) {
    let address = CLIENT_BASE.wrapping_add((number % CLIENTS_PER_PORT) as u32);
    (address, CLIENT_PORT.wrapping_add((number / CLIENTS_PER_PORT) as u16))
}
