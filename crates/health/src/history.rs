//! The results of one probe and the verdict they add up to.

use crate::probes::Outcome;
use api::Rhythm;
use std::collections::VecDeque;

/// What the results add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None yet, or only failures within the time of grace.
    Unknown,
    /// It passes.
    Passing,
    /// It fails.
    Failing,
}

/// How much of a newly reported share is taken over; the rest stays as it was, so that weights do not swing.
const DAMPING: f64 = 0.25;

/// The results of one probe.
#[derive(Clone, Debug)]
pub(crate) struct History {
    rhythm: Rhythm,
    since_ms: u64,
    verdict: Verdict,
    /// Equal results in a row.
    passes: u32,
    failures: u32,
    /// When the last passes ended, as many as count.
    passed_ms: VecDeque<u64>,
    last_failure: String,
    latency_ms: Option<f64>,
    share: Option<f64>,
}

impl History {
    pub(crate) fn new(rhythm: Rhythm, now_ms: u64) -> Self {
        Self {
            rhythm,
            since_ms: now_ms,
            verdict: Verdict::Unknown,
            passes: 0,
            failures: 0,
            passed_ms: VecDeque::new(),
            last_failure: String::new(),
            latency_ms: None,
            share: None,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Failures in a row, of late.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Passes in a row, of late.
    pub(crate) fn passes(&self) -> u32 {
        self.passes
    }

    /// Passes in a row after a moment, counted up to [`Self::rise`].
    pub(crate) fn passes_since(&self, moment_ms: u64) -> usize {
        self.passed_ms.iter().filter(|at| **at > moment_ms).count()
    }

    /// How many passes in a row make it good.
    pub(crate) fn rise(&self) -> u32 {
        self.rhythm.rise.into()
    }

    /// Why it failed last.
    pub(crate) fn last_failure(&self) -> &str {
        &self.last_failure
    }

    /// Milliseconds the last pass took.
    pub(crate) fn latency_ms(&self) -> Option<f64> {
        self.latency_ms
    }

    /// The share of its weight that the server asks for, 1 being all.
    pub(crate) fn share(&self) -> Option<f64> {
        self.share
    }

    /// Takes a result.
    pub(crate) fn record(&mut self, outcome: Outcome, now_ms: u64) {
        match outcome {
            Outcome::Passed { latency_ms, share } => {
                self.passes = self.passes.saturating_add(1);
                self.failures = 0;
                if self.passed_ms.len() >= usize::from(self.rhythm.rise) {
                    self.passed_ms.pop_front();
                }
                self.passed_ms.push_back(now_ms);
                self.latency_ms = Some(latency_ms);
                self.take_share(share);
                // Who was never seen is believed at once; who failed must prove itself.
                if self.verdict == Verdict::Unknown || self.passes >= self.rise() {
                    self.verdict = Verdict::Passing;
                }
            }
            Outcome::Failed { reason } => {
                let is_graced = self.verdict == Verdict::Unknown
                    && now_ms.saturating_sub(self.since_ms) < u64::from(self.rhythm.grace_ms);
                self.passes = 0;
                self.passed_ms.clear();
                self.last_failure = reason;
                self.latency_ms = None;
                if is_graced {
                    return;
                }
                self.failures = self.failures.saturating_add(1);
                if self.failures >= u32::from(self.rhythm.fall) {
                    self.verdict = Verdict::Failing;
                }
            }
        }
    }

    fn take_share(&mut self, share: Option<u16>) {
        let Some(share) = share else { return };
        let wanted = f64::from(share.min(1000)) / 100.0;
        self.share = Some(self.share.map_or(wanted, |before| before + (wanted - before) * DAMPING));
    }
}
