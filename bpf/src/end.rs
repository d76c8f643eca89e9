//! What a program ends with: the packet leaves, stays or goes to another program.

use crate::capture;
use crate::maps::{self, Maps, PROGRAMS};
use crate::xdp::Frame;
use abi::{PLACE_ENTRY, PLACE_RECORD, Program, Verdict, verdict};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_redirect};
use aya_ebpf::programs::XdpContext;
use forward::{Onward, Outcome, Step, Tables, Work};
use wire::Bytes;

/// Carries out the end of a program.
#[inline(always)]
pub fn finish(ctx: &XdpContext, step: Step) -> u32 {
    match step {
        Step::Done(outcome) => act(ctx, outcome),
        Step::Next(program, work) => hand_over(ctx, &work, program),
    }
}

/// The same, of a program that changed its work where it stands.
#[inline(always)]
pub fn go_on(ctx: &XdpContext, onward: Onward) -> u32 {
    match onward {
        Onward::Done(outcome) => act(ctx, outcome),
        Onward::To(program) => jump(ctx, program),
    }
}

#[inline(always)]
fn act(ctx: &XdpContext, outcome: Outcome) -> u32 {
    let Outcome { verdict, ifindex } = outcome;
    if capture::is_on() {
        capture::leave(verdict.number(), ifindex);
        // SAFETY: as in `jump`. Without that program the packet leaves unrecorded.
        unsafe { PROGRAMS.tail_call(ctx, PLACE_RECORD) };
    }
    carry_out(ctx, verdict.number(), ifindex)
}

/// The last step of every packet, by the number of its verdict.
#[inline(always)]
pub fn carry_out(ctx: &XdpContext, verdict: u32, ifindex: u32) -> u32 {
    if verdict::is_forward(verdict) && ifindex != 0 {
        if ifindex == Frame::new(ctx).ingress() {
            return XDP_TX;
        }
        // SAFETY: takes two plain numbers; an index of no interface makes the kernel drop the frame.
        return unsafe { bpf_redirect(ifindex, 0) as u32 };
    }
    if verdict::is_answer(verdict) {
        return XDP_TX;
    }
    if verdict::is_forward(verdict) || verdict::is_pass(verdict) { XDP_PASS } else { XDP_DROP }
}

/// Hands a packet to the entry, which is behind another program while somebody captures.
#[inline(always)]
pub fn enter(ctx: &XdpContext) -> u32 {
    // SAFETY: as in `jump`.
    unsafe { PROGRAMS.tail_call(ctx, PLACE_ENTRY) };
    internal()
}

#[inline(always)]
fn hand_over(ctx: &XdpContext, work: &Work, program: Program) -> u32 {
    if maps::put_work(work) { jump(ctx, program) } else { internal() }
}

#[inline(always)]
fn jump(ctx: &XdpContext, program: Program) -> u32 {
    // SAFETY: the context is this program's own. A tail call that fails comes back here.
    unsafe { PROGRAMS.tail_call(ctx, program.place()) };
    internal()
}

/// What cannot be: dropped.
#[inline(always)]
pub fn internal() -> u32 {
    Maps::NO_ROUTES.count_verdict(Verdict::DropInternal);
    XDP_DROP
}

/// The clock of the packet path.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: has no arguments and no effect.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Loops, so that the verifier refuses a program that can panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
