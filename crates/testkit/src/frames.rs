//! Whole Ethernet frames in and out of a link (AF_PACKET).
//!
//! The kernel takes the outermost VLAN tag off a received frame and reports it beside the frame;
//! here it is put back, so that what is received is what was on the wire.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Longest frame that is received whole, in bytes.
const FRAME_BYTES_MAX: usize = 10_000;
/// Bytes of the two MAC addresses, after which a tag stands.
const ADDRESSES_BYTES: usize = 12;

/// A raw socket on one link of the namespace it was opened in. It may be used from any namespace.
#[derive(Debug)]
pub struct Frames {
    socket: OwnedFd,
}

/// A received frame, or the reason why it is not one for us.
enum Received {
    Frame(Vec<u8>),
    /// Our own frame on its way out.
    Own,
}

impl Frames {
    /// Opens the link called `link` in the namespace of the calling thread.
    ///
    /// # Errors
    /// No such link, or no privilege.
    pub fn open(link: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(link)?;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        // SAFETY: sockaddr_ll is plain integers, for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer is to a live sockaddr_ll, and the size given is its size.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
        nix::errno::Errno::result(bound)?;
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer is to a live c_int, and the size given is its size.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                size,
            )
        };
        nix::errno::Errno::result(set)?;
        Ok(Self { socket })
    }

    /// Sends one frame as it is.
    ///
    /// # Errors
    /// The kernel refuses it, for example because it is longer than the MTU or shorter than a header.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// The next frame that `wanted` accepts; others are thrown away. `None` when `wait` has passed.
    ///
    /// # Errors
    /// The link is gone.
    pub fn receive(&self, wait: Duration, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(1) {
                return Ok(None);
            }
            setsockopt(
                &self.socket,
                sockopt::ReceiveTimeout,
                &TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros())),
            )?;
            match self.receive_one() {
                Ok(Received::Frame(frame)) if wanted(&frame) => return Ok(Some(frame)),
                Ok(Received::Frame(_) | Received::Own) => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn receive_one(&self) -> io::Result<Received> {
        let mut frame = vec![0_u8; FRAME_BYTES_MAX];
        // Room for one control message of tpacket_auxdata, aligned for its header.
        let mut control = [0_u64; 16];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        // SAFETY: sockaddr_ll and msghdr are plain integers and pointers, for which zeroes is a value.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; 16]>();
        // SAFETY: every pointer in `message` is to a live buffer of the size beside it.
        let size = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let size = nix::errno::Errno::result(size)?;
        frame.truncate(size as usize);
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            return Ok(Received::Own);
        }
        if let Some(auxiliary) = auxiliary(&message)
            && auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0
            && frame.len() >= ADDRESSES_BYTES
        {
            let type_known = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            let tag_type = if type_known { auxiliary.tp_vlan_tpid } else { 0x8100 };
            let tag = [tag_type.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes()].concat();
            frame.splice(ADDRESSES_BYTES..ADDRESSES_BYTES, tag);
        }
        Ok(Received::Frame(frame))
    }
}

fn auxiliary(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: the kernel has just filled `message`, whose control buffer is live and of the size said;
    // CMSG_FIRSTHDR gives null or a whole header inside it.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if header.cmsg_level != libc::SOL_PACKET || header.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    if header.cmsg_len < size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>() {
        return None;
    }
    // SAFETY: the length was just checked to hold a tpacket_auxdata; the read does not need alignment.
    Some(unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() })
}
