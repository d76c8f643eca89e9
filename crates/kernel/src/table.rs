//! Typed tables: arrays, per-CPU arrays and hash tables whose keys and values are types of `abi`.

use crate::map::{Map, TYPE_ARRAY, TYPE_HASH, TYPE_LRU_HASH, TYPE_PER_CPU_ARRAY, TableError};
use bytemuck::Pod;
use std::io;
use std::marker::PhantomData;

/// Entries exchanged with the kernel in one call at most; bounds the buffers.
const BATCH_MAX: usize = 4096;

/// What a [`HashTable::put`] expects to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Put {
    /// Anything: insert or replace.
    #[default]
    Any,
    /// Nothing: fail with EEXIST when the key is there.
    New,
    /// An entry: fail with ENOENT when the key is absent.
    Existing,
}

/// Checks that an open map is what its type says.
pub(crate) fn expect(map: &Map, kinds: &[u32], key: usize, value: usize) -> Result<(), TableError> {
    let info = map.info();
    if kinds.contains(&info.kind) && info.key_size as usize == key && info.value_size as usize == value {
        return Ok(());
    }
    let found = io::Error::other(format!(
        "it is of kind {} with keys of {} and values of {} bytes, not {kinds:?} with {key} and {value}",
        info.kind, info.key_size, info.value_size
    ));
    Err(map.error("use", found))
}

/// An array of values.
#[derive(Debug)]
pub struct Array<V> {
    pub(crate) map: Map,
    value: PhantomData<V>,
}

impl<V: Pod> Array<V> {
    pub(crate) fn new(map: Map) -> Result<Self, TableError> {
        expect(&map, &[TYPE_ARRAY], 4, size_of::<V>())?;
        Ok(Self { map, value: PhantomData })
    }

    /// Number of entries.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.map.info().max_entries
    }

    /// The value at an index; `None` past the end.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get(&self, index: u32) -> Result<Option<V>, TableError> {
        let mut value = V::zeroed();
        self.map
            .lookup(&index.to_ne_bytes(), bytemuck::bytes_of_mut(&mut value), false)
            .map(|found| found.then_some(value))
            .map_err(|source| self.map.error("read from", source))
    }

    /// Writes the value at an index.
    ///
    /// # Errors
    /// [`TableError`], E2BIG past the end.
    pub fn put(&self, index: u32, value: &V) -> Result<(), TableError> {
        self.map
            .update(&index.to_ne_bytes(), bytemuck::bytes_of(value), 0)
            .map_err(|source| self.map.error("write to", source))
    }

    /// The values from `start` on, at most `len`; fewer at the end of the array.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get_range(&self, start: u32, len: u32) -> Result<Vec<V>, TableError> {
        let bytes = read_range(&self.map, start, len)?;
        Ok(bytes.chunks_exact(size_of::<V>()).map(bytemuck::pod_read_unaligned).collect())
    }

    /// Writes values wherever they belong, in batches; `indices` and `values` go in pairs. Readers may see some before
    /// others.
    ///
    /// # Errors
    /// [`TableError`], E2BIG past the end; what came before is written.
    pub fn put_batch(&self, indices: &[u32], values: &[V]) -> Result<(), TableError> {
        for (indices, values) in indices.chunks(BATCH_MAX).zip(values.chunks(BATCH_MAX)) {
            self.map
                .update_batch(bytemuck::cast_slice(indices), bytemuck::cast_slice(values), indices.len())
                .map_err(|source| self.map.error("write to", source))?;
        }
        Ok(())
    }

    /// Writes values from `start` on, in batches. Readers may see some before others.
    ///
    /// # Errors
    /// [`TableError`], E2BIG past the end; what came before is written.
    pub fn put_range(&self, start: u32, values: &[V]) -> Result<(), TableError> {
        let failed = |source| self.map.error("write to", source);
        let mut at = start;
        for chunk in values.chunks(BATCH_MAX) {
            let len = u32::try_from(chunk.len()).map_err(|error| failed(io::Error::other(error)))?;
            let end = at.checked_add(len).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::E2BIG)))?;
            let keys: Vec<u32> = (at..end).collect();
            self.map
                .update_batch(bytemuck::cast_slice(&keys), bytemuck::cast_slice(chunk), chunk.len())
                .map_err(failed)?;
            at = end;
        }
        Ok(())
    }
}

/// Reads entries `start..start + len` of an array (per CPU or not) as the kernel gives them.
fn read_range(map: &Map, start: u32, len: u32) -> Result<Vec<u8>, TableError> {
    let end = start.saturating_add(len).min(map.info().max_entries);
    let mut all = Vec::new();
    let mut at = start;
    while at < end {
        let count = (end - at).min(BATCH_MAX as u32) as usize;
        let mut keys = vec![0; count * 4];
        let mut values = vec![0; count * map.value_bytes()];
        // The kernel reads on after the position given.
        let (done, _, error) = map
            .lookup_batch(at.checked_sub(1), &mut keys, &mut values, count)
            .map_err(|source| map.error("read from", source))?;
        values.truncate(done * map.value_bytes());
        all.append(&mut values);
        match error {
            Some(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                return Err(map.error("read from", error));
            }
            Some(_) => break,
            None if done == 0 => break,
            None => at = at.saturating_add(u32::try_from(done).unwrap_or(u32::MAX)),
        }
    }
    Ok(all)
}

/// An array with one value for each CPU. Writing an entry races with the packet path: only for those it does not touch.
#[derive(Debug)]
pub struct PerCpuArray<V> {
    map: Map,
    value: PhantomData<V>,
}

impl<V: Pod> PerCpuArray<V> {
    pub(crate) fn new(map: Map) -> Result<Self, TableError> {
        expect(&map, &[TYPE_PER_CPU_ARRAY], 4, size_of::<V>())?;
        Ok(Self { map, value: PhantomData })
    }

    /// Number of entries.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.map.info().max_entries
    }

    /// The values of every CPU at an index; empty past the end.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get(&self, index: u32) -> Result<Vec<V>, TableError> {
        let mut bytes = vec![0; self.map.value_bytes()];
        let found = self
            .map
            .lookup(&index.to_ne_bytes(), &mut bytes, false)
            .map_err(|source| self.map.error("read from", source))?;
        Ok(if found { Self::split(&bytes).collect() } else { Vec::new() })
    }

    /// For each index from `start` on, at most `len`, the values of every CPU folded into one.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn fold_range(&self, start: u32, len: u32, fold: impl Fn(V, V) -> V) -> Result<Vec<V>, TableError> {
        let bytes = read_range(&self.map, start, len)?;
        let entries = bytes.chunks_exact(self.map.value_bytes());
        Ok(entries.map(|entry| Self::split(entry).reduce(&fold).unwrap_or_else(V::zeroed)).collect())
    }

    /// Sets an entry to this value on the first CPU and to zero on all others.
    ///
    /// # Errors
    /// [`TableError`], E2BIG past the end.
    pub fn put_sum(&self, index: u32, sum: &V) -> Result<(), TableError> {
        let mut bytes = vec![0; self.map.value_bytes()];
        bytes.iter_mut().zip(bytemuck::bytes_of(sum)).for_each(|(byte, value)| *byte = *value);
        self.map.update(&index.to_ne_bytes(), &bytes, 0).map_err(|source| self.map.error("write to", source))
    }

    fn split(entry: &[u8]) -> impl Iterator<Item = V> + '_ {
        let stride = size_of::<V>().next_multiple_of(8);
        entry
            .chunks_exact(stride)
            .filter_map(|cpu| cpu.get(..size_of::<V>()))
            .map(bytemuck::pod_read_unaligned)
    }
}

/// Where a [`HashTable::scan`] stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// Before the first entry.
    #[default]
    Start,
    /// Before this bucket of the kernel's table.
    At(u32),
    /// After the last entry.
    End,
}

/// A hash table.
#[derive(Debug)]
pub struct HashTable<K, V> {
    map: Map,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> HashTable<K, V> {
    pub(crate) fn new(map: Map) -> Result<Self, TableError> {
        expect(&map, &[TYPE_HASH, TYPE_LRU_HASH], size_of::<K>(), size_of::<V>())?;
        Ok(Self { map, types: PhantomData })
    }

    /// Number of entries it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.map.info().max_entries
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        self.lookup(key, false)
    }

    /// Deletes a key and returns the value it had at that moment.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn take(&self, key: &K) -> Result<Option<V>, TableError> {
        self.lookup(key, true)
    }

    fn lookup(&self, key: &K, take: bool) -> Result<Option<V>, TableError> {
        let mut value = V::zeroed();
        self.map
            .lookup(bytemuck::bytes_of(key), bytemuck::bytes_of_mut(&mut value), take)
            .map(|found| found.then_some(value))
            .map_err(|source| self.map.error(if take { "delete from" } else { "read from" }, source))
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// [`TableError`]: full ([`TableError::is_full`]), EEXIST or ENOENT as `put` asks.
    pub fn put(&self, key: &K, value: &V, put: Put) -> Result<(), TableError> {
        let flags = match put {
            Put::Any => 0,
            Put::New => 1,
            Put::Existing => 2,
        };
        self.map
            .update(bytemuck::bytes_of(key), bytemuck::bytes_of(value), flags)
            .map_err(|source| self.map.error("write to", source))
    }

    /// Writes entries in batches; stops at the first that fails. `keys` and `values` go in pairs.
    ///
    /// # Errors
    /// [`TableError`]; entries before the one refused are written.
    pub fn put_batch(&self, keys: &[K], values: &[V]) -> Result<(), TableError> {
        for (keys, values) in keys.chunks(BATCH_MAX).zip(values.chunks(BATCH_MAX)) {
            self.map
                .update_batch(bytemuck::cast_slice(keys), bytemuck::cast_slice(values), keys.len())
                .map_err(|source| self.map.error("write to", source))?;
        }
        Ok(())
    }

    /// Deletes a key; `false` when it was absent.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn delete(&self, key: &K) -> Result<bool, TableError> {
        self.map.delete(bytemuck::bytes_of(key)).map_err(|source| self.map.error("delete from", source))
    }

    /// Deletes keys; those absent are passed over. Returns how many were there.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn delete_batch(&self, keys: &[K]) -> Result<usize, TableError> {
        let mut deleted = 0;
        for keys in keys.chunks(BATCH_MAX) {
            deleted += self
                .map
                .delete_batch(bytemuck::cast_slice(keys), keys.len())
                .map_err(|source| self.map.error("delete from", source))?;
        }
        Ok(deleted)
    }

    /// Reads about `count` entries (never more than 4,096) from the cursor on and moves it. Entries that come and go
    /// meanwhile may or may not be seen; one that stays is seen once.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn scan(&self, cursor: &mut Cursor, count: usize) -> Result<Vec<(K, V)>, TableError> {
        let position = match *cursor {
            Cursor::Start => None,
            Cursor::At(bucket) => Some(bucket),
            Cursor::End => return Ok(Vec::new()),
        };
        let mut count = count.clamp(1, BATCH_MAX);
        // A bucket that does not fit into the buffer at all is answered with ENOSPC: take a larger one. Twice the
        // entries of the map suffices for certain, so the loop ends.
        loop {
            let mut keys = vec![K::zeroed(); count];
            let mut values = vec![V::zeroed(); count];
            let (done, next, error) = self
                .map
                .lookup_batch(
                    position,
                    bytemuck::cast_slice_mut(&mut keys),
                    bytemuck::cast_slice_mut(&mut values),
                    count,
                )
                .map_err(|source| self.map.error("scan", source))?;
            match error.as_ref().and_then(io::Error::raw_os_error) {
                None if error.is_none() => *cursor = Cursor::At(next),
                Some(libc::ENOENT) => *cursor = Cursor::End,
                Some(libc::ENOSPC) if done > 0 => *cursor = Cursor::At(next),
                Some(libc::ENOSPC) if count < 2 * self.capacity() as usize => {
                    count *= 2;
                    continue;
                }
                _ => {
                    let error = error.unwrap_or_else(|| io::ErrorKind::Other.into());
                    return Err(self.map.error("scan", error));
                }
            }
            return Ok(keys.into_iter().zip(values).take(done).collect());
        }
    }

    /// Every entry.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        let mut cursor = Cursor::Start;
        let mut all = Vec::new();
        // The cursor moves by at least one bucket each time, and the kernel has less than twice as many
        // buckets as entries.
        while cursor != Cursor::End {
            all.append(&mut self.scan(&mut cursor, BATCH_MAX)?);
        }
        Ok(all)
    }
}
