//! One BPF map without types: an open descriptor whose key and value lengths were read from the kernel.
//!
//! The lengths are checked here once per call, which is what makes the calls below safe.

use crate::sys;
use bytemuck::{Pod, Zeroable};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `BPF_MAP_TYPE_*` of the maps used here.
pub(crate) const TYPE_HASH: u32 = 1;
pub(crate) const TYPE_ARRAY: u32 = 2;
pub(crate) const TYPE_PROGRAM_ARRAY: u32 = 3;
pub(crate) const TYPE_PER_CPU_ARRAY: u32 = 6;
pub(crate) const TYPE_LRU_HASH: u32 = 9;
pub(crate) const TYPE_LPM_TRIE: u32 = 11;

/// `BPF_F_MMAPABLE`: the values can be mapped into memory.
pub(crate) const FLAG_MMAPABLE: u32 = 1 << 10;

/// Beginning of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Zeroable, Pod)]
#[repr(C)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    name: [u8; 16],
}

/// An operation on a table failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} table {table}")]
pub struct TableError {
    /// Name of the map.
    pub table: &'static str,
    /// What was tried, such as `write to`.
    pub operation: &'static str,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

impl TableError {
    /// Whether the table had no room left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM))
    }
}

/// An open map.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    name: &'static str,
    info: MapInfo,
    /// Bytes user space exchanges for one value: all CPUs for a per-CPU map.
    value_bytes: usize,
}

/// How many CPUs the kernel keeps per-CPU values for.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

impl Map {
    pub(crate) fn new(fd: OwnedFd, name: &'static str) -> Result<Self, TableError> {
        let failed = |source| TableError { table: name, operation: "open", source };
        let info: MapInfo = sys::info(fd.as_fd()).map_err(failed)?;
        let value_bytes = if info.kind == TYPE_PER_CPU_ARRAY {
            (info.value_size as usize).next_multiple_of(8) * possible_cpus().map_err(failed)?
        } else {
            info.value_size as usize
        };
        Ok(Self { fd, name, info, value_bytes })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn info(&self) -> MapInfo {
        self.info
    }

    pub(crate) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    pub(crate) fn error(&self, operation: &'static str, source: io::Error) -> TableError {
        TableError { table: self.name, operation, source }
    }

    fn check(&self, keys: &[u8], values: Option<&[u8]>, count: usize) -> io::Result<()> {
        let fits = keys.len() == count * self.info.key_size as usize
            && values.is_none_or(|values| values.len() == count * self.value_bytes);
        if fits { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Reads a value; `false` when the key is absent.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8], take: bool) -> io::Result<bool> {
        self.check(key, Some(value), 1)?;
        // SAFETY: the lengths were checked against the map's.
        match unsafe { sys::map_lookup(self.fd.as_fd(), key, value, take) } {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The key after another one, or the first; `false` when there is none.
    pub(crate) fn next_key(&self, after: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        self.check(next, None, 1)?;
        after.map_or(Ok(()), |key| self.check(key, None, 1))?;
        // SAFETY: the lengths were checked against the map's.
        match unsafe { sys::map_next_key(self.fd.as_fd(), after, next) } {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a value.
    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check(key, Some(value), 1)?;
        // SAFETY: the lengths were checked against the map's.
        unsafe { sys::map_update(self.fd.as_fd(), key, value, flags) }
    }

    /// Deletes a key; `false` when it was absent.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, None, 1)?;
        // SAFETY: the length was checked against the map's.
        match unsafe { sys::map_delete(self.fd.as_fd(), key) } {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads up to `count` entries after `position`. Returns how many were read and the error that ended it.
    pub(crate) fn lookup_batch(
        &self,
        position: Option<u32>,
        keys: &mut [u8],
        values: &mut [u8],
        count: usize,
    ) -> io::Result<(usize, u32, Option<io::Error>)> {
        self.check(keys, Some(values), count)?;
        let asked = u32::try_from(count).map_err(io::Error::other)?;
        let position = position.map(u32::to_ne_bytes);
        // Arrays write a key of four bytes here, hash tables a bucket number of four; a longer key needs its length.
        let mut next = vec![0; (self.info.key_size as usize).max(4)];
        let position = position.as_ref().map(<[u8; 4]>::as_slice);
        // SAFETY: the lengths were checked; `position` is the four bytes that arrays (a key of four bytes) and hash
        // tables (a bucket number) read, and no other kind of map is opened by this crate's tables.
        let done =
            unsafe { sys::map_lookup_batch(self.fd.as_fd(), position, &mut next, keys, values, asked) };
        let next = next.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        Ok((done.count as usize, next, done.error))
    }

    /// Writes entries; stops at the first that fails.
    pub(crate) fn update_batch(&self, keys: &[u8], values: &[u8], count: usize) -> io::Result<()> {
        self.check(keys, Some(values), count)?;
        if count == 0 {
            return Ok(());
        }
        let asked = u32::try_from(count).map_err(io::Error::other)?;
        // SAFETY: the lengths were checked against the map's.
        let done = unsafe { sys::map_update_batch(self.fd.as_fd(), keys, values, asked) };
        done.error.map_or(Ok(()), Err)
    }

    /// Deletes keys; those absent are passed over. Returns how many were deleted.
    pub(crate) fn delete_batch(&self, keys: &[u8], count: usize) -> io::Result<usize> {
        self.check(keys, None, count)?;
        let key_size = self.info.key_size as usize;
        let (mut at, mut deleted) = (0, 0);
        // Every round gets at least one key further.
        while at < count {
            let Some(rest) = keys.get(at * key_size..) else { break };
            let asked = u32::try_from(count - at).map_err(io::Error::other)?;
            // SAFETY: `rest` holds exactly `count - at` keys.
            let done = unsafe { sys::map_delete_batch(self.fd.as_fd(), rest, asked) };
            deleted += done.count as usize;
            match done.error {
                None => break,
                Some(error) if error.raw_os_error() == Some(libc::ENOENT) => at += done.count as usize + 1,
                Some(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}
