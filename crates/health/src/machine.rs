//! All services together.

use crate::probes::{Order, Outcome, ProbeId, Probes};
use crate::service::{Declared, Effect, Service};
use api::{EventKind, HealthSpec, HealthView, RealId, ServiceId};
use indexmap::IndexMap;
use std::collections::BTreeMap;

/// Something that happened, for the log of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// What.
    pub what: EventKind,
    /// Why, as one sentence.
    pub cause: String,
}

/// All services whose health is watched.
#[derive(Debug)]
pub struct Machine {
    services: IndexMap<ServiceId, Service>,
    probes: Probes,
    happenings: Vec<Happening>,
    effects: Vec<Effect>,
    /// Services that change by themselves, and when.
    wake: BTreeMap<ServiceId, u64>,
}

impl Machine {
    /// A machine that watches nothing. The seed is for the jitter of intervals.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            services: IndexMap::new(),
            probes: Probes::new(seed),
            happenings: Vec::new(),
            effects: Vec::new(),
            wake: BTreeMap::new(),
        }
    }

    /// Whether anything about its health was declared.
    #[must_use]
    pub fn knows(&self, id: &ServiceId) -> bool {
        self.services.contains_key(id)
    }

    /// Takes what is declared of a service; `None`: it was deleted.
    pub fn declare(&mut self, id: &ServiceId, declared: Option<&Declared>, now_ms: u64) {
        let Some(declared) = declared else {
            self.forget(id);
            return;
        };
        let is_plain = is_plain(declared);
        if is_plain && !self.services.contains_key(id) {
            return;
        }
        let service = self.services.entry(*id).or_insert_with(|| Service::new(*id));
        service.declare(declared, &mut self.probes, now_ms);
        self.judge(id, now_ms);
        if is_plain {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: &ServiceId) {
        self.wake.remove(id);
        if let Some(service) = self.services.shift_remove(id) {
            service.forget(&mut self.probes);
        }
    }

    /// The probes to be made now, and what changes by itself now.
    pub fn due(&mut self, now_ms: u64) -> Vec<Order> {
        let awake: Vec<ServiceId> =
            self.wake.iter().filter(|(_, at)| **at <= now_ms).map(|(id, _)| *id).collect();
        for id in awake {
            self.judge(&id, now_ms);
        }
        self.probes.due(now_ms)
    }

    /// When [`Self::due`] should be called next.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.probes.next_ms().into_iter().chain(self.wake.values().copied()).min()
    }

    /// The real servers, and their services, that a probe is made for.
    pub fn users(&self, id: ProbeId) -> impl Iterator<Item = (ServiceId, RealId)> {
        self.probes.users(id)
    }

    /// Takes what came of a probe.
    pub fn record(&mut self, id: ProbeId, outcome: Outcome, now_ms: u64) {
        for (id, real) in self.probes.record(id, outcome, now_ms) {
            let Some(service) = self.services.get_mut(&id) else { continue };
            let (happenings, effects) = (&mut self.happenings, &mut self.effects);
            if service.judge_real(&real, &self.probes, now_ms, happenings, effects) {
                self.wake_again(&id, now_ms);
            }
        }
    }

    /// Takes what the packet path saw of a real server in one interval: new flows, and how many of them did not get on.
    pub fn observe(&mut self, id: &ServiceId, real: &RealId, flows: u32, failed: u32, now_ms: u64) {
        let Some(service) = self.services.get_mut(id) else { return };
        let Some(passive) = service.spec().passive else { return };
        let is_bad = flows >= passive.flows_min
            && u64::from(failed) * 100 >= u64::from(flows) * u64::from(passive.failed_percent);
        let Some(member) = service.member_mut(real).filter(|it| is_bad && it.is_working()) else { return };
        member.fail_passively(format!("{failed} of {flows} new flows did not get on"), now_ms);
        self.judge(id, now_ms);
    }

    fn judge(&mut self, id: &ServiceId, now_ms: u64) {
        let Some(service) = self.services.get_mut(id) else { return };
        service.judge(&self.probes, now_ms, &mut self.happenings, &mut self.effects);
        self.wake_again(id, now_ms);
    }

    /// Works out when something of a service changes by itself.
    fn wake_again(&mut self, id: &ServiceId, now_ms: u64) {
        match self.services.get(id).and_then(|service| service.next_ms(now_ms)) {
            Some(at) => drop(self.wake.insert(*id, at)),
            None => drop(self.wake.remove(id)),
        }
    }

    /// What the packet path should be told since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// What happened since the last call.
    pub fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    /// What is thought of everything.
    #[must_use]
    pub fn view(&self, now_ms: u64) -> HealthView {
        HealthView { services: self.services.values().map(|it| it.view(&self.probes, now_ms)).collect() }
    }

    #[cfg(test)]
    pub(crate) fn probes_len(&self) -> usize {
        self.probes.len()
    }
}

/// Whether nothing about its health is declared.
fn is_plain(declared: &Declared) -> bool {
    declared.spec == HealthSpec::default()
        && declared.reals.iter().all(|it| it.health == api::RealHealth::default())
}
