//! The load balancer itself: packet + tables + now -> verdict, and the rewrite.
//!
//! One core, three runners: the eBPF programs implement [`wire::Bytes`] and [`Tables`] with packet pointers
//! and BPF maps; tests, fuzzers and `sluice explain` with vectors and ordered maps. Nothing here allocates,
//! reads a clock, panics or knows BPF.
//!
//! ```text
//! bytes -> read -> Work -> look up -> Service -> schedule -> Real -> deliver -> rewrite -> Verdict
//!          packet.rs       enter.rs, place.rs   schedule/   deliver.rs  rewrite.rs
//! ```
//!
//! [`decide`] is the whole path. The eBPF side runs it in the programs of [`abi::Program`], cut where [`Step`] says:
//! [`enter`] serves known flows, [`place`] and [`place_persistent`] choose for new ones, [`track`] tracks them,
//! [`admit`] asks who may, [`assure`] marks templates, [`call`] reads the Call-ID of SIP, [`answer`] sends ICMP errors, [`reset()`] TCP resets,
//! [`tunnel()`] encapsulates, [`masquerade()`] and [`source()`] translate packets for real servers, [`reply()`] those that
//! come back; [`fragment()`], [`sctp()`] and [`related()`] serve what is not a whole packet of TCP or UDP.
//!
//! Invariants: scheduling never sees bytes; rewriting never sees tables.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod admit;
pub mod answer;
pub mod bind;
mod decide;
mod deliver;
mod enter;
mod error;
mod fate;
pub mod find;
pub mod fragment;
pub mod hash;
mod link;
pub mod masquerade;
pub mod mtu;
mod packet;
pub mod persist;
mod place;
mod related;
pub mod reply;
mod reset;
pub mod rewrite;
pub mod schedule;
mod sctp;
pub mod sctp_state;
pub mod sip;
pub mod source;
pub mod tables;
pub mod tcp_state;
mod tunnel;
mod unwrap;

pub use admit::admit;
pub use answer::{Resize, answer};
pub use decide::{Onward, Outcome, Step, decide};
pub use enter::enter;
pub use error::error;
pub use fragment::fragment;
pub use masquerade::{masquerade, real_side};
pub use packet::{Work, is_tcp};
pub use persist::assure;
pub use place::{place, place_affine, place_persistent, track};
pub use related::related;
pub use reply::{reply, reply_piece};
pub use reset::reset;
pub use sctp::sctp;
pub use sip::call;
pub use source::source;
pub use tables::{Route, Tables};
pub use tunnel::tunnel;
pub use unwrap::unwrap;
