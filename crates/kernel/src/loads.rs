//! The load of real servers: an array that the packet path changes with atomic adds, and so does this.
//!
//! A read and a write through the system call would lose an add of the packet path in between. A map made with
//! `BPF_F_MMAPABLE` is mapped into memory instead, where corrections are atomic adds as well. One made without it is
//! still served, and what the race spoils is drift that the sweep finds.

use crate::map::{FLAG_MMAPABLE, Map, TableError};
use crate::table::Array;
use abi::Load;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

/// The loads, by index of the real server.
#[derive(Debug)]
pub struct Loads {
    array: Array<Load>,
    mapping: Option<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    entries: usize,
}

// SAFETY: the memory stays mapped until drop, wherever the owner moves, and is touched only through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access is atomic.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, and no reference into it outlives `self`. A failure leaves the
        // range mapped, which harms nobody.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

impl Mapping {
    fn new(map: &Map) -> io::Result<Self> {
        let entries = map.info().max_entries as usize;
        let page = usize::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096))
            .map_err(io::Error::other)?;
        let bytes = (entries * size_of::<Load>()).next_multiple_of(page);
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it cannot overlap anything of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map.fd(), 0) }?;
        Ok(Self { start, bytes, entries })
    }

    fn load(&self, index: u32) -> Option<&[AtomicI32; 4]> {
        if index as usize >= self.entries {
            return None;
        }
        let start = self.start.cast::<[AtomicI32; 4]>();
        // SAFETY: the index is inside the mapping, which starts at a page boundary and holds four aligned 32-bit
        // numbers (`Load`) an entry; the kernel changes them atomically, so atomics are the right view.
        Some(unsafe { start.add(index as usize).as_ref() })
    }
}

impl Loads {
    pub(crate) fn new(map: Map) -> Result<Self, TableError> {
        let mappable = map.info().flags & FLAG_MMAPABLE != 0;
        let array = Array::new(map)?;
        let mapping = if mappable {
            Some(Mapping::new(&array.map).map_err(|source| array.map.error("map", source))?)
        } else {
            None
        };
        Ok(Self { array, mapping })
    }

    /// Number of entries.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.array.capacity()
    }

    /// The load at an index; `None` past the end.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get(&self, index: u32) -> Result<Option<Load>, TableError> {
        let Some(mapping) = &self.mapping else { return self.array.get(index) };
        Ok(mapping.load(index).map(|[active, inactive, persistent, overloaded]| Load {
            active: active.load(Ordering::Relaxed),
            inactive: inactive.load(Ordering::Relaxed),
            persistent: persistent.load(Ordering::Relaxed),
            overloaded: overloaded.load(Ordering::Relaxed).cast_unsigned(),
        }))
    }

    /// The loads from `start` on, at most `len`; fewer at the end.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get_range(&self, start: u32, len: u32) -> Result<Vec<Load>, TableError> {
        if self.mapping.is_none() {
            return self.array.get_range(start, len);
        }
        let end = start.saturating_add(len).min(self.capacity());
        (start..end).map(|index| Ok(self.get(index)?.unwrap_or_default())).collect()
    }

    /// Adds to the load at an index. Past the end nothing happens.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn add(&self, index: u32, change: Load) -> Result<(), TableError> {
        let Some(mapping) = &self.mapping else { return self.replace(index, change) };
        let Some([active, inactive, persistent, _]) = mapping.load(index) else { return Ok(()) };
        let numbers = [(active, change.active), (inactive, change.inactive), (persistent, change.persistent)];
        for (number, change) in numbers {
            if change != 0 {
                number.fetch_add(change, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Says whether the real server has reached its upper connection threshold.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn set_overloaded(&self, index: u32, overloaded: bool) -> Result<(), TableError> {
        let Some(mapping) = &self.mapping else {
            let load = self.array.get(index)?.unwrap_or_default();
            return self.array.put(index, &Load { overloaded: overloaded.into(), ..load });
        };
        if let Some([.., flag]) = mapping.load(index) {
            flag.store(overloaded.into(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn replace(&self, index: u32, change: Load) -> Result<(), TableError> {
        let Some(load) = self.array.get(index)? else { return Ok(()) };
        let load = Load {
            active: load.active.wrapping_add(change.active),
            inactive: load.inactive.wrapping_add(change.inactive),
            persistent: load.persistent.wrapping_add(change.persistent),
            overloaded: load.overloaded,
        };
        self.array.put(index, &load)
    }

    /// Sets so many loads from `start` on to zero. Only where no flow can be (fresh indices).
    ///
    /// # Errors
    /// [`TableError`], E2BIG past the end.
    pub fn clear_range(&self, start: u32, len: u32) -> Result<(), TableError> {
        self.array.put_range(start, &vec![Load::default(); len as usize])
    }

    /// Sets the load at an index. Only where no packet path runs (tests) or no flow can be (a fresh index).
    ///
    /// # Errors
    /// [`TableError`], E2BIG past the end.
    pub fn set(&self, index: u32, load: Load) -> Result<(), TableError> {
        self.array.put(index, &load)
    }
}
