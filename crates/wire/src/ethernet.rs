//! Ethernet II with up to two VLAN tags (IEEE 802.1Q, 802.1ad).
//!
//! ```text
//!  0      6      12       14
//! | dst  | src  | type   | payload         no tag
//! | dst  | src  | 0x8100 | tci | type |    one tag; 0x88a8 is the outer tag of two
//! ```

use crate::{Bytes, Short};

/// IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// An 802.1Q tag follows.
pub const TYPE_VLAN: u16 = 0x8100;
/// An 802.1ad (provider) tag follows.
pub const TYPE_PROVIDER_VLAN: u16 = 0x88a8;

/// Most VLAN tags that are followed.
pub const TAGS_MAX: usize = 2;

/// Length without tags, in bytes.
pub const HEADER_LEN: usize = 14;
const TAG_LEN: usize = 4;

/// Where the payload starts and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Type of the payload; a tag type when there are more than [`TAGS_MAX`] tags.
    pub ethertype: u16,
    /// Offset of the payload: 14, 18 or 22.
    pub payload: usize,
    /// Sent to a group address (broadcast or multicast).
    pub group: bool,
}

/// Whether a type announces another tag.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == TYPE_VLAN || ethertype == TYPE_PROVIDER_VLAN
}

/// Reads the link-layer header.
///
/// # Errors
/// [`Short`] when the frame ends inside it.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B) -> Result<Frame, Short> {
    let header = bytes.get::<HEADER_LEN>(0)?;
    let [first, .., hi, lo] = header;
    let group = first & 1 != 0;
    let ethertype = u16::from_be_bytes([hi, lo]);
    if !is_tag(ethertype) {
        return Ok(Frame { ethertype, payload: HEADER_LEN, group });
    }
    let [_, _, hi, lo] = bytes.get::<TAG_LEN>(HEADER_LEN)?;
    let ethertype = u16::from_be_bytes([hi, lo]);
    const ONE: usize = HEADER_LEN + TAG_LEN;
    if !is_tag(ethertype) {
        return Ok(Frame { ethertype, payload: ONE, group });
    }
    let [_, _, hi, lo] = bytes.get::<TAG_LEN>(ONE)?;
    Ok(Frame { ethertype: u16::from_be_bytes([hi, lo]), payload: ONE + TAG_LEN, group })
}

/// Replaces both addresses: destination, then source, as they stand in the frame,
/// in words.
///
/// # Errors
/// [`Short`] when the frame is shorter than they are.
#[inline(always)]
pub fn set_addresses<B: Bytes>(bytes: &mut B, addresses: [u32; 3]) -> Result<(), Short> {
    bytes.put_words(0, addresses)
}
