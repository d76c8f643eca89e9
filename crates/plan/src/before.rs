//! What a list of changes found: it undoes them, and it says what they touched.

use crate::model::{Model, ServiceEntry};
use crate::ordered::Ordered;
use crate::setting::Chosen;
use api::{MarkMatch, PolicyChoices, ServiceId, Timeouts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was there before a list of changes, as far as they touched it.
#[derive(Debug)]
pub struct Before {
    /// Each touched service as it was first found, with its place; `None` where there was none.
    services: BTreeMap<ServiceId, Option<(u64, Arc<ServiceEntry>)>>,
    /// What each touched match was given or had, in the order of the changes.
    marks: Vec<(MarkMatch, Option<u32>)>,
    /// Services of which a real server was edited.
    edited: BTreeSet<ServiceId>,
    /// Whether the list counts as a whole: what its changes make of each other is looked at when all are done.
    pub(crate) as_whole: bool,
    reals: usize,
    networks: usize,
    timeouts: Timeouts,
    policy: PolicyChoices,
    settings: Chosen,
}

/// What must be compiled again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services that were added, changed or deleted.
    pub services: BTreeSet<ServiceId>,
    /// Those of them whose rings are laid anew even if the edit changed nothing, because IPVS then starts anew, too
    /// (`wrr`: at the head of the list).
    pub edited: BTreeSet<ServiceId>,
    /// Matches that were given a mark or lost it.
    pub marks: BTreeSet<MarkMatch>,
    /// Indices of real servers whose next hop changed, or that were released.
    pub reals: BTreeSet<u32>,
}

impl Before {
    /// Before the first change.
    pub(crate) fn of(model: &Model) -> Self {
        Self {
            services: BTreeMap::new(),
            marks: Vec::new(),
            edited: BTreeSet::new(),
            as_whole: false,
            reals: model.reals,
            networks: model.networks,
            timeouts: model.timeouts,
            policy: model.policy,
            settings: model.settings.clone(),
        }
    }

    pub(crate) fn note_service(&mut self, id: &ServiceId, services: &Ordered<ServiceId, Arc<ServiceEntry>>) {
        let entry = || services.get_full(id).map(|(place, entry)| (place, Arc::clone(entry)));
        self.services.entry(*id).or_insert_with(entry);
    }

    pub(crate) fn note_edited(&mut self, id: &ServiceId) {
        self.edited.insert(*id);
    }

    pub(crate) fn note_mark(&mut self, matched: MarkMatch, mark: Option<u32>) {
        self.marks.push((matched, mark));
    }

    /// Each touched service as it was; `None` where there was none.
    pub fn services(&self) -> impl ExactSizeIterator<Item = (&ServiceId, Option<&ServiceEntry>)> {
        self.services.iter().map(|(id, found)| (id, found.as_ref().map(|(_, entry)| &**entry)))
    }
}

impl Model {
    /// Makes the model what it was before the changes that `before` was noted of. Nothing else may have changed it since.
    pub fn undo(&mut self, before: Before) {
        for (id, found) in before.services {
            match found {
                Some((place, entry)) => self.services.put(id, place, entry),
                None => drop(self.services.remove(&id)),
            }
        }
        for (matched, mark) in before.marks.into_iter().rev() {
            self.marks.set(matched, mark);
        }
        self.reals = before.reals;
        self.networks = before.networks;
        self.timeouts = before.timeouts;
        self.policy = before.policy;
        self.settings = before.settings;
    }

    /// Keeps services that `other` has alike only once, of those that `before` was noted of: two models that follow each
    /// other take little more memory than one.
    pub fn share(&mut self, other: &Self, before: &Before) {
        for id in before.services.keys() {
            if let (Some(entry), Some(theirs)) = (self.services.get_mut(id), other.services.get(id))
                && !Arc::ptr_eq(entry, theirs)
                && entry == theirs
            {
                *entry = Arc::clone(theirs);
            }
        }
    }

    /// What the changes touched that `before` was noted of.
    #[must_use]
    pub fn touched(&self, before: &Before) -> Touched {
        let mut services: BTreeSet<ServiceId> = before.services.keys().copied().collect();
        if self.policy != before.policy {
            // It holds for all that left something open.
            services.extend(self.services().map(|(id, _)| *id));
        }
        Touched {
            services,
            edited: before.edited.clone(),
            marks: before.marks.iter().map(|(matched, _)| *matched).collect(),
            reals: BTreeSet::new(),
        }
    }
}
