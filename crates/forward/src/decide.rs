//! The path of a packet, in the order an operator would tell it.

use crate::packet::{self, Network, STALE_EMBRYONIC, STALE_ESTABLISHED, Work, is_tcp};
use crate::rewrite::rewrite;
use crate::schedule;
use crate::tables::Tables;
use crate::tcp_state;
use abi::{
    FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_NO_OUTPUT, FLOW_OVERFLOW, Flow, Load, REAL_AVAILABLE, Real,
    ServiceKey, Settings, TcpState, UDP_STATE, Verdict,
};
use wire::ethernet::TYPE_IPV4;
use wire::tcp::{RST, SYN};
use wire::{Bytes, ipv4, ipv6};

/// What became of a packet, and where a forwarded one leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// What became of it.
    pub verdict: Verdict,
    /// Index of the interface it leaves by, for a forwarding verdict; else 0.
    pub ifindex: u32,
}

impl Outcome {
    #[inline(always)]
    const fn stop(verdict: Verdict) -> Self {
        Self { verdict, ifindex: 0 }
    }
}

/// The end of one program: an outcome, or work for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The end of the packet.
    Done(Outcome),
    /// A packet of no known flow: [`place`] it.
    Place(Work),
    /// The client is to get an ICMP error: [`crate::answer()`] it.
    Answer(Work),
}

/// The whole path: what the programs do one after the other, for runners without programs.
pub fn decide<B: crate::Resize, T: Tables>(bytes: B, tables: &T, now_ns: u64) -> (Outcome, B) {
    let mut bytes = bytes;
    let step = match enter(&mut bytes, tables, || now_ns) {
        Step::Place(work) => place(&mut bytes, tables, &work, now_ns),
        step => step,
    };
    match step {
        Step::Done(outcome) => (outcome, bytes),
        Step::Place(_) => (count(tables, Verdict::DropInternal), bytes),
        Step::Answer(work) => {
            let (verdict, bytes) = crate::answer(bytes, tables, &work, now_ns);
            (Outcome::stop(verdict), bytes)
        }
    }
}

/// Reads the packet and serves it if its flow is known. The clock is read only for packets to a VIP.
#[inline(always)]
pub fn enter<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, now_ns: impl FnOnce() -> u64) -> Step {
    let served = match packet::link(bytes) {
        Ok(frame) if frame.ethertype == TYPE_IPV4 => {
            serve::<B, T, ipv4::Header>(bytes, tables, frame.payload, now_ns)
        }
        Ok(frame) => serve::<B, T, ipv6::Header>(bytes, tables, frame.payload, now_ns),
        Err(verdict) => Err(verdict),
    };
    match served {
        Ok(step) => step,
        Err(verdict) => Step::Done(count(tables, verdict)),
    }
}

/// The path of one address family.
#[inline(always)]
fn serve<B: Bytes, T: Tables, N: Network>(
    bytes: &mut B,
    tables: &T,
    l3: usize,
    now_ns: impl FnOnce() -> u64,
) -> Result<Step, Verdict> {
    let network = N::read(bytes, l3).map_err(packet::truncated)?;
    if !tables.may_be_vip(&network.destination()) {
        return Err(Verdict::PassNotVip);
    }
    let mut work = network.transport(bytes, l3)?;
    let now_ns = now_ns();
    let (found, table) = match tables.established(&work.key) {
        Some(handle) => (Some(handle), STALE_ESTABLISHED),
        None => (tables.embryonic(&work.key), STALE_EMBRYONIC),
    };
    if let Some(handle) = found {
        let flow = tables.flow(handle);
        let real = tables.real(flow.real).ok_or(Verdict::DropInternal)?;
        let gone = real.flags & REAL_AVAILABLE == 0;
        // IPVS drops silently, and re-adding the real server revives its flows (expire_nodest_conn 0).
        // Better here: a client that opens a connection anew gets another real server at once.
        if gone && !opens(&work) {
            return Err(Verdict::DropRealGone);
        }
        if !gone && !is_over(&flow, &work, now_ns) {
            return known(bytes, tables, &work, &real, (handle, flow), now_ns);
        }
        work.stale = table;
    }
    Ok(Step::Place(work))
}

/// Whether a flow counts as absent: it has expired, or a new SYN opens another connection on its ports.
#[inline(always)]
fn is_over(flow: &Flow, work: &Work, now_ns: u64) -> bool {
    now_ns >= flow.expires_ns || (is_tcp(&work.key) && opens(work) && tcp_state::is_reusable(flow.state))
}

/// Whether the packet may open a flow: any but a TCP segment without SYN, or with RST.
#[inline(always)]
fn opens(work: &Work) -> bool {
    !is_tcp(&work.key) || work.tcp_flags & (SYN | RST) == SYN
}

/// Serves a packet of a known flow.
#[inline(always)]
fn known<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    real: &Real,
    (handle, mut flow): (T::Flow, Flow),
    now_ns: u64,
) -> Result<Step, Verdict> {
    if work.ttl <= 1 {
        return Ok(Step::Answer(Work { answer: Verdict::AnswerTimeExceeded.number() as u8, ..*work }));
    }
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    let before = flow;
    advance(&mut flow, work, settings, now_ns);
    if (flow.flags ^ before.flags) & FLOW_INACTIVE != 0 {
        tables.add_load(flow.real, shift(&flow));
    }
    let mut verdict = Verdict::ForwardKnown;
    if flow.flags & FLOW_EMBRYONIC != 0 && has_proved_itself(&flow, work) {
        verdict = promote(tables, work, handle, &mut flow, settings, now_ns);
    } else {
        tables.set_flow(handle, &flow);
    }
    rewrite(bytes, work, real)?;
    tables.count_in(flow.real, work.ip_len, false);
    if verdict != Verdict::ForwardKnown {
        tables.count_verdict(verdict);
    }
    Ok(Step::Done(Outcome { verdict, ifindex: real.ifindex }))
}

/// Moves the state on and restarts the timer.
#[inline(always)]
fn advance(flow: &mut Flow, work: &Work, settings: &Settings, now_ns: u64) {
    let timeout_ns = if is_tcp(&work.key) {
        flow.state = tcp_state::next(flow.state, work.tcp_flags);
        let active = tcp_state::is_active(flow.state);
        flow.flags = (flow.flags & !FLOW_INACTIVE) | if active { 0 } else { FLOW_INACTIVE };
        tcp_timeout_ns(settings, flow.state)
    } else {
        settings.udp_timeout_ns
    };
    flow.expires_ns = now_ns.wrapping_add(timeout_ns);
}

#[inline(always)]
fn tcp_timeout_ns(settings: &Settings, state: u8) -> u64 {
    // The mask keeps the index inside; states are below 11.
    settings.tcp_timeout_ns.get(usize::from(state & 15)).copied().unwrap_or_default()
}

/// What a change between active and inactive does to the real server's load.
#[inline(always)]
fn shift(flow: &Flow) -> Load {
    if flow.flags & FLOW_INACTIVE != 0 {
        Load { active: -1, inactive: 1 }
    } else {
        Load { active: 1, inactive: -1 }
    }
}

/// A TCP flow proves itself by finishing the handshake, any other by a second packet.
#[inline(always)]
fn has_proved_itself(flow: &Flow, work: &Work) -> bool {
    !is_tcp(&work.key) || flow.state == TcpState::Established as u8
}

/// Moves a flow to the established table. When that is full the flow stays where it is, and from now on
/// new flows are placed by consistent hash, so that they survive eviction.
#[inline(always)]
fn promote<T: Tables>(
    tables: &T,
    work: &Work,
    handle: T::Flow,
    flow: &mut Flow,
    settings: &Settings,
    now_ns: u64,
) -> Verdict {
    let moved = Flow { flags: flow.flags & !(FLOW_EMBRYONIC | FLOW_OVERFLOW), ..*flow };
    if tables.insert_established(&work.key, &moved) {
        tables.remove_embryonic(&work.key);
        return Verdict::ForwardKnown;
    }
    flow.flags |= FLOW_OVERFLOW;
    tables.set_flow(handle, flow);
    let window_ns = tcp_timeout_ns(settings, TcpState::Established as u8);
    tables.set_overflow_until_ns(now_ns.wrapping_add(window_ns));
    Verdict::ForwardTableFull
}

/// Serves a packet of no known flow: looks up the service, schedules, tracks, rewrites.
#[inline(always)]
pub fn place<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work, now_ns: u64) -> Step {
    // Only here: a flow with such a client is never made, so known flows need no check.
    if !work.key.client.may_be_source() {
        return Step::Done(count(tables, Verdict::DropBadAddress));
    }
    forget_stale(tables, work);
    let key = ServiceKey {
        address: work.key.virtual_address,
        port_be: work.key.virtual_port_be,
        protocol: work.key.protocol as u16,
    };
    let Some(service) = tables.service(&key) else {
        return Step::Done(count(tables, Verdict::PassNoService));
    };
    let overflow = now_ns < tables.overflow_until_ns();
    let opens = opens(work);
    if !opens && !overflow {
        return Step::Done(count(tables, Verdict::PassNoFlow));
    }
    if work.ttl <= 1 {
        return Step::Answer(Work { answer: Verdict::AnswerTimeExceeded.number() as u8, ..*work });
    }
    let chosen = if overflow {
        schedule::consistent(tables, &service, &work.key)
    } else {
        schedule::schedule(tables, &service, &work.key)
    };
    match chosen {
        Some(real) => send(bytes, tables, work, real, opens, now_ns),
        None => Step::Answer(Work { answer: Verdict::AnswerPortUnreachable.number() as u8, ..*work }),
    }
}

/// Removes a finished flow that stands in the way of a new one.
#[inline(always)]
fn forget_stale<T: Tables>(tables: &T, work: &Work) {
    let found = match work.stale {
        STALE_ESTABLISHED => tables.established(&work.key),
        STALE_EMBRYONIC => tables.embryonic(&work.key),
        _ => return,
    };
    let Some(handle) = found else { return };
    let flow = tables.flow(handle);
    let removed = if work.stale == STALE_ESTABLISHED {
        tables.remove_established(&work.key)
    } else {
        tables.remove_embryonic(&work.key)
    };
    if removed {
        tables.add_load(flow.real, one(&flow, -1));
    }
}

/// A flow's own weight in its real server's load, times `sign`.
#[inline(always)]
fn one(flow: &Flow, sign: i32) -> Load {
    if flow.flags & FLOW_INACTIVE != 0 {
        Load { active: 0, inactive: sign }
    } else {
        Load { active: sign, inactive: 0 }
    }
}

/// Sends the first packet of a flow, and tracks the flow if the packet opens it.
#[inline(always)]
fn send<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    index: u32,
    opens: bool,
    now_ns: u64,
) -> Step {
    let Some(real) = tables.real(index) else {
        return Step::Done(count(tables, Verdict::DropInternal));
    };
    if let Err(verdict) = rewrite(bytes, work, &real) {
        return Step::Done(count(tables, verdict));
    }
    let mut verdict = Verdict::ForwardStateless;
    if opens {
        let Some(flow) = open(tables, work, index, now_ns) else {
            return Step::Done(count(tables, Verdict::DropInternal));
        };
        if !tables.insert_embryonic(&work.key, &flow) {
            return Step::Done(count(tables, Verdict::DropFlowTable));
        }
        tables.add_load(index, one(&flow, 1));
        verdict = Verdict::ForwardNew;
    }
    tables.count_in(index, work.ip_len, opens);
    tables.count_verdict(verdict);
    Step::Done(Outcome { verdict, ifindex: real.ifindex })
}

/// A new flow in the state after its first packet.
#[inline(always)]
fn open<T: Tables>(tables: &T, work: &Work, real: u32, now_ns: u64) -> Option<Flow> {
    let settings = tables.settings()?;
    let flags = FLOW_EMBRYONIC | FLOW_NO_OUTPUT | FLOW_INACTIVE;
    let state = if is_tcp(&work.key) { TcpState::None as u8 } else { UDP_STATE };
    let mut flow = Flow { expires_ns: 0, real, state, flags, reserved: 0 };
    advance(&mut flow, work, settings, now_ns);
    Some(flow)
}

#[inline(always)]
fn count<T: Tables>(tables: &T, verdict: Verdict) -> Outcome {
    tables.count_verdict(verdict);
    Outcome::stop(verdict)
}
