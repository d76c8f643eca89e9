//! What the tests of Sluice share: packets as text, case files, network namespaces, test doubles.
//!
//! Absent on purpose: anything a program needs. No crate but tests depends on this one.

pub mod case;
pub mod frames;
pub mod memory;
pub mod netns;
pub mod packet;
pub mod scenario;
pub mod skip;
pub mod strict;
pub mod syns;
pub mod vm;

pub use case::Case;
pub use frames::Frames;
pub use memory::MemoryTables;
pub use netns::{NetNs, NetNsError};
pub use packet::{Packet, difference, packet};
pub use skip::{need_bpf, need_root, need_tool};
pub use strict::StrictBytes;
pub use syns::Syns;
