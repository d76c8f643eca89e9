//! One service: its real servers together.

use crate::machine::Happening;
use crate::member::Member;
use crate::probes::{Probes, resolve};
use crate::weight::{FINE, can_be_fine, part, step};
use api::{
    EventKind, HealthSpec, OnFailure, RealHealth, RealHealthView, RealId, RealSpec, ServiceHealth, ServiceId,
    Standing,
};
use indexmap::IndexMap;

/// What is declared of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// How its health is watched.
    pub spec: HealthSpec,
    /// Its real servers, newest first.
    pub reals: Vec<DeclaredReal>,
    /// Whether the packet path has the fallback, as it is declared.
    pub fallback_given: bool,
}

/// What is declared of a real server, and what the packet path has of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredReal {
    /// Which.
    pub real: RealId,
    /// As declared.
    pub spec: RealSpec,
    /// What differs for it.
    pub health: RealHealth,
    /// The weight that it has now; `None`: it is not in the packet path.
    pub given: Option<u32>,
    /// Whether the packet path has it as one that failed.
    pub given_failed: bool,
}

/// What the packet path should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The weight of a real server; `None`: take it out.
    Weight {
        /// Of which service.
        service: ServiceId,
        /// Which.
        real: RealId,
        /// The weight.
        weight: Option<u32>,
        /// Whether it is 0 because the real server failed, so that no client is tied to it any more.
        failed: bool,
    },
    /// Whether the fallback is in.
    Fallback {
        /// Of which service.
        service: ServiceId,
        /// In or out.
        on: bool,
    },
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    id: ServiceId,
    spec: HealthSpec,
    members: IndexMap<RealId, Member>,
    panic: bool,
    fallback: bool,
}

impl Service {
    pub(crate) fn new(id: ServiceId) -> Self {
        Self { id, spec: HealthSpec::default(), members: IndexMap::new(), panic: false, fallback: false }
    }

    /// Takes a new declaration. What is known of real servers that stay is kept.
    pub(crate) fn declare(&mut self, declared: &Declared, probes: &mut Probes, now_ms: u64) {
        if declared.spec.fallback != self.spec.fallback {
            // Another one must be told anew; the first one may be there from a former daemon.
            self.fallback = declared.fallback_given;
        }
        self.spec = declared.spec.clone();
        let scale = scale_of(declared);
        let mut before = std::mem::take(&mut self.members);
        for declared_real in &declared.reals {
            let DeclaredReal { real, spec, health, given, given_failed } = declared_real;
            let known = before.swap_remove(real);
            // Of one that is out the drain is over, whichever daemon saw to it.
            let is_drained = known.is_none() && health.drain && given.is_none();
            let mut member = known.unwrap_or_else(|| Member::new(*real, now_ms));
            member.is_drained |= is_drained;
            let checks = health.checks.as_ref().unwrap_or(&self.spec.checks);
            let user = (self.id, *real);
            let wanted: Vec<_> = checks
                .iter()
                .map(|check| probes.want(resolve(check, &self.id, real, spec), check.rhythm, user, now_ms))
                .collect();
            if wanted != member.probes {
                member.had_work = given.is_some_and(|weight| weight > 0);
                member.inherited = given.map_or(1.0, |weight| share_of(weight, spec.weight, scale));
                member.share = if self.spec.adaptive && member.had_work { member.inherited } else { 1.0 };
            }
            for gone in member.probes.iter().filter(|id| !wanted.contains(id)) {
                probes.release(*gone, &user);
            }
            member.probes = wanted;
            member.declared_weight = spec.weight;
            (member.given, member.given_failed) = (*given, *given_failed);
            member.drain(health.drain, now_ms);
            self.members.insert(*real, member);
        }
        for (_, member) in before {
            release(&member, self.id, probes);
        }
    }

    /// Nobody wants it any more.
    pub(crate) fn forget(self, probes: &mut Probes) {
        for member in self.members.values() {
            release(member, self.id, probes);
        }
    }

    pub(crate) fn member_mut(&mut self, real: &RealId) -> Option<&mut Member> {
        self.members.get_mut(real)
    }

    pub(crate) fn spec(&self) -> &HealthSpec {
        &self.spec
    }

    /// Looks at every real server, and says what should change.
    pub(crate) fn judge(
        &mut self,
        probes: &Probes,
        now_ms: u64,
        happenings: &mut Vec<Happening>,
        effects: &mut Vec<Effect>,
    ) {
        for index in 0..self.members.len() {
            self.judge_member(index, probes, now_ms, happenings);
        }
        self.judge_pool(happenings);
        self.weigh(probes, now_ms, effects);
        self.judge_fallback(happenings, effects);
    }

    /// The same after a result of one real server. Mostly it changes nothing, and then nobody else is looked at. Tells whether
    /// it did change something.
    pub(crate) fn judge_real(
        &mut self,
        real: &RealId,
        probes: &Probes,
        now_ms: u64,
        happenings: &mut Vec<Happening>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(index) = self.members.get_index_of(real) else { return false };
        let has_turned = self.judge_member(index, probes, now_ms, happenings);
        let is_same = self.members.get_index(index).is_some_and(|(_, member)| {
            !has_turned
                && member.standing != Standing::Starting
                && member.has_failed(member.given) == member.given_failed
                && (!self.spec.adaptive || self.share(member, probes, now_ms) == Some(member.share))
        });
        if is_same {
            return false;
        }
        self.judge_pool(happenings);
        self.weigh(probes, now_ms, effects);
        self.judge_fallback(happenings, effects);
        true
    }

    /// Takes a real server's new standing. Tells whether it is another one.
    fn judge_member(
        &mut self,
        index: usize,
        probes: &Probes,
        now_ms: u64,
        happenings: &mut Vec<Happening>,
    ) -> bool {
        // Only who comes back asks for it.
        let others_work = |members: &IndexMap<RealId, Member>| {
            let works =
                |(other, (_, member)): (usize, (&RealId, &Member))| other != index && member.is_working();
            members.iter().enumerate().any(works)
        };
        let others_work = match self.members.get_index(index) {
            Some((_, member)) if !member.is_working() => others_work(&self.members),
            _ => true,
        };
        let Some((_, member)) = self.members.get_index_mut(index) else { return false };
        let Some((from, to)) = member.judge(probes, &self.spec, others_work, now_ms) else { return false };
        // That nobody examines it is no news.
        if to != Standing::Unchecked || from != Standing::Unknown {
            let what = EventKind::Standing { service: self.id, real: member.real, from, to };
            happenings.push(Happening { what, cause: member.reason.clone() });
        }
        true
    }

    fn judge_fallback(&mut self, happenings: &mut Vec<Happening>, effects: &mut Vec<Effect>) {
        let is_empty = self.members.values().all(|it| it.given.unwrap_or(0) == 0);
        let fallback = is_empty && self.spec.fallback.is_some() && !self.members.is_empty();
        if fallback == self.fallback {
            return;
        }
        self.fallback = fallback;
        effects.push(Effect::Fallback { service: self.id, on: fallback });
        let cause = if fallback { "no real server may get work" } else { "a real server has the work again" };
        let what = EventKind::Fallback { service: self.id, on: fallback };
        happenings.push(Happening { what, cause: cause.to_owned() });
    }

    /// Whether so many failed that the checks are not believed.
    fn judge_pool(&mut self, happenings: &mut Vec<Happening>) {
        let weight = |of: &dyn Fn(&Member) -> bool| -> u64 {
            self.members.values().filter(|it| of(it)).map(|it| u64::from(it.declared_weight)).sum()
        };
        let failed = weight(&|it| matches!(it.standing, Standing::Down | Standing::Held));
        let working = weight(&Member::is_working);
        let total = failed + working;
        let too_few = working * 100 < total * u64::from(self.spec.panic_percent);
        // Somebody who says sorry serves clients better than servers that all failed.
        let is_for_fallback = working == 0 && self.spec.fallback.is_some();
        let panic = failed > 0 && too_few && !is_for_fallback;
        if panic == self.panic {
            return;
        }
        self.panic = panic;
        let percent = self.spec.panic_percent;
        let cause = if panic {
            format!(
                "{working} of {total} of the weight is up, less than {percent} %: failed real servers get work too"
            )
        } else {
            format!("{working} of {total} of the weight is up")
        };
        happenings.push(Happening { what: EventKind::Panic { service: self.id, on: panic }, cause });
    }

    fn weigh(&mut self, probes: &Probes, now_ms: u64, effects: &mut Vec<Effect>) {
        let shares: Vec<Option<f64>> =
            self.members.values().map(|it| self.share(it, probes, now_ms)).collect();
        let is_partial =
            shares.iter().flatten().any(|share| *share > 0.0 && (*share - 1.0).abs() > f64::EPSILON);
        let fine = is_partial && can_be_fine(self.members.values().map(|it| it.declared_weight));
        let adaptive = self.spec.adaptive;
        for (member, share) in self.members.values_mut().zip(shares) {
            if adaptive && let Some(reported) = reported(member, probes) {
                member.share = step(member.share, reported);
            }
            let weight = share.map(|share| part(member.declared_weight, share, fine));
            let failed = member.has_failed(weight);
            if (weight, failed) != (member.given, member.given_failed) {
                (member.given, member.given_failed) = (weight, failed);
                effects.push(Effect::Weight { service: self.id, real: member.real, weight, failed });
            }
        }
    }

    /// The share of its weight that a real server gets; `None`: it is taken out.
    fn share(&self, member: &Member, probes: &Probes, now_ms: u64) -> Option<f64> {
        let reported = || {
            let adaptive = self.spec.adaptive;
            adaptive
                .then(|| reported(member, probes))
                .flatten()
                .map_or(1.0, |wanted| step(member.share, wanted))
        };
        match member.standing {
            Standing::Unchecked | Standing::Up => Some(reported()),
            Standing::Starting => Some(reported() * member.started_share(&self.spec, now_ms)),
            Standing::Unknown if member.had_work => Some(member.inherited),
            // Out is where a former daemon had it that saw it fail.
            Standing::Unknown => member.given.map(|_| 0.0),
            Standing::Down | Standing::Held if self.panic => Some(1.0),
            Standing::Down | Standing::Held => (self.spec.on_failure == OnFailure::Quiesce).then_some(0.0),
            Standing::Draining => Some(0.0),
            Standing::Drained => None,
        }
    }

    /// When something changes by itself.
    pub(crate) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.members.values().filter_map(|it| it.next_ms(&self.spec, now_ms)).min()
    }

    pub(crate) fn view(&self, probes: &Probes, now_ms: u64) -> ServiceHealth {
        let reals = self.members.values().map(|member| RealHealthView {
            real: member.real,
            standing: member.standing,
            reason: member.reason.clone(),
            declared_weight: member.declared_weight,
            weight: member.given,
            since_ms: now_ms.saturating_sub(member.since_ms),
            latency_ms: latency(member, probes),
        });
        ServiceHealth { service: self.id, panic: self.panic, fallback: self.fallback, reals: reals.collect() }
    }
}

/// How many times the declared weights the packet path has them now.
fn scale_of(declared: &Declared) -> u32 {
    let HealthSpec { adaptive, slow_start_ms, .. } = declared.spec;
    let is_partial = |it: &DeclaredReal| it.given.is_some_and(|given| given > 0 && given != it.spec.weight);
    let can_be = adaptive || slow_start_ms > 0;
    let is_fine = can_be
        && declared.reals.iter().any(is_partial)
        && can_be_fine(declared.reals.iter().map(|it| it.spec.weight));
    if is_fine { FINE } else { 1 }
}

/// The share of its declared weight that a real server has in the packet path.
fn share_of(given: u32, declared: u32, scale: u32) -> f64 {
    if scale == 1 || declared == 0 {
        return 1.0;
    }
    f64::from(given) / (f64::from(declared) * f64::from(scale))
}

/// The smallest share that any of its checks reports.
fn reported(member: &Member, probes: &Probes) -> Option<f64> {
    let shares = member.probes.iter().filter_map(|id| probes.get(*id)?.history.share());
    shares.reduce(f64::min)
}

/// The longest of its checks.
fn latency(member: &Member, probes: &Probes) -> Option<f64> {
    let latencies = member.probes.iter().filter_map(|id| probes.get(*id)?.history.latency_ms());
    latencies.reduce(f64::max)
}

fn release(member: &Member, service: ServiceId, probes: &mut Probes) {
    for id in &member.probes {
        probes.release(*id, &(service, member.real));
    }
}
