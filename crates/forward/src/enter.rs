//! The entry: reads a packet, and serves it if its flow is known.

use crate::admit;
use crate::decide::{Onward, Outcome, Step};
use crate::deliver::{send_as_it_is, send_translated};
use crate::fate::{self, Fate};
use crate::fragment::remember;
use crate::packet::{
    self, MARK_FROM_SERVER, MARK_OPENS, Network, STALE_EMBRYONIC, STALE_ESTABLISHED, STALE_RESCUED,
    TRANSLATE_EMBRYONIC, TRANSLATE_ESTABLISHED, TRANSLATE_KEEPS_PORT, TRANSLATE_KNOWN, Unserved, Work,
    is_sctp, is_tcp,
};
use crate::sctp_state::{self, Direction};
use crate::tables::Tables;
use crate::tcp_state::{self, Rows};
use abi::{
    FLOW_CONTROLLED, FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_KEEPS_PORT, FLOW_NO_OUTPUT, FLOW_OVERFLOW,
    FLOW_TRANSLATED, Flow, Load, Program, REAL_AVAILABLE, Real, Settings, TcpState, Verdict,
};
use wire::ethernet::TYPE_IPV4;
use wire::tcp::{RST, SYN};
use wire::{Bytes, ipv4, ipv6};

/// Reads the packet and serves it if its flow is known. The clock is read only for packets to a VIP.
#[inline(always)]
pub fn enter<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, now_ns: impl FnOnce() -> u64) -> Step {
    match packet::link(bytes) {
        Ok(frame) if frame.ethertype == TYPE_IPV4 => {
            serve::<B, T, ipv4::Header>(bytes, tables, frame.payload, now_ns)
        }
        Ok(frame) => serve::<B, T, ipv6::Header>(bytes, tables, frame.payload, now_ns),
        Err(verdict) => Step::stop(tables, verdict),
    }
}

/// The path of one address family, with work of its own: shared, it would have to be kept in memory.
#[inline(always)]
fn serve<B: Bytes, T: Tables, N: Network>(
    bytes: &mut B,
    tables: &T,
    l3: usize,
    now_ns: impl FnOnce() -> u64,
) -> Step {
    let network = match N::read(bytes, l3) {
        Ok(network) => network,
        Err(short) => return Step::stop(tables, packet::truncated(short)),
    };
    if !tables.may_be_vip(&network.destination()) {
        return from_server(bytes, tables, &network, l3);
    }
    let mut work = match network.check(bytes, l3) {
        Ok(work) => work,
        Err(verdict) => return Step::stop(tables, verdict),
    };
    match packet::transport(bytes, &network, &mut work) {
        Ok(None) => {
            let served = find::<B, T, true>(bytes, tables, &mut work, now_ns());
            Onward::of(tables, served).with(work)
        }
        Ok(Some(program)) => Step::Next(program, work),
        Err(verdict) => Step::stop(tables, verdict),
    }
}

/// A packet for no VIP, which may come from a masqueraded real server.
#[inline(always)]
fn from_server<B: Bytes, T: Tables, N: Network>(bytes: &B, tables: &T, network: &N, l3: usize) -> Step {
    // An ICMP error about a translated or tunnelled packet may come from any router.
    if !network.is_icmp() && !tables.may_be_masqueraded(&network.source()) {
        return Step::stop(tables, Verdict::PassNotVip);
    }
    // What cannot be read is no reply, and none of ours.
    let Ok(mut work) = network.check(bytes, l3) else {
        return Step::stop(tables, Verdict::PassNotVip);
    };
    match packet::transport(bytes, network, &mut work) {
        Ok(program) => {
            work.marks = MARK_FROM_SERVER;
            Step::Next(program.unwrap_or(Program::Reply), work)
        }
        Err(_) => Step::stop(tables, Verdict::PassNotVip),
    }
}

/// Looks up the flow and serves the packet if it is known; else the next program places it. `ENTRY` promises that
/// the packet is a whole one of TCP or UDP, so that the entry pays for nothing else.
#[inline(always)]
pub(crate) fn find<B: Bytes, T: Tables, const ENTRY: bool>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    let (found, table) = match tables.established(&work.key) {
        Some(handle) => (Some(handle), STALE_ESTABLISHED),
        None => (tables.embryonic(&work.key), STALE_EMBRYONIC),
    };
    if let Some(handle) = found {
        let flow = tables.flow(handle);
        let real = tables.real(flow.real).ok_or(Verdict::DropInternal)?;
        let fate = if is_doubtful::<ENTRY>(&flow, &real, work, now_ns) {
            let settings = tables.settings().ok_or(Verdict::DropInternal)?;
            fate::of::<T, ENTRY>(tables, settings, &flow, &real, work, now_ns)
        } else {
            Fate::Goes
        };
        work.real = flow.real;
        work.stale = table;
        match fate {
            Fate::Goes => return known::<B, T, ENTRY>(bytes, tables, work, &real, (handle, flow), now_ns),
            Fate::Over => {}
            Fate::Rescued => work.stale = table | STALE_RESCUED,
            Fate::Dropped => return Err(Verdict::DropRealGone.into()),
            Fate::Reset => return Err(Unserved::Next(Program::Reset)),
        }
    }
    Err(Unserved::Next(Program::Schedule))
}

/// Whether something is the matter with a flow, so that [`fate`] has to be asked.
#[inline(always)]
fn is_doubtful<const ENTRY: bool>(flow: &Flow, real: &Real, work: &Work, now_ns: u64) -> bool {
    let begins = if is_tcp(&work.key) {
        opens::<ENTRY>(work)
    } else {
        !ENTRY && is_sctp(&work.key) && sctp_state::begins(work.tcp_flags)
    };
    real.flags & REAL_AVAILABLE == 0 || now_ns >= flow.expires_ns || begins
}

/// Whether the packet may open a flow: any but a TCP segment without SYN, or with RST, and those of SCTP
/// without the mark.
#[inline(always)]
pub(crate) fn opens<const ENTRY: bool>(work: &Work) -> bool {
    let marked = !ENTRY && work.marks & MARK_OPENS != 0;
    if is_tcp(&work.key) {
        work.tcp_flags as u8 & (SYN | RST) == SYN || marked
    } else {
        ENTRY || !is_sctp(&work.key) || marked
    }
}

/// Serves a packet of a known flow.
#[inline(always)]
fn known<B: Bytes, T: Tables, const ENTRY: bool>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    real: &Real,
    (handle, mut flow): (T::Flow, Flow),
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    let before = flow;
    advance::<ENTRY>(&mut flow, work, settings, now_ns);
    if (flow.flags ^ before.flags) & FLOW_INACTIVE != 0 {
        tables.add_load(flow.real, shift(&flow));
        if real.counts_clients != 0 && flow.flags & FLOW_INACTIVE != 0 {
            admit::end(tables, real.service, &work.key.client);
        }
    }
    let mut verdict = Verdict::ForwardKnown;
    let mut assures = false;
    if flow.flags & FLOW_EMBRYONIC != 0 && has_proved_itself::<ENTRY>(&flow, work) {
        verdict = promote(tables, work, handle, &mut flow, settings, now_ns);
        let may_assure = is_tcp(&work.key) || (!ENTRY && is_sctp(&work.key));
        assures = flow.flags & FLOW_CONTROLLED != 0 && may_assure;
    } else {
        tables.set_flow(handle, &flow);
    }
    if flow.flags & FLOW_TRANSLATED != 0 {
        translated(work, &before, &flow);
    }
    if !ENTRY {
        remember(tables, work, flow.real, now_ns);
    }
    tables.count_in(flow.real, work.ip_len, false);
    if assures {
        work.verdict = verdict as u8;
        return Err(Unserved::Next(Program::Assure));
    }
    // Two ways, so that the commonest case carries nothing of translation.
    if flow.flags & FLOW_TRANSLATED != 0 {
        return send_translated(tables, work, real, verdict);
    }
    send_as_it_is(bytes, tables, work, real, verdict)
}

/// How a packet of a translated flow is translated, whose flow was `before` and is `now`.
#[inline(always)]
fn translated(work: &mut Work, before: &Flow, now: &Flow) {
    let way_back = match (before.flags & FLOW_EMBRYONIC != 0, now.flags & FLOW_EMBRYONIC != 0) {
        (true, true) => TRANSLATE_EMBRYONIC,
        (true, false) => TRANSLATE_ESTABLISHED,
        _ => TRANSLATE_KNOWN,
    };
    work.source_port_be = now.source_port_be;
    work.translate = way_back | if now.flags & FLOW_KEEPS_PORT != 0 { TRANSLATE_KEEPS_PORT } else { 0 };
}

/// Counts a packet from the client, moves the state on and restarts the timer.
#[inline(always)]
pub(crate) fn advance<const ENTRY: bool>(flow: &mut Flow, work: &Work, settings: &Settings, now_ns: u64) {
    let rows = if flow.flags & FLOW_NO_OUTPUT != 0 { Rows::InputOnly } else { Rows::Input };
    flow.packets = flow.packets.saturating_add(1);
    turn::<ENTRY>(flow, work, rows, settings, now_ns);
}

/// The same for a packet from the real server, which is not counted.
#[inline(always)]
pub(crate) fn advance_output<const ENTRY: bool>(
    flow: &mut Flow,
    work: &Work,
    settings: &Settings,
    now_ns: u64,
) {
    flow.flags &= !FLOW_NO_OUTPUT;
    turn::<ENTRY>(flow, work, Rows::Output, settings, now_ns);
}

#[inline(always)]
fn turn<const ENTRY: bool>(flow: &mut Flow, work: &Work, rows: Rows, settings: &Settings, now_ns: u64) {
    let timeout_ns = if is_tcp(&work.key) && tcp_state::stays(flow.state, work.tcp_flags as u8) {
        tcp_state::timeout_ns(settings, TcpState::Established as u8)
    } else if is_tcp(&work.key) {
        // In ESTABLISHED, where nearly all segments are, both tables say the same.
        let secure = flow.state != TcpState::Established as u8 && settings.sysctls.secure_tcp != 0;
        flow.state = if secure {
            tcp_state::next_secure(rows, flow.state, work.tcp_flags as u8)
        } else {
            tcp_state::next(rows, flow.state, work.tcp_flags as u8)
        };
        let active = tcp_state::is_active(flow.state);
        flow.flags = (flow.flags & !FLOW_INACTIVE) | if active { 0 } else { FLOW_INACTIVE };
        tcp_state::timeout_ns(settings, flow.state)
    } else if !ENTRY && is_sctp(&work.key) {
        flow.state = sctp_state::next(flow.state, work.tcp_flags, sctp_direction(rows));
        let active = sctp_state::is_active(flow.state);
        flow.flags = (flow.flags & !FLOW_INACTIVE) | if active { 0 } else { FLOW_INACTIVE };
        sctp_state::timeout_ns(settings, flow.state)
    } else {
        settings.udp_timeout_ns
    };
    flow.expires_ns = now_ns.wrapping_add(timeout_ns);
}

/// The rows of SCTP's table beside those of TCP's.
#[inline(always)]
const fn sctp_direction(rows: Rows) -> Direction {
    match rows {
        Rows::Input => Direction::Input,
        Rows::Output => Direction::Output,
        Rows::InputOnly => Direction::InputOnly,
    }
}

/// What a change between active and inactive does to the real server's load.
#[inline(always)]
pub(crate) fn shift(flow: &Flow) -> Load {
    if flow.flags & FLOW_INACTIVE != 0 {
        Load { active: -1, inactive: 1, ..Load::default() }
    } else {
        Load { active: 1, inactive: -1, ..Load::default() }
    }
}

/// A TCP or SCTP flow proves itself by finishing the handshake, any other by a second packet.
#[inline(always)]
fn has_proved_itself<const ENTRY: bool>(flow: &Flow, work: &Work) -> bool {
    if is_tcp(&work.key) {
        return flow.state == TcpState::Established as u8;
    }
    ENTRY || !is_sctp(&work.key) || sctp_state::is_active(flow.state)
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
        *flow = moved;
        return Verdict::ForwardKnown;
    }
    flow.flags |= FLOW_OVERFLOW;
    tables.set_flow(handle, flow);
    let window_ns = tcp_state::timeout_ns(settings, TcpState::Established as u8);
    tables.set_overflow_until_ns(now_ns.wrapping_add(window_ns));
    Verdict::ForwardTableFull
}
