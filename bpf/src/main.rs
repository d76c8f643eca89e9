//! The eBPF programs of the director: glue between the kernel and the shared core.
//!
//! `director` is attached to the interfaces and serves known flows. It hands the rest to the others by tail call, with
//! the parsed packet in per-CPU scratch, because one program for everything would be more than the verifier of 6.1
//! takes. All know frames in several buffers, which an interface with a large MTU needs: programs that call each other
//! must be alike in that.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "core offers no atomic addition for targets without compare-and-swap")]

mod maps;
mod xdp;

use abi::{Program, Verdict};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_redirect};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use forward::{Onward, Outcome, Step, Tables, Work};
use maps::{Maps, PROGRAMS};
use xdp::Frame;

/// Entry: attached to every interface.
#[xdp(frags)]
pub fn director(ctx: XdpContext) -> u32 {
    let step = forward::enter(&mut Frame::new(&ctx), &Maps, now_ns);
    finish(&ctx, step)
}

/// A packet of no known flow.
#[xdp(frags)]
pub fn schedule(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work() else { return internal() };
    let step = forward::place(&Maps, work, now_ns());
    finish(&ctx, step)
}

/// A packet whose real server is chosen.
#[xdp(frags)]
pub fn track(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let step = forward::track(&mut Frame::new(&ctx), &Maps, &work, now_ns());
    finish(&ctx, step)
}

/// The first message of a flow to a service that is persistent by the Call-ID of SIP.
#[xdp(frags)]
pub fn call(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let step = forward::call(&Frame::new(&ctx), &Maps, &work);
    finish(&ctx, step)
}

/// A packet of no known flow, to a persistent service.
#[xdp(frags)]
pub fn persist(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work() else { return internal() };
    let step = forward::place_persistent(&Maps, work, now_ns());
    finish(&ctx, step)
}

/// A packet of no known flow to a service whose scheduler remembers destinations.
#[xdp(frags)]
pub fn affinity(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work() else { return internal() };
    let step = forward::place_affine(&Maps, work, now_ns());
    finish(&ctx, step)
}

/// A packet whose sender gets an ICMP error.
#[xdp(frags)]
pub fn answer(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::answer(Frame::new(&ctx), &Maps, &work, now_ns());
    finish(&ctx, step)
}

/// A packet for a real server behind a tunnel.
#[xdp(frags)]
pub fn tunnel(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::tunnel(Frame::new(&ctx), &Maps, &work);
    finish(&ctx, step)
}

/// A segment whose sender gets a TCP reset.
#[xdp(frags)]
pub fn reset(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::reset(Frame::new(&ctx), &Maps, &work, now_ns());
    finish(&ctx, step)
}

/// A packet that establishes a connection under a template.
#[xdp(frags)]
pub fn assure(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let step = forward::assure(&mut Frame::new(&ctx), &Maps, &work);
    finish(&ctx, step)
}

/// A piece of a fragmented datagram.
#[xdp(frags)]
pub fn fragment(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::fragment(&mut Frame::new(&ctx), &Maps, work, now_ns());
    go_on(&ctx, onward)
}

/// A packet that follows a flow which is not its own.
#[xdp(frags)]
pub fn related(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::related(&mut Frame::new(&ctx), &Maps, work, now_ns());
    go_on(&ctx, onward)
}

/// An SCTP packet.
#[xdp(frags)]
pub fn sctp(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::sctp(&mut Frame::new(&ctx), &Maps, work, now_ns());
    go_on(&ctx, onward)
}

/// Carries out the end of a program.
#[inline(always)]
fn finish(ctx: &XdpContext, step: Step) -> u32 {
    match step {
        Step::Done(outcome) => act(ctx, outcome),
        Step::Next(program, work) => hand_over(ctx, &work, program),
    }
}

/// The same, of a program that changed its work where it stands.
#[inline(always)]
fn go_on(ctx: &XdpContext, onward: Onward) -> u32 {
    match onward {
        Onward::Done(outcome) => act(ctx, outcome),
        Onward::To(program) => jump(ctx, program),
    }
}

#[inline(always)]
fn act(ctx: &XdpContext, outcome: Outcome) -> u32 {
    let Outcome { verdict, ifindex } = outcome;
    if verdict.is_forward() && ifindex != 0 {
        if ifindex == Frame::ingress(ctx) {
            return XDP_TX;
        }
        // SAFETY: takes two plain numbers; an index of no interface makes the kernel drop the frame.
        return unsafe { bpf_redirect(ifindex, 0) as u32 };
    }
    if verdict.is_answer() {
        return XDP_TX;
    }
    if verdict.is_forward() || verdict.is_pass() { XDP_PASS } else { XDP_DROP }
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

#[inline(always)]
fn internal() -> u32 {
    Maps.count_verdict(Verdict::DropInternal);
    XDP_DROP
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: has no arguments and no effect.
    unsafe { bpf_ktime_get_coarse_ns() }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Loops, so that the verifier refuses a program that can panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
