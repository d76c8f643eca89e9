//! Programs that record the packets they serve, over the tables of the packet path, and what they recorded.
//!
//! They are loaded beside those that run and then exchanged for them ([`crate::Datapath::begin_capture`]). They are never pinned in
//! the place of these: a daemon that dies while it captures leaves the exchange half done, and the next one ends it.

use crate::map::{Map, TableError};
use crate::object::{self, LoadError, Programs};
use crate::program::Program;
use crate::table::{Array, PerCpuArray};
use abi::{CaptureCounts, CaptureRecord, CaptureSettings, Limits, PLACE_ENTRY, PLACE_RECORD};
use aya::maps::{MapData, RingBuf};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Room for records that nobody has read yet, in bytes. A power of two, as the kernel wants it.
const BUFFER_BYTES: u32 = 8 << 20;

/// The program before the entry, and the one behind every end.
const WATCH: &str = "watch";
const RECORD: &str = "record";

/// Programs that record, ready to be exchanged for those that run.
#[derive(Debug)]
pub struct Capture {
    pub(crate) programs: Programs,
    pub(crate) watch: Program,
    record: Program,
}

/// What they have recorded.
pub struct CaptureReader {
    ring: RingBuf<MapData>,
    counts: PerCpuArray<CaptureCounts>,
}

impl Capture {
    /// Loads them over the tables pinned in this directory ([`crate::Datapath::pinned_maps`]); without one, over tables of their own, to see whether
    /// the kernel takes them. Takes as long as a start of the daemon; nothing runs yet.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(
        limits: &Limits,
        maps: Option<&Path>,
        settings: &CaptureSettings,
    ) -> Result<(Self, CaptureReader), LoadError> {
        let (mut loaded, mut object) = object::load_capturing(limits, maps, BUFFER_BYTES)?;
        let watch = object::load_program(&mut object, WATCH)?;
        let record = object::load_program(&mut object, RECORD)?;
        let table = loaded.programs.table.as_fd();
        object::set_tail_call(table, PLACE_RECORD, record.as_fd())?;
        object::set_tail_call(table, PLACE_ENTRY, loaded.programs.entry.as_fd())?;
        let mut take = |name: &'static str| {
            let missing = || LoadError::System {
                operation: "find the maps of the capture in the eBPF object",
                source: io::ErrorKind::NotFound.into(),
            };
            let fd = loaded.maps.remove(name).ok_or_else(missing)?;
            Map::new(fd, name).map_err(LoadError::from)
        };
        Array::new(take("CAPTURE_SETTINGS")?)?.put(0, settings)?;
        let counts = PerCpuArray::new(take("CAPTURE_COUNTS")?)?;
        let ring = object.take_map("CAPTURED").ok_or_else(|| LoadError::System {
            operation: "find the buffer of the capture in the eBPF object",
            source: io::ErrorKind::NotFound.into(),
        })?;
        let ring = RingBuf::try_from(ring).map_err(|error| LoadError::Object(error.into()))?;
        Ok((Self { programs: loaded.programs, watch, record }, CaptureReader { ring, counts }))
    }

    /// Every program, the one that packets enter by first.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        [&self.watch, &self.record].into_iter().chain(self.programs.all())
    }

    /// The program that packets enter by.
    #[must_use]
    pub fn entry(&self) -> &Program {
        &self.watch
    }
}

impl std::fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureReader").finish_non_exhaustive()
    }
}

impl CaptureReader {
    /// Takes the oldest record: what is known of the packet, and the beginning of its frame. `None` when all are read.
    pub fn take(&mut self) -> Option<(CaptureRecord, Vec<u8>)> {
        let item = self.ring.next()?;
        let (head, frame) = item.split_at_checked(size_of::<CaptureRecord>())?;
        let record: CaptureRecord = bytemuck::try_pod_read_unaligned(head).ok()?;
        let frame = frame.get(..record.captured as usize)?;
        Some((record, frame.to_vec()))
    }

    /// What came of packets so far, over all CPUs.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses.
    pub fn counts(&self) -> Result<CaptureCounts, TableError> {
        let add = |sum: CaptureCounts, cpu: &CaptureCounts| CaptureCounts {
            matched: sum.matched + cpu.matched,
            limited: sum.limited + cpu.limited,
            lost: sum.lost + cpu.lost,
            ..CaptureCounts::default()
        };
        Ok(self.counts.get(0)?.iter().fold(CaptureCounts::default(), add))
    }
}
