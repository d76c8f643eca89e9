//! Request and response types shared by the director, the agent, the station and the command line.
//!
//! The control protocol is HTTP with JSON bodies on a Unix socket. Deliberately absent here: sockets,
//! validation of a whole configuration (`plan`) and the classic texts (`ipvsadm`).
//!
//! | method and path | request | response |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/services` | | [`Services`] |
//! | `POST /v1/changes` | [`Changes`] | [`Outcomes`] |
//! | `GET /v1/connections?cursor=N` | | [`Connections`] |
//! | `POST /v1/flows` | [`FlowRequest`] | [`FlowPage`] |
//! | `GET /v1/verdicts` | | [`Verdicts`] |
//! | `GET /v1/marks` | | [`Marks`] |
//! | `GET /v1/policies` | | [`Policies`] |
//! | `GET /v1/settings` | | [`SettingsView`] |
//! | `POST /v1/plan` | [`ApplyRequest`] | [`Plan`] |
//! | `POST /v1/apply` | [`ApplyRequest`] | [`Applied`] |
//! | `POST /v1/rollback` | [`RollbackRequest`] | [`Applied`] |
//! | `POST /v1/confirm` | | [`History`] |
//! | `GET /v1/history` | | [`History`] |
//! | `GET /v1/declared` | | [`Changes`], which make the declared configuration out of an empty one |
//! | `GET /v1/health` | | [`HealthView`] |
//! | `GET /v1/metrics` | | the text of Prometheus' format, as a JSON string |
//! | `GET /v1/events?after=N` | | [`Events`] |
//! | `POST /v1/capture` | [`CaptureRequest`] | a file in the pcapng format, written while packets come |
//! | `POST /v1/capture/end` | | whether one ran: true or false |
//! | `GET /v1/sync` | | [`SyncDaemons`] |
//! | `POST /v1/sync/start` | [`SyncDaemon`] | `null` |
//! | `POST /v1/sync/stop` | [`SyncStop`] | `null` |
//! | `POST /v1/explain` | [`ExplainRequest`] | [`Explanation`] |
#![forbid(unsafe_code)]

mod admission;
mod apply;
mod capture;
mod change;
mod check;
mod flow;
mod health;
mod mark;
mod names;
mod policy;
mod read_change;
mod refusal;
mod service;
mod setting;
mod sync;
mod view;

pub use admission::Admission;
pub use apply::{
    Applied, AppliedFile, ApplyRequest, CONFIRM_S, History, HistoryEntry, Pending, Plan, PlanAction,
    PlanLine, RollbackRequest, Saved,
};
pub use capture::{CaptureRequest, SNAPLEN_MAX};
pub use change::{Change, Changes, Outcomes, Timeouts};
pub use check::{Check, CheckKind, Exchange, Expect, Http, Octets, Rhythm, Tls, Transport};
pub use flow::{
    ClientFilter, EndpointFilter, FLOW_STATES, FlowCount, FlowFilter, FlowGroup, FlowPage, FlowRequest,
    FlowShow, FlowTable, FlowView,
};
pub use health::{
    Event, EventKind, Events, Fallback, HealthSpec, HealthView, HoldDown, OnFailure, Passive, RealHealth,
    RealHealthView, ServiceHealth, Standing,
};
pub use mark::{Mark, MarkMatch, Marks, Ports};
pub use names::{Family, Protocol, Scheduler};
pub use policy::{Gone, Placement, Policies, Policy, PolicyChoices, ServicePolicy};
pub use refusal::{Refusal, RefusalKind};
pub use service::{
    Forwarding, Persistence, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Tunnel, TunnelChecksum,
};
pub use setting::{MEANINGLESS, SETTINGS, Setting, SettingView, SettingsView};
pub use sync::{SyncCounts, SyncDaemon, SyncDaemons, SyncRole, SyncStop, SyncView};
pub use view::{
    ConfiguredStatus, Connection, Connections, Counters, ExplainRequest, Explanation, HealthStatus,
    InterfaceStatus, RealView, ServiceView, Services, Status, TrafficStatus, VerdictCount, Verdicts,
};

/// Where the director listens unless told otherwise.
pub const DEFAULT_SOCKET_PATH: &str = "/run/sluice/director.sock";
