//! Configurations as a whole: planned, applied, kept, taken back.

use crate::Changes;
use serde::{Deserialize, Serialize};

/// Seconds that a confirmation may be waited for.
pub const CONFIRM_S: std::ops::RangeInclusive<u32> = 10..=86_400;

/// A cluster file to be planned or applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// Its name, for messages and the history.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Take it back after so many seconds unless it is confirmed, as many as [`CONFIRM_S`] allows; and at once when traffic gets much worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_s: Option<u32>,
    /// Refuse if the present configuration has another number: what was planned is what is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_generation: Option<u64>,
}

/// A generation to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// Its number.
    pub generation: u64,
}

/// What would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of the present configuration.
    pub generation: u64,
    /// What changes, for people; nothing: all is as the file says.
    pub lines: Vec<PlanLine>,
    /// What breaks connections or may not be meant.
    pub warnings: Vec<String>,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// What happens.
    pub action: PlanAction,
    /// 0 for services and what concerns all of them, 1 for what belongs to the service above.
    pub level: u8,
    /// To what.
    pub text: String,
}

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// It is new.
    Add,
    /// It becomes different.
    Change,
    /// It goes.
    Remove,
}

impl PlanAction {
    /// The sign in front of the line.
    #[must_use]
    pub fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Change => '~',
            Self::Remove => '-',
        }
    }
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Number of the configuration now.
    pub generation: u64,
    /// What changed.
    pub plan: Plan,
    /// Seconds left to confirm it.
    pub confirm_s: Option<u64>,
}

/// What is declared, and the cluster file that was applied last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// What makes the present configuration out of an empty one.
    pub declared: Changes,
    /// The file; what is declared may have been changed by hand since.
    pub file: Option<AppliedFile>,
}

/// A cluster file that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedFile {
    /// Number of the configuration that it became.
    pub generation: u64,
    /// Where it came from.
    pub source: String,
    /// Its text.
    pub text: String,
}

/// The configurations that can be gone back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Number of the present configuration.
    pub generation: u64,
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
    /// What is to be confirmed.
    pub pending: Option<Pending>,
}

/// A configuration that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number.
    pub generation: u64,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// Where it came from.
    pub source: String,
    /// Virtual services it has.
    pub services: usize,
}

/// A configuration that is taken back unless it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub generation: u64,
    /// The one before.
    pub back_to: u64,
    /// When it is taken back, milliseconds since the epoch.
    pub deadline_ms: u64,
    /// A configuration that replaces it for good once it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<u64>,
}
