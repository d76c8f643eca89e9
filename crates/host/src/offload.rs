//! What a network card does on its own (ethtool).

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::AsRawFd;

/// The request for settings of a link's driver (linux/sockios.h).
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Asks for flags (linux/ethtool.h).
const GET_FLAGS: u32 = 0x25;
/// Large receive offload: the card joins segments before anybody sees them.
const FLAG_LRO: u32 = 1 << 15;

/// Whether a card joins segments that it receives (LRO), which an XDP program then sees as one packet longer than any wire
/// carries.
///
/// # Errors
/// No such interface, or one whose driver does not say.
pub fn joins_segments(interface: &str) -> io::Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // As the kernel's struct ethtool_value: what, and the value.
    let mut value: [u32; 2] = [GET_FLAGS, 0];
    // SAFETY: ifreq is plain bytes, integers and pointers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::NotFound.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request is a live ifreq, and its data points to a live value of the size that this question has.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    nix::errno::Errno::result(got)?;
    Ok(value[1] & FLAG_LRO != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_joins_nothing() {
        assert!(!joins_segments("lo").expect("a driver that says"));
        assert!(joins_segments("sl-no-such").is_err());
        assert!(joins_segments("a-name-far-too-long-for-an-interface").is_err());
    }
}
