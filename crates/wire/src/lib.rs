//! Header views and checksum arithmetic; knows no load balancer.
//!
//! Every access to a packet goes through [`Bytes`], which checks bounds and copies values out, so nothing
//! here can panic or read past the end, on any input. The eBPF programs implement it over packet pointers,
//! tests over a vector. Deliberately absent: options, sequence numbers, payloads - a layer-4 director does
//! not look at them.
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

mod bytes;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod sctp;
pub mod tcp;

pub use bytes::{Bytes, Short};
