//! Requests that change the model, and what became of them.

use crate::admission::Admission;
use crate::health::{HealthSpec, RealHealth};
use crate::mark::MarkMatch;
use crate::policy::PolicyChoices;
use crate::refusal::Refusal;
use crate::service::{RealId, RealSpec, ServiceId, ServiceSpec};
use serde::{Deserialize, Serialize};

/// One change. An edit replaces the whole record, as the classic tool does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Add a virtual service.
    AddService {
        /// Which.
        service: ServiceId,
        /// What.
        spec: ServiceSpec,
    },
    /// Replace a service's options.
    EditService {
        /// Which.
        service: ServiceId,
        /// What.
        spec: ServiceSpec,
    },
    /// Delete a service with its real servers.
    DeleteService {
        /// Which.
        service: ServiceId,
    },
    /// Delete everything.
    Flush,
    /// Add a real server.
    AddReal {
        /// To which service.
        service: ServiceId,
        /// Which.
        real: RealId,
        /// What.
        spec: RealSpec,
    },
    /// Replace a real server's options.
    EditReal {
        /// Of which service.
        service: ServiceId,
        /// Which.
        real: RealId,
        /// What.
        spec: RealSpec,
    },
    /// Delete a real server; its flows are dropped unless it is added again.
    DeleteReal {
        /// Of which service.
        service: ServiceId,
        /// Which.
        real: RealId,
    },
    /// Zero the counters of one service and its real servers, or of all.
    Zero {
        /// Which, or all.
        service: Option<ServiceId>,
    },
    /// Choose what a service does beyond the classic options, or what all do for which nothing was chosen.
    SetPolicy {
        /// Which; `None` is the default of all.
        service: Option<ServiceId>,
        /// Forget earlier choices first.
        forget: bool,
        /// The choices; what is left open stays as it was.
        choices: PolicyChoices,
    },
    /// Set one of the settings that IPVS has as sysctls.
    SetSetting {
        /// Its name.
        name: String,
        /// Its new value.
        value: u32,
    },
    /// Give packets a firewall mark.
    AddMark {
        /// Which packets.
        #[serde(rename = "match")]
        matched: MarkMatch,
        /// The mark, 1 to 4294967295.
        mark: u32,
    },
    /// Take the mark of a match away.
    DeleteMark {
        /// Exactly as it was added.
        #[serde(rename = "match")]
        matched: MarkMatch,
    },
    /// How the health of a service's real servers is watched; the default: not at all.
    SetHealth {
        /// Which.
        service: ServiceId,
        /// How.
        health: HealthSpec,
    },
    /// What differs for one real server.
    SetRealHealth {
        /// Of which service.
        service: ServiceId,
        /// Which.
        real: RealId,
        /// What.
        health: RealHealth,
    },
    /// Who may open connections to a service, and how many; the default: everybody, any number.
    SetAdmission {
        /// Which.
        service: ServiceId,
        /// Who.
        admission: Admission,
    },
    /// Whether a real server is to get no new work, or again.
    SetDrain {
        /// Of which service.
        service: ServiceId,
        /// Which.
        real: RealId,
        /// No new work.
        drain: bool,
    },
    /// Set the three classic timeouts; a 0 keeps the present value.
    SetTimeouts {
        /// The new values.
        timeouts: Timeouts,
    },
}

/// The three timeouts of `ipvsadm --set`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP established, default 900.
    pub tcp_s: u32,
    /// TCP after a FIN, default 120.
    pub tcp_fin_s: u32,
    /// UDP, default 300.
    pub udp_s: u32,
}

/// A list of changes, tried in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Refuse all if one is refused. Otherwise refused ones are left out and the others stand.
    pub atomic: bool,
    /// What to do.
    pub changes: Vec<Change>,
}

/// What became of each change, in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Number of the configuration after the changes.
    pub generation: u64,
    /// One for each change; `None` means done.
    pub refusals: Vec<Option<Refusal>>,
}
