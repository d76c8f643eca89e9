//! Packet access that is harsher than the kernel's.
//!
//! The kernel refuses what lies outside the frame. This refuses and counts more: an access of an odd
//! size, writing bytes twice, reading back what was written. None of these is wrong as such, but a
//! packet path that does them does more work than it should, or works on its own output.

use std::cell::{Cell, RefCell};

use crate::packet::checksum;
use wire::{Bytes, Short};

/// Largest access that makes sense: an IPv6 header and its extension fit.
const ACCESS_BYTES_MAX: usize = 64;
/// Index of the interface that frames came by: that of the loopback, as in the kernel's test run.
pub const INGRESS: u32 = 1;
/// Longest frame, in bytes.
const FRAME_BYTES_MAX: usize = 65_535;

/// Accesses that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Past the end of the frame. Normal for a truncated packet.
    pub short: u32,
    /// Of no bytes, or of more than any header has.
    pub odd: u32,
    /// Into bytes that were written before.
    pub overlapping: u32,
}

/// A frame in memory.
#[derive(Debug, Default)]
pub struct StrictBytes {
    bytes: Vec<u8>,
    written: RefCell<Vec<(usize, usize)>>,
    refused: Cell<Refused>,
}

impl StrictBytes {
    /// A frame of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// What was refused so far.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.refused.get()
    }

    /// The frame as it is now.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn allow(&self, offset: usize, size: usize) -> Result<(), Short> {
        let mut refused = self.refused.get();
        let end = offset.checked_add(size);
        if size == 0 || size > ACCESS_BYTES_MAX || offset > FRAME_BYTES_MAX {
            refused.odd += 1;
        } else if end.is_none_or(|end| end > self.bytes.len()) {
            refused.short += 1;
        } else if self.written.borrow().iter().any(|(from, to)| offset < *to && *from < offset + size) {
            refused.overlapping += 1;
        } else {
            return Ok(());
        }
        self.refused.set(refused);
        Err(Short)
    }
}

impl Bytes for StrictBytes {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn ingress(&self) -> u32 {
        INGRESS
    }

    fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short> {
        self.allow(offset, N)?;
        self.bytes.get(offset..offset + N).and_then(|part| part.try_into().ok()).ok_or(Short)
    }

    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Result<(), Short> {
        self.allow(offset, N)?;
        self.bytes.get_mut(offset..offset + N).ok_or(Short)?.copy_from_slice(&value);
        self.written.borrow_mut().push((offset, offset + N));
        Ok(())
    }
}

impl forward::Resize for StrictBytes {
    fn resize(mut self, len: usize, front: usize) -> Result<Self, (Short, Self)> {
        if len > self.bytes.len() || front + len > FRAME_BYTES_MAX {
            let mut refused = self.refused.get();
            refused.short += 1;
            self.refused.set(refused);
            return Err((Short, self));
        }
        self.bytes.truncate(len);
        // The kernel leaves whatever was in the headroom there; nobody may count on zeroes.
        self.bytes.splice(0..0, std::iter::repeat_n(0xa5, front));
        self.written.borrow_mut().clear();
        Ok(self)
    }

    fn cut_front(mut self, len: usize) -> Result<Self, (Short, Self)> {
        // The kernel wants an Ethernet header to be left.
        if len + 14 > self.bytes.len() {
            let mut refused = self.refused.get();
            refused.short += 1;
            self.refused.set(refused);
            return Err((Short, self));
        }
        self.bytes.drain(..len);
        self.written.borrow_mut().clear();
        Ok(self)
    }

    fn sum(&self, offset: usize, len: usize) -> Result<u16, Short> {
        let part = offset.checked_add(len).and_then(|end| self.bytes.get(offset..end)).ok_or(Short)?;
        Ok(!checksum::internet(&[part]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_counted_and_changes_nothing() {
        let mut frame = StrictBytes::new(vec![1, 2, 3, 4]);
        assert_eq!(frame.get::<2>(3), Err(Short));
        assert_eq!(frame.get::<0>(0), Err(Short));
        assert_eq!(frame.put(1, [9, 9]), Ok(()));
        assert_eq!(frame.put(2, [7, 7]), Err(Short));
        assert_eq!(frame.get::<1>(1), Err(Short));
        assert_eq!(frame.get::<1>(usize::MAX), Err(Short));
        assert_eq!(frame.refused(), Refused { short: 1, odd: 2, overlapping: 2 });
        assert_eq!(frame.into_bytes(), [1, 9, 9, 4]);
    }
}
