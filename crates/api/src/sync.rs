//! The daemons of connection synchronisation.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncRole {
    /// Announces flows.
    Master,
    /// Takes over what is announced.
    Backup,
}

/// A daemon as it is asked for. What is left open the director chooses, as IPVS does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemon {
    /// Which.
    pub role: SyncRole,
    /// The interface that messages go by.
    pub interface: String,
    /// Group of directors, 0 to 255. A backup with 0 takes all.
    #[serde(default)]
    pub syncid: u8,
    /// Longest message in bytes, up to 65,507. A master: 1,472 (1,452 over IPv6); a backup: what the interface carries.
    #[serde(default)]
    pub maxlen: Option<u16>,
    /// Multicast group: 224.0.0.81.
    #[serde(default)]
    pub group: Option<IpAddr>,
    /// UDP port: 8848.
    #[serde(default)]
    pub port: Option<u16>,
    /// How many hops messages go: 1.
    #[serde(default)]
    pub ttl: Option<u8>,
}

/// Ask for a daemon to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStop {
    /// Which.
    pub role: SyncRole,
}

/// What a daemon has done since it was started, or the director was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCounts {
    /// Messages sent, or received.
    pub messages: u64,
    /// Flows and templates in them.
    pub records: u64,
    /// Messages that could not be sent, or were refused when they came: no message, or of another group.
    pub refused: u64,
    /// Records that were not taken over: not understood, or of a service or real server that is not there.
    pub unknown: u64,
}

/// A daemon that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncView {
    /// What was asked for, with all choices made.
    pub daemon: SyncDaemon,
    /// Whether it runs; else its interface is waited for.
    pub running: bool,
    /// What it has done.
    pub counts: SyncCounts,
}

/// Every daemon, the master first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemons {
    /// They.
    pub daemons: Vec<SyncView>,
}
