//! From what the operator declared to what the packet path reads.
//!
//! ```text
//! api::Change -> Model::apply -> Model -> compile -> Tables -> diff -> [TableChange] -> (kernel)
//!                                Model -> recompile ------------------------^
//! ```
//!
//! [`recompile`] comes to the same for the price of what a change touched.
//!
//! Everything here is a value: no clock, no I/O, no kernel. [`compile`] never sees the kernel, and whoever
//! applies the changes never sees the [`Model`]. What must survive from one compilation to the next (which
//! index and which slots belong to whom, where each ring stands) is the [`Layout`].
//!
//! Deliberately absent: counters and their zeroing, neighbour resolution, reading and writing of maps, and
//! the choice of a real server for a packet (`forward`).
#![forbid(unsafe_code)]

mod admission;
mod adopt;
mod before;
mod check;
mod compile;
mod counted;
mod describe;
mod diff;
mod difference;
mod health;
mod layout;
mod marks;
mod model;
mod options;
mod ordered;
mod reach;
mod recompile;
pub mod ring;
mod services;
mod setting;
mod spans;
mod supported;
mod tables;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;

pub use adopt::AdoptError;
pub use before::{Before, Touched};
pub use compile::{Compiled, Cursors, Neighbours, Resolved, compile, scheduler_of};
pub use describe::{Description, describe};
pub use diff::{TableChange, diff};
pub use difference::difference;
pub use health::health_check;
pub use layout::{Layout, LayoutFull, RealIdentity};
pub use model::{Model, RealEntry, ServiceEntry};
pub use options::{Options, TIMEOUT_S_MAX};
pub use recompile::{Recompiled, recompile};
pub use ring::mh::TableSize;
pub use tables::Tables;
