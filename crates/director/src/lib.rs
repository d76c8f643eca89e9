//! The daemon on a director: keeps the packet path in the kernel in step with the model, the neighbours and the clock, and
//! serves the control socket.
//!
//! ```text
//! control API --Request--> Director <--events-- neighbours (host)
//!                             |  ^-- every second: sweep; every two: statistics
//!                             v
//!                plan: model -> tables -> changes -> kernel
//! ```
//!
//! One task owns everything that changes; the rest sends it messages. When the daemon ends, in whatever way, packets go on
//! being balanced by what is pinned in the kernel; the next one takes over.
//!
//! Deliberately absent: the decision about a packet (`forward`), the rules of the configuration (`plan`), texts of the
//! classic tool (`ipvsadm`).

mod actor;
mod announcing;
mod apply;
mod at_start;
mod capture;
mod clients;
mod connections;
mod convert;
mod events;
mod explain;
mod flows;
mod health;
mod history;
mod http;
mod install;
mod journal;
mod listen;
#[cfg(test)]
mod masquerade_tests;
mod messages;
mod metrics;
mod options;
mod passive;
#[cfg(test)]
mod persistence_tests;
mod probing;
mod received;
mod recount;
mod replies;
mod run;
mod secret;
mod service;
mod state;
mod statistics;
mod sweep;
#[cfg(test)]
mod sweep_cost;
mod sync;
mod tables;
mod templates;
mod trace;
mod trial;
mod view;
mod watched;

pub use actor::ActorError;
pub use listen::ListenError;
pub use options::{LimitOptions, Options};
pub use run::{Error, main, run};
pub use state::StateError;
pub use trace::Collector;
