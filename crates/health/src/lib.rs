//! From results of checks to verdicts on real servers, and to the weights they get.
//!
//! ```text
//! declared services + results + now -> Machine -> orders (probe this now), weights, events
//! ```
//!
//! A value: no sockets, no clock. Time is milliseconds of any clock that only goes forward; whoever drives the machine makes
//! the probes it orders, tells it the outcomes, and gives the packet path the weights it asks for.
//!
//! The same examination of the same machine is made once, however many services want it.
//!
//! Deliberately absent: how a probe is made (`probe`), what a weight does (`forward`).
#![forbid(unsafe_code)]

mod history;
mod machine;
mod member;
mod probes;
mod service;
mod weight;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use machine::{Happening, Machine};
pub use probes::{Order, Outcome, Probe, ProbeId, Way};
pub use service::{Declared, DeclaredReal, Effect};
