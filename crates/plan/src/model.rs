//! What the operator declared: services and their real servers.
//!
//! The model says what is present. It does not know indices, neighbours, flows or counters: a real server
//! that is deleted and added again is the same one again only to the [`crate::Layout`].

use crate::admission;
use crate::before::Before;
use crate::check;
use crate::health;
use crate::marks::Marks;
use crate::options::Options;
use crate::ordered::Ordered;
use crate::reach;
use crate::setting::{self, Chosen};
use crate::supported;
use api::{
    Admission, Change, Changes, HealthSpec, Mark, MarkMatch, Policy, PolicyChoices, RealHealth, RealId,
    RealSpec, Refusal, RefusalKind, Scheduler, ServiceId, ServiceSpec, Timeouts,
};
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The declared configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    options: Options,
    /// Shared, so that what a change found can be kept at no price.
    pub(crate) services: Ordered<ServiceId, Arc<ServiceEntry>>,
    pub(crate) reals: usize,
    /// Networks that services allow or deny, over all services.
    pub(crate) networks: usize,
    pub(crate) timeouts: Timeouts,
    /// Choices of policy for services that left them open.
    pub(crate) policy: PolicyChoices,
    pub(crate) settings: Chosen,
    pub(crate) marks: Marks,
    /// Free pages of memory, as far as the settings ask for them; not declared.
    free_pages: u64,
}

/// A service of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    spec: ServiceSpec,
    scheduler: Scheduler,
    policy: PolicyChoices,
    pub(crate) admission: Admission,
    /// Oldest first; shown newest first.
    pub(crate) reals: IndexMap<RealId, RealEntry>,
    health: HealthSpec,
    /// Only of real servers that differ from the rest.
    real_health: BTreeMap<RealId, RealHealth>,
}

/// A real server of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealEntry {
    /// What was declared.
    pub spec: RealSpec,
    /// The last weight that was not 0, or 0 if there was none. `mh` goes by it, so that quiescing a real
    /// server does not reshuffle the others.
    pub last_weight: u32,
    /// Its weight is 0 because it failed. Nobody declares it ([`Model::set_failed`]).
    pub failed: bool,
}

impl ServiceEntry {
    /// What was declared.
    #[must_use]
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// The scheduler that `spec().scheduler` names.
    #[must_use]
    pub fn scheduler(&self) -> Scheduler {
        self.scheduler
    }

    /// The choices of policy made for it.
    #[must_use]
    pub fn policy_choices(&self) -> PolicyChoices {
        self.policy
    }

    /// Who may open connections to it.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// How the health of its real servers is watched.
    #[must_use]
    pub fn health(&self) -> &HealthSpec {
        &self.health
    }

    /// Whether anything about the health of its real servers was declared.
    #[must_use]
    pub fn has_health(&self) -> bool {
        self.health != HealthSpec::default() || !self.real_health.is_empty()
    }

    /// What differs for one real server.
    #[must_use]
    pub fn real_health(&self, id: &RealId) -> Option<&RealHealth> {
        self.real_health.get(id)
    }

    /// What differs for each real server that differs from the rest.
    pub(crate) fn real_healths(&self) -> impl Iterator<Item = &RealHealth> {
        self.real_health.values()
    }

    /// The real servers, newest first: the order of every scheduler and listing.
    pub fn reals(&self) -> impl DoubleEndedIterator<Item = (&RealId, &RealEntry)> + ExactSizeIterator {
        self.reals.iter().rev()
    }

    /// One real server.
    #[must_use]
    pub fn real(&self, id: &RealId) -> Option<&RealEntry> {
        self.reals.get(id)
    }
}

impl Model {
    /// A model without services, with the default timeouts.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let timeouts = Timeouts { tcp_s: 900, tcp_fin_s: 120, udp_s: 300 };
        Self {
            options,
            services: Ordered::default(),
            reals: 0,
            networks: 0,
            timeouts,
            policy: PolicyChoices::default(),
            settings: Chosen::new(),
            marks: Marks::default(),
            free_pages: u64::MAX,
        }
    }

    /// The choices it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The three classic timeouts.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The policy of services for which nothing was chosen.
    #[must_use]
    pub fn default_policy(&self) -> Policy {
        Policy::of(self.policy)
    }

    /// The choices of policy made for all services.
    #[must_use]
    pub fn default_policy_choices(&self) -> PolicyChoices {
        self.policy
    }

    /// The policy that holds for a service.
    #[must_use]
    pub fn policy(&self, entry: &ServiceEntry) -> Policy {
        Policy::of(entry.policy.or(self.policy))
    }

    /// Settings that are not at their defaults.
    pub(crate) fn chosen(&self) -> &Chosen {
        &self.settings
    }

    /// Free pages of memory, as last told.
    pub(crate) fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Tells how many pages of memory are free, which the automatic modes of some settings go by.
    pub fn set_free_pages(&mut self, pages: u64) {
        self.free_pages = pages;
    }

    /// The matches of firewall marks, sorted.
    pub fn marks(&self) -> impl Iterator<Item = Mark> {
        self.marks.iter()
    }

    /// The services in the order they were added.
    pub fn services(&self) -> impl ExactSizeIterator<Item = (&ServiceId, &ServiceEntry)> {
        self.services.iter().map(|(id, entry)| (id, &**entry))
    }

    /// One service.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&ServiceEntry> {
        self.services.get(id).map(|entry| &**entry)
    }

    /// Number of real servers over all services.
    #[must_use]
    pub fn reals_len(&self) -> usize {
        self.reals
    }

    /// The changes that make this model out of a new one: what to save.
    #[must_use]
    pub fn to_changes(&self) -> Changes {
        let mut changes = vec![Change::SetTimeouts { timeouts: self.timeouts }];
        let policy = |service, choices: PolicyChoices| {
            (!choices.is_empty()).then_some(Change::SetPolicy { service, forget: false, choices })
        };
        changes.extend(policy(None, self.policy));
        changes.extend(
            self.settings
                .iter()
                .map(|(name, value)| Change::SetSetting { name: (*name).to_owned(), value: *value }),
        );
        changes.extend(self.marks().map(|Mark { matched, mark }| Change::AddMark { matched, mark }));
        for (&service, entry) in self.services.iter() {
            changes.push(Change::AddService { service, spec: entry.spec.clone() });
            changes.extend(policy(Some(service), entry.policy));
            if entry.admission != Admission::default() {
                changes.push(Change::SetAdmission { service, admission: entry.admission.clone() });
            }
            for (&real, &RealEntry { spec, last_weight, .. }) in &entry.reals {
                let first = RealSpec { weight: last_weight, ..spec };
                changes.push(Change::AddReal { service, real, spec: first });
                if spec.weight != last_weight {
                    changes.push(Change::EditReal { service, real, spec });
                }
            }
            // First, as those with checks of their own may be ones that the service's cannot be made of.
            for (&real, health) in &entry.real_health {
                changes.push(Change::SetRealHealth { service, real, health: health.clone() });
            }
            if entry.health != HealthSpec::default() {
                changes.push(Change::SetHealth { service, health: entry.health.clone() });
            }
        }
        Changes { atomic: true, changes }
    }

    /// Applies one change. [`Change::Zero`] changes nothing here; it only must name a service that exists.
    ///
    /// # Errors
    /// A refusal by the rules of IPVS or of this release; the model is then as before.
    pub fn apply(&mut self, change: &Change) -> Result<(), Refusal> {
        let mut before = Before::of(self);
        self.apply_noting(change, &mut before)
    }

    /// Begins to note what changes find ([`Self::apply_noting`]).
    #[must_use]
    pub fn note(&self) -> Before {
        Before::of(self)
    }

    /// Applies one change and notes what was there before it: what [`Self::undo`] goes by, and [`crate::recompile`].
    ///
    /// # Errors
    /// A refusal by the rules of IPVS or of this release; the model is then as before.
    pub fn apply_noting(&mut self, change: &Change, before: &mut Before) -> Result<(), Refusal> {
        match change {
            Change::AddService { service, spec } => self.add_service(service, spec, before),
            Change::EditService { service, spec } => self.edit_service(service, spec, before),
            Change::DeleteService { service } => self.delete_service(service, before),
            Change::Flush => {
                self.flush(before);
                Ok(())
            }
            Change::AddReal { service, real, spec } => self.add_real(service, real, spec, before),
            Change::EditReal { service, real, spec } => self.edit_real(service, real, spec, before),
            Change::DeleteReal { service, real } => self.delete_real(service, real, before),
            Change::Zero { service } => match service {
                Some(id) if !self.services.contains_key(id) => Err(no_such_service(id)),
                _ => Ok(()),
            },
            Change::SetPolicy { service, forget, choices } => {
                self.set_policy(service.as_ref(), *forget, *choices, before)
            }
            Change::SetSetting { name, value } => self.set_setting(name, *value),
            Change::SetTimeouts { timeouts } => self.set_timeouts(timeouts),
            Change::SetAdmission { service, admission } => self.set_admission(service, admission, before),
            Change::SetHealth { service, health } => self.set_health(service, health, before),
            Change::SetRealHealth { service, real, health } => {
                self.set_real_health(service, real, health, before)
            }
            Change::SetDrain { service, real, drain } => {
                let entry = self.service(service).ok_or_else(|| no_such_service(service))?;
                let now = entry.real_health(real).cloned().unwrap_or_default();
                self.set_real_health(service, real, &RealHealth { drain: *drain, ..now }, before)
            }
            Change::AddMark { matched, mark } => self.add_mark(*matched, *mark, before),
            Change::DeleteMark { matched } => {
                let mark = self.marks.get(matched);
                self.marks.delete(matched)?;
                before.note_mark(*matched, mark);
                Ok(())
            }
        }
    }

    /// Applies a list in order and says what became of each change. In an atomic list one refusal undoes
    /// everything, and the other changes report [`RefusalKind::Aborted`].
    pub fn apply_all(&mut self, changes: &Changes) -> Vec<Option<Refusal>> {
        self.change(&changes.changes, changes.atomic).0
    }

    /// Does the same, and tells what was there before.
    pub fn change(&mut self, changes: &[Change], atomic: bool) -> (Vec<Option<Refusal>>, Before) {
        let mut before = Before::of(self);
        before.as_whole = atomic;
        let mut refusals = Vec::with_capacity(changes.len());
        for change in changes {
            let refusal = self.apply_noting(change, &mut before).err();
            let ends = atomic && refusal.is_some();
            refusals.push(refusal);
            if ends {
                self.undo(before);
                return (check::aborted(refusals, changes.len()), Before::of(self));
            }
        }
        if let Err(refusal) = self.check_reach(&before)
            && let Some(last) = refusals.last_mut()
        {
            *last = Some(refusal);
            self.undo(before);
            return (check::aborted(refusals, changes.len()), Before::of(self));
        }
        (refusals, before)
    }

    /// The entry of a service to be changed; what it was is noted.
    pub(crate) fn entry(&mut self, id: &ServiceId, before: &mut Before) -> Option<&mut ServiceEntry> {
        before.note_service(id, &self.services);
        self.services.get_mut(id).map(Arc::make_mut)
    }

    fn flush(&mut self, before: &mut Before) {
        for (id, _) in self.services.iter() {
            before.note_service(id, &self.services);
        }
        self.services.clear();
        (self.reals, self.networks) = (0, 0);
    }

    fn add_service(
        &mut self,
        id: &ServiceId,
        spec: &ServiceSpec,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        if self.services.contains_key(id) {
            return Err(Refusal::new(RefusalKind::ServiceExists, format!("service {id} already exists")));
        }
        let scheduler = check::names(spec)?;
        check::virtual_address(id)?;
        check::persistence(id, spec)?;
        self.check_services(self.services.len() + 1 + self.marks.len())?;
        let policy = PolicyChoices::default();
        let entry = ServiceEntry {
            spec: spec.clone(),
            scheduler,
            policy,
            admission: Admission::default(),
            reals: IndexMap::new(),
            health: HealthSpec::default(),
            real_health: BTreeMap::new(),
        };
        before.note_service(id, &self.services);
        self.services.push(*id, Arc::new(entry));
        Ok(())
    }

    /// The table of services has an entry for each, and one for each port that has a mark.
    fn check_services(&self, entries: usize) -> Result<(), Refusal> {
        let max = self.options.limits.services_max;
        check::limit("services_max", "services and ports with a mark", entries, max)
    }

    fn add_mark(&mut self, matched: MarkMatch, mark: u32, before: &mut Before) -> Result<(), Refusal> {
        check::marked_address(matched.address)?;
        self.marks.add(matched, mark)?;
        if let Err(refusal) = self.check_services(self.services.len() + self.marks.len()) {
            self.marks.set(matched, None);
            return Err(refusal);
        }
        before.note_mark(matched, None);
        Ok(())
    }

    fn edit_service(
        &mut self,
        id: &ServiceId,
        spec: &ServiceSpec,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        let entry = self.service(id).ok_or_else(|| no_such_service(id))?;
        let scheduler = check::names(spec)?;
        check::persistence(id, spec)?;
        admission::check(id, spec, &entry.admission)?;
        if scheduler == Scheduler::Mh {
            check::mh_reals(id, entry.reals.len(), &self.options)?;
        }
        if let Some(entry) = self.entry(id, before) {
            entry.spec = spec.clone();
            entry.scheduler = scheduler;
        }
        Ok(())
    }

    fn delete_service(&mut self, id: &ServiceId, before: &mut Before) -> Result<(), Refusal> {
        before.note_service(id, &self.services);
        let (_, entry) = self.services.remove(id).ok_or_else(|| no_such_service(id))?;
        self.reals -= entry.reals.len();
        self.networks -= admission::networks(&entry.admission);
        Ok(())
    }

    fn add_real(
        &mut self,
        service: &ServiceId,
        id: &RealId,
        spec: &RealSpec,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        let entry = self.service(service).ok_or_else(|| no_such_service(service))?;
        check::real_family(service, id, spec)?;
        check::real_numbers(id, spec)?;
        if entry.reals.contains_key(id) {
            return Err(Refusal::new(
                RefusalKind::RealExists,
                format!("real server {id} already exists in {service}"),
            ));
        }
        if entry.health.fallback.is_some_and(|it| it.real == *id) {
            return Err(Refusal::new(
                RefusalKind::RealExists,
                format!("{id} is the fallback of {service} already"),
            ));
        }
        check::real_unicast(id)?;
        supported::real(id, spec)?;
        check::real_tunnel(id, spec)?;
        check::real_port(service, id, spec)?;
        check::service_reals(service, entry.reals.len() + 1)?;
        if !before.as_whole {
            health::checks_reach(service, &entry.health.checks, id, spec)?;
        }
        if entry.scheduler == Scheduler::Mh {
            check::mh_reals(service, entry.reals.len() + 1, &self.options)?;
        }
        let max = self.options.limits.reals_max;
        check::limit("reals_max", "real servers over all services", self.reals + 1, max)?;
        if let Some(entry) = self.entry(service, before) {
            entry.reals.insert(*id, RealEntry { spec: *spec, last_weight: spec.weight, failed: false });
            self.reals += 1;
        }
        Ok(())
    }

    fn edit_real(
        &mut self,
        service: &ServiceId,
        id: &RealId,
        spec: &RealSpec,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        let entry = self.service(service).ok_or_else(|| no_such_service(service))?;
        check::real_family(service, id, spec)?;
        check::real_numbers(id, spec)?;
        entry.real(id).ok_or_else(|| no_such_real(service, id))?;
        supported::real(id, spec)?;
        check::real_tunnel(id, spec)?;
        check::real_port(service, id, spec)?;
        if !before.as_whole {
            health::checks_reach(service, entry.checks_of(id), id, spec)?;
        }
        before.note_edited(service);
        if let Some(real) = self.entry(service, before).and_then(|entry| entry.reals.get_mut(id)) {
            real.spec = *spec;
            if spec.weight != 0 {
                (real.last_weight, real.failed) = (spec.weight, false);
            }
        }
        Ok(())
    }

    fn delete_real(&mut self, service: &ServiceId, id: &RealId, before: &mut Before) -> Result<(), Refusal> {
        let entry = self.service(service).ok_or_else(|| no_such_service(service))?;
        entry.real(id).ok_or_else(|| no_such_real(service, id))?;
        if let Some(entry) = self.entry(service, before) {
            entry.reals.shift_remove(id);
            entry.real_health.remove(id);
            self.reals -= 1;
        }
        Ok(())
    }

    fn set_health(&mut self, id: &ServiceId, spec: &HealthSpec, before: &mut Before) -> Result<(), Refusal> {
        let entry = self.service(id).ok_or_else(|| no_such_service(id))?;
        health::check_spec(id, spec)?;
        let has_own = |real| entry.real_health.get(real).is_some_and(|health| health.checks.is_some());
        for (real, it) in entry.reals.iter().filter(|(real, _)| !before.as_whole && !has_own(*real)) {
            health::checks_reach(id, &spec.checks, real, &it.spec)?;
        }
        if let Some(fallback) = spec.fallback {
            reach::check_fallback(id, entry, fallback, &self.options)?;
        }
        if let Some(entry) = self.entry(id, before) {
            entry.health = spec.clone();
        }
        Ok(())
    }

    fn set_real_health(
        &mut self,
        service: &ServiceId,
        id: &RealId,
        spec: &RealHealth,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        let entry = self.service(service).ok_or_else(|| no_such_service(service))?;
        let real = entry.real(id).ok_or_else(|| no_such_real(service, id))?;
        health::check_checks(service, spec.checks.as_deref().unwrap_or_default())?;
        if !before.as_whole {
            let checks = spec.checks.as_ref().unwrap_or(&entry.health.checks);
            health::checks_reach(service, checks, id, &real.spec)?;
        }
        if let Some(entry) = self.entry(service, before) {
            if *spec == RealHealth::default() {
                entry.real_health.remove(id);
            } else {
                entry.real_health.insert(*id, spec.clone());
            }
        }
        Ok(())
    }

    fn set_policy(
        &mut self,
        service: Option<&ServiceId>,
        forget: bool,
        choices: PolicyChoices,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        let policy = match service {
            Some(id) => &mut self.entry(id, before).ok_or_else(|| no_such_service(id))?.policy,
            None => &mut self.policy,
        };
        *policy = if forget { choices } else { choices.or(*policy) };
        Ok(())
    }

    fn set_setting(&mut self, name: &str, value: u32) -> Result<(), Refusal> {
        let setting = setting::check(name, value)?;
        if value == setting.default {
            self.settings.remove(setting.name);
        } else {
            self.settings.insert(setting.name, value);
        }
        Ok(())
    }

    fn set_timeouts(&mut self, new: &Timeouts) -> Result<(), Refusal> {
        check::timeouts(new)?;
        let keep = |new, old| if new == 0 { old } else { new };
        self.timeouts = Timeouts {
            tcp_s: keep(new.tcp_s, self.timeouts.tcp_s),
            tcp_fin_s: keep(new.tcp_fin_s, self.timeouts.tcp_fin_s),
            udp_s: keep(new.udp_s, self.timeouts.udp_s),
        };
        Ok(())
    }
}

pub(crate) fn no_such_service(id: &ServiceId) -> Refusal {
    Refusal::new(RefusalKind::NoSuchService, format!("no service {id}: add it first"))
}

fn no_such_real(service: &ServiceId, id: &RealId) -> Refusal {
    Refusal::new(RefusalKind::NoSuchReal, format!("no real server {id} in {service}"))
}
