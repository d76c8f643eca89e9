//! Between the tables as values (`plan`) and the maps in the kernel.

use abi::{ClientLimits, Real};
use kernel::{TableError, Tables as Maps};
use plan::{Cursors, TableChange, Tables};
use std::mem::discriminant;

/// Changes done in one go at most; bounds the buffers.
const RUN_MAX: usize = 4096;
/// Entries read one by one at most; more of them are read as the range they are in.
const SINGLE_MAX: usize = 64;

/// Reads what a former daemon left: services, the slots they point at, real servers, who is let in, settings, filters,
/// cursors.
pub(crate) fn read(maps: &Maps) -> Result<(Tables, Cursors), TableError> {
    let mut tables = Tables::default();
    if let Some(settings) = maps.settings.get(0)? {
        tables.settings = settings;
    }
    tables.services = maps.services.entries()?.into_iter().collect();
    for service in tables.services.values() {
        for span in [service.ring, service.pool] {
            let slots = maps.slots.get_range(span.start, span.len)?;
            tables.slots.extend((span.start..).zip(slots));
        }
    }
    let reals = maps.reals.get_range(0, maps.reals.capacity())?;
    tables.reals = (0..).zip(reals).filter(|(_, real)| *real != Real::default()).collect();
    let words = |filter: &kernel::Array<u64>| {
        let words = filter.get_range(0, filter.capacity())?;
        Ok((0..).zip(words).filter(|(_, word)| *word != 0).collect())
    };
    tables.access = maps.access.entries()?.into_iter().collect();
    let limits = maps.client_limits.get_range(0, maps.client_limits.capacity())?;
    tables.client_limits = (0..).zip(limits).filter(|(_, it)| *it != ClientLimits::default()).collect();
    tables.vip_filter = words(&maps.vip_filter)?;
    tables.masquerade_filter = words(&maps.masquerade_filter)?;
    let cursors = (0..).zip(maps.cursors.get_range(0, maps.cursors.capacity())?);
    Ok((tables, cursors.filter(|(_, cursor)| *cursor != 0).collect()))
}

/// The cursors of these indices.
pub(crate) fn cursors(maps: &Maps, indices: &[u32]) -> Result<Cursors, TableError> {
    let mut cursors = Cursors::new();
    if indices.len() <= SINGLE_MAX {
        for index in indices {
            cursors.insert(*index, maps.cursors.get(*index)?.unwrap_or_default());
        }
    } else if let (Some(first), Some(last)) = (indices.iter().min(), indices.iter().max()) {
        cursors.extend((*first..).zip(maps.cursors.get_range(*first, last - first + 1)?));
    }
    Ok(cursors)
}

/// Indices as runs: the first one and how many follow each other. They must be sorted.
pub(crate) fn runs(indices: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some((start, len)) if *start + *len == index => *len += 1,
            _ => runs.push((index, 1)),
        }
    }
    runs
}

/// Changes were refused. What undoes those that were done, the last one first.
pub(crate) struct Refused {
    pub(crate) undo: Vec<TableChange>,
    pub(crate) error: TableError,
}

/// Does changes in order, in the kernel and in `present`, which is what the kernel has. Gives the changes that undo them,
/// the last one first.
pub(crate) fn apply(
    maps: &Maps,
    present: &mut Tables,
    changes: &[TableChange],
) -> Result<Vec<TableChange>, Refused> {
    let mut undo = Vec::with_capacity(changes.len());
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let same = |change: &&TableChange| discriminant(*change) == discriminant(first);
        let (run, after) = rest.split_at(rest.iter().take(RUN_MAX).take_while(same).count());
        // Before it is tried: one that is refused in the middle is partly done, and undoing the other part does no harm.
        undo.extend(run.iter().map(|change| present.inverse(change)));
        if let Err(error) = apply_run(maps, run) {
            undo.reverse();
            return Err(Refused { undo, error });
        }
        run.iter().for_each(|change| present.apply(change));
        rest = after;
    }
    undo.reverse();
    Ok(undo)
}

/// Does changes of one kind.
fn apply_run(maps: &Maps, run: &[TableChange]) -> Result<(), TableError> {
    let (mut reals, mut slots, mut services) = (Rows::default(), Rows::default(), Rows::default());
    let (mut vips, mut masqueraded) = (Rows::default(), Rows::default());
    let (mut access, mut limits) = (Rows::default(), Rows::default());
    let (mut gone, mut forgotten) = (Vec::new(), Vec::new());
    for change in run {
        match *change {
            TableChange::PutSettings(ref settings) => maps.settings.put(0, settings)?,
            TableChange::PutReal(index, real) => reals.push(index, real),
            TableChange::RemoveReal(index) => reals.push(index, Real::default()),
            TableChange::PutSlot(index, slot) => slots.push(index, slot),
            // Nothing points at it any more.
            TableChange::RemoveSlot(_) => {}
            TableChange::PutService(key, service) => services.push(key, service),
            TableChange::RemoveService(key) => gone.push(key),
            TableChange::PutAccess(key, value) => access.push(key, value),
            TableChange::RemoveAccess(key) => forgotten.push(key),
            TableChange::PutClientLimits(index, value) => limits.push(index, value),
            TableChange::RemoveClientLimits(index) => limits.push(index, ClientLimits::default()),
            TableChange::PutVipFilter(word, bits) => vips.push(word, bits),
            TableChange::RemoveVipFilter(word) => vips.push(word, 0),
            TableChange::PutMasqueradeFilter(word, bits) => masqueraded.push(word, bits),
            TableChange::RemoveMasqueradeFilter(word) => masqueraded.push(word, 0),
        }
    }
    maps.reals.put_batch(&reals.keys, &reals.values)?;
    maps.slots.put_batch(&slots.keys, &slots.values)?;
    maps.access.put_all(&access.keys, &access.values)?;
    maps.access.delete_all(&forgotten)?;
    maps.client_limits.put_batch(&limits.keys, &limits.values)?;
    maps.services.put_batch(&services.keys, &services.values)?;
    maps.vip_filter.put_batch(&vips.keys, &vips.values)?;
    maps.masquerade_filter.put_batch(&masqueraded.keys, &masqueraded.values)?;
    maps.services.delete_batch(&gone).map(drop)
}

/// Rows of a table to be written.
struct Rows<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }
}

impl<K, V> Rows<K, V> {
    fn push(&mut self, key: K, value: V) {
        self.keys.push(key);
        self.values.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_that_follow_each_other_are_one_run() {
        assert_eq!(runs([]), []);
        assert_eq!(runs([3, 4, 5, 7, 9, 10]), [(3, 3), (7, 1), (9, 2)]);
    }
}
