//! A trie of prefixes, in which a look-up finds the longest one that fits. Its keys begin with their length in bits.
//!
//! A table of its own kind: the kernel goes through it by whole keys, where a hash table counts buckets.

use crate::map::{Map, TYPE_LPM_TRIE, TableError};
use crate::table::expect;
use bytemuck::Pod;
use std::marker::PhantomData;

/// A trie.
#[derive(Debug)]
pub struct Trie<K, V> {
    map: Map,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Trie<K, V> {
    pub(crate) fn new(map: Map) -> Result<Self, TableError> {
        expect(&map, &[TYPE_LPM_TRIE], size_of::<K>(), size_of::<V>())?;
        Ok(Self { map, types: PhantomData })
    }

    /// The value of the longest prefix that the key fits.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        let mut value = V::zeroed();
        self.map
            .lookup(bytemuck::bytes_of(key), bytemuck::bytes_of_mut(&mut value), false)
            .map(|found| found.then_some(value))
            .map_err(|source| self.map.error("read from", source))
    }

    /// Adds or replaces entries; stops at the first that fails. `keys` and `values` go in pairs.
    ///
    /// # Errors
    /// [`TableError`]: full ([`TableError::is_full`]); entries before the one refused are written.
    pub fn put_all(&self, keys: &[K], values: &[V]) -> Result<(), TableError> {
        keys.iter().zip(values).try_for_each(|(key, value)| {
            self.map
                .update(bytemuck::bytes_of(key), bytemuck::bytes_of(value), 0)
                .map_err(|source| self.map.error("write to", source))
        })
    }

    /// Deletes keys; those absent are passed over.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn delete_all(&self, keys: &[K]) -> Result<(), TableError> {
        keys.iter().try_for_each(|key| {
            let deleted = self.map.delete(bytemuck::bytes_of(key));
            deleted.map(drop).map_err(|source| self.map.error("delete from", source))
        })
    }

    /// Every entry. Nobody may write meanwhile.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        let mut all: Vec<(K, V)> = Vec::new();
        // No more than there is room for: the end of the loop whatever the kernel says.
        for _ in 0..self.map.info().max_entries {
            let after = all.last().map(|(key, _)| bytemuck::bytes_of(key));
            let mut key = K::zeroed();
            let found = self.map.next_key(after, bytemuck::bytes_of_mut(&mut key));
            if !found.map_err(|source| self.map.error("read from", source))? {
                break;
            }
            // A look-up of a stored prefix finds that prefix: none that fits is longer.
            if let Some(value) = self.get(&key)? {
                all.push((key, value));
            }
        }
        Ok(all)
    }
}
