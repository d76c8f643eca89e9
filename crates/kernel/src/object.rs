//! The compiled eBPF object inside this library, and loading it with aya.

use crate::program::Program;
use crate::require::RequirementError;
use crate::tables::{LASTING, PROGRAMS, sizes};
use abi::Limits;
use aya::EbpfLoader;
use aya::maps::{Map, MapData};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The object as `./dev build` made it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SLUICE_BPF_OBJECT"));

/// The compiled eBPF object that [`crate::Datapath`] loads.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Name of the program attached to interfaces.
pub const ENTRY: &str = "director";

/// The programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The machine or the process lacks something.
    #[error("cannot load the eBPF programs")]
    Requirement(#[from] RequirementError),
    /// The object could not be read, or its maps not made.
    #[error("cannot make the eBPF tables")]
    Object(#[source] aya::EbpfError),
    /// The verifier refused a program, or it has the wrong type.
    #[error("cannot load eBPF program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the verifier said.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// The object lacks a program.
    #[error("the eBPF object has no program {program}: it belongs to another version; run `./dev build`")]
    NoProgram {
        /// Which.
        program: &'static str,
    },
    /// A table is not what this library expects.
    #[error("cannot use the eBPF tables")]
    Table(#[from] crate::map::TableError),
    /// A descriptor could not be duplicated or a tail call not be filled in.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Programs and maps of one load.
pub(crate) struct Loaded {
    pub(crate) programs: Programs,
    pub(crate) maps: HashMap<String, OwnedFd>,
}

/// The programs of one load, wired to each other.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) entry: Program,
    pub(crate) behind: Vec<Program>,
    /// The tail-call table. The kernel empties it when the last descriptor or pin is gone, so it is kept open.
    pub(crate) table: OwnedFd,
}

impl Programs {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Program> {
        std::iter::once(&self.entry).chain(&self.behind)
    }
}

/// Loads the object. With `pins`, the lasting maps are those pinned in that directory; absent ones are made and pinned.
pub(crate) fn load(limits: &Limits, pins: Option<&Path>) -> Result<Loaded, LoadError> {
    wire_up(open(limits, pins, None)?).map(|(loaded, _)| loaded)
}

/// The same with records of packets: a buffer for so many bytes of them, a power of two. The maps must be pinned in `pins`.
/// Gives the object too, which holds the program before the entry and the maps of the records.
pub(crate) fn load_capturing(
    limits: &Limits,
    pins: Option<&Path>,
    buffer_bytes: u32,
) -> Result<(Loaded, aya::Ebpf), LoadError> {
    wire_up(open(limits, pins, Some(buffer_bytes))?)
}

/// Makes the maps that are not there.
fn open(limits: &Limits, pins: Option<&Path>, capture_bytes: Option<u32>) -> Result<aya::Ebpf, LoadError> {
    crate::require::check()?;
    let mut loader = EbpfLoader::new();
    if let Some(bytes) = capture_bytes {
        loader.override_global("CAPTURE", &1_u32, true).map_max_entries("CAPTURED", bytes);
    }
    // No program reads structures of the kernel, so its type information is not needed.
    loader.btf(None);
    for (name, entries, _) in sizes(limits) {
        loader.map_max_entries(name, entries);
    }
    let paths: Vec<(&str, PathBuf)> = match pins {
        Some(directory) => LASTING.iter().map(|name| (*name, directory.join(name))).collect(),
        None => Vec::new(),
    };
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    loader.load(OBJECT).map_err(LoadError::Object)
}

/// Loads the programs and tells them of each other.
fn wire_up(mut object: aya::Ebpf) -> Result<(Loaded, aya::Ebpf), LoadError> {
    let entry = load_program(&mut object, ENTRY)?;
    let mut behind = Vec::new();
    for program in abi::Program::ALL {
        behind.push(load_program(&mut object, program.name())?);
    }
    let mut maps = HashMap::new();
    for (name, map) in object.maps() {
        if let Some(data) = map_data(map) {
            maps.insert(name.to_owned(), duplicate(data.fd().as_fd())?);
        }
    }
    let table = maps.remove(PROGRAMS).ok_or(LoadError::System {
        operation: "find the tail-call table PROGRAMS in the eBPF object",
        source: io::ErrorKind::NotFound.into(),
    })?;
    for (loaded, program) in behind.iter().zip(abi::Program::ALL) {
        set_tail_call(table.as_fd(), program.place(), loaded.as_fd())?;
    }
    Ok((Loaded { programs: Programs { entry, behind, table }, maps }, object))
}

pub(crate) fn load_program(object: &mut aya::Ebpf, name: &'static str) -> Result<Program, LoadError> {
    let program = object.program_mut(name).ok_or(LoadError::NoProgram { program: name })?;
    let failed = |source| LoadError::Program { program: name, source };
    let xdp: &mut aya::programs::Xdp = program.try_into().map_err(failed)?;
    xdp.load().map_err(failed)?;
    let fd = xdp.fd().map_err(failed)?;
    Ok(Program::new(name, duplicate(fd.as_fd())?))
}

/// Writes a program into a tail-call table.
pub(crate) fn set_tail_call(
    table: BorrowedFd<'_>,
    place: u32,
    program: BorrowedFd<'_>,
) -> Result<(), LoadError> {
    let failed = |source| LoadError::System { operation: "fill in the tail-call table", source };
    let map = crate::map::Map::new(duplicate(table)?, PROGRAMS)?;
    if map.info().kind != crate::map::TYPE_PROGRAM_ARRAY {
        return Err(failed(io::Error::other("PROGRAMS is no program array")));
    }
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&program);
    map.update(&place.to_ne_bytes(), &descriptor.to_ne_bytes(), 0).map_err(failed)
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::LpmTrie(data) => Some(data),
        _ => None,
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, LoadError> {
    fd.try_clone_to_owned()
        .map_err(|source| LoadError::System { operation: "duplicate a file descriptor", source })
}
