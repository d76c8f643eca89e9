//! Network namespaces that end with the test that made them.
//!
//! Absent: addresses, routes and neighbours (crate `host`), attaching programs (crate `kernel`).
//! Links are made with `ip` from iproute2, which every Debian has. Namespaces are made without it: a process for
//! each would be most of what a short test costs in an emulated machine.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";
/// What these requests turn on and off (linux/ethtool.h): checksums and segments finished by the card.
const SET_TX_CHECKSUMS: u32 = 0x17;
const SET_TCP_SEGMENTATION: u32 = 0x1f;
const SET_SEGMENTATION: u32 = 0x24;
/// The request for settings of a link's driver (linux/sockios.h).
const SIOCETHTOOL: libc::c_ulong = 0x8946;

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
    /// The namespace could not be made.
    #[error("make the namespace {name}")]
    Make {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A link did not take a setting.
    #[error("set {link} in the namespace {name}")]
    Link {
        /// The link.
        link: String,
        /// The namespace.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
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
    /// When the kernel refuses, usually for lack of privilege.
    pub fn new(label: &str) -> Result<Self, NetNsError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slt-{}-{number}-{label}", std::process::id());
        let made = std::thread::scope(|scope| scope.spawn(|| make(&place(&name))).join());
        let made = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let netns = Self { name };
        made.map_err(|source| NetNsError::Make { name: netns.name.clone(), source })?;
        netns.set_up("lo")?;
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

    /// Brings a link up.
    ///
    /// # Errors
    /// No such link.
    pub fn set_up(&self, link: &str) -> Result<(), NetNsError> {
        let result = self.run(|| set_up(link))?;
        result.map_err(|source| NetNsError::Link { link: link.to_owned(), name: self.name.clone(), source })
    }

    /// Makes a link finish the checksums of what it sends.
    ///
    /// # Errors
    /// No such link, or one that cannot.
    pub fn finish_checksums(&self, link: &str) -> Result<(), NetNsError> {
        let result = self.run(|| ethtool(link, SET_TX_CHECKSUMS))?;
        result.map_err(|source| NetNsError::Link { link: link.to_owned(), name: self.name.clone(), source })
    }

    /// Makes a veth pair, both ends up: `here` in this namespace, `there` in `other`.
    /// Checksum and segmentation offload is off, so that frames carry finished checksums.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn veth(&self, here: &str, other: &NetNs, there: &str) -> Result<(), NetNsError> {
        self.ip(&format!("link add name {here} type veth peer name {there} netns {}", other.name))?;
        for (netns, link) in [(self, here), (other, there)] {
            netns.finish_checksums(link)?;
            // Segmentation goes with the checksums; a link may refuse what is off already.
            for setting in [SET_TCP_SEGMENTATION, SET_SEGMENTATION] {
                let _ = netns.run(|| ethtool(link, setting))?;
            }
            netns.set_up(link)?;
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
        let file = File::open(place(&self.name)).map_err(enter)?;
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
        remove(&place(&self.name));
    }
}

/// The file that keeps a namespace of this name, as `ip netns` does it.
fn place(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Moves the calling thread to a new namespace, kept by a file.
fn make(place: &Path) -> io::Result<()> {
    std::fs::create_dir_all(NAMES)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    File::create_new(place)?;
    let own = Path::new("/proc/thread-self/ns/net");
    Ok(mount(Some(own), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Lets go of a namespace. One that stays is removed by the next run of any test, by its dead process id.
fn remove(place: &Path) {
    // It may belong to a process that kept its mounts to itself: then there is only the file.
    let _ = umount2(place, MntFlags::MNT_DETACH);
    let _ = std::fs::remove_file(place);
}

/// A request about a link, by its name.
fn request(link: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain bytes, integers and pointers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(link.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Brings a link of the calling thread's namespace up.
fn set_up(link: &str) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = request(link);
    // SAFETY: the request is a live ifreq, which is what this call reads and writes.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    nix::errno::Errno::result(got)?;
    // SAFETY: the call before has filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: as above.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    nix::errno::Errno::result(set)?;
    Ok(())
}

/// Turns a feature of a link of the calling thread's namespace off.
fn ethtool(link: &str, setting: u32) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // As the kernel's struct ethtool_value: what, and the value.
    let mut value: [u32; 2] = [setting, 0];
    let mut request = request(link);
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request is a live ifreq, and its data points to a live value of the size these settings have.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    nix::errno::Errno::result(set)?;
    Ok(())
}

/// Removes namespaces of test processes that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("slt-").and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{owner}")).exists() {
            remove(&entry.path());
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
