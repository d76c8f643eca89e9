//! Neighbours resolved ahead of the packets: for each watched address, the interface and both Ethernet
//! addresses a packet to it must carry, how long it may be and where it says it comes from; or that the address
//! is this machine's own.
//!
//! [`machine`] decides, on events and a clock it is given; [`service`] carries its actions out through
//! netlink. The packet path of the director bypasses the kernel's neighbour code, so the kernel would see its
//! entries unused and let them go stale: the machine has them confirmed again and again.

pub mod machine;
pub mod service;

pub use machine::{Hop, NeighbourEvent, Resolved};
pub use service::{Neighbours, NeighboursError};
