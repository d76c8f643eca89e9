//! What is wrong.

use crate::Examination;
use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients are not served, or will not be.
    Error,
    /// Something is slower or less safe than it should be, or works by luck.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong, and how it is put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What found it.
    pub examination: Examination,
    /// Where: a VIP, a real server, an interface, a file.
    pub place: String,
    /// What is wrong, as a sentence without its full stop.
    pub what: String,
    /// The command that puts it right, with the machine to type it on where that is another one.
    pub fix: String,
}
