//! Ethernet addresses.

use std::fmt;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address in these bytes; `None` unless they are six and not all zero (the loopback interface has
    /// zeros).
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 6] = bytes.try_into().ok()?;
        (bytes != [0; 6]).then_some(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_six_bytes_make_an_address() {
        assert_eq!(MacAddress::from_slice(&[2, 0, 0, 0, 0]), None);
        assert_eq!(MacAddress::from_slice(&[0; 6]), None);
        let mac = MacAddress::from_slice(&[2, 0, 0, 0xab, 0, 1]).expect("six bytes");
        assert_eq!(mac.to_string(), "02:00:00:ab:00:01");
    }
}
