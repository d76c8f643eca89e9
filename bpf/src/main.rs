//! The eBPF programs of the director: glue between the kernel and the shared core.
//!
//! `director` is attached to the interfaces and serves known flows. It hands the rest to the others by tail call, with the parsed packet in
//! per-CPU scratch: one program for everything would be more than the verifier of 6.1 takes. All know frames in several buffers, which a large
//! MTU needs: programs that call each other must be alike in that.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "core offers no atomic addition for targets without compare-and-swap")]

mod capture;
mod end;
mod maps;
mod route;
mod xdp;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use end::{finish, go_on, internal, now_ns};
use maps::Maps;
use xdp::Frame;

/// Entry: attached to every interface.
#[xdp(frags)]
pub fn director(ctx: XdpContext) -> u32 {
    let step = forward::enter(&mut Frame::new(&ctx), &Maps::new(&ctx), now_ns);
    finish(&ctx, step)
}

/// A packet of no known flow.
#[xdp(frags)]
pub fn schedule(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::place(&Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// A packet whose real server is chosen.
#[xdp(frags)]
pub fn track(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::track(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// The first message of a flow to a service that is persistent by the Call-ID of SIP.
#[xdp(frags)]
pub fn call(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let step = forward::call(&Frame::new(&ctx), &Maps::new(&ctx), &work);
    finish(&ctx, step)
}

/// A packet of no known flow, to a persistent service.
#[xdp(frags)]
pub fn persist(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::place_persistent(&Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// A packet of no known flow to a service that does not serve everybody.
#[xdp(frags)]
pub fn admit(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::admit(&Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// A packet of no known flow to a service whose scheduler remembers destinations.
#[xdp(frags)]
pub fn affinity(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::place_affine(&Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// A packet whose sender gets an ICMP error.
#[xdp(frags)]
pub fn answer(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::answer(Frame::new(&ctx), &Maps::new(&ctx), &work, now_ns());
    finish(&ctx, step)
}

/// A packet for a masqueraded real server.
#[xdp(frags)]
pub fn masquerade(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let step = forward::masquerade(&mut Frame::new(&ctx), &Maps::new(&ctx), &work);
    finish(&ctx, step)
}

/// A packet that may come from a masqueraded real server.
#[xdp(frags)]
pub fn reply(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::reply(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// A later piece of what comes from a masqueraded real server.
#[xdp(frags)]
pub fn reply_piece(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work() else { return internal() };
    let step = forward::reply_piece(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    finish(&ctx, step)
}

/// A packet that opens a flow with another source.
#[xdp(frags)]
pub fn source(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::source(&Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// An ICMP error about a packet of a translated flow.
#[xdp(frags)]
pub fn error(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::error(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// An ICMP error about a packet in a tunnel.
#[xdp(frags)]
pub fn unwrap(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::unwrap(Frame::new(&ctx), &Maps::new(&ctx), &work, now_ns());
    finish(&ctx, step)
}

/// A packet for a real server behind a tunnel.
#[xdp(frags)]
pub fn tunnel(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::tunnel(Frame::new(&ctx), &Maps::new(&ctx), &work);
    finish(&ctx, step)
}

/// A segment whose sender gets a TCP reset.
#[xdp(frags)]
pub fn reset(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let (step, _) = forward::reset(Frame::new(&ctx), &Maps::new(&ctx), &work, now_ns());
    finish(&ctx, step)
}

/// A packet that establishes a connection under a template.
#[xdp(frags)]
pub fn assure(ctx: XdpContext) -> u32 {
    let Some(work) = maps::take_work() else { return internal() };
    let step = forward::assure(&mut Frame::new(&ctx), &Maps::new(&ctx), &work);
    finish(&ctx, step)
}

/// A piece of a fragmented datagram.
#[xdp(frags)]
pub fn fragment(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::fragment(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// A packet that follows a flow which is not its own.
#[xdp(frags)]
pub fn related(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::related(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// An SCTP packet.
#[xdp(frags)]
pub fn sctp(ctx: XdpContext) -> u32 {
    let Some(work) = maps::work_in_place() else { return internal() };
    let onward = forward::sctp(&mut Frame::new(&ctx), &Maps::new(&ctx), work, now_ns());
    go_on(&ctx, onward)
}

/// Attached in place of the entry, which it hands every packet to, while somebody captures packets.
#[xdp(frags)]
pub fn watch(ctx: XdpContext) -> u32 {
    capture::arrive(&ctx);
    end::enter(&ctx)
}

/// The end of every packet while somebody captures packets.
#[xdp(frags)]
pub fn record(ctx: XdpContext) -> u32 {
    capture::record(&ctx)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
