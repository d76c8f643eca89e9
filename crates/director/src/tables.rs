//! Between the tables as values (`plan`) and the maps in the kernel.

use abi::{Real, Slot};
use kernel::{Put, TableError, Tables as Maps};
use plan::{Cursors, TableChange, Tables};

/// Reads what a former daemon left: services, the slots they point at, real servers, settings, VIP filter, cursors.
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
    tables.vip_filter = words(&maps.vip_filter)?;
    tables.masquerade_filter = words(&maps.masquerade_filter)?;
    let cursors = cursors(maps, &tables)?;
    Ok((tables, cursors))
}

/// The cursors of the services in these tables.
pub(crate) fn cursors(maps: &Maps, tables: &Tables) -> Result<Cursors, TableError> {
    let mut cursors = Cursors::new();
    for service in tables.services.values() {
        if let Some(cursor) = maps.cursors.get(service.index)? {
            cursors.insert(service.index, cursor);
        }
    }
    Ok(cursors)
}

/// Does changes in order, in the kernel and in `present`, which is what the kernel has. After an error `present` is
/// still that: changes before the one refused are in both.
pub(crate) fn apply(maps: &Maps, present: &mut Tables, changes: &[TableChange]) -> Result<(), TableError> {
    let mut at = 0;
    while let Some(change) = changes.get(at) {
        if let TableChange::PutSlot(start, _) = *change {
            let run = slot_run(changes.get(at..).unwrap_or_default(), start);
            maps.slots.put_range(start, &run)?;
            for (index, slot) in (start..).zip(&run) {
                present.slots.insert(index, *slot);
            }
            at += run.len();
        } else {
            apply_one(maps, change)?;
            present.apply(change);
            at += 1;
        }
    }
    Ok(())
}

/// The slots at the front of the list whose indices follow each other: they are written in one go.
fn slot_run(changes: &[TableChange], start: u32) -> Vec<Slot> {
    let slots = (start..).zip(changes).map_while(|(index, change)| match change {
        TableChange::PutSlot(at, slot) if *at == index => Some(*slot),
        _ => None,
    });
    slots.collect()
}

fn apply_one(maps: &Maps, change: &TableChange) -> Result<(), TableError> {
    match change {
        TableChange::PutSettings(settings) => maps.settings.put(0, settings),
        TableChange::PutReal(index, real) => maps.reals.put(*index, real),
        TableChange::RemoveReal(index) => maps.reals.put(*index, &Real::default()),
        TableChange::PutSlot(index, slot) => maps.slots.put(*index, slot),
        // Nothing points at it any more.
        TableChange::RemoveSlot(_) => Ok(()),
        TableChange::PutService(key, service) => maps.services.put(key, service, Put::Any),
        TableChange::RemoveService(key) => maps.services.delete(key).map(drop),
        TableChange::PutVipFilter(word, bits) => maps.vip_filter.put(*word, bits),
        TableChange::RemoveVipFilter(word) => maps.vip_filter.put(*word, &0),
        TableChange::PutMasqueradeFilter(word, bits) => maps.masquerade_filter.put(*word, bits),
        TableChange::RemoveMasqueradeFilter(word) => maps.masquerade_filter.put(*word, &0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_follow_each_other_go_together() {
        let slot = |real| Slot { real, weight: 1 };
        let put = |index, real| TableChange::PutSlot(index, slot(real));
        let changes = [put(5, 1), put(6, 2), put(8, 3), TableChange::RemoveSlot(9)];
        assert_eq!(slot_run(&changes, 5), [slot(1), slot(2)]);
        assert_eq!(slot_run(&changes[2..], 8), [slot(3)]);
    }
}
