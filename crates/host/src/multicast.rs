//! UDP sockets for a multicast group on one interface.

use crate::address::own_addresses;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::UdpSocket;

/// Room for datagrams that nobody has read yet, in bytes. The kernel gives less where `net.core.rmem_max` says so.
const RECEIVE_BYTES: usize = 4 << 20;

/// A group on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The interface's name.
    pub interface: String,
    /// The group.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
}

impl Group {
    /// A socket that sends to the group, `ttl` hops far at most, and never to this machine. Wants a runtime.
    ///
    /// # Errors
    /// There is no such interface (`ENODEV`), it has no address of the group's family (`EADDRNOTAVAIL`), or the kernel refuses.
    pub fn sender(&self, ttl: u8) -> io::Result<UdpSocket> {
        let index = self.index()?;
        let socket = self.socket()?;
        match self.address {
            IpAddr::V4(_) => {
                let own = self.own_address()?;
                socket.set_multicast_if_v4(&own)?;
                socket.set_multicast_ttl_v4(ttl.into())?;
                socket.set_multicast_loop_v4(false)?;
                socket.bind(&SocketAddr::new(own.into(), 0).into())?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_hops_v6(ttl.into())?;
                socket.set_multicast_loop_v6(false)?;
            }
        }
        socket.connect(&SocketAddr::new(self.address, self.port).into())?;
        UdpSocket::from_std(socket.into())
    }

    /// A socket that receives what comes to the group by the interface. Wants a runtime.
    ///
    /// # Errors
    /// As for [`Group::sender`].
    pub fn receiver(&self) -> io::Result<UdpSocket> {
        let index = self.index()?;
        let socket = self.socket()?;
        socket.set_reuse_address(true)?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.bind(&SocketAddr::new(self.address, self.port).into())?;
        match &self.address {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(group, &InterfaceIndexOrAddress::Index(index))?;
            }
            IpAddr::V6(group) => socket.join_multicast_v6(group, index)?,
        }
        UdpSocket::from_std(socket.into())
    }

    /// A socket of the group's family that knows no other interface.
    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(SocketAddr::new(self.address, 0)),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(self.interface.as_bytes()))?;
        Ok(socket)
    }

    /// Index of the interface now: another one when it was deleted and made anew, which leaves a socket deaf.
    ///
    /// # Errors
    /// There is no such interface (`ENODEV`).
    pub fn index(&self) -> io::Result<u32> {
        nix::net::if_::if_nametoindex(self.interface.as_str())
            .map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// The first IPv4 address of the interface.
    fn own_address(&self) -> io::Result<Ipv4Addr> {
        let own = own_addresses()?.into_iter().filter(|own| own.interface == self.interface);
        let v4 = |address| if let IpAddr::V4(v4) = address { Some(v4) } else { None };
        let found = own.into_iter().find_map(|own| v4(own.address));
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_named_by_its_errno() {
        let group = |interface: &str| Group {
            interface: interface.to_owned(),
            address: [224, 0, 0, 81].into(),
            port: 8848,
        };
        for name in ["sl-no-such", "a-name-far-too-long-for-an-interface"] {
            let refused = group(name).sender(1).expect_err("no such interface");
            assert_eq!(refused.raw_os_error(), Some(libc::ENODEV), "{name}");
            assert!(group(name).receiver().is_err(), "{name}");
        }
    }
}
