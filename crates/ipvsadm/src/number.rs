//! Decimal numbers as the C library's `strtol` reads a whole string.

/// A number between `low` and `high`. Leading blanks, a sign and leading zeros pass; an empty string,
/// trailing characters and other bases do not.
pub(crate) fn whole_number(text: &str, low: i64, high: i64) -> Option<i64> {
    let digits = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let number: i64 = digits.parse().ok()?;
    (low..=high).contains(&number).then_some(number)
}

/// [`whole_number`] for values that fit 32 bits.
pub(crate) fn whole_u32(text: &str, low: u32, high: u32) -> Option<u32> {
    whole_number(text, low.into(), high.into()).and_then(|n| u32::try_from(n).ok())
}

/// [`whole_number`] for values that fit 16 bits.
pub(crate) fn whole_u16(text: &str, low: u16, high: u16) -> Option<u16> {
    whole_number(text, low.into(), high.into()).and_then(|n| u16::try_from(n).ok())
}

/// [`whole_number`] for values that fit 8 bits.
pub(crate) fn whole_u8(text: &str, low: u8, high: u8) -> Option<u8> {
    whole_number(text, low.into(), high.into()).and_then(|n| u8::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_strtol_reads() {
        assert_eq!(whole_number(" \t7", 0, 9), Some(7));
        assert_eq!(whole_number("+8", 0, 9), Some(8));
        assert_eq!(whole_number("-8", -9, 9), Some(-8));
        assert_eq!(whole_number("0000000000000000000000000000009", 0, 9), Some(9));
        for bad in ["", " ", "+", "-", "+-5", "--5", "5 ", "0x5", "5x", "99999999999999999999", "٣"] {
            assert_eq!(whole_number(bad, i64::MIN, i64::MAX), None, "{bad:?}");
        }
        assert_eq!(whole_number("10", 0, 9), None);
        assert_eq!(whole_u16("65536", 0, u16::MAX), None);
        assert_eq!(whole_u8("255", 0, 255), Some(255));
        assert_eq!(whole_u32("4294967295", 1, u32::MAX), Some(u32::MAX));
    }
}
