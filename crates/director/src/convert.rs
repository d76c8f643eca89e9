//! Addresses of the tables as addresses of the API.

use abi::Address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address of the tables.
pub(crate) fn ip(address: &Address) -> IpAddr {
    let octets = address.octets();
    match octets {
        [.., a, b, c, d] if address.is_v4() => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        _ => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

/// An address of the API.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}

/// An address and a port in network order.
pub(crate) fn socket(at: &Address, port_be: u16) -> SocketAddr {
    SocketAddr::new(ip(at), u16::from_be(port_be))
}

/// A hardware address as it is usually written.
pub(crate) fn mac(bytes: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = bytes;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_there_and_back() {
        for text in ["192.0.2.7", "2001:db8::7", "::", "0.0.0.0"] {
            let there: IpAddr = text.parse().expect("address");
            assert_eq!(ip(&address(there)), there);
        }
        let v4 = address("192.0.2.7".parse().expect("address"));
        assert_eq!(socket(&v4, 80_u16.to_be()).to_string(), "192.0.2.7:80");
        assert_eq!(mac(&[2, 0, 0, 0, 0, 0xab]), "02:00:00:00:00:ab");
    }
}
