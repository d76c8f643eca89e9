//! What a change touched -> changes of the tables.
//!
//! Comes to the same changes as [`crate::compile`] and [`crate::diff`] would, without a look at the rest: a property test
//! holds the two together.

use crate::admission;
use crate::before::Touched;
use crate::compile::{self, Cursors, Neighbours};
use crate::counted::RowChanges;
use crate::diff::{Patch, TableChange};
use crate::layout::{Laid, Layout, LayoutFull, Placed};
use crate::model::Model;
use crate::services;
use crate::tables::Tables;
use abi::{Slot, Span};
use api::ServiceId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a compilation of what was touched gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recompiled {
    /// What turns the tables into the new ones, in the order it must be done.
    pub changes: Vec<TableChange>,
    /// Indices that were given to real servers now, as in [`crate::Compiled`].
    pub new_reals: Vec<u32>,
}

/// Compiles what was touched since `tables` were compiled of this layout.
///
/// When all changes are in the kernel, call [`Layout::settle`]; when they cannot be, [`Layout::revert`].
///
/// `cursors` need only have those that [`Layout::cursors_of`] names; they should be read just before.
///
/// # Errors
/// When a table has no room; the layout is then as it was last settled.
pub fn recompile(
    layout: &mut Layout,
    model: &Model,
    touched: &Touched,
    neighbours: &Neighbours,
    cursors: &Cursors,
    tables: &Tables,
) -> Result<Recompiled, LayoutFull> {
    let old: BTreeMap<ServiceId, Option<Arc<Placed>>> =
        touched.services.iter().map(|id| (*id, layout.services.get(id).cloned())).collect();
    let new_reals = place(layout, model, touched, cursors).inspect_err(|_| layout.revert())?;
    // Without marks every service stands at its own place.
    let has_marks = model.marks.len() > 0 || !touched.marks.is_empty();
    let mut patch = Patch { settings: compile::settings(model), ..Patch::default() };
    for (id, old) in &old {
        let (old, new) = (old.as_deref(), layout.services.get(id).map(|placed| &**placed));
        patch_slots(&mut patch.slots, old.and_then(laid), new.and_then(laid));
        let entry = model.service(id);
        admission::patch(&mut patch, tables, id, old, new.zip(entry));
        if !has_marks {
            let (key, row) = services::own_row(model, id, entry, new);
            patch.services.insert(key, row);
        }
        for (placed, (real, it)) in new.iter().flat_map(|new| new.reals.iter().map(move |real| (*new, real)))
        {
            let row = compile::known_real(model, neighbours, placed, entry, real);
            patch.reals.insert(it.index, Some(row));
        }
    }
    if has_marks {
        for place in services::places(model, touched, &tables.services) {
            let rows = services::rows(layout, model, &place);
            patch
                .services
                .extend(rows.filter(|(key, row)| row.is_some() || tables.services.contains_key(key)));
        }
    }
    for index in &touched.reals {
        let owner = layout.owners.get(index);
        let row = owner.and_then(|owner| compile::real(layout, model, neighbours, owner));
        patch.reals.insert(*index, row);
    }
    let mut rows = RowChanges::default();
    for (key, new) in &patch.services {
        rows.service(key, tables.services.get(key), new.as_ref());
    }
    for (index, new) in &patch.reals {
        rows.real(tables.reals.get(index), new.as_ref());
    }
    let counted = layout.count(&rows);
    patch.vip_filter = counted.vip_words(&rows);
    patch.masquerade_filter = counted.masquerade_words(&rows);
    patch.settings.sysctls.switches |= counted.switches();
    layout.keep_counted(rows);
    Ok(Recompiled { changes: patch.diff(tables), new_reals })
}

/// Gives touched services their indices and slots; tells which indices of real servers are new.
fn place(
    layout: &mut Layout,
    model: &Model,
    touched: &Touched,
    cursors: &Cursors,
) -> Result<Vec<u32>, LayoutFull> {
    touched.edited.iter().for_each(|id| layout.edited(id));
    let mut present: Vec<(u64, &ServiceId)> = Vec::new();
    for id in &touched.services {
        match model.services.get_full(id) {
            Some((place, _)) => present.push((place, id)),
            None => layout.retire_one(id),
        }
    }
    // In the order of the model, as a whole compilation goes.
    present.sort_unstable();
    let mut new_reals = Vec::new();
    for (_, id) in present {
        if let Some(entry) = model.service(id) {
            layout.place(id, entry, model, cursors, &mut new_reals)?;
        }
    }
    Ok(new_reals)
}

fn laid(placed: &Placed) -> Option<&Laid> {
    placed.laid.as_ref()
}

/// Slots that a service had and has.
fn patch_slots(slots: &mut BTreeMap<u32, Option<Slot>>, old: Option<&Laid>, new: Option<&Laid>) {
    let spans = |laid: Option<&Laid>| laid.map_or([Span::default(); 2], |laid| [laid.ring, laid.pool]);
    let values = new.map_or([&[][..]; 2], |laid| [&laid.ring_slots, &laid.pool_slots]);
    for ((before, after), values) in spans(old).into_iter().zip(spans(new)).zip(values) {
        if before != after {
            slots.extend((before.start..before.start + before.len).map(|index| (index, None)));
            slots.extend((after.start..).zip(values.iter().copied().map(Some)));
        }
    }
}

#[cfg(test)]
#[path = "recompile_tests.rs"]
mod tests;
