//! A loaded XDP program: test runs, and what the kernel says about it.

use crate::sys;
use bytemuck::{Pod, Zeroable};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a program can add to a packet, in bytes: room for the answer of a test run beyond the packet.
const GROWTH_MAX: usize = 256;

/// Beginning of `struct bpf_prog_info`.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct RawInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl: u32,
    netns_dev: u64,
    netns_ino: u64,
    ksym_count: u32,
    function_length_count: u32,
    ksyms: u64,
    function_lengths: u64,
    btf_id: u32,
    function_info_size: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_count: u32,
    line_info: u64,
    jited_line_info: u64,
    jited_line_info_count: u32,
    line_info_size: u32,
    jited_line_info_size: u32,
    tag_count: u32,
    tags: u64,
    run_time_ns: u64,
    run_count: u64,
    recursion_misses: u64,
    verified_instructions: u32,
    attach_btf_object: u32,
}

/// What the kernel says about a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Kernel id.
    pub id: u32,
    /// Name, cut to 15 characters by the kernel.
    pub name: String,
    /// Hash of the instructions: equal for equal programs.
    pub tag: [u8; 8],
    /// Instructions the verifier walked through.
    pub verified_instructions: u32,
    /// Bytes after translation by the kernel.
    pub translated_bytes: u32,
    /// Bytes of machine code, 0 when the JIT is off.
    pub jited_bytes: u32,
}

/// A program could not be examined or run.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} eBPF program {program}")]
pub struct ProgramError {
    /// Its name.
    pub program: String,
    /// What was tried, such as `run`.
    pub operation: &'static str,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

/// The result of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// `XDP_*`: 0 aborted, 1 drop, 2 pass, 3 transmit, 4 redirect.
    pub action: u32,
    /// The packet as the program left it (after the last repetition).
    pub packet: Vec<u8>,
    /// Mean time of one repetition in ns.
    pub duration_ns: u32,
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    fd: OwnedFd,
}

impl Program {
    pub(crate) fn new(name: &'static str, fd: OwnedFd) -> Self {
        Self { name, fd }
    }

    /// Its name in the object.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the kernel says about it.
    ///
    /// # Errors
    /// [`ProgramError`] when the kernel refuses.
    pub fn info(&self) -> Result<ProgramInfo, ProgramError> {
        read_info(self.fd.as_fd()).map_err(|source| self.error("examine", source))
    }

    /// Runs it on a packet, `repeat` times, with index 1 (the loopback interface) as where the packet came from. The
    /// kernel resets neither the packet nor its start between repetitions.
    ///
    /// # Errors
    /// [`ProgramError`]: EINVAL for a packet below 14 or above about 3,500 bytes.
    pub fn test_run(&self, packet: &[u8], repeat: u32) -> Result<TestRun, ProgramError> {
        self.test_run_with(packet, &mut [], repeat)
    }

    /// As [`Self::test_run`], with this interface as where the packet came from. It must exist in the network namespace of
    /// the calling thread and be able to receive (be up).
    ///
    /// # Errors
    /// [`ProgramError`]: EINVAL or ENODEV for an interface that cannot be used.
    pub fn test_run_from(&self, packet: &[u8], interface: u32, repeat: u32) -> Result<TestRun, ProgramError> {
        let length = u32::try_from(packet.len())
            .map_err(|error| self.error("run", io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        self.test_run_with(packet, &mut [0, length, 0, interface, 0, 0], repeat)
    }

    fn test_run_with(
        &self,
        packet: &[u8],
        context: &mut [u32],
        repeat: u32,
    ) -> Result<TestRun, ProgramError> {
        let mut out = vec![0; packet.len() + GROWTH_MAX];
        let done = sys::test_run(self.fd.as_fd(), packet, context, repeat, &mut out)
            .map_err(|source| self.error("run", source))?;
        out.truncate(done.length);
        Ok(TestRun { action: done.retval, packet: out, duration_ns: done.duration_ns })
    }

    fn error(&self, operation: &'static str, source: io::Error) -> ProgramError {
        ProgramError { program: self.name.to_owned(), operation, source }
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(crate) fn read_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let raw: RawInfo = sys::info(program)?;
    Ok(ProgramInfo {
        id: raw.id,
        name: text(&raw.name),
        tag: raw.tag,
        verified_instructions: raw.verified_instructions,
        translated_bytes: raw.translated_length,
        jited_bytes: raw.jited_length,
    })
}

/// The text in front of the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
