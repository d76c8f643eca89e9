//! The addresses of the lab, all from the ranges set aside for documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The VIP, IPv4.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The VIP, IPv6.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Where nginx listens.
pub const HTTP_PORT: u16 = 80;
/// Where the UDP echo listens.
pub const UDP_PORT: u16 = 5300;
/// Real servers are numbered from 1 to this.
pub const REALS_MAX: u32 = 64;

/// One node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// Sends requests.
    Client,
    /// Balances them.
    Director,
    /// Answers them; numbered from 1.
    Real(u32),
}

impl Node {
    /// Its name, as in the namespace's: `client`, `director`, `real1`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Director => "director".to_owned(),
            Self::Real(number) => format!("real{number}"),
        }
    }

    /// Last byte of its IPv4 address.
    fn host(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Director => 2,
            // At most 164: numbers end at REALS_MAX.
            Self::Real(number) => u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(100)),
        }
    }

    /// Its IPv4 address: 192.0.2.1, 192.0.2.2, 192.0.2.101 and so on.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.host())
    }

    /// Its IPv6 address; the last group, read as decimal, is the last byte of the IPv4 address:
    /// 2001:db8::101.
    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        let host = u16::from(self.host());
        let group = (host / 100) * 0x100 + (host / 10 % 10) * 0x10 + host % 10;
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, group)
    }
}

/// The VIP of a family with a port.
#[must_use]
pub fn vip(ipv6: bool, port: u16) -> SocketAddr {
    let address = if ipv6 { IpAddr::V6(VIP_V6) } else { IpAddr::V4(VIP_V4) };
    SocketAddr::new(address, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike_in_both_families() {
        for (node, v4, v6) in [
            (Node::Client, "192.0.2.1", "2001:db8::1"),
            (Node::Director, "192.0.2.2", "2001:db8::2"),
            (Node::Real(1), "192.0.2.101", "2001:db8::101"),
            (Node::Real(64), "192.0.2.164", "2001:db8::164"),
        ] {
            assert_eq!((node.v4().to_string(), node.v6().to_string()), (v4.to_owned(), v6.to_owned()));
        }
    }

    #[test]
    fn no_two_nodes_share_an_address() {
        let mut all: Vec<Ipv4Addr> = (1..=REALS_MAX).map(|number| Node::Real(number).v4()).collect();
        all.extend([Node::Client.v4(), Node::Director.v4(), VIP_V4]);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
