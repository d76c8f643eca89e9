//! Packet sockets: whole frames out, and the few packets in that a filter in the kernel lets through.
//!
//! A socket for one network protocol sees packets on their way up only: not what the director forwards, which leaves
//! from XDP, nor what this machine sends.

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io;
use std::mem::size_of;

/// Instructions of classic BPF (linux/bpf_common.h).
pub(crate) mod bpf {
    use socket2::SockFilter;

    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_AFTER_HEADER: u16 = 0x48;
    const LOAD_BYTE_AFTER_HEADER: u16 = 0x50;
    const HEADER_LENGTH: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;

    /// Whom the packet came to (linux/filter.h, SKF_AD_PKTTYPE).
    pub(crate) const PACKET_TYPE: SockFilter = SockFilter::new(LOAD_BYTE, 0, 0, 0xffff_f000 + 4);
    /// Index of the interface that it came up by: of a VLAN above the one whose wire it came by, that of the VLAN (SKF_AD_IFINDEX).
    pub(crate) const INTERFACE: SockFilter = SockFilter::new(LOAD_WORD, 0, 0, 0xffff_f000 + 8);
    /// To this machine's own MAC address (linux/if_packet.h, PACKET_HOST).
    pub(crate) const TO_US: u32 = 0;

    /// Two bytes from here.
    pub(crate) const fn half(at: u32) -> SockFilter {
        SockFilter::new(LOAD_HALF, 0, 0, at)
    }
    /// The byte here.
    pub(crate) const fn byte(at: u32) -> SockFilter {
        SockFilter::new(LOAD_BYTE, 0, 0, at)
    }
    /// Has the next two loads begin behind the IPv4 header, which begins at this byte.
    pub(crate) const fn ipv4_header(at: u32) -> SockFilter {
        SockFilter::new(HEADER_LENGTH, 0, 0, at)
    }
    /// Two bytes from here, behind the header.
    pub(crate) const fn half_behind(at: u32) -> SockFilter {
        SockFilter::new(LOAD_HALF_AFTER_HEADER, 0, 0, at)
    }
    /// The byte here, behind the header.
    pub(crate) const fn byte_behind(at: u32) -> SockFilter {
        SockFilter::new(LOAD_BYTE_AFTER_HEADER, 0, 0, at)
    }
    /// Goes on if it is this, else passes over so many.
    pub(crate) const fn must_be(value: u32, otherwise: u8) -> SockFilter {
        SockFilter::new(JUMP_EQUAL, 0, otherwise, value)
    }
    /// Goes on if one of these bits is set, else passes over so many.
    pub(crate) const fn must_have(bits: u32, otherwise: u8) -> SockFilter {
        SockFilter::new(JUMP_SET, 0, otherwise, bits)
    }
    /// Goes on if none of these bits is set, else passes over so many.
    pub(crate) const fn must_not_have(bits: u32, otherwise: u8) -> SockFilter {
        SockFilter::new(JUMP_SET, otherwise, 0, bits)
    }
    /// Takes the packet whole.
    pub(crate) const TAKE: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
    /// Leaves it.
    pub(crate) const LEAVE: SockFilter = SockFilter::new(RETURN, 0, 0, 0);
}

/// Where what is received, and what the filter sees, begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the IP header.
    Network,
    /// With the Ethernet header.
    Link,
}

/// A socket that receives the packets of a network protocol (an Ethernet type) that pass the filter; on one interface, or, with
/// 0, on all. It does not block.
pub(crate) fn receiver(
    begin: Begin,
    ethertype: u16,
    interface: u32,
    filter: &[SockFilter],
) -> io::Result<Socket> {
    let kind = if begin == Begin::Network { Type::DGRAM } else { Type::RAW };
    // No protocol yet: nothing may come before the filter is there.
    let socket = Socket::new(Domain::PACKET, kind.nonblocking().cloexec(), None)?;
    socket.attach_filter(filter)?;
    socket.bind(&place(interface, ethertype)?)?;
    Ok(socket)
}

/// A socket that sends whole frames, and receives nothing.
pub(crate) fn sender() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))
}

/// Sends a frame out of an interface.
pub(crate) fn send(socket: &Socket, interface: u32, frame: &[u8]) -> io::Result<()> {
    socket.send_to(frame, &place(interface, 0)?).map(drop)
}

/// An interface, and an Ethernet type, as the address of a packet socket.
fn place(interface: u32, ethertype: u16) -> io::Result<SockAddr> {
    let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: the storage is zeroed, live, not aliased, and made to hold and align an address of any family; zeroes
        // are a valid sockaddr_ll. So is the length live and not aliased.
        unsafe {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as libc::c_ushort;
            (*address).sll_protocol = ethertype.to_be();
            (*address).sll_ifindex = interface.cast_signed();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: `fill` leaves an address of the family and the length that it says.
    unsafe { SockAddr::try_init(fill) }.map(|((), address)| address)
}
