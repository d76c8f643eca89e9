//! Attaching to interfaces, and who else is there.

use crate::program::{ProgramInfo, read_info};
use crate::sys;
use bytemuck::{Pod, Zeroable};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `XDP_FLAGS_SKB_MODE`, `XDP_FLAGS_DRV_MODE` [uapi/linux/if_link.h].
const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel spends anything on the packet.
    Native,
    /// In the network stack: any interface, several times slower.
    Generic,
}

impl Mode {
    /// `native` or `generic`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The programs could not be attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("there is no interface '{name}'; there are: {}", existing.join(", "))]
    UnknownInterface {
        /// What was asked for.
        name: String,
        /// What there is.
        existing: Vec<String>,
    },
    /// Another XDP program is attached.
    #[error("interface {name} has another XDP program already{}", holder_text(holder.as_ref()))]
    Busy {
        /// Which interface.
        name: String,
        /// Whose program it is, when that can be found out.
        holder: Option<Holder>,
    },
    /// The kernel refused both modes.
    #[error("the kernel refused to attach to interface {name}, in native and in generic mode")]
    Refused {
        /// Which interface.
        name: String,
        /// What it said to generic mode.
        #[source]
        source: io::Error,
    },
    /// The pin of the link could not be made; the interface is not attached.
    #[error("cannot keep interface {name} attached")]
    Pin {
        /// Which interface.
        name: String,
        /// Why.
        #[source]
        source: crate::pins::PinError,
    },
}

fn holder_text(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(": {holder}"))
}

/// An XDP program that is attached, and the process that has it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Kernel id of the program.
    pub program_id: u32,
    /// Its name.
    pub program: String,
    /// Process id and command of a process that has it or its link open. `None` when it is only pinned.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {} (id {})", self.program, self.program_id)?;
        match &self.process {
            Some((pid, command)) => write!(f, " of process {pid} ({command})"),
            None => f.write_str(", pinned or attached by a process that has ended"),
        }
    }
}

/// Finds out whose program this is. `None` when the program is gone.
#[must_use]
pub fn holder_of(program_id: u32) -> Option<Holder> {
    let program = sys::program_by_id(program_id).ok()?;
    let ProgramInfo { name, .. } = read_info(program.as_fd()).ok()?;
    drop(program);
    Some(Holder { program_id, program: name, process: find_process(program_id) })
}

/// Looks for a process with an open descriptor of the program (or of a link with it).
fn find_process(program_id: u32) -> Option<(u32, String)> {
    let line = format!("prog_id:\t{program_id}");
    let own = std::process::id();
    // As many processes as there are, each looked at once.
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid != own && has_line(&process.path().join("fdinfo"), &line) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, command.trim().to_owned()));
        }
    }
    None
}

fn has_line(directory: &Path, line: &str) -> bool {
    // A process may end, or be none of our business, while it is looked at.
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        std::fs::read_to_string(entry.path()).is_ok_and(|text| text.lines().any(|found| found == line))
    })
}

/// Beginning of `struct bpf_link_info` of an XDP link.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    interface: u32,
    rest: [u32; 3],
}

/// Interface index and program id of a link; index 0 when the interface is gone.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let raw: RawLinkInfo = sys::info(link)?;
    Ok((raw.interface, raw.program_id))
}

/// Index of an interface in the network namespace of the calling thread.
pub(crate) fn interface_index(name: &str) -> Result<u32, AttachError> {
    if let Ok(index) = nix::net::if_::if_nametoindex(name) {
        return Ok(index);
    }
    let existing = interface_names().into_values().collect();
    Err(AttachError::UnknownInterface { name: name.to_owned(), existing })
}

/// Names of the interfaces in the network namespace of the calling thread, by index. Empty when the kernel does not say.
#[must_use]
pub fn interface_names() -> BTreeMap<u32, String> {
    let Ok(interfaces) = nix::net::if_::if_nameindex() else { return BTreeMap::new() };
    interfaces.iter().map(|it| (it.index(), it.name().to_string_lossy().into_owned())).collect()
}

/// Attaches, native first. The attachment lasts as long as the descriptor or a pin of it.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    name: &str,
    index: u32,
) -> Result<(OwnedFd, Mode), AttachError> {
    let native = match sys::link_create(program, index, FLAG_NATIVE) {
        Ok(link) => return Ok((link, Mode::Native)),
        Err(error) => error,
    };
    if is_busy(&native) {
        return Err(AttachError::Busy { name: name.to_owned(), holder: None });
    }
    match sys::link_create(program, index, FLAG_GENERIC) {
        Ok(link) => {
            tracing::warn!(
                interface = name,
                reason = %native,
                "no native XDP on this interface: attached in generic mode, which is several times slower"
            );
            Ok((link, Mode::Generic))
        }
        Err(error) if is_busy(&error) => Err(AttachError::Busy { name: name.to_owned(), holder: None }),
        Err(source) => Err(AttachError::Refused { name: name.to_owned(), source }),
    }
}

/// EBUSY: another program in this mode; EEXIST: one in the other mode.
fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// Attaches a program that passes every packet to the stack: a veth delivers what its peer transmits from XDP only if it
/// runs an XDP program itself. It stays until the descriptor returned is dropped.
///
/// # Errors
/// [`AttachError`].
pub fn attach_pass(interface: &str) -> Result<(OwnedFd, Mode), AttachError> {
    let index = interface_index(interface)?;
    let program =
        pass_program().map_err(|source| AttachError::Refused { name: interface.to_owned(), source })?;
    attach(program.as_fd(), interface, index)
}

/// Loads a program that passes every packet to the stack.
///
/// # Errors
/// What the kernel says.
pub fn pass_program() -> io::Result<OwnedFd> {
    // r0 = 2 (XDP_PASS); exit.
    const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    sys::load_xdp(&PASS, c"MIT", *b"sluice_pass\0\0\0\0\0")
}
