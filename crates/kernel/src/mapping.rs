//! An array map mapped into memory (`BPF_F_MMAPABLE`): reads and atomic changes without system calls.

use crate::map::Map;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// The entries of an array map. `T` must allow shared change: atomics, or cells read and written whole.
#[derive(Debug)]
pub(crate) struct Mapping<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    entries: u32,
    types: PhantomData<T>,
}

// SAFETY: the memory stays mapped until drop, wherever the owner moves; `T` allows shared change.
unsafe impl<T: Sync> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapping<T> {}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, and no reference into it outlives `self`. A failure leaves the
        // range mapped, which harms nobody.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

impl<T> Mapping<T> {
    /// Maps all entries; a `T` must be as long as a value, and values a multiple of eight bytes.
    pub(crate) fn new(map: &Map) -> io::Result<Self> {
        if map.value_bytes() != size_of::<T>() || !size_of::<T>().is_multiple_of(8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entries = map.info().max_entries;
        let page = usize::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096))
            .map_err(io::Error::other)?;
        let bytes = (entries as usize * size_of::<T>()).next_multiple_of(page);
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it cannot overlap anything of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map.fd(), 0) }?;
        Ok(Self { start, bytes, entries, types: PhantomData })
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> u32 {
        self.entries
    }

    /// The entry at an index; `None` past the end.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: the index is inside the mapping, which starts at a page boundary and holds `entries` values of the
        // size of `T`; others change them, which `T` allows.
        Some(unsafe { self.start.cast::<T>().add(index as usize).as_ref() })
    }
}
