//! A map that keeps the order of adding, and gives up an entry at the price of that entry alone.
//!
//! Deliberately absent: places that close up. An entry keeps the number it was added with, so that one that was removed
//! can be put back exactly where it was.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Entries in the order they were added.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    next: u64,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }
}

/// The same entries, in whatever order: they are keyed, and the order is only that of listings.
impl<K: Copy + Eq + Hash, V: PartialEq> PartialEq for Ordered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Copy + Eq + Hash, V: Eq> Eq for Ordered<K, V> {}

/// Keys and values in order.
pub(crate) struct Iter<'a, K, V> {
    entries: &'a HashMap<K, (u64, V)>,
    keys: std::collections::btree_map::Values<'a, u64, K>,
}

impl<'a, K: Eq + Hash, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.keys.next()?;
        // Every key of the order has an entry.
        self.entries.get(key).map(|(_, value)| (key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.keys.size_hint()
    }
}

impl<K: Eq + Hash, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K: Copy + Eq + Hash, V> Ordered<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Number of an entry, and the entry; a later one has a higher number.
    pub(crate) fn get_full(&self, key: &K) -> Option<(u64, &V)> {
        self.entries.get(key).map(|(place, value)| (*place, value))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Adds an entry behind all others. One of the same key goes.
    pub(crate) fn push(&mut self, key: K, value: V) {
        let place = self.next;
        self.put(key, place, value);
    }

    /// Puts an entry where it was. One of the same key goes.
    pub(crate) fn put(&mut self, key: K, place: u64, value: V) {
        if let Some((old, _)) = self.entries.insert(key, (place, value)) {
            self.order.remove(&old);
        }
        self.order.insert(place, key);
        self.next = self.next.max(place + 1);
    }

    /// Gives an entry up.
    pub(crate) fn remove(&mut self, key: &K) -> Option<(u64, V)> {
        let removed = self.entries.remove(key)?;
        self.order.remove(&removed.0);
        Some(removed)
    }

    /// Gives all entries up; their places stay theirs.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// Keys and values in order.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        Iter { entries: &self.entries, keys: self.order.values() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ordered: &Ordered<u8, char>) -> Vec<u8> {
        ordered.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn an_entry_put_back_stands_where_it_stood() {
        let mut ordered = Ordered::default();
        [(3, 'a'), (1, 'b'), (2, 'c')].into_iter().for_each(|(key, value)| ordered.push(key, value));
        let before = ordered.clone();
        let (place, value) = ordered.remove(&1).expect("there");
        assert_eq!((keys(&ordered), ordered.len(), ordered.get(&1)), (vec![3, 2], 2, None));
        // Added again meanwhile, it stands last.
        ordered.push(1, 'd');
        assert_eq!(keys(&ordered), [3, 2, 1]);
        assert_ne!(ordered, before, "another value");
        ordered.put(1, place, value);
        assert_eq!((keys(&ordered), &ordered), (keys(&before), &before));
        assert_eq!((ordered.get(&1), ordered.get(&2)), (Some(&'b'), Some(&'c')));
        // What is added after that does not take its place, nor after everything was given up.
        ordered.push(4, 'e');
        assert_eq!(keys(&ordered), [3, 1, 2, 4]);
        ordered.clear();
        ordered.push(5, 'f');
        before.entries.into_iter().for_each(|(key, (place, value))| ordered.put(key, place, value));
        assert_eq!(keys(&ordered), [3, 1, 2, 5]);
    }
}
