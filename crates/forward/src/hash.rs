//! The hashes of the schedulers. `plan` fills rings with the same ones.

use abi::Address;

/// Multiplicative hash of IPVS [linux `hash.h`, `hash_32`]: the `bits` high bits of `x * 0x61C88647`.
/// `bits` is 1 to 32.
#[inline(always)]
#[must_use]
pub const fn hash32(x: u32, bits: u32) -> u32 {
    x.wrapping_mul(0x61c8_8647).wrapping_shr(32_u32.wrapping_sub(bits))
}

/// `SipHash-1-3` (Aumasson and Bernstein, 2012) of the four little-endian bytes of `word`.
#[inline(always)]
#[must_use]
pub const fn siphash13(key: [u64; 2], word: u32) -> u64 {
    siphash13_tail(key, &[], (4 << 56) | word as u64)
}

/// `SipHash-1-3` of two words, eight little-endian bytes.
#[inline(always)]
#[must_use]
pub const fn siphash13_pair(key: [u64; 2], low: u32, high: u32) -> u64 {
    siphash13_tail(key, &[(high as u64) << 32 | low as u64], 8 << 56)
}

/// `SipHash-1-3` of an address and a port: its sixteen bytes as they stand, and the port as four little-endian ones.
/// Of the whole address, not of a folded one: who has many addresses could choose those that fold alike.
#[inline(always)]
#[must_use]
pub const fn siphash13_endpoint(key: [u64; 2], address: &Address, port: u16) -> u64 {
    let [a, b, c, d] = address.0;
    let low = (b.to_le() as u64) << 32 | a.to_le() as u64;
    let high = (d.to_le() as u64) << 32 | c.to_le() as u64;
    siphash13_tail(key, &[low, high], 20 << 56 | port as u64)
}

#[inline(always)]
const fn siphash13_tail(key: [u64; 2], blocks: &[u64], tail: u64) -> u64 {
    let [k0, k1] = key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    match blocks {
        [block] => v = absorb(v, *block),
        [first, second] => v = absorb(absorb(v, *first), *second),
        _ => {}
    }
    v = absorb(v, tail);
    let [a, b, c, d] = v;
    let [a, b, c, d] = round(round(round([a, b, c ^ 0xff, d])));
    a ^ b ^ c ^ d
}

/// `SipHash-1-3` with 128 bits of result, fed block by block and then byte by byte. The number of blocks before the bytes
/// is the user's business: it is not hashed.
#[derive(Clone, Copy)]
pub struct Sip {
    v: [u64; 4],
    tail: u64,
}

impl Sip {
    /// Of nothing so far.
    #[inline(always)]
    #[must_use]
    pub const fn new([k0, k1]: [u64; 2]) -> Self {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, tail: 0 }
    }

    /// Eight bytes at once.
    #[inline(always)]
    pub const fn block(&mut self, block: u64) {
        self.v = absorb(self.v, block);
    }

    /// The byte at place `index` of a text; its bytes come in order.
    #[inline(always)]
    pub const fn byte(&mut self, index: u32, byte: u8) {
        let place = index & 7;
        self.tail |= (byte as u64).wrapping_shl(place.wrapping_mul(8));
        if place == 7 {
            self.block(self.tail);
            self.tail = 0;
        }
    }

    /// The result, as the four words of an address.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> Address {
        let [a, b, c, d] = absorb(self.v, self.tail);
        let v = round(round(round([a, b, c ^ 0xee, d])));
        let [a, b, c, d] = v;
        let first = a ^ b ^ c ^ d;
        let [a, b, c, d] = round(round(round([a, b ^ 0xdd, c, d])));
        let second = a ^ b ^ c ^ d;
        Address([(first >> 32) as u32, first as u32, (second >> 32) as u32, second as u32])
    }
}

#[inline(always)]
const fn absorb(v: [u64; 4], block: u64) -> [u64; 4] {
    let [a, b, c, d] = v;
    let [a, b, c, d] = round([a, b, c, d ^ block]);
    [a ^ block, b, c, d]
}

#[inline(always)]
const fn round(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// `-log2(x / 2^32)` in units of 2^-16, for `x` from 1 to 2^32 - 1; the mantissa is taken as linear, which
/// is off by less than 0.09. It turns a hash into the exponential variable of weighted rendezvous hashing.
#[inline(always)]
#[must_use]
pub const fn minus_log2(x: u32) -> u64 {
    let x = x | 1;
    let zeros = x.leading_zeros();
    // Shift the leading one out; the next 16 bits are the mantissa.
    let mantissa = (x.wrapping_shl(zeros) << 1) >> 16;
    ((zeros as u64).wrapping_add(1) << 16).wrapping_sub(mantissa as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash32_gives_the_buckets_of_the_specification() {
        // IPVS sh: client 198.51.100.1 without port is bucket 96, with port 54321 bucket 38.
        assert_eq!(hash32(0xc633_6401, 8), 96);
        assert_eq!(hash32(0xc633_6401 + 54321, 8), 38);
        assert_eq!(hash32(0x0a00_0001, 8), 39);
        assert_eq!(hash32(0x2001_0db9, 8), 63);
    }

    #[test]
    fn siphash_gives_the_maglev_slots_of_the_specification() {
        let key = [2_654_435_761, 2_654_435_761];
        let slot = |word: u32| (siphash13(key, word) as u32) % 4093;
        assert_eq!(siphash13(key, 0x0a00_0001 + 80) as u32, 0x439c_0cbe);
        assert_eq!(siphash13([2_654_446_892; 2], 0x0a00_0001 + 80) as u32, 0x97b3_dc47);
        assert_eq!(slot(0xc633_6401), 2374);
        assert_eq!(slot(0xc633_6401 + 54321), 3013);
    }

    #[test]
    fn minus_log2_is_close_to_the_logarithm() {
        for x in (1..u32::MAX - 100_003).step_by(100_003) {
            let exact = 32.0 - f64::from(x | 1).log2();
            let ours = minus_log2(x) as f64 / 65536.0;
            assert!((exact - ours).abs() < 0.09, "{x}: {exact} {ours}");
        }
    }
}
