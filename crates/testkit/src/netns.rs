//! Network namespaces that end with the test that made them.
//!
//! Absent: addresses, routes and neighbours (crate `host`), attaching programs (crate `kernel`).
//! Links are made with `ip` from iproute2, which every Debian has.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// Why a namespace or a link could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// `ip` could not be started.
    #[error("start `ip {arguments}`")]
    Start {
        /// What it was asked.
        arguments: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `ip` refused.
    #[error("`ip {arguments}` failed: {said}")]
    Refused {
        /// What it was asked.
        arguments: String,
        /// What it printed.
        said: String,
    },
    /// The namespace could not be opened or entered.
    #[error("enter the namespace {name}")]
    Enter {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A network namespace, removed with everything in it on drop.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes a namespace called `slt-<pid>-<n>-<label>` with its loopback up and IPv6 chatter
    /// (router solicitations, duplicate address detection) off for links made later.
    ///
    /// # Errors
    /// When `ip` is missing or refuses, usually for lack of privilege.
    pub fn new(label: &str) -> Result<Self, NetNsError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slt-{}-{number}-{label}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let netns = Self { name };
        netns.ip("link set lo up")?;
        netns.run(|| {
            // A kernel without IPv6 has no such file, and no chatter either.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/router_solicitations", "0");
        })?;
        Ok(netns)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these arguments, separated by blanks, inside the namespace.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn ip(&self, arguments: &str) -> Result<(), NetNsError> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Makes a veth pair, both ends up: `here` in this namespace, `there` in `other`.
    /// Checksum and segmentation offload is off, so that frames carry finished checksums.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn veth(&self, here: &str, other: &NetNs, there: &str) -> Result<(), NetNsError> {
        self.ip(&format!("link add name {here} type veth peer name {there} netns {}", other.name))?;
        for (netns, link) in [(self, here), (other, there)] {
            // ethtool may be missing; raw frames, as tests send them, need no offload turned off.
            let _ = Command::new("ip")
                .args(["netns", "exec", &netns.name, "ethtool", "-K", link])
                .args(["tx", "off", "tso", "off", "gso", "off"])
                .output();
            netns.ip(&format!("link set dev {link} up"))?;
        }
        Ok(())
    }

    /// Runs a closure inside the namespace, on a thread of its own; the caller stays where it is.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When the closure does, with the closure's message.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        let enter = |source: io::Error| NetNsError::Enter { name: self.name.clone(), source };
        let file = File::open(format!("{NAMES}/{}", self.name)).map_err(enter)?;
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                Ok(closure())
            });
            match worker.join() {
                Ok(result) => result.map_err(enter),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Nobody is left to tell; the next run of any test removes it by its dead process id.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// Removes namespaces of test processes that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("slt-").and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{owner}")).exists() {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), NetNsError> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .map_err(|source| NetNsError::Start { arguments: arguments.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetNsError::Refused { arguments: arguments.to_owned(), said })
}
