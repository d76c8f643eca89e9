//! The entry: reads a packet, and serves it if its flow is known.

use crate::decide::Step;
use crate::deliver::deliver;
use crate::fate::{self, Fate};
use crate::packet::{self, Network, STALE_EMBRYONIC, STALE_ESTABLISHED, STALE_RESCUED, Work, is_tcp};
use crate::tables::Tables;
use crate::tcp_state;
use abi::{
    FLOW_CONTROLLED, FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_OVERFLOW, Flow, Load, Program, REAL_AVAILABLE, Real,
    Settings, TcpState, Verdict,
};
use wire::ethernet::TYPE_IPV4;
use wire::tcp::{RST, SYN};
use wire::{Bytes, ipv4, ipv6};

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
        Err(verdict) => Step::stop(tables, verdict),
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
    let mut program = Program::Schedule;
    let (found, table) = match tables.established(&work.key) {
        Some(handle) => (Some(handle), STALE_ESTABLISHED),
        None => (tables.embryonic(&work.key), STALE_EMBRYONIC),
    };
    if let Some(handle) = found {
        let flow = tables.flow(handle);
        let real = tables.real(flow.real).ok_or(Verdict::DropInternal)?;
        let fate = if is_doubtful(&flow, &real, &work, now_ns) {
            let settings = tables.settings().ok_or(Verdict::DropInternal)?;
            fate::of(tables, settings, &flow, &real, &work, now_ns)
        } else {
            Fate::Goes
        };
        work.real = flow.real;
        work.stale = table;
        match fate {
            Fate::Goes => match known(bytes, tables, &work, &real, (handle, flow), now_ns)? {
                Known::Done(step) => return Ok(step),
                Known::Assures(verdict) => {
                    work.verdict = verdict as u8;
                    program = Program::Assure;
                }
            },
            Fate::Over => {}
            Fate::Rescued => work.stale = table | STALE_RESCUED,
            Fate::Dropped => return Err(Verdict::DropRealGone),
            Fate::Reset => return Ok(Step::Next(Program::Reset, work)),
        }
    }
    Ok(Step::Next(program, work))
}

/// Whether something is the matter with a flow, so that [`fate`] has to be asked.
#[inline(always)]
fn is_doubtful(flow: &Flow, real: &Real, work: &Work, now_ns: u64) -> bool {
    real.flags & REAL_AVAILABLE == 0 || now_ns >= flow.expires_ns || (is_tcp(&work.key) && opens(work))
}

/// Whether the packet may open a flow: any but a TCP segment without SYN, or with RST.
#[inline(always)]
pub(crate) fn opens(work: &Work) -> bool {
    !is_tcp(&work.key) || work.tcp_flags as u8 & (SYN | RST) == SYN
}

/// What became of a packet of a known flow.
enum Known {
    Done(Step),
    /// It establishes a connection under a template; the verdict once it has left.
    Assures(Verdict),
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
) -> Result<Known, Verdict> {
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    let before = flow;
    advance(&mut flow, work, settings, now_ns);
    if (flow.flags ^ before.flags) & FLOW_INACTIVE != 0 {
        tables.add_load(flow.real, shift(&flow));
    }
    let mut verdict = Verdict::ForwardKnown;
    let mut assures = false;
    if flow.flags & FLOW_EMBRYONIC != 0 && has_proved_itself(&flow, work) {
        verdict = promote(tables, work, handle, &mut flow, settings, now_ns);
        assures = flow.flags & FLOW_CONTROLLED != 0 && is_tcp(&work.key);
    } else {
        tables.set_flow(handle, &flow);
    }
    tables.count_in(flow.real, work.ip_len, false);
    if assures {
        return Ok(Known::Assures(verdict));
    }
    Ok(Known::Done(deliver(bytes, tables, work, real, verdict)))
}

/// Counts the packet, moves the state on and restarts the timer.
#[inline(always)]
pub(crate) fn advance(flow: &mut Flow, work: &Work, settings: &Settings, now_ns: u64) {
    let timeout_ns = if is_tcp(&work.key) {
        flow.state = tcp_state::next(flow.state, work.tcp_flags as u8);
        let active = tcp_state::is_active(flow.state);
        flow.flags = (flow.flags & !FLOW_INACTIVE) | if active { 0 } else { FLOW_INACTIVE };
        tcp_state::timeout_ns(settings, flow.state)
    } else {
        settings.udp_timeout_ns
    };
    flow.packets = flow.packets.saturating_add(1);
    flow.expires_ns = now_ns.wrapping_add(timeout_ns);
}

/// What a change between active and inactive does to the real server's load.
#[inline(always)]
fn shift(flow: &Flow) -> Load {
    if flow.flags & FLOW_INACTIVE != 0 {
        Load { active: -1, inactive: 1, ..Load::default() }
    } else {
        Load { active: 1, inactive: -1, ..Load::default() }
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
    if is_tcp(&work.key) {
        tables.set_progressed_ns(flow.real, now_ns);
    }
    let moved = Flow { flags: flow.flags & !(FLOW_EMBRYONIC | FLOW_OVERFLOW), ..*flow };
    if tables.insert_established(&work.key, &moved) {
        tables.remove_embryonic(&work.key);
        return Verdict::ForwardKnown;
    }
    flow.flags |= FLOW_OVERFLOW;
    tables.set_flow(handle, flow);
    let window_ns = tcp_state::timeout_ns(settings, TcpState::Established as u8);
    tables.set_overflow_until_ns(now_ns.wrapping_add(window_ns));
    Verdict::ForwardTableFull
}
