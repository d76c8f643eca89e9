//! Name services of this machine, through the C library: hosts and ports, both ways.
//!
//! Deliberately absent: a time-out of our own; the C library's resolver has one (resolv.conf, 10 s as a
//! rule).

use api::Protocol;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};

/// Serialises the C library's `getserv` functions, which answer in memory shared by all threads.
static SERVICES: Mutex<()> = Mutex::new(());

/// The machine's names. Answers are kept, so that a long listing asks once for each address and port.
#[derive(Debug, Default)]
pub struct SystemNames {
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
    ports: RefCell<HashMap<(u16, Protocol), Option<String>>>,
}

impl SystemNames {
    /// First IPv4 address of a host name.
    #[must_use]
    pub fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        // Whether the name is unknown or the resolver is out of order: there is no address.
        let addresses = (name, 0).to_socket_addrs().ok()?;
        addresses.into_iter().find_map(|at| match at.ip() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Port of a service name; case matters.
    #[must_use]
    pub fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let name = CString::new(name).ok()?;
        let _guard = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: both arguments end with a zero byte. The answer is null or points to memory of the C
        // library that stays until the next call, which the lock holds off until it is read.
        let port = unsafe {
            let entry = libc::getservbyname(name.as_ptr(), protocol_name(protocol).as_ptr());
            entry.as_ref().map(|entry| entry.s_port)
        };
        port.map(from_network_order)
    }

    /// Name of a host.
    #[must_use]
    pub fn host_name(&self, address: IpAddr) -> Option<String> {
        self.hosts.borrow_mut().entry(address).or_insert_with(|| host_name(address)).clone()
    }

    /// Name of a service.
    #[must_use]
    pub fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.ports
            .borrow_mut()
            .entry((port, protocol))
            .or_insert_with(|| service_name(port, protocol))
            .clone()
    }
}

fn protocol_name(protocol: Protocol) -> &'static CStr {
    match protocol {
        Protocol::Tcp => c"tcp",
        Protocol::Udp => c"udp",
        Protocol::Sctp => c"sctp",
    }
}

/// The C library keeps ports in network order in the low half of an int.
fn from_network_order(port: c_int) -> u16 {
    u16::from_be(port as u16)
}

fn service_name(port: u16, protocol: Protocol) -> Option<String> {
    let _guard = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the protocol's name ends with a zero byte. The answer is null or points to memory of the C
    // library, names included, that stays until the next call, which the lock holds off until the name is
    // copied.
    unsafe {
        let entry = libc::getservbyport(c_int::from(port.to_be()), protocol_name(protocol).as_ptr());
        let name = entry.as_ref()?.s_name;
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

fn host_name(address: IpAddr) -> Option<String> {
    let at = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut name = [0u8; libc::NI_MAXHOST as usize];
    // SAFETY: the address and its length come from one value that lives through the call; the name's buffer
    // has the length that is passed; no service name is asked for, so its null pointer is not used.
    let status = unsafe {
        use nix::sys::socket::SockaddrLike;
        libc::getnameinfo(
            at.as_ptr(),
            at.len(),
            name.as_mut_ptr().cast(),
            libc::NI_MAXHOST,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if status != 0 {
        return None;
    }
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_known_both_ways() {
        let names = SystemNames::default();
        assert_eq!(names.host_address("localhost"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(names.host_name(Ipv4Addr::LOCALHOST.into()).as_deref(), Some("localhost"));
        assert_eq!(names.host_address(""), None);
        assert_eq!(names.host_address("a\0b"), None);
    }

    #[test]
    fn ports_have_names_where_the_machine_knows_them() {
        let names = SystemNames::default();
        assert_eq!(names.service_port("nosuchservice", Protocol::Tcp), None);
        assert_eq!(names.service_port("a\0b", Protocol::Tcp), None);
        assert_eq!(names.service_name(0, Protocol::Tcp), None);
        // /etc/services comes with the package netbase, which a small machine may lack.
        if let Some(port) = names.service_port("http", Protocol::Tcp) {
            assert_eq!(port, 80);
            assert_eq!(names.service_name(80, Protocol::Tcp).as_deref(), Some("http"));
        }
    }
}
