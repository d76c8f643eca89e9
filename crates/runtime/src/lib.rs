//! What every program needs around its work: logs, error texts, clocks, randomness, signals, lock files, privileges,
//! the word to the service manager, and the control socket of the director.
//!
//! Deliberately absent: anything about packets, interfaces or the kernel programs (`host`, `kernel`).

pub mod chain;
pub mod clock;
pub mod control;
pub mod lock;
pub mod logging;
pub mod memory;
pub mod names;
pub mod notify;
pub mod privileges;
pub mod random;
pub mod signals;

pub use chain::{Chain, print_error, tell};
