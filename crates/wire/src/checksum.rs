//! One's-complement checksum arithmetic (RFC 1071), changed in place (RFC 1624).
//!
//! Three facts carry everything here: the sum is over 16-bit words and does not mind their order; a carry
//! out of the top is added at the bottom; the field holds the complement of the sum. So replacing a word
//! `old` by `new` changes the field `c` to `!(!c + !old + new)` (RFC 1624, equation 3).

/// The checksum field after one 16-bit word that it covers changed. All three are numbers in host order.
#[inline(always)]
#[must_use]
pub const fn replace_word(checksum: u16, old: u16, new: u16) -> u16 {
    // Three 16-bit numbers: the sum needs 18 bits, so two folds settle it.
    let sum = widen(!checksum).wrapping_add(widen(!old)).wrapping_add(widen(new));
    !fold(sum)
}

/// Folds a sum of 16-bit words into 16 bits, adding carries back.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    (sum & 0xffff) as u16
}

#[inline(always)]
const fn widen(word: u16) -> u32 {
    word as u32
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
        assert_eq!(replace_word(0xdd2f, 0x5555, 0x3285), 0x0000);
        let mut words = [0x4500, 0x0034, 0x1234, 0x4000, 0x4006, 0xc633, 0x6401, 0xc000, 0x020a];
        for new in (0..=0xffffu32).step_by(251) {
            let before = full(&words);
            let old = words[4];
            words[4] = new as u16;
            assert_eq!(replace_word(before, old, words[4]), full(&words));
        }
    }
}
