//! The ordered difference of two sets of tables.
//!
//! Done from the first change to the last, the list turns the old tables into the new ones. Done in part, it
//! still forwards: what a service needs is there before the service points at it, and goes after it.

use crate::tables::Tables;
use abi::{AccessKey, ClientLimits, REAL_AVAILABLE, Real, Service, ServiceKey, Settings, Slot};
use std::collections::BTreeMap;

/// One write to one map.
///
/// Where the map is an array, removing a real server or a word of the filter means writing zeros; removing a
/// slot may be left out, since nothing points at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// Replace the settings.
    PutSettings(Box<Settings>),
    /// Add or replace a real server.
    PutReal(u32, Real),
    /// Remove a real server.
    RemoveReal(u32),
    /// Write a slot.
    PutSlot(u32, Slot),
    /// Forget a slot.
    RemoveSlot(u32),
    /// Add or replace a service.
    PutService(ServiceKey, Service),
    /// Remove a service.
    RemoveService(ServiceKey),
    /// Let a network in or keep it out.
    PutAccess(AccessKey, u32),
    /// Forget a network.
    RemoveAccess(AccessKey),
    /// Limit what each client of a service may have.
    PutClientLimits(u32, ClientLimits),
    /// Take that limit away.
    RemoveClientLimits(u32),
    /// Write a word of the VIP filter.
    PutVipFilter(u32, u64),
    /// Clear a word of the VIP filter.
    RemoveVipFilter(u32),
    /// Write a word of the filter of masqueraded real servers.
    PutMasqueradeFilter(u32, u64),
    /// Clear a word of it.
    RemoveMasqueradeFilter(u32),
}

/// What turns one map into another.
struct Difference<K, V> {
    put: Vec<(K, V)>,
    removed: Vec<K>,
}

/// The difference of two keyed maps, in the order of the keys.
fn keyed<K: Ord + Copy, V: PartialEq + Copy>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Difference<K, V> {
    let mut difference = Difference { put: Vec::new(), removed: Vec::new() };
    let mut before = old.iter().peekable();
    for (key, value) in new {
        while let Some((gone, _)) = before.next_if(|(k, _)| *k < key) {
            difference.removed.push(*gone);
        }
        let same = before.next_if(|(k, _)| *k == key).is_some_and(|(_, v)| v == value);
        if !same {
            difference.put.push((*key, *value));
        }
    }
    difference.removed.extend(before.map(|(key, _)| *key));
    difference
}

/// The difference that a few keys make: their new values, `None` for none.
fn patched<K: Ord + Copy, V: PartialEq + Copy>(
    old: &BTreeMap<K, V>,
    patch: BTreeMap<K, Option<V>>,
) -> Difference<K, V> {
    let mut difference = Difference { put: Vec::new(), removed: Vec::new() };
    for (key, value) in patch {
        match (old.get(&key), value) {
            (Some(before), Some(value)) if *before == value => {}
            (_, Some(value)) => difference.put.push((key, value)),
            (Some(_), None) => difference.removed.push(key),
            (None, None) => {}
        }
    }
    difference
}

/// New values of some rows; `None` for a row that goes.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    pub(crate) settings: Settings,
    pub(crate) reals: BTreeMap<u32, Option<Real>>,
    pub(crate) slots: BTreeMap<u32, Option<Slot>>,
    pub(crate) services: BTreeMap<ServiceKey, Option<Service>>,
    pub(crate) access: BTreeMap<AccessKey, Option<u32>>,
    pub(crate) client_limits: BTreeMap<u32, Option<ClientLimits>>,
    pub(crate) vip_filter: BTreeMap<u32, Option<u64>>,
    pub(crate) masquerade_filter: BTreeMap<u32, Option<u64>>,
}

impl Patch {
    /// The changes of `old` that it means, as [`diff`] would give them.
    pub(crate) fn diff(self, old: &Tables) -> Vec<TableChange> {
        let differences = Differences {
            settings: (old.settings != self.settings).then_some(self.settings),
            reals: patched(&old.reals, self.reals),
            slots: patched(&old.slots, self.slots),
            services: patched(&old.services, self.services),
            access: patched(&old.access, self.access),
            client_limits: patched(&old.client_limits, self.client_limits),
            vip_filter: patched(&old.vip_filter, self.vip_filter),
            masquerade_filter: patched(&old.masquerade_filter, self.masquerade_filter),
        };
        differences.in_order(old)
    }
}

/// What turns one set of tables into another.
struct Differences {
    settings: Option<Settings>,
    reals: Difference<u32, Real>,
    slots: Difference<u32, Slot>,
    services: Difference<ServiceKey, Service>,
    access: Difference<AccessKey, u32>,
    client_limits: Difference<u32, ClientLimits>,
    vip_filter: Difference<u32, u64>,
    masquerade_filter: Difference<u32, u64>,
}

/// The changes that turn `old` into `new`, in the order they must be done: settings, filter of
/// masqueraded real servers, real servers, slots, networks and limits of clients, services, VIP filter; then what goes, in reverse. A real server that ceases to be available does so after
/// the services have stopped choosing it.
///
/// The slots of `new` must not be ones that a service of `old` uses otherwise; [`crate::compile`] sees to it.
#[must_use]
pub fn diff(old: &Tables, new: &Tables) -> Vec<TableChange> {
    let differences = Differences {
        settings: (old.settings != new.settings).then_some(new.settings),
        reals: keyed(&old.reals, &new.reals),
        slots: keyed(&old.slots, &new.slots),
        services: keyed(&old.services, &new.services),
        access: keyed(&old.access, &new.access),
        client_limits: keyed(&old.client_limits, &new.client_limits),
        vip_filter: keyed(&old.vip_filter, &new.vip_filter),
        masquerade_filter: keyed(&old.masquerade_filter, &new.masquerade_filter),
    };
    differences.in_order(old)
}

impl Differences {
    fn in_order(self, old: &Tables) -> Vec<TableChange> {
        let mut changes = Vec::new();
        changes.extend(self.settings.map(|settings| TableChange::PutSettings(Box::new(settings))));
        let is_available = |real: &Real| real.flags & REAL_AVAILABLE != 0;
        let (leaving, coming): (Vec<_>, Vec<_>) =
            self.reals.put.into_iter().partition(|(index, real)| {
                old.reals.get(index).is_some_and(is_available) && !is_available(real)
            });

        let put_real = |(index, real)| TableChange::PutReal(index, real);
        let (slots, services, vip_filter) = (self.slots, self.services, self.vip_filter);
        let (access, limits) = (self.access, self.client_limits);
        let masqueraded = self.masquerade_filter;
        let put_masqueraded = |(word, bits)| TableChange::PutMasqueradeFilter(word, bits);
        changes.extend(masqueraded.put.into_iter().map(put_masqueraded));
        changes.extend(coming.into_iter().map(put_real));
        changes.extend(slots.put.into_iter().map(|(index, slot)| TableChange::PutSlot(index, slot)));
        changes.extend(access.put.into_iter().map(|(key, access)| TableChange::PutAccess(key, access)));
        let put_limits = |(index, limits)| TableChange::PutClientLimits(index, limits);
        changes.extend(limits.put.into_iter().map(put_limits));
        changes.extend(services.put.into_iter().map(|(key, service)| TableChange::PutService(key, service)));
        changes.extend(vip_filter.put.into_iter().map(|(word, bits)| TableChange::PutVipFilter(word, bits)));

        changes.extend(vip_filter.removed.into_iter().map(TableChange::RemoveVipFilter));
        changes.extend(services.removed.into_iter().map(TableChange::RemoveService));
        changes.extend(limits.removed.into_iter().map(TableChange::RemoveClientLimits));
        changes.extend(access.removed.into_iter().map(TableChange::RemoveAccess));
        changes.extend(slots.removed.into_iter().map(TableChange::RemoveSlot));
        changes.extend(leaving.into_iter().map(put_real));
        changes.extend(masqueraded.removed.into_iter().map(TableChange::RemoveMasqueradeFilter));
        changes.extend(self.reals.removed.into_iter().map(TableChange::RemoveReal));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_keyed_difference_turns_one_map_into_the_other(
            old in prop::collection::btree_map(0_u32..40, 0_u8..3, 0..30),
            new in prop::collection::btree_map(0_u32..40, 0_u8..3, 0..30),
        ) {
            let difference = keyed(&old, &new);
            // Nothing is touched without need.
            for (key, value) in &difference.put {
                prop_assert_ne!(old.get(key), Some(value));
            }
            let mut replayed = old.clone();
            replayed.extend(difference.put);
            for key in &difference.removed {
                prop_assert!(replayed.remove(key).is_some());
            }
            prop_assert_eq!(replayed, new);
        }
    }
}
