//! What survives from one compilation to the next: whose is which index and which slots, and how each ring
//! was laid.
//!
//! A real server keeps its index as long as flows may point at it, even when it or its service was deleted:
//! added again, it is the same one again, and its flows work again.

use crate::counted::{Counted, RowChanges};
use crate::ring::mh::TableSize;
use crate::ring::{Entry, RingState};
use crate::spans::Spans;
use abi::{Limits, Real, Slot, Span};
use api::{RealId, Refusal, RefusalKind, Scheduler, ServiceId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Assignment of indices and slots.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Where each real server's index is found by address; those of orphans are not.
    addresses: BTreeSet<(IpAddr, u32)>,
    /// Indices of deleted real servers.
    deleted: BTreeSet<u32>,
    /// What the tables compiled last have of what the packet path is told in advance.
    pub(crate) counted: Counted,
    /// Everything since the last [`Self::settle`].
    log: Vec<Step>,
    /// Services that [`Self::release`] has changed since then.
    noted: BTreeSet<ServiceId>,
}

/// One step to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A service was this.
    Service(ServiceId, Option<Arc<Placed>>),
    /// An index of a real server was this one's.
    Owner(u32, Option<Box<Owner>>),
    /// An index was taken.
    TookService(u32),
    /// An index was taken.
    TookReal(u32),
    /// An index was given back.
    GaveReal(u32),
    /// Slots were taken.
    TookSpan(Span),
    /// Slots wait to be free.
    SpanWaits,
    /// An index of a service waits to be free.
    ServiceWaits,
    /// Rows changed.
    Counted(Box<RowChanges>),
}

/// Whose index of a real server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Known(ServiceId, RealId),
    /// Adopted without a service: all that is known is what the kernel had.
    Orphan(Real),
}

/// A service with an index.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
            addresses: BTreeSet::new(),
            deleted: BTreeSet::new(),
            counted: Counted::default(),
            log: Vec::new(),
            noted: BTreeSet::new(),
        }
    }

    /// To be called when every change of the last compilation is in the kernel: the slots and the
    /// service indices that it freed may be used again. Without it they stay reserved.
    pub fn settle(&mut self) {
        self.forget_steps();
        for index in std::mem::take(&mut self.waiting_services) {
            self.service_indices.give_back(index);
        }
        self.spans.settle();
    }

    /// Undoes everything since the last [`Self::settle`]; a whole compilation ([`crate::compile`]) cannot be undone.
    pub fn revert(&mut self) {
        while let Some(step) = self.log.pop() {
            match step {
                Step::Service(id, placed) => drop(self.swap_service(id, placed)),
                Step::Owner(index, owner) => drop(self.swap_owner(index, owner.map(|owner| *owner))),
                Step::TookService(index) => self.service_indices.give_back(index),
                Step::TookReal(index) => self.real_indices.give_back(index),
                Step::GaveReal(index) => drop(self.real_indices.reserve(index)),
                Step::TookSpan(span) => self.spans.put_back(span),
                Step::SpanWaits => self.spans.keep_last(),
                Step::ServiceWaits => drop(self.waiting_services.pop()),
                Step::Counted(rows) => self.counted.uncount(&rows),
            }
        }
        self.noted.clear();
    }

    /// The next compilation cannot be undone: nothing is kept for it.
    pub(crate) fn forget_steps(&mut self) {
        self.log.clear();
        self.noted.clear();
    }

    /// Replaces a service.
    pub(crate) fn set_service(&mut self, id: ServiceId, placed: Option<Arc<Placed>>) {
        if let (Some(old), Some(new)) = (self.services.get(&id), &placed)
            && Arc::ptr_eq(old, new)
        {
            return;
        }
        let old = self.swap_service(id, placed);
        self.log.push(Step::Service(id, old));
    }

    fn swap_service(&mut self, id: ServiceId, placed: Option<Arc<Placed>>) -> Option<Arc<Placed>> {
        let deleted = |placed: &Arc<Placed>| -> Vec<u32> {
            placed.reals.values().filter(|real| !real.present).map(|real| real.index).collect()
        };
        let now = placed.as_ref().map(deleted).unwrap_or_default();
        let old = match placed {
            Some(placed) => self.services.insert(id, placed),
            None => self.services.remove(&id),
        };
        for index in old.as_ref().map(deleted).unwrap_or_default() {
            self.deleted.remove(&index);
        }
        self.deleted.extend(now);
        old
    }

    /// Says whose an index is.
    pub(crate) fn set_owner(&mut self, index: u32, owner: Option<Owner>) {
        let old = self.swap_owner(index, owner);
        self.log.push(Step::Owner(index, old.map(Box::new)));
    }

    fn swap_owner(&mut self, index: u32, owner: Option<Owner>) -> Option<Owner> {
        let old = match owner {
            Some(owner) => self.owners.insert(index, owner),
            None => self.owners.remove(&index),
        };
        match old {
            Some(Owner::Known(_, real)) => drop(self.addresses.remove(&(real.address, index))),
            Some(Owner::Orphan(_)) => drop(self.deleted.remove(&index)),
            None => {}
        }
        match owner {
            Some(Owner::Known(_, real)) => drop(self.addresses.insert((real.address, index))),
            Some(Owner::Orphan(_)) => drop(self.deleted.insert(index)),
            None => {}
        }
        old
    }

    /// A free index for a service.
    pub(crate) fn take_service_index(&mut self) -> Result<u32, LayoutFull> {
        let max = self.limits.services_max;
        let index = self.service_indices.take().ok_or(LayoutFull::Services { max })?;
        self.log.push(Step::TookService(index));
        Ok(index)
    }

    /// A free index for a real server.
    pub(crate) fn take_real_index(&mut self) -> Result<u32, LayoutFull> {
        let max = self.limits.reals_max;
        let index = self.real_indices.take().ok_or(LayoutFull::Reals { max })?;
        self.log.push(Step::TookReal(index));
        Ok(index)
    }

    /// Free slots in a row.
    pub(crate) fn take_span(&mut self, len: u32) -> Option<Span> {
        let span = self.spans.take(len)?;
        self.log.push(Step::TookSpan(span));
        Some(span)
    }

    /// Slots that will be free when the kernel has everything.
    pub(crate) fn give_span(&mut self, span: Span) {
        if span.len > 0 {
            self.spans.give_back(span);
            self.log.push(Step::SpanWaits);
        }
    }

    /// The index of a service will be free when the kernel has everything.
    pub(crate) fn give_service_index(&mut self, index: u32) {
        self.waiting_services.push(index);
        self.log.push(Step::ServiceWaits);
    }

    /// Counts rows that change.
    pub(crate) fn count(&mut self, rows: &RowChanges) -> &Counted {
        self.counted.count(rows);
        &self.counted
    }

    /// Keeps what [`Self::count`] was given, to undo it.
    pub(crate) fn keep_counted(&mut self, rows: RowChanges) {
        self.log.push(Step::Counted(Box::new(rows)));
    }

    /// A real server of this service was edited. The next compilation lays its ring anew even if the edit changed
    /// nothing, because IPVS then starts anew, too (`wrr`: at the head of the list).
    pub fn edited(&mut self, service: &ServiceId) {
        if let Some(placed) = self.services.get(service) {
            let edited = Placed { edited: true, ..Placed::clone(placed) };
            self.set_service(*service, Some(Arc::new(edited)));
        }
    }

    /// Indices of the services whose cursors the next compilation asks for, if it is of these services: their own, and
    /// those that new ones will get.
    #[must_use]
    pub fn cursors_of<'a>(&self, services: impl Iterator<Item = &'a ServiceId>) -> Vec<u32> {
        let mut missing = 0;
        let mut indices: Vec<u32> = services
            .filter_map(|id| {
                let index = self.service_index(id);
                missing += usize::from(index.is_none());
                index
            })
            .collect();
        indices.extend(self.service_indices.next(missing));
        indices
    }

    /// Indices of the real servers of an address, deleted ones included.
    pub fn reals_at(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        self.addresses.range((address, 0)..=(address, u32::MAX)).map(|(_, index)| *index)
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
    pub fn deleted(&self) -> &BTreeSet<u32> {
        &self.deleted
    }

    /// Gives up a deleted real server's index, because no flow has pointed at it for long enough (120 s in
    /// IPVS). The next compilation removes it from the tables. `false`, and nothing done, if it is configured
    /// or unknown.
    pub fn release(&mut self, real_index: u32) -> bool {
        if !self.deleted.contains(&real_index) {
            return false;
        }
        if let Some(&Owner::Known(service, real)) = self.owners.get(&real_index) {
            self.forget_real(&service, &real);
        }
        self.set_owner(real_index, None);
        self.real_indices.give_back(real_index);
        self.log.push(Step::GaveReal(real_index));
        true
    }

    fn forget_real(&mut self, service: &ServiceId, real: &RealId) {
        let Some(placed) = self.services.get_mut(service) else { return };
        // Noted once, so that giving up all real servers of a large service does not copy it for each.
        if self.noted.insert(*service) {
            self.log.push(Step::Service(*service, Some(Arc::clone(placed))));
        }
        let placed = Arc::make_mut(placed);
        if let Some(gone) = placed.reals.remove(real) {
            self.deleted.remove(&gone.index);
        }
        if placed.laid.is_none() && placed.reals.is_empty() {
            let index = placed.index;
            self.services.remove(service);
            self.give_service_index(index);
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        // Those at the end are as good as never given out.
        while self.fresh.checked_sub(1).is_some_and(|last| self.free.remove(&last)) {
            self.fresh -= 1;
        }
    }

    /// The indices that [`Self::take`] would give next, at most so many.
    pub(crate) fn next(&self, count: usize) -> impl Iterator<Item = u32> {
        self.free.iter().copied().chain(self.fresh..self.max).take(count)
    }
}
