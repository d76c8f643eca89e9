//! The packet path in the kernel, seen from user space: loading, pinning, attaching, reading and filling tables, and
//! running the programs on test packets.
//!
//! [`Datapath`] is the door: [`Datapath::load`] for tests, [`Datapath::open_pinned`] for the daemon. [`Tables`] are the maps
//! with the types of `abi`.
//!
//! Deliberately absent: what belongs in the tables (`plan`), neighbours and routes (`host`), who may
//! run (`director` holds the lock), and raising RLIMIT_MEMLOCK (kernels since 5.11 account maps to the
//! memory cgroup, and older ones than 6.1 are refused).

mod attach;
mod capture;
mod datapath;
mod loads;
mod map;
mod object;
mod pins;
mod program;
mod require;
mod sys;
mod table;
mod tables;
mod trie;

pub use attach::{AttachError, Holder, Mode, attach_pass, holder_of, interface_names, pass_program};
pub use capture::{Capture, CaptureReader};
pub use datapath::{Attachment, Datapath, OpenError};
pub use loads::Loads;
pub use map::TableError;
pub use object::{ENTRY, LoadError, object};
pub use pins::{PinError, detach_all};
pub use program::{Program, ProgramError, ProgramInfo, TestRun};
pub use require::{KERNEL_MIN, RequirementError, check as check_requirements};
pub use table::{Array, Cursor, HashTable, PerCpuArray, Put};
pub use tables::Tables;
pub use trie::Trie;
