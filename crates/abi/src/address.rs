//! One address type for both families.

use bytemuck::{Pod, Zeroable};

/// An IPv4 or IPv6 address as four words in network order. IPv4 is held as an IPv4-mapped IPv6 address
/// (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), so one key type serves both families. Such addresses must
/// not appear on the wire (RFC 4038), so the two families cannot be confused: the parser refuses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Address(pub [u32; 4]);

impl Address {
    const MAPPED_BE: u32 = 0xffff_u32.to_be();

    /// From the four bytes of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, Self::MAPPED_BE, u32::from_ne_bytes(bytes)])
    }

    /// From the sixteen bytes of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// A firewall mark in the place of an address: in IPv4 its four bytes, in IPv6 the first four
    /// [`ip_vs_core.c`, `ip_vs_sched_persist`].
    #[inline(always)]
    #[must_use]
    pub const fn of_mark(mark: u32, is_v4: bool) -> Self {
        if is_v4 { Self::v4(mark.to_be_bytes()) } else { Self([mark.to_be(), 0, 0, 0]) }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::MAPPED_BE
    }

    /// Whether a packet may come from here: not "this network", loopback, multicast, reserved or broadcast
    /// (RFC 1122 section 3.2.1.3), not `::`, `::1` or multicast (RFC 4291). Linux calls the others martians.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_source(&self) -> bool {
        let [a, _, _, d] = self.0;
        if self.is_v4() {
            let first = d.to_ne_bytes()[0];
            first != 0 && first != 127 && first < 224
        } else {
            let nothing_above = a | self.0[1] | self.0[2] == 0;
            !(nothing_above && u32::from_be(d) <= 1) && a.to_ne_bytes()[0] != 0xff
        }
    }

    /// The sixteen bytes, IPv4 in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// The address as one host-order number, as the hash schedulers of IPVS take it: an IPv4 address as
    /// it is, an IPv6 address folded by XOR of its four words [`ip_vs.h`, `ip_vs_addr_fold`].
    #[inline(always)]
    #[must_use]
    pub const fn fold(&self) -> u32 {
        if self.is_v4() {
            u32::from_be(self.0[3])
        } else {
            u32::from_be(self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn martians_may_not_be_sources() {
        let v6 = |first: u8, last: u8| Address::v6([first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        for bad in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [240, 0, 0, 1]] {
            assert!(!Address::v4(bad).may_be_source(), "{bad:?}");
        }
        assert!(!v6(0, 0).may_be_source() && !v6(0, 1).may_be_source() && !v6(0xff, 1).may_be_source());
        assert!(v6(0xfe, 1).may_be_source() && v6(0, 2).may_be_source());
        assert!(
            Address::v4([223, 255, 255, 255]).may_be_source() && Address::v4([10, 0, 0, 1]).may_be_source()
        );
    }

    #[test]
    fn folds_as_the_specification_says() {
        assert_eq!(Address::v4([198, 51, 100, 1]).fold(), 0xc633_6401);
        let address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(Address::v6(address).fold(), 0x2001_0db9);
        assert_eq!(Address::v6(address).octets(), address);
        assert!(!Address::v6(address).is_v4());
        assert!(Address::v4([0, 0, 0, 0]).is_v4());
    }
}
