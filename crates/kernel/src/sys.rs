//! The `bpf` system call: one wrapper for each command used here, and nothing else.
//!
//! aya loads objects; what it does not offer (batches, test runs that return the packet, link updates and look-ups
//! by pin) is called here. Structures are the beginnings of `union bpf_attr` [uapi/linux/bpf.h]; the kernel takes
//! missing fields as zero. `bytemuck` proves that none has padding.
//!
//! Every address handed to the kernel is of a slice that lives until the call returns. Callers guarantee the lengths
//! where a comment says so; that is what makes the map functions `unsafe`.

use aya_obj::generated::bpf_cmd;
use bytemuck::{Pod, Zeroable};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Attach type of XDP programs.
const BPF_XDP: u32 = 37;
/// Program type of XDP programs.
const BPF_PROG_TYPE_XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS`: the program takes frames in several buffers, as an interface with a large MTU wants.
const PROG_HAS_FRAGS: u32 = 1 << 5;

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct Test {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct GetId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct Link {
    first_fd: u32,
    second: u32,
    third: u32,
    fourth: u32,
}

/// Calls `bpf`.
///
/// # Safety
/// Every address in `attributes` must be valid for what `command` does with it.
unsafe fn bpf<T: Pod>(command: bpf_cmd, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attribute structure is plain data of the size passed, and the caller answers for the addresses in it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attributes, size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

/// Takes ownership of a descriptor the kernel has just returned.
fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: called only on the result of a command that makes a new descriptor, which nobody else knows yet.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

/// Reads the value of a key. `take` deletes the entry too.
///
/// # Safety
/// `key` and `value` must have the lengths the map has for them (all CPUs together for a per-CPU value).
pub(crate) unsafe fn map_lookup(
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &mut [u8],
    take: bool,
) -> io::Result<()> {
    let mut attributes =
        Element { map_fd: number(map), pad: 0, key: address(key), value: address_mut(value), flags: 0 };
    let command = if take { bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM } else { bpf_cmd::BPF_MAP_LOOKUP_ELEM };
    // SAFETY: both slices outlive the call and have the lengths the kernel uses, as the caller guarantees.
    unsafe { bpf(command, &mut attributes) }.map(drop)
}

/// Writes the value of a key.
///
/// # Safety
/// As [`map_lookup`].
pub(crate) unsafe fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut attributes =
        Element { map_fd: number(map), pad: 0, key: address(key), value: address(value), flags };
    // SAFETY: as in `map_lookup`; the kernel only reads both.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Deletes a key.
///
/// # Safety
/// As [`map_lookup`], for the key.
pub(crate) unsafe fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attributes = Element { map_fd: number(map), pad: 0, key: address(key), value: 0, flags: 0 };
    // SAFETY: as in `map_lookup`.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attributes) }.map(drop)
}

/// Reads the key after another one, or the first.
///
/// # Safety
/// As [`map_lookup`], for both keys.
pub(crate) unsafe fn map_next_key(
    map: BorrowedFd<'_>,
    after: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<()> {
    let key = after.map_or(0, address);
    let mut attributes = Element { map_fd: number(map), pad: 0, key, value: address_mut(next), flags: 0 };
    // SAFETY: as in `map_lookup`: the kernel writes a key where a value stands otherwise.
    unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attributes) }.map(drop)
}

/// What a batch command did: how many entries, and the error it stopped at. Entries before the error are done.
pub(crate) struct BatchDone {
    pub(crate) count: u32,
    pub(crate) error: Option<io::Error>,
}

fn batch_done(result: io::Result<i32>, attributes: &Batch, asked: u32) -> BatchDone {
    match result {
        Ok(_) => BatchDone { count: attributes.count, error: None },
        // With EFAULT the kernel may not have written the count back; the number is then our own request.
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
            BatchDone { count: 0, error: Some(error) }
        }
        Err(error) => BatchDone { count: attributes.count.min(asked), error: Some(error) },
    }
}

/// Reads up to `count` entries after `position`; writes the new position. `None` starts at the beginning.
/// The error is ENOENT at the end of the map, ENOSPC when not even one bucket fits.
///
/// # Safety
/// `keys` and `values` must have room for `count` keys and values of the map, `position` and `next` for one key or
/// four bytes, whichever is more.
pub(crate) unsafe fn map_lookup_batch(
    map: BorrowedFd<'_>,
    position: Option<&[u8]>,
    next: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> BatchDone {
    let mut attributes = Batch {
        in_batch: position.map_or(0, address),
        out_batch: address_mut(next),
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: all slices outlive the call and are long enough, as the caller guarantees.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
    batch_done(result, &attributes, count)
}

/// Writes `count` entries.
///
/// # Safety
/// `keys` and `values` must hold `count` keys and values of the map.
pub(crate) unsafe fn map_update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> BatchDone {
    let mut attributes = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys),
        values: address(values),
        count,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as in `map_lookup_batch`; the kernel only reads both.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attributes) };
    batch_done(result, &attributes, count)
}

/// Deletes `count` keys; stops at the first that is missing with ENOENT.
///
/// # Safety
/// `keys` must hold `count` keys of the map.
pub(crate) unsafe fn map_delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> BatchDone {
    let mut attributes = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys),
        values: 0,
        count,
        map_fd: number(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as in `map_lookup_batch`; the kernel only reads the keys.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attributes) };
    batch_done(result, &attributes, count)
}

/// Loads an XDP program of these instructions.
pub(crate) fn load_xdp(instructions: &[u64], license: &CStr, name: [u8; 16]) -> io::Result<OwnedFd> {
    let mut attributes = ProgramLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: address(instructions),
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: PROG_HAS_FRAGS,
        prog_name: name,
    };
    // SAFETY: instructions and licence outlive the call; the count is that of the slice, the licence ends with a zero.
    unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }.map(own)
}

/// Pins an object at a path on a bpffs.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attributes = Object { pathname: path.as_ptr() as u64, bpf_fd: number(object), file_flags: 0 };
    // SAFETY: the path outlives the call and ends with a zero.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// Opens a pinned object.
pub(crate) fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let mut attributes = Object { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: as in `pin`.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes) }.map(own)
}

/// Reads what the kernel knows about an object: the beginning of `bpf_prog_info`, `bpf_map_info` or `bpf_link_info`.
pub(crate) fn info<T: Pod>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = [T::zeroed()];
    let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let mut attributes = Info { bpf_fd: number(object), info_len: length, info: address_mut(&mut info) };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which has that size and may hold any bytes. The
    // structures used here keep their nested array addresses zero.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let [info] = info;
    Ok(info)
}

/// Opens a program by its id.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = GetId { id, next_id: 0, open_flags: 0 };
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attributes) }.map(own)
}

/// Attaches an XDP program to an interface; the attachment lasts as long as the link.
pub(crate) fn link_create(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = Link { first_fd: number(program), second: interface, third: BPF_XDP, fourth: flags };
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }.map(own)
}

/// Exchanges the program of a link; every packet meets the old one or the new one.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Link { first_fd: number(link), second: number(program), third: 0, fourth: 0 };
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Detaches a link at once, also when others hold it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = number(link);
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes) }.map(drop)
}

/// What a test run returned.
pub(crate) struct TestDone {
    pub(crate) retval: u32,
    pub(crate) length: usize,
    pub(crate) duration_ns: u32,
}

/// Runs a program on a packet; writes the packet as the program left it to `out`.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &mut [u32],
    repeat: u32,
    out: &mut [u8],
) -> io::Result<TestDone> {
    let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let mut attributes = Test {
        prog_fd: number(program),
        retval: 0,
        data_size_in: length(packet.len())?,
        data_size_out: length(out.len())?,
        data_in: address(packet),
        data_out: address_mut(out),
        repeat,
        duration: 0,
        ctx_size_in: length(size_of_val(context))?,
        ctx_size_out: 0,
        ctx_in: if context.is_empty() { 0 } else { address(context) },
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        pad: 0,
    };
    // SAFETY: all slices outlive the call, and the lengths passed are theirs.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes) }?;
    let length = (attributes.data_size_out as usize).min(out.len());
    Ok(TestDone { retval: attributes.retval, length, duration_ns: attributes.duration })
}
