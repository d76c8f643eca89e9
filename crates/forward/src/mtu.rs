//! How long a packet may be on its way to a real server. Never sees bytes.
//!
//! IPVS lets a longer packet through where the sender did not forbid fragments, and the director's stack cuts it up
//! [`ip_vs_xmit.c`, `ensure_mtu_is_adequate`]. An XDP program cannot, and the interface would lose the frame without a
//! word, so here every packet that is too long is answered with the largest length that is not.

use abi::{METHOD_TUNNEL, Real, TUNNEL_CHECKSUM, TUNNEL_GRE, TUNNEL_GUE};
use wire::{ipv4, ipv6};

/// Length of a GUE header without options, behind its UDP header.
pub(crate) const GUE_LEN: usize = 4;
/// Length of a GRE header without checksum.
pub(crate) const GRE_LEN: usize = 4;
/// Length of the checksum of a GRE header.
pub(crate) const GRE_CHECKSUM_LEN: usize = 4;

/// Narrowest path that every IPv4 host must take (RFC 791 section 3.2), in bytes.
const V4_MIN: u32 = 68;
/// Narrowest link of IPv6 (RFC 8200 section 5), in bytes.
const V6_MIN: u32 = 1280;

/// Bytes that a tunnel puts in front of a packet to this real server: the outer IP header and what follows it.
#[inline(always)]
#[must_use]
pub const fn overhead(real: &Real) -> usize {
    let outer = if real.address.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    outer.wrapping_add(shim_len(real))
}

/// Bytes between the outer IP header and the packet.
#[inline(always)]
#[must_use]
pub(crate) const fn shim_len(real: &Real) -> usize {
    match real.tunnel {
        TUNNEL_GUE => wire::tcp::UDP_HEADER_LEN.wrapping_add(GUE_LEN),
        TUNNEL_GRE if real.tunnel_flags & TUNNEL_CHECKSUM != 0 => GRE_LEN.wrapping_add(GRE_CHECKSUM_LEN),
        TUNNEL_GRE => GRE_LEN,
        _ => 0,
    }
}

/// Largest packet that reaches the real server, in bytes, as its sender has to make it; [`u32::MAX`] when nobody knows.
#[inline(always)]
#[must_use]
pub const fn largest(real: &Real) -> u32 {
    if real.mtu == 0 {
        u32::MAX
    } else if real.method == METHOD_TUNNEL {
        real.mtu.saturating_sub(overhead(real) as u32)
    } else {
        real.mtu
    }
}

/// Whether the way is too narrow for the tunnel: what is left of it would be less than IPv4 or IPv6 allow.
#[inline(always)]
#[must_use]
pub const fn is_too_narrow(real: &Real) -> bool {
    largest(real) < if real.address.is_v4() { V4_MIN } else { V6_MIN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{Address, METHOD_DIRECT_ROUTING, TUNNEL_IPIP};

    fn real(address: Address, tunnel: u8, tunnel_flags: u8) -> Real {
        Real { address, method: METHOD_TUNNEL, tunnel, tunnel_flags, mtu: 1500, ..Real::default() }
    }

    #[test]
    fn a_tunnel_takes_its_headers_off() {
        let (v4, v6) = (Address::v4([10, 0, 0, 1]), Address::v6([1; 16]));
        for (tunnel, flags, left) in [
            (TUNNEL_IPIP, 0, 1480),
            (TUNNEL_GRE, 0, 1476),
            (TUNNEL_GRE, TUNNEL_CHECKSUM, 1472),
            (TUNNEL_GUE, 0, 1468),
            (TUNNEL_GUE, TUNNEL_CHECKSUM, 1468),
        ] {
            assert_eq!(largest(&real(v4, tunnel, flags)), left);
            assert_eq!(largest(&real(v6, tunnel, flags)), left - 20);
        }
        let direct = Real { method: METHOD_DIRECT_ROUTING, ..real(v4, TUNNEL_GRE, 0) };
        assert_eq!(largest(&direct), 1500);
        assert_eq!(largest(&Real { mtu: 0, ..direct }), u32::MAX);
    }

    #[test]
    fn a_way_can_be_too_narrow() {
        let v4 = |mtu| Real { mtu, ..real(Address::v4([10, 0, 0, 1]), TUNNEL_IPIP, 0) };
        let v6 = |mtu| Real { mtu, ..real(Address::v6([1; 16]), TUNNEL_IPIP, 0) };
        assert!(is_too_narrow(&v4(10)) && is_too_narrow(&v4(87)) && !is_too_narrow(&v4(88)));
        assert!(is_too_narrow(&v6(1319)) && !is_too_narrow(&v6(1320)) && !is_too_narrow(&v6(0)));
    }
}
