//! Synchronisation daemons: what `--start-daemon` asks for and `-L --daemon` shows.

use std::net::IpAddr;

/// Which of the two daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonRole {
    /// Sends flows to a backup.
    Master,
    /// Receives flows from a master.
    Backup,
}

impl DaemonRole {
    /// The word on the command line and in the listing.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

/// A synchronisation daemon, wished for or running. A 0 means the director chooses, or does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Which.
    pub role: DaemonRole,
    /// Interface name, at most 15 bytes.
    pub interface: String,
    /// Synchronisation group, 0 to 255.
    pub syncid: u8,
    /// Longest message, in bytes, at most 65507.
    pub maxlen: u16,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Time to live of the messages.
    pub ttl: u8,
}

/// Why a daemon was not started or stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonRefusal {
    /// It runs already.
    AlreadyRuns,
    /// It does not run.
    NotRunning,
    /// There is no such interface.
    NoSuchInterface,
    /// Another reason, as a sentence.
    Other(String),
}

impl DaemonRefusal {
    /// The classic text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::AlreadyRuns => "Daemon has already run",
            Self::NotRunning => "No daemon is running",
            Self::NoSuchInterface => "No such device",
            Self::Other(text) => text,
        }
    }
}

/// The answer to `-L --daemon`, one line a daemon.
#[must_use]
pub fn daemons_text(daemons: &[Daemon]) -> String {
    daemons.iter().map(line).collect()
}

fn line(daemon: &Daemon) -> String {
    let mut text =
        format!("{} sync daemon (mcast={}, syncid={}", daemon.role.name(), daemon.interface, daemon.syncid);
    if daemon.maxlen != 0 {
        text += &format!(", maxlen={}", daemon.maxlen);
    }
    if let Some(group) = daemon.group {
        text += &format!(", group={group}");
    }
    if daemon.port != 0 {
        text += &format!(", port={}", daemon.port);
    }
    if daemon.ttl != 0 {
        text += &format!(", ttl={}", daemon.ttl);
    }
    text + ")\n"
}
