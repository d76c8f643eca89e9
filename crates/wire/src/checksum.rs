//! One's-complement checksum arithmetic (RFC 1071), changed in place (RFC 1624).
//!
//! Three facts carry everything here: the sum is over 16-bit words and does not mind their order; a carry
//! out of the top is added at the bottom; the field holds the complement of the sum. So replacing a word
//! `old` by `new` changes the field `c` to `!(!c + !old + new)` (RFC 1624, equation 3): see [`Change`].

/// Folds a sum of 16-bit words into 16 bits, adding carries back.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    (sum & 0xffff) as u16
}

/// What a change of some words does to every checksum that covers them: the sum of `!old + new`.
///
/// All words are taken as they stand in the packet. The sum does not mind the order of bytes as long as it is the
/// same throughout (RFC 1071 section 2), and a word of 32 bits adds what its two halves do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u64);

impl Change {
    /// Nothing changes.
    pub const NONE: Self = Self(0);

    /// And a word of 32 bits.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0.wrapping_add(!old as u64).wrapping_add(new as u64))
    }

    /// And words of 32 bits.
    #[inline(always)]
    #[must_use]
    pub fn words<const N: usize>(self, old: [u32; N], new: [u32; N]) -> Self {
        old.into_iter().zip(new).fold(self, |change, (old, new)| change.word(old, new))
    }

    /// And another change.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// And a word of 16 bits.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0.wrapping_add(!old as u64).wrapping_add(new as u64))
    }

    /// The checksum field after the change (RFC 1624, equation 3).
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, field: u16) -> u16 {
        // At most 2^16 words of 32 bits: far from 64 bits. Three folds bring any sum of 64 bits down to 17.
        let sum = self.0.wrapping_add(!field as u64);
        let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
        let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        !fold(sum as u32)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn full(words: &[u16]) -> u16 {
        let sum = words.iter().fold(0u64, |sum, w| sum + u64::from(*w));
        let mut sum = sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn replacing_a_word_equals_recomputing() {
        // RFC 1624 section 4 gives this case: equation 2 of RFC 1141 fails it.
        assert_eq!(Change::NONE.half(0x5555, 0x3285).apply(0xdd2f), 0x0000);
        let mut words = [0x4500, 0x0034, 0x1234, 0x4000, 0x4006, 0xc633, 0x6401, 0xc000, 0x020a];
        for new in (0..=0xffffu32).step_by(251) {
            let before = full(&words);
            let old = words[4];
            words[4] = new as u16;
            assert_eq!(Change::NONE.half(old, words[4]).apply(before), full(&words));
        }
    }
}
