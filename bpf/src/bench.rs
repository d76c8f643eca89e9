//! Programs of the packet benchmark; never attached to an interface.
//!
//! The kernel's test-run loop restores neither the packet nor its length between passes, so a program that
//! rewrites packets would see its own output from the second pass on. `reset_v4` and `reset_v6` restore the
//! original frame, choose the client of this pass, and tail-call the program under test. The `floor_*`
//! programs are what its figures are compared with.
#![no_std]
#![no_main]

#[expect(dead_code, reason = "user space alone names the fixed client")]
mod reset;
mod xdp;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX};
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use reset::{
    ADDRESS_V4, ADDRESS_V6, CLIENT_NEXT, CLIENT_RANDOM, PORT_V4, PORT_V6, Reset, WORDS_FROM, WORDS_V4,
    WORDS_V6, client,
};
use wire::{Bytes, Short, ethernet, ipv4, tcp};
use xdp::Frame;

#[map]
static RESET: Array<Reset> = Array::with_max_entries(1, 0);
/// The program under test, in place 0: a constant, so that the kernel makes the tail call a direct jump.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Restores an IPv4 or non-IP frame.
#[xdp(frags)]
pub fn reset_v4(ctx: XdpContext) -> u32 {
    reset::<WORDS_V4, ADDRESS_V4, PORT_V4>(&ctx)
}

/// Restores an IPv6 frame.
#[xdp(frags)]
pub fn reset_v6(ctx: XdpContext) -> u32 {
    reset::<WORDS_V6, ADDRESS_V6, PORT_V6>(&ctx)
}

/// The least a program can do.
#[xdp(frags)]
pub fn floor_tx(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// Reads a TCP/IPv4 packet as the director does, and no table.
#[xdp(frags)]
pub fn floor_parse(ctx: XdpContext) -> u32 {
    match parse(&Frame::new(&ctx)) {
        Ok(true) => XDP_TX,
        _ => XDP_DROP,
    }
}

#[inline(always)]
fn reset<const WORDS: usize, const ADDRESS: usize, const PORT: usize>(ctx: &XdpContext) -> u32 {
    let Some(reset) = RESET.get_ptr_mut(0) else { return XDP_ABORTED };
    let want = WORDS_FROM + WORDS * 8;
    let have = ctx.data_end() - ctx.data();
    if have != want {
        // SAFETY: the program's own context and a plain number; packet pointers are taken afterwards.
        let _fails_below = unsafe { bpf_xdp_adjust_tail(ctx.ctx, want as i32 - have as i32) };
    }
    let mut frame = Frame::new(ctx);
    // SAFETY: the only entry of the map; one CPU runs the benchmark, and user space writes between test runs.
    let restored = unsafe { restore::<WORDS, ADDRESS, PORT>(&mut frame, &mut *reset) };
    if restored.is_err() {
        return XDP_ABORTED;
    }
    // SAFETY: the context is this program's own. A tail call that fails comes back here.
    unsafe { UNDER_TEST.tail_call(ctx, 0) };
    XDP_ABORTED
}

#[inline(always)]
fn restore<const WORDS: usize, const ADDRESS: usize, const PORT: usize>(
    frame: &mut Frame,
    reset: &mut Reset,
) -> Result<(), Short> {
    frame.put(0, reset.head)?;
    for (i, word) in reset.words.iter().take(WORDS).enumerate() {
        frame.put(WORDS_FROM + i * 8, *word)?;
    }
    let number = match reset.client {
        CLIENT_RANDOM => {
            // Knuth's constants for 64 bits; the high half is the good one.
            reset.state =
                reset.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((reset.state >> 32) * u64::from(reset.flows)) >> 32
        }
        CLIENT_NEXT => {
            reset.state += 1;
            reset.state - 1
        }
        _ => return Ok(()),
    };
    let (address, port) = client(number);
    frame.put(ADDRESS, address.to_be_bytes())?;
    frame.put(PORT, port.to_be_bytes())
}

/// Whether all that the director would look at is there and consistent.
#[inline(always)]
fn parse(frame: &Frame) -> Result<bool, Short> {
    let link = ethernet::parse(frame)?;
    if link.ethertype != ethernet::TYPE_IPV4 || link.group {
        return Ok(false);
    }
    let header = ipv4::Header::read(frame, link.payload)?;
    let header_len = header.header_len();
    let total_len = usize::from(header.total_len());
    if header.version() != 4
        || header_len < ipv4::HEADER_LEN
        || total_len < header_len
        || header.is_fragment()
    {
        return Ok(false);
    }
    if link.payload + total_len > frame.len() || header.protocol() != abi::protocol::TCP || header.ttl() <= 1
    {
        return Ok(false);
    }
    let segment = tcp::parse(frame, link.payload + header_len)?;
    let addressed = header.source() != [0; 4] && header.destination() != [0; 4];
    let opened = segment.source_be != 0 && segment.destination_be != 0 && segment.flags != 0;
    Ok(addressed && opened && segment.header_len >= tcp::HEADER_LEN)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Loops, so that the verifier refuses a program that can panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
