//! Records of packets, while somebody captures them.
//!
//! Nobody pays for it otherwise: [`CAPTURE`] is constant when the programs are loaded, so the verifier finds that what hangs on it is
//! never reached and takes it out. To capture, the director loads the programs once more with the constant set, over the same tables,
//! and exchanges them; `watch` then stands before the entry, and `record` behind every end.

use crate::end::carry_out;
use crate::xdp::Frame;
use abi::{
    Address, CAPTURE_BYTES_MAX, CAPTURE_NO_REAL, CaptureCounts, CaptureNetwork, CaptureRecord,
    CaptureScratch, CaptureSettings, verdict,
};
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::programs::XdpContext;
use wire::{Bytes, ethernet, ipv4, ipv6};

/// Whether packets are recorded; the loader sets it.
#[unsafe(no_mangle)]
static CAPTURE: u32 = 0;

#[map]
static CAPTURE_SETTINGS: Array<CaptureSettings> = Array::with_max_entries(1, 0);
#[map]
static CAPTURE_COUNTS: PerCpuArray<CaptureCounts> = PerCpuArray::with_max_entries(1, 0);
#[map]
static CAPTURE_SCRATCH: PerCpuArray<CaptureScratch> = PerCpuArray::with_max_entries(1, 0);
/// The loader makes it larger when there is something to record.
#[map]
static CAPTURED: RingBuf = RingBuf::with_byte_size(4096, 0);

const SECOND_NS: u64 = 1_000_000_000;
/// Longest record.
const RECORD_BYTES_MAX: u64 = size_of::<CaptureRecord>() as u64 + CAPTURE_BYTES_MAX as u64;

/// Whether packets are recorded.
#[inline(always)]
pub fn is_on() -> bool {
    // SAFETY: an aligned word of this object. Volatile, because the loader changes it behind the compiler's back.
    unsafe { core::ptr::read_volatile(&raw const CAPTURE) != 0 }
}

/// Notes the real server of the packet in hand.
#[inline(always)]
pub fn note_real(real: u32) {
    if is_on() {
        set_real(real);
    }
}

/// A function of its own, so that it takes neither registers nor stack from who calls it.
#[inline(never)]
fn set_real(real: u32) {
    let Some(scratch) = CAPTURE_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value; a packet's programs run to their end on one CPU before another packet's begin.
    unsafe { (*scratch).record.real = real };
}

/// Notes how the packet in hand ends. A function of its own for the same reason.
#[inline(never)]
pub fn leave(verdict: u32, ifindex: u32) {
    let Some(scratch) = CAPTURE_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: as in `set_real`.
    unsafe {
        (*scratch).record.verdict = verdict;
        (*scratch).ifindex = ifindex;
    }
}

/// Source and destination of a packet; nothing of one that is not IP.
#[inline(always)]
fn ends(frame: &Frame) -> (Address, Address) {
    let none = (Address([0; 4]), Address([0; 4]));
    let Ok(link) = ethernet::parse(frame) else { return none };
    if link.ethertype == ethernet::TYPE_IPV4 {
        let Ok(ip) = ipv4::Header::read(frame, link.payload) else { return none };
        return (Address::v4(ip.source()), Address::v4(ip.destination()));
    }
    if link.ethertype != ethernet::TYPE_IPV6 {
        return none;
    }
    let Ok(ip) = ipv6::Header::read(frame, link.payload) else { return none };
    (Address(ip.source()), Address(ip.destination()))
}

/// Notes a packet as it comes.
#[inline(always)]
pub fn arrive(ctx: &XdpContext) {
    let Some(scratch) = CAPTURE_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: as in `set_real`; the only reference to it here.
    let scratch = unsafe { &mut *scratch };
    let frame = Frame::new(ctx);
    (scratch.source, scratch.destination) = ends(&frame);
    scratch.record.real = CAPTURE_NO_REAL;
    scratch.record.ingress = frame.ingress();
    let Some(settings) = CAPTURE_SETTINGS.get(0) else { return };
    if settings.as_it_came != 0 {
        (scratch.came_length, scratch.came_captured) = copy(ctx, &mut scratch.data, settings.bytes_max);
    }
}

/// Copies the beginning of a frame. Gives its length, and how many bytes were copied.
#[inline(always)]
fn copy(ctx: &XdpContext, to: &mut [u8; CAPTURE_BYTES_MAX as usize], most: u32) -> (u32, u32) {
    // SAFETY: takes the program's own context.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) as u32 };
    let wanted = if length < most { length } else { most };
    // 1 to the most there is room for, whatever the numbers were: the verifier sees it from the mask.
    let len = (wanted.wrapping_sub(1) & (CAPTURE_BYTES_MAX - 1)) + 1;
    // SAFETY: the program's own context, and a buffer of at least `len` bytes.
    let failed = unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, to.as_mut_ptr().cast(), len) };
    (length, if failed < 0 { 0 } else { len })
}

/// Whether one of the ends is in the network.
#[inline(always)]
fn has(network: &CaptureNetwork, ends: [&Address; 4]) -> bool {
    ends.into_iter().any(|end| {
        let mut other = 0;
        for word in 0..4 {
            other |= (end.0[word] & network.mask.0[word]) ^ network.address.0[word];
        }
        other == 0
    })
}

/// Records the packet in hand if it is wanted, and ends it.
#[inline(always)]
pub fn record(ctx: &XdpContext) -> u32 {
    // What cannot be: a map without its one entry.
    let Some(scratch) = CAPTURE_SCRATCH.get_ptr_mut(0) else { return XDP_PASS };
    // SAFETY: as in `arrive`.
    let scratch = unsafe { &mut *scratch };
    let (verdict, ifindex) = (scratch.record.verdict, scratch.ifindex);
    if let (Some(settings), Some(counts)) = (CAPTURE_SETTINGS.get(0), CAPTURE_COUNTS.get_ptr_mut(0)) {
        // SAFETY: a per-CPU value, and the only reference to it.
        let counts = unsafe { &mut *counts };
        if is_wanted(ctx, settings, scratch) && is_due(settings, counts, &mut scratch.record) {
            write(ctx, settings, counts, scratch);
        }
    }
    carry_out(ctx, verdict, ifindex)
}

#[inline(always)]
fn is_wanted(ctx: &XdpContext, settings: &CaptureSettings, scratch: &CaptureScratch) -> bool {
    let (source, destination) = ends(&Frame::new(ctx));
    let ends = [&scratch.source, &scratch.destination, &source, &destination];
    settings.verdicts >> (scratch.record.verdict & 63) & 1 != 0
        && has(&settings.client, ends)
        && has(&settings.vip, ends)
}

/// Whether this packet's turn has come, and the second has room for it.
#[inline(always)]
fn is_due(settings: &CaptureSettings, counts: &mut CaptureCounts, record: &mut CaptureRecord) -> bool {
    counts.matched += 1;
    if !counts.matched.is_multiple_of(u64::from(settings.one_of)) {
        return false;
    }
    // SAFETY: has no arguments and no effect.
    record.time_ns = unsafe { bpf_ktime_get_ns() };
    let second = record.time_ns / SECOND_NS;
    if counts.second != second {
        (counts.second, counts.in_second) = (second, 0);
    }
    if counts.in_second >= u64::from(settings.per_second_max) {
        counts.limited += 1;
        return false;
    }
    counts.in_second += 1;
    true
}

#[inline(always)]
fn write(
    ctx: &XdpContext,
    settings: &CaptureSettings,
    counts: &mut CaptureCounts,
    scratch: &mut CaptureScratch,
) {
    let (length, captured) = if settings.as_it_came != 0 {
        (scratch.came_length, scratch.came_captured)
    } else {
        copy(ctx, &mut scratch.data, settings.bytes_max)
    };
    let record = &mut scratch.record;
    (record.length, record.captured) = (length, captured);
    record.egress = if verdict::is_answer(record.verdict) {
        record.ingress
    } else if verdict::is_forward(record.verdict) {
        scratch.ifindex
    } else {
        0
    };
    let size = size_of::<CaptureRecord>() as u64 + u64::from(captured);
    let size = if size > RECORD_BYTES_MAX { RECORD_BYTES_MAX } else { size };
    let from = (&raw mut scratch.record).cast();
    // SAFETY: the head and the frame's beginning stand one behind the other, and have room for the most bytes there can be.
    let failed = unsafe { bpf_ringbuf_output((&raw const CAPTURED).cast_mut().cast(), from, size, 0) };
    if failed != 0 {
        counts.lost += 1;
    }
}
