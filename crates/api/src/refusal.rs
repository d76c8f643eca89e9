//! Why the director refused something.

use serde::{Deserialize, Serialize};

/// A refused request: a stable kind for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable kind.
    pub kind: RefusalKind,
    /// What was wrong and what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind with this sentence.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The kinds of refusal. `ipvsadm` turns them into the texts of the classic tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A service with this identity exists (EEXIST on a service).
    ServiceExists,
    /// No service with this identity (ESRCH).
    NoSuchService,
    /// This real server exists in the service (EEXIST on a real server).
    RealExists,
    /// No such real server in the service (ENOENT on a real server).
    NoSuchReal,
    /// No scheduler or persistence engine of this name (ENOENT on a service).
    NoSuchScheduler,
    /// A value out of range, such as a lower threshold above the upper one (ERANGE).
    OutOfRange,
    /// A value that makes no sense, such as a multicast real server (EINVAL).
    Invalid,
    /// What is asked for is not in this release (EOPNOTSUPP).
    Unsupported,
    /// A configured limit is reached (ENOMEM).
    Limit,
    /// A daemon of this role runs (EEXIST on a daemon).
    DaemonRuns,
    /// No daemon of this role runs (ESRCH on a daemon).
    NoSuchDaemon,
    /// There is no interface of this name (ENODEV).
    NoSuchInterface,
    /// An earlier change of the same atomic list was refused.
    Aborted,
    /// The kernel refused; the director's log has the cause chain.
    Kernel,
}
