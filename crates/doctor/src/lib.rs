//! The classic mistakes of a Linux Virtual Server, and what to do about each.
//!
//! ```text
//! Facts (what was seen) -> diagnose -> Finding (what is wrong, where, how it is put right)
//! ```
//!
//! A finding is certain as far as the facts are: what could only be guessed is none.
//!
//! Deliberately absent: how facts are gathered (`cli`, by `host` and `probe`).
#![forbid(unsafe_code)]

mod diagnose;
mod examination;
mod facts;
mod finding;

pub use diagnose::diagnose;
pub use examination::Examination;
pub use facts::{
    Answerer, Attached, Facts, Filling, ForwardedPath, Missed, PathResult, Secret, Server, ServiceState, Vip,
    WayBack,
};
pub use finding::{Finding, Severity};
