//! What is done with the verdicts of checks, and what is known of each real server.

use crate::check::Check;
use crate::service::{RealId, RealSpec, ServiceId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How the health of a service's real servers is watched, and what follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// What every real server must pass; none: all count as up.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// What becomes of one that failed.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// When fewer than so many hundredths of the declared weight are up, the checks are taken to be wrong and the failed
    /// real servers get work too, 0 (never) to 100.
    #[serde(default)]
    pub panic_percent: u8,
    /// Gets the work when no other real server may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Keeps a real server out that comes and goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_down: Option<HoldDown>,
    /// A real server that came back gets its weight by and by over so many milliseconds, 0 to 3,600,000.
    #[serde(default)]
    pub slow_start_ms: u32,
    /// A real server that is drained is taken out after so many milliseconds at most, with the flows it still has; 0: it
    /// stays, without new work, until the last flow has ended.
    #[serde(default)]
    pub drain_ms: u32,
    /// Weights follow the load that checks of kind `load` or `program` report.
    #[serde(default)]
    pub adaptive: bool,
    /// What the packet path sees counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<Passive>,
}

/// What becomes of a real server that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Weight 0: no new work; flows go on, should it still serve them.
    Quiesce,
    /// Taken out: its flows are dealt with as the service's policy says.
    #[default]
    Remove,
}

/// A real server that gets work only when no other may: a "sorry server".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Which.
    pub real: RealId,
    /// How it is reached.
    pub spec: RealSpec,
}

/// Keeps a real server out that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDown {
    /// So many failures, 2 to 100,
    pub failures: u16,
    /// within so many milliseconds
    pub within_ms: u32,
    /// keep it out for so many milliseconds from the last one.
    pub hold_ms: u32,
}

/// What the packet path sees of a real server. It is failed at once when, in one interval of two seconds, it had at least
/// so many new flows and so many hundredths of them did not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passive {
    /// New flows looked at, 1 to 1,000,000.
    pub flows_min: u32,
    /// Hundredths that are too many, 1 to 100.
    pub failed_percent: u8,
}

/// What differs for one real server of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealHealth {
    /// Its own checks, in place of the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<Check>>,
    /// The operator wants it to get no new work.
    #[serde(default)]
    pub drain: bool,
}

/// What is thought of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing examines it.
    Unchecked,
    /// It was not examined yet.
    Unknown,
    /// It passes.
    Up,
    /// It came back and gets its weight by and by.
    Starting,
    /// It failed.
    Down,
    /// It passes, but came and went too often.
    Held,
    /// The operator wants no new work for it.
    Draining,
    /// Drained, and taken out.
    Drained,
}

impl Standing {
    /// The word that names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Down => "down",
            Self::Held => "held",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// The health of everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthView {
    /// The services whose health is watched, in the order they were added.
    pub services: Vec<ServiceHealth>,
}

/// The health of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// Which.
    pub service: ServiceId,
    /// Whether so many real servers failed that the checks are not believed.
    pub panic: bool,
    /// Whether the fallback has the work.
    pub fallback: bool,
    /// Its real servers, newest first.
    pub reals: Vec<RealHealthView>,
}

/// The health of a real server of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealHealthView {
    /// Which.
    pub real: RealId,
    /// What is thought of it.
    pub standing: Standing,
    /// Why, as one sentence.
    pub reason: String,
    /// The declared weight.
    pub declared_weight: u32,
    /// The weight it has; `None`: it is taken out.
    pub weight: Option<u32>,
    /// Milliseconds since the standing changed.
    pub since_ms: u64,
    /// Milliseconds the last check took, if it passed.
    pub latency_ms: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number, counting from 1 at the start of the director.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// What.
    pub what: EventKind,
    /// The cause, as one sentence.
    pub cause: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The standing of a real server changed.
    Standing {
        /// Of which service.
        service: ServiceId,
        /// Which.
        real: RealId,
        /// Before.
        from: Standing,
        /// Now.
        to: Standing,
    },
    /// A service's checks are not believed any more, or again.
    Panic {
        /// Which.
        service: ServiceId,
        /// Whether it began.
        on: bool,
    },
    /// The fallback gets a service's work, or no longer.
    Fallback {
        /// Which.
        service: ServiceId,
        /// Whether it began.
        on: bool,
    },
    /// A configuration was accepted.
    Generation {
        /// Its number.
        generation: u64,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = |on| if on { "begins" } else { "ends" };
        match self {
            Self::Standing { service, real, from, to } => {
                write!(f, "{service}: {real} {} -> {}", from.name(), to.name())
            }
            Self::Panic { service, on } => write!(f, "{service}: panic {}", begins(*on)),
            Self::Fallback { service, on } => write!(f, "{service}: fallback {}", begins(*on)),
            Self::Generation { generation } => write!(f, "generation {generation}"),
        }
    }
}

/// A page of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Events after the asked one that are no longer remembered.
    pub lost: u64,
}
