//! The tables as values: one ordered map for each BPF map that user space fills.
//!
//! Deliberately absent: the cursors. Rings are turned to where the packet path's cursor is (see
//! [`crate::ring::lay`]), so nobody but the packet path ever writes one.

use crate::diff::TableChange;
use abi::{AccessKey, ClientLimits, Real, Service, ServiceKey, Settings, Slot, Span};
use std::collections::BTreeMap;

/// Everything the packet path reads and does not write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Settings of the director.
    pub settings: Settings,
    /// Services by what they answer to.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Slots in use, by index.
    pub slots: BTreeMap<u32, Slot>,
    /// Real servers by index, deleted ones that may still have flows included.
    pub reals: BTreeMap<u32, Real>,
    /// Networks that services let in (`abi::ACCESS_ALLOW`) or keep out.
    pub access: BTreeMap<AccessKey, u32>,
    /// What each client of a service may have, by service index; of services that limit something.
    pub client_limits: BTreeMap<u32, ClientLimits>,
    /// Words of the VIP filter that are not 0, by index.
    pub vip_filter: BTreeMap<u32, u64>,
    /// The same for the filter of real servers whose packets may be replies.
    pub masquerade_filter: BTreeMap<u32, u64>,
}

impl Tables {
    /// Does one change.
    pub fn apply(&mut self, change: &TableChange) {
        match *change {
            TableChange::PutSettings(ref settings) => self.settings = **settings,
            TableChange::PutReal(index, real) => {
                self.reals.insert(index, real);
            }
            TableChange::RemoveReal(index) => {
                self.reals.remove(&index);
            }
            TableChange::PutSlot(index, slot) => {
                self.slots.insert(index, slot);
            }
            TableChange::RemoveSlot(index) => {
                self.slots.remove(&index);
            }
            TableChange::PutService(key, service) => {
                self.services.insert(key, service);
            }
            TableChange::RemoveService(key) => {
                self.services.remove(&key);
            }
            TableChange::PutAccess(key, access) => {
                self.access.insert(key, access);
            }
            TableChange::RemoveAccess(key) => {
                self.access.remove(&key);
            }
            TableChange::PutClientLimits(index, limits) => {
                self.client_limits.insert(index, limits);
            }
            TableChange::RemoveClientLimits(index) => {
                self.client_limits.remove(&index);
            }
            TableChange::PutVipFilter(word, bits) => {
                self.vip_filter.insert(word, bits);
            }
            TableChange::RemoveVipFilter(word) => {
                self.vip_filter.remove(&word);
            }
            TableChange::PutMasqueradeFilter(word, bits) => {
                self.masquerade_filter.insert(word, bits);
            }
            TableChange::RemoveMasqueradeFilter(word) => {
                self.masquerade_filter.remove(&word);
            }
        }
    }

    /// The change that undoes this one, which has not been done yet.
    #[must_use]
    pub fn inverse(&self, change: &TableChange) -> TableChange {
        let real = |index| match self.reals.get(&index) {
            Some(real) => TableChange::PutReal(index, *real),
            None => TableChange::RemoveReal(index),
        };
        let slot = |index| match self.slots.get(&index) {
            Some(slot) => TableChange::PutSlot(index, *slot),
            None => TableChange::RemoveSlot(index),
        };
        let service = |key| match self.services.get(&key) {
            Some(service) => TableChange::PutService(key, *service),
            None => TableChange::RemoveService(key),
        };
        let access = |key| match self.access.get(&key) {
            Some(access) => TableChange::PutAccess(key, *access),
            None => TableChange::RemoveAccess(key),
        };
        let limits = |index| match self.client_limits.get(&index) {
            Some(limits) => TableChange::PutClientLimits(index, *limits),
            None => TableChange::RemoveClientLimits(index),
        };
        let vip = |word| match self.vip_filter.get(&word) {
            Some(bits) => TableChange::PutVipFilter(word, *bits),
            None => TableChange::RemoveVipFilter(word),
        };
        let masquerade = |word| match self.masquerade_filter.get(&word) {
            Some(bits) => TableChange::PutMasqueradeFilter(word, *bits),
            None => TableChange::RemoveMasqueradeFilter(word),
        };
        match *change {
            TableChange::PutSettings(_) => TableChange::PutSettings(Box::new(self.settings)),
            TableChange::PutReal(index, _) | TableChange::RemoveReal(index) => real(index),
            TableChange::PutSlot(index, _) | TableChange::RemoveSlot(index) => slot(index),
            TableChange::PutService(key, _) | TableChange::RemoveService(key) => service(key),
            TableChange::PutAccess(key, _) | TableChange::RemoveAccess(key) => access(key),
            TableChange::PutClientLimits(index, _) | TableChange::RemoveClientLimits(index) => limits(index),
            TableChange::PutVipFilter(word, _) | TableChange::RemoveVipFilter(word) => vip(word),
            TableChange::PutMasqueradeFilter(word, _) | TableChange::RemoveMasqueradeFilter(word) => {
                masquerade(word)
            }
        }
    }

    /// The slots of a span, in order; `None` if one is missing.
    #[must_use]
    pub fn span(&self, span: Span) -> Option<Vec<Slot>> {
        let end = span.start.checked_add(span.len)?;
        (span.start..end).map(|index| self.slots.get(&index).copied()).collect()
    }
}
