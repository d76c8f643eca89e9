//! Addresses of this machine.

use nix::ifaddrs::getifaddrs;
use std::io;
use std::net::IpAddr;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix in bits; 32 or 128: no network.
    pub prefix: u8,
}

impl OwnAddress {
    /// Whether another address is of its network.
    #[must_use]
    pub fn is_neighbour(&self, other: IpAddr) -> bool {
        let differ = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= u32::from(self.prefix)
    }
}

/// All of them in the network namespace of the calling thread.
///
/// # Errors
/// The kernel could not be asked.
pub fn own_addresses() -> io::Result<Vec<OwnAddress>> {
    let own = getifaddrs()?.filter_map(|it| {
        let ip = |address: nix::sys::socket::SockaddrStorage| {
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        };
        let address = ip(it.address?)?;
        let prefix = match it.netmask.and_then(ip) {
            Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
            Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
            None => 128,
        };
        Some(OwnAddress { interface: it.interface_name, address, prefix: prefix.try_into().ok()? })
    });
    Ok(own.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_with_its_network() {
        let own = own_addresses().expect("addresses");
        let loopback = own.iter().find(|it| it.address == IpAddr::from([127, 0, 0, 1])).expect("loopback");
        assert_eq!((loopback.interface.as_str(), loopback.prefix), ("lo", 8));
        assert!(loopback.is_neighbour([127, 9, 9, 9].into()));
        assert!(!loopback.is_neighbour([128, 0, 0, 1].into()));
        assert!(!loopback.is_neighbour("::1".parse().expect("an address")));
    }
}
