//! What the packet path shall have when a daemon starts, before its own checks have said anything.
//!
//! Where there are tables of a former daemon: what it had made of the declaration, so that nothing changes. Who was out
//! stays out, a fallback stays in, weights stay, and so does the order, by which round robin and hashing go.

use crate::health::is_checked;
use abi::{REAL_AVAILABLE, Span};
use api::{Change, HealthSpec, RealHealth, RealId, RealSpec, ServiceId};
use plan::{Layout, Model, ServiceEntry, Tables};
use std::collections::{HashMap, HashSet};

/// The model for the packet path at the start of a daemon: what health checks had made of the declared one, if there are
/// tables of a former daemon; else real servers that must pass checks have no work yet.
pub(crate) fn effective_at_start(declared: &Model, layout: &Layout, tables: &Tables, adopted: bool) -> Model {
    let mut model = declared.clone();
    let mut before = model.note();
    let pools: HashMap<u32, Span> = tables.services.values().map(|it| (it.index, it.pool)).collect();
    for (service, entry) in declared.services().filter(|(_, entry)| entry.has_health()) {
        let mut changes = without_health(*service, entry);
        let mut failed = Vec::new();
        if adopted {
            let pool = layout.service_index(service).and_then(|index| pools.get(&index));
            let there = There::of(service, layout, tables, pool.copied().unwrap_or_default());
            changes.extend(there.changes(*service, entry));
            failed = there.failed(entry);
        } else {
            changes.extend(without_work(declared, *service, entry));
        }
        // What is there, within its ranges, cannot be refused; nor can a weight, a deletion, or who was there before.
        for change in changes {
            let _ = model.apply_noting(&change, &mut before);
        }
        failed.iter().for_each(|real| model.set_failed(service, real, true, &mut before));
    }
    model
}

/// The packet path knows nothing of health.
fn without_health(service: ServiceId, entry: &ServiceEntry) -> Vec<Change> {
    let whole = (*entry.health() != HealthSpec::default())
        .then(|| Change::SetHealth { service, health: HealthSpec::default() });
    let reals = entry.reals().filter(|(real, _)| entry.real_health(real).is_some());
    let reals =
        reals.map(|(real, _)| Change::SetRealHealth { service, real: *real, health: RealHealth::default() });
    whole.into_iter().chain(reals).collect()
}

fn without_work(declared: &Model, service: ServiceId, entry: &ServiceEntry) -> Vec<Change> {
    let is_idle = |real: &RealId| {
        is_checked(declared, &service, real) || entry.real_health(real).is_some_and(|health| health.drain)
    };
    let idle = entry.reals().filter(|(real, _)| is_idle(real));
    idle.map(|(real, it)| Change::EditReal { service, real: *real, spec: RealSpec { weight: 0, ..it.spec } })
        .collect()
}

/// The real servers of one service that a former daemon left in the packet path.
struct There<'a> {
    service: &'a ServiceId,
    layout: &'a Layout,
    tables: &'a Tables,
    /// Places in the pool by index: the newest one is first.
    places: HashMap<u32, usize>,
}

/// A real server as it shall be: its place, and its last weight.
struct Kept {
    place: usize,
    real: RealId,
    spec: RealSpec,
    last_weight: u32,
}

impl<'a> There<'a> {
    fn of(service: &'a ServiceId, layout: &'a Layout, tables: &'a Tables, pool: Span) -> Self {
        let slots = tables.slots.range(pool.start..pool.start.saturating_add(pool.len));
        let places = slots.map(|(_, slot)| slot.real).zip(0..).collect();
        Self { service, layout, tables, places }
    }

    /// What is kept of a real server; `None`: it was out.
    fn kept(&self, real: RealId, spec: RealSpec, last_weight: u32) -> Option<Kept> {
        let index = self.layout.real_index(self.service, &real)?;
        let place = *self.places.get(&index)?;
        let had = self.tables.reals.get(&index).filter(|had| had.flags & REAL_AVAILABLE != 0)?;
        Some(Kept { place, real, spec: RealSpec { weight: had.weight, ..spec }, last_weight })
    }

    /// Those whose weight is 0 because they failed.
    fn failed(&self, entry: &ServiceEntry) -> Vec<RealId> {
        let row = |real: &RealId| self.tables.reals.get(&self.layout.real_index(self.service, real)?);
        let failed = entry.reals().filter(|(real, _)| row(real).is_some_and(|it| it.failed != 0));
        failed.map(|(real, _)| *real).collect()
    }

    /// What makes the declared real servers those that were there.
    fn changes(&self, service: ServiceId, entry: &ServiceEntry) -> Vec<Change> {
        let declared = entry.reals().rev();
        let mut kept: Vec<Kept> =
            declared.filter_map(|(real, it)| self.kept(*real, it.spec, it.last_weight)).collect();
        let is_in_order = kept.is_sorted_by(|older, newer| older.place > newer.place);
        let fallback = entry.health().fallback.and_then(|it| self.kept(it.real, it.spec, it.spec.weight));
        let delete = |real: &RealId| Change::DeleteReal { service, real: *real };
        let mut changes = Vec::new();
        if is_in_order && fallback.as_ref().is_none_or(|it| kept.iter().all(|other| it.place < other.place)) {
            let stay: HashSet<RealId> = kept.iter().map(|it| it.real).collect();
            let gone = entry.reals().map(|(real, _)| real).filter(|real| !stay.contains(*real));
            changes.extend(gone.map(delete));
            changes.extend(kept.iter().map(|it| Change::EditReal { service, real: it.real, spec: it.spec }));
            changes.extend(fallback.map(|it| Change::AddReal { service, real: it.real, spec: it.spec }));
            return changes;
        }
        // The newest first, which costs least.
        changes.extend(entry.reals().map(|(real, _)| real).map(delete));
        kept.extend(fallback);
        kept.sort_by_key(|it| std::cmp::Reverse(it.place));
        for Kept { real, spec, last_weight, .. } in kept {
            // One of weight 0 that had another one keeps what mh goes by.
            let weight = if spec.weight == 0 { last_weight } else { spec.weight };
            changes.push(Change::AddReal { service, real, spec: RealSpec { weight, ..spec } });
            if weight != spec.weight {
                changes.push(Change::EditReal { service, real, spec });
            }
        }
        changes
    }
}
