//! An XDP program that passes every packet, attached through netlink.
//!
//! A veth delivers what its peer transmits from XDP only if it runs an XDP program itself; this one is for
//! such peers. It stays attached until detached or until the interface goes away. The director's own programs
//! are the business of `kernel`.

use crate::netlink::{Netlink, NetlinkError, failed};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `XDP_FLAGS_UPDATE_IF_NOEXIST`: refuse when a program is attached already.
const FLAG_UPDATE_IF_NOEXIST: u32 = 1 << 0;
/// `XDP_FLAGS_DRV_MODE`: in the driver or not at all.
const FLAG_DRIVER_MODE: u32 = 1 << 2;
/// `BPF_PROG_LOAD`.
const PROG_LOAD: libc::c_int = 5;
/// `BPF_PROG_TYPE_XDP`.
const PROG_TYPE_XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS`: the program takes frames in several buffers, which an interface with a large MTU needs.
const PROG_HAS_FRAGS: u32 = 1 << 5;
/// `r0 = 2 (XDP_PASS); exit`, in the two instructions of the kernel's encoding.
const PASS_PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// The pass program could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The kernel refused to load it.
    #[error("cannot load the XDP pass program")]
    Load(#[source] io::Error),
    /// An XDP program is attached already.
    #[error("interface {index} has an XDP program already")]
    Busy {
        /// Which interface.
        index: u32,
    },
    /// The kernel refused to attach or detach it.
    #[error("cannot change the XDP program of interface {index}")]
    Attach {
        /// Which interface.
        index: u32,
        /// Why.
        #[source]
        source: NetlinkError,
    },
}

/// Attaches a program that passes every packet, in native mode.
///
/// # Errors
/// [`PassError`]; [`PassError::Busy`] when the interface has a program already.
pub async fn attach_pass(netlink: &Netlink, interface_index: u32) -> Result<(), PassError> {
    let program = load_pass().map_err(PassError::Load)?;
    let flags = FLAG_UPDATE_IF_NOEXIST | FLAG_DRIVER_MODE;
    set(netlink, interface_index, program.as_raw_fd(), flags).await
}

/// Detaches whatever program runs in native mode.
///
/// # Errors
/// [`PassError::Attach`].
pub async fn detach(netlink: &Netlink, interface_index: u32) -> Result<(), PassError> {
    set(netlink, interface_index, -1, FLAG_DRIVER_MODE).await
}

async fn set(netlink: &Netlink, index: u32, fd: i32, flags: u32) -> Result<(), PassError> {
    let message = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(flags)]))
        .build();
    match netlink.handle.link().set(message).execute().await.map_err(failed("set an XDP program")) {
        Ok(()) => Ok(()),
        Err(error) if error.errno() == Some(libc::EBUSY) => Err(PassError::Busy { index }),
        Err(source) => Err(PassError::Attach { index, source }),
    }
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes missing fields as zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

fn load_pass() -> io::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        instruction_count: 2,
        instructions: PASS_PROGRAM.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: PROG_HAS_FRAGS,
        name: *b"sluice_pass\0\0\0\0\0",
    };
    // SAFETY: `attributes` is a plain structure without padding of the size passed, alive during the call;
    // the two addresses in it are of statics of the lengths given. The kernel only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<ProgLoad>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
