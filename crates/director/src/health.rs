//! What health checks make of the configuration: the packet path has what is declared, but for the real servers that failed.
//!
//! ```text
//! declared model + effects of the health machine -> effective model -> (compile, kernel)
//! ```

use crate::actor::{ActorError, Director, log_error};
use api::{Change, EventKind, HealthView, RealId, RealSpec, ServiceId};
use health::{Declared, DeclaredReal, Effect, Machine, Order, Outcome, ProbeId};
use plan::{Model, Resolved, ServiceEntry};
use probe::{Hop, NextHop};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Instant;

/// The health of all real servers, and the clock it goes by.
#[derive(Debug)]
pub(crate) struct Health {
    machine: Machine,
    start: Instant,
    /// Services of which the packet path may not have what the machine thinks it has.
    doubtful: BTreeSet<ServiceId>,
    /// Real servers that had no work when the daemon started, and of which nothing is known yet.
    was_out: BTreeSet<(ServiceId, RealId)>,
}

impl Health {
    pub(crate) fn new() -> Self {
        let seed = runtime::random::random_u64().unwrap_or_default();
        Self {
            machine: Machine::new(seed),
            start: Instant::now(),
            doubtful: BTreeSet::new(),
            was_out: BTreeSet::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Director {
    /// Tells the machine what is declared of these services now, and does what follows.
    pub(crate) fn declare_health(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        let now_ms = self.health.now_ms();
        let mut strays = Vec::new();
        for service in services {
            let entry = self.declared.service(&service);
            if !self.health.machine.knows(&service) && entry.is_none_or(|entry| !entry.has_health()) {
                continue;
            }
            let declared = entry.map(|entry| declaration(entry, self.model.service(&service)));
            self.health.machine.declare(&service, declared.as_ref(), now_ms);
            strays.extend(self.strays(&service));
        }
        if let Err(error) = self.adjust(&strays, &[]) {
            log_error("a former fallback could not be taken out", &error);
        }
        self.obey_health();
    }

    /// Notes which real servers are out at the start. That they turn out to be down is what a former daemon knew.
    pub(crate) fn remember_who_is_out(&mut self) {
        let has_work = |service: &ServiceId, real: &RealId| {
            let effective = self.model.service(service).and_then(|entry| entry.real(real));
            effective.is_some_and(|it| it.spec.weight > 0)
        };
        let out = self
            .declared
            .services()
            .filter(|(_, entry)| entry.has_health())
            .flat_map(|(service, entry)| entry.reals().map(move |(real, _)| (*service, *real)))
            .filter(|(service, real)| !has_work(service, real))
            .collect();
        self.health.was_out = out;
    }

    /// Takes out what the packet path has and nobody declares: a fallback that was replaced.
    fn strays(&self, service: &ServiceId) -> Vec<Change> {
        let (Some(declared), Some(effective)) = (self.declared.service(service), self.model.service(service))
        else {
            return Vec::new();
        };
        let fallback = declared.health().fallback.map(|it| it.real);
        let is_stray = |real: &&RealId| declared.real(real).is_none() && fallback != Some(**real);
        let strays = effective.reals().map(|(real, _)| real).filter(is_stray);
        strays.map(|real| Change::DeleteReal { service: *service, real: *real }).collect()
    }

    /// The probes that are due, each with the next hop of the way that it takes, if it takes one.
    pub(crate) fn due_probes(&mut self) -> Vec<(Order, Option<NextHop>)> {
        let now_ms = self.health.now_ms();
        if !self.health.doubtful.is_empty() {
            let doubtful = std::mem::take(&mut self.health.doubtful);
            self.declare_health(doubtful);
        }
        let orders = self.health.machine.due(now_ms);
        self.obey_health();
        let next_hop = |order: &Order| self.neighbours.get(&order.probe.way.as_ref()?.real).map(next_hop);
        orders.into_iter().map(|order| (next_hop(&order), order)).map(|(hop, order)| (order, hop)).collect()
    }

    /// The services that a probe is made for, as text.
    pub(crate) fn probe_services(&self, id: ProbeId) -> String {
        let names: BTreeSet<String> =
            self.health.machine.users(id).map(|(service, _)| service.to_string()).collect();
        Vec::from_iter(names).join(", ")
    }

    /// When probes are due next.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        let next = self.health.machine.next_ms()?;
        Some(self.health.start + std::time::Duration::from_millis(next))
    }

    /// What came of probes.
    pub(crate) fn probed(&mut self, outcomes: impl IntoIterator<Item = (ProbeId, Outcome)>) {
        let now_ms = self.health.now_ms();
        for (id, outcome) in outcomes {
            self.health.machine.record(id, outcome, now_ms);
        }
        self.obey_health();
    }

    /// What is thought of all real servers that are examined.
    pub(crate) fn health_view(&self) -> HealthView {
        self.health.machine.view(self.health.now_ms())
    }

    /// What the packet path saw of a real server; [`Self::obey_health`] does what follows.
    pub(crate) fn observe(&mut self, service: &ServiceId, real: &RealId, flows: u32, failed: u32) {
        let now_ms = self.health.now_ms();
        self.health.machine.observe(service, real, flows, failed, now_ms);
    }

    /// Does what the machine asks for.
    pub(crate) fn obey_health(&mut self) {
        for happening in self.health.machine.take_happenings() {
            match happening.what {
                EventKind::Standing { service, real, .. } if self.health.was_out.remove(&(service, real)) => {
                    self.events.add_known(happening.what, happening.cause);
                }
                what => self.events.add(what, happening.cause),
            }
        }
        let effects = self.health.machine.take_effects();
        if effects.is_empty() {
            return;
        }
        let changes: Vec<Change> = effects.iter().filter_map(|effect| self.change_for(effect)).collect();
        let failed = effects.iter().filter_map(|effect| match *effect {
            Effect::Weight { service, real, weight: Some(_), failed } => Some((service, real, failed)),
            _ => None,
        });
        if let Err(error) = self.adjust(&changes, &failed.collect::<Vec<_>>()) {
            log_error("what health checks found could not be told to the packet path", &error);
            let services = effects.iter().map(|effect| match effect {
                Effect::Weight { service, .. } | Effect::Fallback { service, .. } => *service,
            });
            self.health.doubtful.extend(services);
        }
    }

    fn change_for(&self, effect: &Effect) -> Option<Change> {
        match *effect {
            Effect::Weight { service, real, weight, .. } => {
                let declared = self.declared.service(&service)?.real(&real)?.spec;
                let now = self.model.service(&service)?.real(&real).map(|it| it.spec);
                let spec = weight.map(|weight| RealSpec { weight, ..declared });
                // That it failed may be all the news.
                if spec == now { None } else { change_to(service, real, spec, now.is_some()) }
            }
            Effect::Fallback { service, on } => {
                let fallback = self.declared.service(&service)?.health().fallback?;
                let is_in = self.model.service(&service)?.real(&fallback.real).is_some();
                change_to(service, fallback.real, on.then_some(fallback.spec), is_in)
            }
        }
    }

    /// Changes the packet path and not the declaration: real servers, and whether they failed. After an error it is as
    /// before.
    fn adjust(&mut self, changes: &[Change], failed: &[(ServiceId, RealId, bool)]) -> Result<(), ActorError> {
        if changes.is_empty() && failed.is_empty() {
            return Ok(());
        }
        let mut before = self.model.note();
        let applied = changes.iter().try_for_each(|change| self.model.apply_noting(change, &mut before));
        for (service, real, failed) in failed {
            self.model.set_failed(service, real, *failed, &mut before);
        }
        let touched = self.model.touched(&before);
        let installed = applied.map_err(ActorError::Effective).and_then(|()| self.install_now(&touched));
        if let Err(error) = installed {
            self.model.undo(before);
            return Err(error);
        }
        self.count_changes(changes.iter());
        Ok(())
    }
}

/// What a change of the declaration means for the packet path, which has the second model; `None`: nothing.
pub(crate) fn effective_change<'a>(
    declared: &Model,
    effective: &Model,
    change: &'a Change,
) -> Option<Cow<'a, Change>> {
    let now = |service: &ServiceId, real: &RealId| {
        effective.service(service).and_then(|entry| entry.real(real)).map(|it| it.spec.weight)
    };
    match change {
        Change::AddReal { service, real, spec } if is_checked(declared, service, real) => {
            // No work before its first pass.
            let spec = RealSpec { weight: 0, ..*spec };
            Some(Cow::Owned(Change::AddReal { service: *service, real: *real, spec }))
        }
        Change::EditReal { service, real, spec } => match now(service, real) {
            None => None,
            // The weight it has, until the health machine has heard of the change.
            Some(weight) if declared.service(service).is_some_and(ServiceEntry::has_health) => {
                let spec = RealSpec { weight, ..*spec };
                Some(Cow::Owned(Change::EditReal { service: *service, real: *real, spec }))
            }
            Some(_) => Some(Cow::Borrowed(change)),
        },
        Change::DeleteReal { service, real } if now(service, real).is_none() => None,
        // The packet path knows nothing of health, and there a fallback is a real server like others.
        Change::SetHealth { .. } | Change::SetRealHealth { .. } | Change::SetDrain { .. } => None,
        _ => Some(Cow::Borrowed(change)),
    }
}

fn change_to(service: ServiceId, real: RealId, spec: Option<RealSpec>, is_in: bool) -> Option<Change> {
    match (spec, is_in) {
        (Some(spec), true) => Some(Change::EditReal { service, real, spec }),
        (Some(spec), false) => Some(Change::AddReal { service, real, spec }),
        (None, true) => Some(Change::DeleteReal { service, real }),
        (None, false) => None,
    }
}

/// The next hop of a path check.
fn next_hop(resolved: &Resolved) -> NextHop {
    if resolved.local {
        return NextHop::Local;
    }
    NextHop::Link(Hop {
        interface: resolved.ifindex,
        destination: resolved.destination_mac,
        source: resolved.source_mac,
        address: resolved.source,
    })
}

pub(crate) fn is_checked(declared: &Model, service: &ServiceId, real: &RealId) -> bool {
    let Some(entry) = declared.service(service) else { return false };
    match entry.real_health(real).and_then(|it| it.checks.as_ref()) {
        Some(own) => !own.is_empty(),
        None => !entry.health().checks.is_empty(),
    }
}

fn declaration(entry: &ServiceEntry, effective: Option<&ServiceEntry>) -> Declared {
    let reals = entry.reals().map(|(real, it)| DeclaredReal {
        real: *real,
        spec: it.spec,
        health: entry.real_health(real).cloned().unwrap_or_default(),
        given: effective.and_then(|effective| effective.real(real)).map(|it| it.spec.weight),
        given_failed: effective.and_then(|effective| effective.real(real)).is_some_and(|it| it.failed),
    });
    let fallback = entry.health().fallback;
    let fallback_given = fallback.is_some_and(|it| {
        let given = effective.and_then(|effective| effective.real(&it.real));
        given.is_some_and(|given| given.spec == it.spec)
    });
    Declared { spec: entry.health().clone(), reals: reals.collect(), fallback_given }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at_start::effective_at_start;
    use api::{Forwarding, Protocol, SchedulerFlags, ServiceSpec, Tunnel};
    use plan::{Layout, Tables};

    #[test]
    fn an_edit_gives_a_drained_server_no_work_for_a_moment() {
        let service =
            ServiceId::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), port: 80 };
        let real = RealId { address: [10, 0, 0, 1].into(), port: 80 };
        let spec = ServiceSpec {
            scheduler: "rr".to_owned(),
            scheduler_flags: SchedulerFlags::default(),
            persistence: None,
            persistence_engine: None,
            one_packet: false,
        };
        let weighed = |weight| RealSpec {
            forwarding: Forwarding::DirectRouting,
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::default(),
        };
        let mut effective = Model::new(plan::Options::default());
        for change in
            [Change::AddService { service, spec }, Change::AddReal { service, real, spec: weighed(0) }]
        {
            effective.apply(&change).expect("a change");
        }
        let edit = Change::EditReal { service, real, spec: RealSpec { upper_threshold: 9, ..weighed(5) } };
        let mut declared = effective.clone();
        assert_eq!(effective_change(&declared, &effective, &edit).as_deref(), Some(&edit));
        declared.apply(&Change::SetDrain { service, real, drain: true }).expect("a change");
        let without_work = RealSpec { upper_threshold: 9, ..weighed(0) };
        assert_eq!(
            effective_change(&declared, &effective, &edit).as_deref(),
            Some(&Change::EditReal { service, real, spec: without_work })
        );
        // The same at the start of a daemon that finds no tables.
        declared.apply(&edit).expect("a change");
        let layout = Layout::new(abi::Limits::default());
        let model = effective_at_start(&declared, &layout, &Tables::default(), false);
        let entry = model.service(&service).and_then(|entry| entry.real(&real)).expect("a real server");
        assert_eq!(entry.spec.weight, 0);
    }
}
