//! One real server of one service: what is thought of it, and why.

use crate::history::Verdict;
use crate::probes::{Probe, ProbeId, Probes, Probing};
use api::{HealthSpec, RealId, Standing};
use std::collections::VecDeque;

/// Failures remembered for the hold-down; its limit is 100.
const FALLS_MAX: usize = 128;
/// A failure that only the packet path saw, of a server that nothing else examines, is forgiven after so long.
const PASSIVE_FORGIVEN_MS: u64 = 10_000;

/// What the packet path saw.
#[derive(Clone, Debug)]
struct PassiveFailure {
    reason: String,
    at_ms: u64,
}

/// One real server of one service.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) real: RealId,
    pub(crate) declared_weight: u32,
    pub(crate) probes: Vec<ProbeId>,
    /// It had work when its checks began, so it keeps it until they fail.
    pub(crate) had_work: bool,
    /// The share of its weight that it had then.
    pub(crate) inherited: f64,
    /// It was drained to the end before anybody here knew of it.
    pub(crate) is_drained: bool,
    pub(crate) standing: Standing,
    pub(crate) since_ms: u64,
    pub(crate) reason: String,
    /// The weight that the packet path has; `None`: taken out.
    pub(crate) given: Option<u32>,
    /// Whether the packet path has it as one that failed.
    pub(crate) given_failed: bool,
    /// What its checks and the packet path said last.
    examined: Verdict,
    /// The share in force, of what the server reports.
    pub(crate) share: f64,
    drain_since_ms: Option<u64>,
    falls: VecDeque<u64>,
    held_until_ms: Option<u64>,
    started_ms: Option<u64>,
    passive: Option<PassiveFailure>,
}

impl Member {
    pub(crate) fn new(real: RealId, now_ms: u64) -> Self {
        Self {
            real,
            declared_weight: 0,
            probes: Vec::new(),
            had_work: false,
            inherited: 1.0,
            is_drained: false,
            standing: Standing::Unknown,
            since_ms: now_ms,
            reason: "not examined yet".to_owned(),
            given: None,
            given_failed: false,
            examined: Verdict::Unknown,
            share: 1.0,
            drain_since_ms: None,
            falls: VecDeque::new(),
            held_until_ms: None,
            started_ms: None,
            passive: None,
        }
    }

    /// The operator wants it drained, or not.
    pub(crate) fn drain(&mut self, wanted: bool, now_ms: u64) {
        match (wanted, self.drain_since_ms) {
            (true, None) => self.drain_since_ms = Some(now_ms),
            (false, Some(_)) => self.drain_since_ms = None,
            _ => {}
        }
        self.is_drained &= wanted;
    }

    /// The packet path saw it fail.
    pub(crate) fn fail_passively(&mut self, reason: String, now_ms: u64) {
        self.passive = Some(PassiveFailure { reason, at_ms: now_ms });
    }

    /// Whether new flows may go to it, as far as its own standing says.
    pub(crate) fn is_working(&self) -> bool {
        match self.standing {
            Standing::Unchecked | Standing::Up | Standing::Starting => true,
            Standing::Unknown => self.had_work,
            Standing::Down | Standing::Held | Standing::Draining | Standing::Drained => false,
        }
    }

    /// Whether this weight is 0 because it failed, and not by the operator's or its own wish.
    pub(crate) fn has_failed(&self, weight: Option<u32>) -> bool {
        weight == Some(0)
            && match self.standing {
                Standing::Down | Standing::Held => true,
                Standing::Unknown | Standing::Draining | Standing::Drained => match self.examined {
                    Verdict::Failing => true,
                    // As a former daemon left it.
                    Verdict::Unknown => self.given_failed,
                    Verdict::Passing => false,
                },
                Standing::Unchecked | Standing::Up | Standing::Starting => false,
            }
    }

    /// Looks at everything known and takes a new standing, which is returned with the former one if it differs.
    /// `others_work`: whether another real server of the service has work, so that this one may start slowly.
    pub(crate) fn judge(
        &mut self,
        probes: &Probes,
        spec: &HealthSpec,
        others_work: bool,
        now_ms: u64,
    ) -> Option<(Standing, Standing)> {
        self.forgive(probes, now_ms);
        let (examined, reason) = self.examine(probes);
        self.examined = examined;
        let (to, reason) = self.consider(examined, reason, spec, others_work, now_ms);
        self.reason = reason;
        if to == self.standing {
            return None;
        }
        let from = std::mem::replace(&mut self.standing, to);
        self.since_ms = now_ms;
        if to == Standing::Down && (from != Standing::Unknown || self.had_work) {
            self.count_fall(spec, now_ms);
        }
        Some((from, to))
    }

    /// What the packet path saw is forgotten when the checks have all passed often enough since.
    fn forgive(&mut self, probes: &Probes, now_ms: u64) {
        let Some(failure) = &self.passive else { return };
        let is_over = if self.probes.is_empty() {
            now_ms.saturating_sub(failure.at_ms) >= PASSIVE_FORGIVEN_MS
        } else {
            let mut histories = self.probes.iter().filter_map(|id| probes.get(*id)).map(|it| &it.history);
            // Passes in a row that began before do not count; the server must answer anew.
            histories.all(|it| it.passes_since(failure.at_ms) >= it.rise() as usize)
        };
        if is_over {
            self.passive = None;
        }
    }

    /// What checks and packet path say.
    fn examine(&self, probes: &Probes) -> (Verdict, String) {
        if let Some(failure) = &self.passive {
            return (Verdict::Failing, failure.reason.clone());
        }
        let known: Vec<_> = self.probes.iter().filter_map(|id| probes.get(*id)).collect();
        let named = |probe: &Probing| {
            let Probe { kind, address, port, .. } = &probe.probe;
            format!("{} check of {}", kind.name(), std::net::SocketAddr::new(*address, *port))
        };
        if let Some(failing) = known.iter().find(|it| it.history.verdict() == Verdict::Failing) {
            let history = &failing.history;
            let reason = if history.failures() > 0 {
                format!(
                    "{}: {}, {} times in a row",
                    named(failing),
                    history.last_failure(),
                    history.failures()
                )
            } else {
                format!(
                    "{} passes again, {} of the {} times in a row that are wanted",
                    named(failing),
                    history.passes(),
                    history.rise()
                )
            };
            return (Verdict::Failing, reason);
        }
        if let Some(unknown) = known.iter().find(|it| it.history.verdict() == Verdict::Unknown) {
            let reason = match unknown.history.last_failure() {
                "" => format!("{} has no result yet", named(unknown)),
                failure => format!("{} did not pass yet: {failure}", named(unknown)),
            };
            return (Verdict::Unknown, reason);
        }
        if let Some(shaky) = known.iter().find(|it| it.history.failures() > 0) {
            let history = &shaky.history;
            let (failures, failure) = (history.failures(), history.last_failure());
            return (
                Verdict::Passing,
                format!("passes, but {} failed {failures} times of late: {failure}", named(shaky)),
            );
        }
        let reason = match known.as_slice() {
            [one] => format!("{} passes", named(one)),
            many => format!("all {} checks pass", many.len()),
        };
        (Verdict::Passing, reason)
    }

    fn consider(
        &mut self,
        examined: Verdict,
        reason: String,
        spec: &HealthSpec,
        others_work: bool,
        now_ms: u64,
    ) -> (Standing, String) {
        if let Some(since) = self.drain_since_ms {
            let limit = u64::from(spec.drain_ms);
            if limit > 0 && (self.is_drained || now_ms.saturating_sub(since) >= limit) {
                let text = format!("drained by the operator, taken out after {} s", seconds(limit));
                return (Standing::Drained, text);
            }
            return (Standing::Draining, "drained by the operator: no new flows".to_owned());
        }
        match examined {
            Verdict::Failing => return (Standing::Down, reason),
            Verdict::Unknown => return (Standing::Unknown, reason),
            Verdict::Passing => {}
        }
        if self.held_until_ms.is_some_and(|until| now_ms < until) {
            let count = self.falls.len();
            return (
                Standing::Held,
                format!("{reason}, but it failed {count} times of late: kept out for a while"),
            );
        }
        self.held_until_ms = None;
        let unchecked = self.probes.is_empty();
        self.start(spec, others_work, now_ms);
        if self.started_ms.is_some() {
            return (
                Standing::Starting,
                format!("{reason}; its weight grows over {} s", seconds(spec.slow_start_ms.into())),
            );
        }
        if unchecked {
            return (Standing::Unchecked, "no check is declared".to_owned());
        }
        (Standing::Up, reason)
    }

    /// Begins or ends the slow start.
    fn start(&mut self, spec: &HealthSpec, others_work: bool, now_ms: u64) {
        let length = u64::from(spec.slow_start_ms);
        let came_back = match self.standing {
            Standing::Down | Standing::Held | Standing::Draining | Standing::Drained => true,
            Standing::Unknown => !self.had_work && !self.probes.is_empty(),
            Standing::Unchecked | Standing::Up | Standing::Starting => false,
        };
        if came_back && others_work && length > 0 {
            self.started_ms = Some(now_ms);
        }
        if self.started_ms.is_some_and(|start| now_ms.saturating_sub(start) >= length) {
            self.started_ms = None;
        }
    }

    fn count_fall(&mut self, spec: &HealthSpec, now_ms: u64) {
        self.started_ms = None;
        self.had_work = false;
        let Some(hold) = spec.hold_down else { return };
        let begin = now_ms.saturating_sub(hold.within_ms.into());
        self.falls.retain(|at| *at >= begin);
        if self.falls.len() >= FALLS_MAX {
            self.falls.pop_front();
        }
        self.falls.push_back(now_ms);
        if self.falls.len() >= usize::from(hold.failures) {
            self.held_until_ms = Some(now_ms + u64::from(hold.hold_ms));
        }
    }

    /// The part of its weight that a slow start gives it now, 1 when there is none.
    pub(crate) fn started_share(&self, spec: &HealthSpec, now_ms: u64) -> f64 {
        let Some(start) = self.started_ms else { return 1.0 };
        let length = f64::from(spec.slow_start_ms.max(1));
        #[expect(clippy::cast_precision_loss, reason = "at most an hour of milliseconds")]
        let passed = now_ms.saturating_sub(start) as f64;
        (passed / length).clamp(1.0 / STEPS, 1.0)
    }

    /// When its standing or weight changes by itself, if it does.
    pub(crate) fn next_ms(&self, spec: &HealthSpec, now_ms: u64) -> Option<u64> {
        let limit = u64::from(spec.drain_ms);
        let drained = self.drain_since_ms.filter(|_| limit > 0).map(|since| since + limit);
        let step = u64::from(spec.slow_start_ms) / STEPS_U64;
        let started = self.started_ms.map(|start| {
            let passed = now_ms.saturating_sub(start) / step.max(1);
            start + (passed + 1) * step.max(1)
        });
        let forgiven =
            self.passive.as_ref().filter(|_| self.probes.is_empty()).map(|it| it.at_ms + PASSIVE_FORGIVEN_MS);
        [drained, started, self.held_until_ms, forgiven].into_iter().flatten().filter(|at| *at > now_ms).min()
    }
}

/// A slow start gives the weight in so many steps.
const STEPS: f64 = 20.0;
const STEPS_U64: u64 = 20;

#[expect(clippy::cast_precision_loss, reason = "shown to a person")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
