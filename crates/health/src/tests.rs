use crate::{Declared, DeclaredReal, Effect, Machine, Order, Outcome};
use api::{
    Check, CheckKind, EventKind, Fallback, Forwarding, HealthSpec, HoldDown, OnFailure, Passive, Protocol,
    RealHealth, RealId, RealSpec, Rhythm, ServiceId, Standing, Tunnel,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn service() -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: "192.0.2.1".parse().expect("address"), port: 80 }
}

pub(crate) fn real(number: u8) -> RealId {
    RealId { address: format!("10.0.0.{number}").parse().expect("address"), port: 80 }
}

pub(crate) fn real_spec(weight: u32) -> RealSpec {
    RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::default(),
    }
}

pub(crate) fn tcp() -> Check {
    let rhythm = Rhythm { interval_ms: 1000, jitter_percent: 0, rise: 2, fall: 3, ..Rhythm::default() };
    Check { kind: CheckKind::Tcp, address: None, port: None, rhythm }
}

pub(crate) fn checked() -> HealthSpec {
    HealthSpec { checks: vec![tcp()], ..HealthSpec::default() }
}

/// A machine, a clock, and servers that answer or do not.
pub(crate) struct Farm {
    pub(crate) machine: Machine,
    pub(crate) declared: Declared,
    pub(crate) now_ms: u64,
    /// Why each server fails; those that pass are not in it.
    pub(crate) broken: BTreeMap<RealId, &'static str>,
    pub(crate) shares: BTreeMap<RealId, u16>,
    pub(crate) weights: BTreeMap<RealId, Option<u32>>,
    /// Those whose weight is 0 because they failed.
    pub(crate) failed: BTreeSet<RealId>,
    pub(crate) fallback: bool,
    pub(crate) news: Vec<String>,
    pub(crate) probes: usize,
}

impl Farm {
    /// Servers of these weights that have work already, or are new.
    pub(crate) fn new(spec: HealthSpec, weights: &[u32], have_work: bool) -> Self {
        let reals = weights.iter().zip(1..).map(|(&weight, number)| DeclaredReal {
            real: real(number),
            spec: real_spec(weight),
            health: RealHealth::default(),
            given: Some(if have_work { weight } else { 0 }),
            given_failed: false,
        });
        let declared = Declared { spec, reals: reals.collect(), fallback_given: false };
        let mut farm = Self {
            machine: Machine::new(1),
            weights: declared.reals.iter().map(|it| (it.real, it.given)).collect(),
            declared,
            now_ms: 1_000_000,
            broken: BTreeMap::new(),
            shares: BTreeMap::new(),
            failed: BTreeSet::new(),
            fallback: false,
            news: Vec::new(),
            probes: 0,
        };
        farm.declare();
        farm
    }

    pub(crate) fn declare(&mut self) {
        for entry in &mut self.declared.reals {
            entry.given = self.weights.get(&entry.real).copied().flatten();
            entry.given_failed = self.failed.contains(&entry.real);
        }
        self.declared.fallback_given = self.fallback;
        self.machine.declare(&service(), Some(&self.declared), self.now_ms);
        self.settle();
    }

    /// What a new machine would change of what the packet path has, before any check.
    pub(crate) fn changed_by_another(&self) -> Vec<Effect> {
        let mut declared = self.declared.clone();
        for entry in &mut declared.reals {
            entry.given = self.weights.get(&entry.real).copied().flatten();
            entry.given_failed = self.failed.contains(&entry.real);
        }
        declared.fallback_given = self.fallback;
        let mut another = Machine::new(2);
        another.declare(&service(), Some(&declared), 0);
        another.take_effects()
    }

    fn settle(&mut self) {
        for effect in self.machine.take_effects() {
            match effect {
                Effect::Weight { real, weight, failed, .. } => {
                    self.weights.insert(real, weight);
                    if failed {
                        self.failed.insert(real)
                    } else {
                        self.failed.remove(&real)
                    };
                }
                Effect::Fallback { on, .. } => self.fallback = on,
            }
        }
        for happening in self.machine.take_happenings() {
            let what = match happening.what {
                EventKind::Standing { real, from, to, .. } => {
                    format!("{} {} -> {}", real.address, from.name(), to.name())
                }
                EventKind::Panic { on, .. } => format!("panic {on}"),
                EventKind::Fallback { on, .. } => format!("fallback {on}"),
                EventKind::Generation { generation } => format!("generation {generation}"),
            };
            self.news.push(format!("{what}: {}", happening.cause));
        }
    }

    /// Lets so much time pass, in steps of 100 ms.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.now_ms + milliseconds;
        while self.now_ms < end {
            self.now_ms += 100;
            for Order { id, probe } in self.machine.due(self.now_ms) {
                self.probes += 1;
                let who = self.declared.reals.iter().find(|it| it.real.address == probe.address);
                let who = who.map_or(real(0), |it| it.real);
                let outcome = match self.broken.get(&who) {
                    Some(reason) => Outcome::Failed { reason: (*reason).to_owned() },
                    None => Outcome::Passed { latency_ms: 1.5, share: self.shares.get(&who).copied() },
                };
                self.machine.record(id, outcome, self.now_ms);
            }
            self.settle();
        }
    }

    pub(crate) fn weight(&self, number: u8) -> Option<u32> {
        self.weights[&real(number)]
    }

    fn standing(&self, number: u8) -> Standing {
        let view = self.machine.view(self.now_ms);
        view.services[0].reals.iter().find(|it| it.real == real(number)).expect("a real server").standing
    }
}

#[test]
fn a_new_server_gets_work_with_its_first_pass_and_not_before() {
    let mut farm = Farm::new(checked(), &[3, 5], false);
    farm.broken.insert(real(2), "connection refused");
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(0), Some(0)));
    farm.pass(100);
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(3), Some(0)));
    assert_eq!(farm.standing(2), Standing::Unknown);
    farm.pass(5000);
    assert_eq!((farm.weight(2), farm.standing(2)), (None, Standing::Down));
    assert_eq!(
        farm.news,
        [
            "10.0.0.1 unknown -> up: tcp check of 10.0.0.1:80 passes",
            "10.0.0.2 unknown -> down: tcp check of 10.0.0.2:80: connection refused, 3 times in a row",
        ]
    );
}

#[test]
fn a_working_server_goes_after_fall_failures_and_returns_after_rise_passes() {
    let mut farm = Farm::new(checked(), &[1, 1], true);
    farm.pass(1500);
    farm.broken.insert(real(1), "no answer");
    farm.pass(2000);
    assert_eq!(farm.weight(1), Some(1), "two failures are not three");
    assert!(
        farm.machine.view(farm.now_ms).services[0].reals[0]
            .reason
            .contains("failed 2 times of late: no answer")
    );
    farm.pass(1000);
    assert_eq!((farm.weight(1), farm.weight(2)), (None, Some(1)));
    farm.broken.clear();
    farm.pass(1000);
    assert_eq!(farm.weight(1), None, "one pass is not two");
    farm.pass(1000);
    assert_eq!((farm.weight(1), farm.standing(1)), (Some(1), Standing::Up));
}

#[test]
fn quiescing_leaves_the_server_in_with_weight_0() {
    let spec = HealthSpec { on_failure: OnFailure::Quiesce, ..checked() };
    let mut farm = Farm::new(spec, &[4, 4], true);
    farm.broken.insert(real(2), "no answer");
    farm.pass(4000);
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(4), Some(0)));
}

#[test]
fn weight_0_of_one_that_failed_is_told_from_the_weight_0_of_the_operator() {
    let spec = HealthSpec { on_failure: OnFailure::Quiesce, ..checked() };
    let mut farm = Farm::new(spec, &[4, 4, 0], true);
    farm.declared.reals[0].health.drain = true;
    farm.declare();
    farm.pass(4000);
    assert_eq!(farm.weights.values().copied().collect::<Vec<_>>(), [Some(0), Some(4), Some(0)]);
    assert!(farm.failed.is_empty(), "the operator's wish: {:?}", farm.failed);
    // Whatever the operator wishes, what is dead is dead.
    farm.broken.extend((1..=3).map(|number| (real(number), "no answer")));
    farm.pass(4000);
    assert_eq!(farm.failed.iter().copied().collect::<Vec<_>>(), [real(1), real(2), real(3)]);
    farm.broken.clear();
    farm.pass(4000);
    assert!(farm.failed.is_empty(), "{:?}", farm.failed);
    assert_eq!(farm.weights.values().copied().collect::<Vec<_>>(), [Some(0), Some(4), Some(0)]);
}

#[test]
fn mass_failure_is_not_believed_below_the_threshold() {
    let spec = HealthSpec { panic_percent: 50, ..checked() };
    let mut farm = Farm::new(spec, &[1, 1, 1, 1], true);
    for number in 1..=2 {
        farm.broken.insert(real(number), "no answer");
    }
    farm.pass(4000);
    assert_eq!(farm.weight(1), None, "half is up: the checks are believed");
    farm.broken.insert(real(3), "no answer");
    farm.pass(4000);
    assert!((1..=4).all(|number| farm.weight(number) == Some(1)), "{:?}", farm.weights);
    assert!(
        farm.news.iter().any(|it| it.contains("panic true: 1 of 4 of the weight is up")),
        "{:?}",
        farm.news
    );
    farm.broken.clear();
    farm.pass(4000);
    assert!(farm.news.iter().any(|it| it.starts_with("panic false")));
    assert!((1..=4).all(|number| farm.standing(number) == Standing::Up));
}

#[test]
fn the_fallback_has_the_work_when_nobody_else_may() {
    let fallback = Fallback { real: real(99), spec: real_spec(1) };
    let spec = HealthSpec { fallback: Some(fallback), panic_percent: 50, ..checked() };
    let mut farm = Farm::new(spec, &[1, 1], true);
    farm.broken.insert(real(1), "no answer");
    farm.broken.insert(real(2), "no answer");
    farm.pass(4000);
    assert!(farm.fallback);
    assert_eq!((farm.weight(1), farm.weight(2)), (None, None));
    farm.broken.clear();
    farm.pass(2000);
    assert!(!farm.fallback);
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(1), Some(1)));
}

#[test]
fn a_server_that_comes_and_goes_is_held_down() {
    let hold = HoldDown { failures: 3, within_ms: 60_000, hold_ms: 30_000 };
    let mut farm = Farm::new(HealthSpec { hold_down: Some(hold), ..checked() }, &[1, 1], true);
    for _ in 0..3 {
        farm.broken.insert(real(1), "no answer");
        farm.pass(4000);
        farm.broken.clear();
        farm.pass(4000);
    }
    assert_eq!((farm.standing(1), farm.weight(1)), (Standing::Held, None));
    farm.pass(26_000);
    assert_eq!((farm.standing(1), farm.weight(1)), (Standing::Up, Some(1)));
}

#[test]
fn a_server_that_came_back_starts_slowly_beside_the_others() {
    let spec = HealthSpec { slow_start_ms: 20_000, ..checked() };
    let mut farm = Farm::new(spec, &[1, 1], true);
    farm.broken.insert(real(1), "no answer");
    farm.pass(4000);
    farm.broken.clear();
    farm.pass(2200);
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(5), Some(100)), "in hundredths meanwhile");
    farm.pass(10_000);
    let half = farm.weight(1).expect("in");
    assert!((45..=60).contains(&half), "{half}");
    farm.pass(10_500);
    assert_eq!((farm.weight(1), farm.weight(2), farm.standing(1)), (Some(1), Some(1), Standing::Up));
}

#[test]
fn a_drained_server_gets_no_work_and_goes_at_the_deadline() {
    let mut farm = Farm::new(HealthSpec { drain_ms: 30_000, ..checked() }, &[2, 2], true);
    farm.pass(1000);
    farm.declared.reals[0].health.drain = true;
    farm.declare();
    assert_eq!((farm.weight(1), farm.standing(1)), (Some(0), Standing::Draining));
    farm.pass(29_000);
    assert_eq!(farm.weight(1), Some(0));
    farm.pass(1500);
    assert_eq!((farm.weight(1), farm.standing(1)), (None, Standing::Drained));
    farm.declared.reals[0].health.drain = false;
    farm.declare();
    assert_eq!(farm.weight(1), Some(2));
}

#[test]
fn weights_follow_the_reported_load_without_swinging() {
    let mut farm = Farm::new(HealthSpec { adaptive: true, ..checked() }, &[1, 1], true);
    farm.shares.insert(real(1), 100);
    farm.pass(3000);
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(1), Some(1)));
    farm.shares.insert(real(1), 20);
    farm.pass(1000);
    let first = farm.weight(1).expect("in");
    assert!((70..=90).contains(&first), "a quarter of the way at once: {first}");
    farm.pass(20_000);
    let last = farm.weight(1).expect("in");
    assert!((20..=26).contains(&last), "{last}");
    assert_eq!(farm.weight(2), Some(100));
    farm.shares.insert(real(1), 100);
    farm.pass(60_000);
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(1), Some(1)));
}

#[test]
fn what_the_packet_path_sees_counts_until_checks_pass_anew() {
    let passive = Passive { flows_min: 10, failed_percent: 50 };
    let mut farm = Farm::new(HealthSpec { passive: Some(passive), ..checked() }, &[1, 1], true);
    farm.pass(3000);
    let now = farm.now_ms;
    farm.machine.observe(&service(), &real(1), 9, 9, now);
    farm.machine.observe(&service(), &real(1), 20, 9, now);
    farm.pass(100);
    assert_eq!(farm.weight(1), Some(1), "too few, and too few of many");
    farm.machine.observe(&service(), &real(1), 20, 10, now);
    farm.pass(100);
    assert_eq!((farm.weight(1), farm.standing(1)), (None, Standing::Down));
    assert!(farm.news.last().expect("news").ends_with("10 of 20 new flows did not get on"));
    farm.pass(2100);
    assert_eq!(farm.weight(1), Some(1), "its checks passed twice since");
}

#[test]
fn the_same_examination_is_made_once_for_all_services() {
    let mut farm = Farm::new(checked(), &[1], true);
    let other = ServiceId::Address {
        protocol: Protocol::Tcp,
        address: "192.0.2.2".parse().expect("address"),
        port: 80,
    };
    farm.machine.declare(&other, Some(&farm.declared), farm.now_ms);
    farm.pass(10_000);
    assert!((10..=11).contains(&farm.probes), "{}", farm.probes);
    farm.machine.declare(&service(), None, farm.now_ms);
    assert_eq!(farm.machine.probes_len(), 1);
    farm.machine.declare(&other, None, farm.now_ms);
    assert_eq!((farm.machine.probes_len(), farm.machine.view(0).services.len()), (0, 0));
}

#[test]
fn without_checks_any_more_everything_is_as_declared() {
    let mut farm = Farm::new(checked(), &[3, 4], true);
    farm.broken.insert(real(1), "no answer");
    farm.pass(4000);
    assert_eq!(farm.weight(1), None);
    farm.declared.spec = HealthSpec::default();
    farm.declare();
    assert_eq!((farm.weight(1), farm.weight(2)), (Some(3), Some(4)));
    assert!(farm.machine.view(farm.now_ms).services.is_empty());
    assert_eq!(
        farm.machine.next_ms(),
        None.or(farm.machine.next_ms()),
        "the heap may hold what is forgotten"
    );
    farm.pass(3000);
    assert_eq!(farm.machine.next_ms(), None);
}

#[test]
fn failures_within_the_time_of_grace_do_not_count() {
    let mut check = tcp();
    check.rhythm.grace_ms = 10_000;
    let mut farm = Farm::new(HealthSpec { checks: vec![check], ..HealthSpec::default() }, &[1], false);
    farm.broken.insert(real(1), "connection refused");
    farm.pass(9_900);
    assert_eq!(farm.standing(1), Standing::Unknown);
    farm.pass(3_200);
    assert_eq!(farm.standing(1), Standing::Down);
}

#[test]
fn first_probes_are_spread_over_the_interval_however_many_there_are() {
    let mut machine = Machine::new(1);
    let reals = (0..5000_u32).map(|number| DeclaredReal {
        real: RealId { address: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), port: 80 },
        spec: real_spec(1),
        health: RealHealth::default(),
        given: Some(0),
        given_failed: false,
    });
    let declared = Declared { spec: checked(), reals: reals.collect(), fallback_given: false };
    machine.declare(&service(), Some(&declared), 0);
    let counts: Vec<usize> = (0..1000).map(|now_ms| machine.due(now_ms).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 5000, "all within the interval of a second");
    assert!(counts.iter().all(|count| *count <= 5), "{:?}", counts.iter().max());
}
