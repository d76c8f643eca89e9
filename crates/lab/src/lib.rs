//! A whole cluster on one machine, in network namespaces: a client, a director and real servers.
//!
//! ```text
//!       client .1      director .2      real1 .101   real2 .102  ...
//!          |              |  VIP .10       |  VIP on lo |
//!       ---+--------------+----------------+------------+---   bridge
//! ```
//!
//! Each of them, and the bridge (`switch`), has a namespace of its own, named `sl-RUN-NODE`; RUN is the
//! process id of the maker. IPv4 is 192.0.2.0/24 (VIP 192.0.2.10), IPv6 is 2001:db8::/64 (VIP 2001:db8::10).
//! Real servers are set up for direct routing and run a real nginx and a UDP echo. Everything is removed when
//! the [`Lab`] is dropped; what a killed run left behind is removed by the next one.
//!
//! Deliberately absent: the director itself. [`demo`] starts one; a test or benchmark starts what it wants in
//! the director's namespace.
#![forbid(unsafe_code)]
// They panic when nobody reads any more, as in `sluice demo --headless | head`. Tests may.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod address;
pub mod bench;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod download;
pub mod http;
pub mod inside;
pub mod load;
pub mod nginx;
pub mod process;
pub mod run;
pub mod udp;

pub use cluster::{Lab, LabError, LabOptions};
pub use download::{DownloadProgress, Downloads};
pub use load::{LoadHandle, LoadMode, LoadOptions, LoadStats};
