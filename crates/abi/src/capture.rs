//! What is recorded of packets while somebody captures them. None of it is in the pinned maps.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// Longest beginning of a frame that a record can have, in bytes: a power of two, which the programs mask with.
pub const CAPTURE_BYTES_MAX: u32 = 8192;
/// Place in the tail-call table of the program that writes records, while a capture runs.
pub const PLACE_RECORD: u32 = 30;
/// Place of the entry, while a capture runs: another program stands before it.
pub const PLACE_ENTRY: u32 = 31;
/// In [`CaptureRecord::real`]: no real server is known.
pub const CAPTURE_NO_REAL: u32 = u32::MAX;

/// Addresses of which one end of a packet must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureNetwork {
    /// Its address; bits outside the mask are zero.
    pub address: Address,
    /// Bits that count; none for every address.
    pub mask: Address,
}

/// What is to be recorded; one entry, written before the programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureSettings {
    /// Verdicts, the bit of each at its number.
    pub verdicts: u64,
    /// The client.
    pub client: CaptureNetwork,
    /// The VIP.
    pub vip: CaptureNetwork,
    /// Most bytes of a frame, 1 to [`CAPTURE_BYTES_MAX`].
    pub bytes_max: u32,
    /// One of so many packets that match is recorded, 1 or more.
    pub one_of: u32,
    /// Most records a second on one CPU, 1 or more.
    pub per_second_max: u32,
    /// 1: frames as they came; 0: as they leave.
    pub as_it_came: u32,
}

/// What came of packets while a capture runs; one entry for each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureCounts {
    /// Packets that match.
    pub matched: u64,
    /// Of them, those beyond [`CaptureSettings::per_second_max`].
    pub limited: u64,
    /// Of them, those that found no room, because nobody read fast enough.
    pub lost: u64,
    /// The second that records are counted in, of `CLOCK_MONOTONIC`.
    pub second: u64,
    /// Records in it.
    pub in_second: u64,
}

/// The head of a record; the frame's beginning follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureRecord {
    /// When, in ns of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Number of the verdict.
    pub verdict: u32,
    /// Interface that it came by.
    pub ingress: u32,
    /// Interface that it leaves by; 0 where it does not leave.
    pub egress: u32,
    /// Index of the real server, or [`CAPTURE_NO_REAL`].
    pub real: u32,
    /// Length of the whole frame in bytes.
    pub length: u32,
    /// Bytes of it that follow.
    pub captured: u32,
}

/// What is known of the packet in hand; one entry for each CPU. The record stands at its end, so that it goes out in one piece.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CaptureScratch {
    /// Where it came from.
    pub source: Address,
    /// Where it was for.
    pub destination: Address,
    /// Interface that its verdict sends it to, or 0.
    pub ifindex: u32,
    /// Bytes that the frame had as it came.
    pub came_length: u32,
    /// Of them, those that were kept.
    pub came_captured: u32,
    /// Zero.
    pub reserved: u32,
    /// The head.
    pub record: CaptureRecord,
    /// The frame's beginning.
    pub data: [u8; CAPTURE_BYTES_MAX as usize],
}

const _: () = assert!(size_of::<CaptureSettings>() == 88);
const _: () = assert!(size_of::<CaptureRecord>() == 32);
const _: () = assert!(size_of::<CaptureScratch>() == 80 + CAPTURE_BYTES_MAX as usize);
