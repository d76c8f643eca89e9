//! What survives from one compilation to the next: whose is which index and which slots, and how each ring
//! was laid.
//!
//! A real server keeps its index as long as flows may point at it, even when it or its service was deleted:
//! added again, it is the same one again, and its flows work again.

use crate::ring::mh::TableSize;
use crate::ring::{Entry, RingState};
use crate::spans::Spans;
use abi::{Limits, Real, Slot, Span};
use api::{RealId, Refusal, RefusalKind, Scheduler, ServiceId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Assignment of indices and slots.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(crate) limits: Limits,
    /// Shared, so that a compilation can be undone at the price of the services it touches.
    pub(crate) services: BTreeMap<ServiceId, Arc<Placed>>,
    pub(crate) service_indices: Indices,
    /// Indices of services that are gone, to be free after the next [`Self::settle`]: until then the kernel
    /// may have a service of that index.
    pub(crate) waiting_services: Vec<u32>,
    /// Owner of each real server's index.
    pub(crate) owners: BTreeMap<u32, Owner>,
    pub(crate) real_indices: Indices,
    pub(crate) spans: Spans,
}

/// Whose index of a real server it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Known(ServiceId, RealId),
    /// Adopted without a service: all that is known is what the kernel had.
    Orphan(Real),
}

/// A service with an index.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) index: u32,
    pub(crate) reals: BTreeMap<RealId, PlacedReal>,
    /// `None` once it is deleted.
    pub(crate) laid: Option<Laid>,
    /// Whether a real server was edited since it was laid.
    pub(crate) edited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedReal {
    pub(crate) index: u32,
    pub(crate) present: bool,
    /// It is masqueraded, or was since it has this index: some flow of it may be translated.
    pub(crate) translated: bool,
}

/// The slots of a service.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    pub(crate) scheduler: Scheduler,
    pub(crate) state: RingState,
    pub(crate) ring: Span,
    pub(crate) pool: Span,
    pub(crate) ring_slots: Vec<Slot>,
    pub(crate) pool_slots: Vec<Slot>,
}

/// Whose real server an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealIdentity {
    /// Its service.
    pub service: ServiceId,
    /// Which of it.
    pub real: RealId,
    /// Whether it is configured; else it was deleted and waits for [`Layout::release`].
    pub present: bool,
}

/// A table has no room. The layout is then as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutFull {
    /// Services.
    #[error(
        "limit services_max of {max} is reached, deleted services with flows left included: wait until their flows end, or start the director with a higher --services-max"
    )]
    Services {
        /// The limit.
        max: u32,
    },
    /// Real servers.
    #[error(
        "limit reals_max of {max} is reached, deleted real servers with flows left included: wait until their flows end, or start the director with a higher --reals-max"
    )]
    Reals {
        /// The limit.
        max: u32,
    },
    /// Slots.
    #[error(
        "limit slots_max of {max} is reached: {needed} slots in a row are needed for {service}, {free} are free; delete services, or start the director with a higher --slots-max"
    )]
    Slots {
        /// The limit.
        max: u32,
        /// For which service.
        service: ServiceId,
        /// How many were asked for.
        needed: u32,
        /// Slots in the longest free run.
        free: u32,
    },
}

impl From<LayoutFull> for Refusal {
    fn from(full: LayoutFull) -> Self {
        Self::new(RefusalKind::Limit, full.to_string())
    }
}

impl Layout {
    /// A layout in which everything is free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: BTreeMap::new(),
            service_indices: Indices::new(limits.services_max),
            waiting_services: Vec::new(),
            owners: BTreeMap::new(),
            real_indices: Indices::new(limits.reals_max),
            spans: Spans::new(limits.slots_max),
        }
    }

    /// To be called when every change of the last compilation is in the kernel: the slots and the
    /// service indices that it freed may be used again. Without it they stay reserved.
    pub fn settle(&mut self) {
        for index in std::mem::take(&mut self.waiting_services) {
            self.service_indices.give_back(index);
        }
        self.spans.settle();
    }

    /// A real server of this service was edited. The next compilation lays its ring anew even if the edit changed
    /// nothing, because IPVS then starts anew, too (`wrr`: at the head of the list).
    pub fn edited(&mut self, service: &ServiceId) {
        if let Some(placed) = self.services.get_mut(service) {
            Arc::make_mut(placed).edited = true;
        }
    }

    /// Index of a service, deleted ones that still have one included.
    #[must_use]
    pub fn service_index(&self, service: &ServiceId) -> Option<u32> {
        self.services.get(service).map(|placed| placed.index)
    }

    /// Index of a real server, deleted ones that still have one included.
    #[must_use]
    pub fn real_index(&self, service: &ServiceId, real: &RealId) -> Option<u32> {
        self.services.get(service)?.reals.get(real).map(|placed| placed.index)
    }

    /// Whose real server an index is; `None` for a free one, and for one adopted without its service.
    #[must_use]
    pub fn identify(&self, real_index: u32) -> Option<RealIdentity> {
        match *self.owners.get(&real_index)? {
            Owner::Orphan(_) => None,
            Owner::Known(service, real) => {
                let present = self.services.get(&service)?.reals.get(&real)?.present;
                Some(RealIdentity { service, real, present })
            }
        }
    }

    /// Indices of real servers of a service, deleted ones included: what its counters add up from.
    pub fn reals_of(&self, service: &ServiceId) -> impl Iterator<Item = u32> {
        self.services.get(service).into_iter().flat_map(|placed| placed.reals.values().map(|real| real.index))
    }

    /// Indices of deleted real servers: each waits for [`Self::release`].
    #[must_use]
    pub fn deleted(&self) -> BTreeSet<u32> {
        let is_deleted = |index: &u32| self.identify(*index).is_none_or(|identity| !identity.present);
        self.owners.keys().copied().filter(is_deleted).collect()
    }

    /// Gives up a deleted real server's index, because no flow has pointed at it for long enough (120 s in
    /// IPVS). The next compilation removes it from the tables. `false`, and nothing done, if it is configured
    /// or unknown.
    pub fn release(&mut self, real_index: u32) -> bool {
        match self.owners.get(&real_index) {
            None => return false,
            Some(Owner::Orphan(_)) => {}
            Some(&Owner::Known(service, real)) => {
                if self.identify(real_index).is_none_or(|identity| identity.present) {
                    return false;
                }
                self.forget_real(&service, &real);
            }
        }
        self.owners.remove(&real_index);
        self.real_indices.give_back(real_index);
        true
    }

    fn forget_real(&mut self, service: &ServiceId, real: &RealId) {
        let Some(placed) = self.services.get_mut(service) else { return };
        let placed = Arc::make_mut(placed);
        placed.reals.remove(real);
        if placed.laid.is_none() && placed.reals.is_empty() {
            self.waiting_services.push(placed.index);
            self.services.remove(service);
        }
    }
}

impl Placed {
    /// The ring entries of what is laid.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.laid.as_ref().map_or(&[], |laid| &laid.state.reals)
    }
}

impl Laid {
    /// Whether it is what this scheduler would read. A former daemon may have had another size of `mh` table.
    pub(crate) fn is_for(&self, scheduler: Scheduler, table: TableSize) -> bool {
        let len = self.ring_slots.len();
        let other_size =
            scheduler == Scheduler::Mh && len > 0 && len != table.slots_for(self.state.reals.len()) as usize;
        self.scheduler == scheduler && !other_size
    }
}

/// Indices below a limit.
#[derive(Clone, Debug)]
pub(crate) struct Indices {
    max: u32,
    /// All from here on were never given out.
    fresh: u32,
    free: BTreeSet<u32>,
}

impl Indices {
    fn new(max: u32) -> Self {
        Self { max, fresh: 0, free: BTreeSet::new() }
    }

    /// The lowest free index.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop_first() {
            return Some(index);
        }
        let index = self.fresh;
        (index < self.max).then(|| {
            self.fresh += 1;
            index
        })
    }

    /// Takes exactly this index; `false` if it is taken or too high.
    pub(crate) fn reserve(&mut self, index: u32) -> bool {
        if index >= self.max {
            return false;
        }
        if index < self.fresh {
            return self.free.remove(&index);
        }
        self.free.extend(self.fresh..index);
        self.fresh = index + 1;
        true
    }

    pub(crate) fn give_back(&mut self, index: u32) {
        self.free.insert(index);
    }
}
