//! What happened while scripts were played, as it is written to a file.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Everything that happened on one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `ipvs` or `sluice`.
    pub target: String,
    /// Release of the kernel it ran on.
    pub kernel: String,
    /// In the order of the scripts.
    pub scripts: Vec<Played>,
}

/// One script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// Name of the script.
    pub name: String,
    /// Why Sluice differs on purpose in the steps marked with `~`.
    pub better: Option<String>,
    /// Why it could not be played to its end.
    pub failure: Option<String>,
    /// One for each step that was played.
    pub steps: Vec<Outcome>,
}

/// What one step led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The step, as written.
    pub line: String,
    /// What came of it.
    pub seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Of a command.
    Command {
        /// Exit code; -1 when a signal ended it.
        code: i32,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
        /// Seconds since the last packet of each flow, by protocol, client and virtual address; only with
        /// listings of connections.
        ages_s: BTreeMap<String, f64>,
        /// Where it is not known whether the last packets restarted the flow's timer: seconds for which it has
        /// run at most.
        #[serde(default)]
        ages_most_s: BTreeMap<String, f64>,
    },
    /// Of each packet, in the order sent: where it went, and what of it changed on the way.
    Packets(Vec<String>),
    /// Of a wait.
    Nothing,
}

impl fmt::Display for Played {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.name)?;
        for outcome in &self.steps {
            writeln!(out, "  {}", outcome.line.replace('\n', "\n  "))?;
            write!(out, "{}", outcome.seen)?;
        }
        if let Some(failure) = &self.failure {
            writeln!(out, "  could not go on: {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Packets(texts) => texts.iter().try_for_each(|text| writeln!(out, "    * {text}")),
            Self::Command { code, stdout, stderr, .. } => {
                if *code != 0 {
                    writeln!(out, "    exit code {code}")?;
                }
                let lines = stderr.lines().chain(stdout.lines());
                lines.into_iter().try_for_each(|line| writeln!(out, "    |{line}|"))
            }
        }
    }
}
