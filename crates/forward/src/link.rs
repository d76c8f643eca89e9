//! The link-layer header of a frame whose beginning moves.

use wire::{Bytes, Short, ethernet};

/// The link-layer header, kept while the frame moves.
pub(crate) struct Link {
    addresses: [u8; 12],
    /// Type without tags; or the first tag.
    rest: [u8; 2],
    tags: [u8; 8],
}

impl Link {
    /// Reads the header in front of `l3`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    #[inline(always)]
    pub(crate) fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short> {
        let mut tags = [0; 8];
        if l3 > ethernet::HEADER_LEN {
            let [a, b, c, d] = bytes.get::<4>(ethernet::HEADER_LEN)?;
            let [e, f, g, h] = if l3 > 18 { bytes.get::<4>(18)? } else { [0; 4] };
            tags = [a, b, c, d, e, f, g, h];
        }
        Ok(Self { addresses: bytes.get(0)?, rest: bytes.get(12)?, tags })
    }

    /// Writes it with the addresses exchanged.
    ///
    /// # Errors
    /// [`Short`] when the frame is shorter than it.
    #[inline(always)]
    pub(crate) fn write_back<B: Bytes>(&self, bytes: &mut B, l3: usize) -> Result<(), Short> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.addresses;
        bytes.put(0, [g, h, i, j, k, l, a, b, c, d, e, f])?;
        self.write_rest(bytes, l3, None)
    }

    /// Writes it with other addresses, destination and source as words, and another type of payload.
    ///
    /// # Errors
    /// [`Short`] when the frame is shorter than it.
    #[inline(always)]
    pub(crate) fn write_to<B: Bytes>(
        &self,
        bytes: &mut B,
        l3: usize,
        addresses: [u32; 3],
        ethertype: u16,
    ) -> Result<(), Short> {
        ethernet::set_addresses(bytes, addresses)?;
        self.write_rest(bytes, l3, Some(ethertype))
    }

    #[inline(always)]
    fn write_rest<B: Bytes>(&self, bytes: &mut B, l3: usize, ethertype: Option<u16>) -> Result<(), Short> {
        let [a, b, c, d, e, f, g, h] = self.tags;
        let replaced = |old: [u8; 2]| ethertype.map_or(old, u16::to_be_bytes);
        if l3 <= ethernet::HEADER_LEN {
            return bytes.put(12, replaced(self.rest));
        }
        bytes.put(12, self.rest)?;
        if l3 <= 18 {
            let [c, d] = replaced([c, d]);
            return bytes.put(14, [a, b, c, d]);
        }
        bytes.put(14, [a, b, c, d])?;
        let [g, h] = replaced([g, h]);
        bytes.put(18, [e, f, g, h])
    }
}
