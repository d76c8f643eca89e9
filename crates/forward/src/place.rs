//! Packets of no known flow: looks up the service, schedules, tracks.

use crate::decide::Step;
use crate::deliver::{deliver, is_reachable};
use crate::enter::{advance, opens};
use crate::packet::{STALE_EMBRYONIC, STALE_ESTABLISHED, STALE_RESCUED, Work, is_tcp};
use crate::schedule;
use crate::tables::Tables;
use abi::{
    Answers, FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_NO_OUTPUT, Flow, Load, SYSCTL_SLOPPY_TCP, ServiceKey,
    TcpState, UDP_STATE, Verdict,
};
use wire::Bytes;
use wire::tcp::RST;

const SECOND_NS: u64 = 1_000_000_000;

/// Serves a packet of no known flow: looks up the service, schedules, tracks, rewrites.
#[inline(always)]
pub fn place<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work, now_ns: u64) -> Step {
    // Only here: a flow with such a client is never made, so known flows need no check.
    if !work.key.client.may_be_source() {
        return Step::stop(tables, Verdict::DropBadAddress);
    }
    forget_stale(tables, work);
    let key = ServiceKey {
        address: work.key.virtual_address,
        port_be: work.key.virtual_port_be,
        protocol: work.key.protocol as u16,
    };
    let Some(service) = tables.service(&key) else {
        return Step::stop(tables, Verdict::PassNoService);
    };
    let overflow = now_ns < tables.overflow_until_ns();
    let opens = opens(work) || is_sloppy(tables, work);
    if !opens && !overflow {
        return Step::stop(tables, Verdict::PassNoFlow);
    }
    if opens && is_dropped(tables) {
        return Step::stop(tables, Verdict::DropRate);
    }
    let chosen = if work.stale & STALE_RESCUED != 0 {
        Some(schedule::another(tables, &service, &work.key, work.real))
    } else if overflow {
        schedule::consistent(tables, &service, &work.key)
    } else {
        schedule::schedule(tables, &service, &work.key)
    };
    match chosen {
        Some(real) => send(bytes, tables, work, real, opens, now_ns),
        None => Step::answer(work, Verdict::AnswerPortUnreachable),
    }
}

#[inline(always)]
fn has_switch<T: Tables>(tables: &T, switch: u32) -> bool {
    tables.settings().is_some_and(|settings| settings.sysctls.switches & switch != 0)
}

/// Whether a segment without SYN opens a flow, as it should where connections are taken over that nobody told of
/// (`sloppy_tcp`).
#[inline(always)]
fn is_sloppy<T: Tables>(tables: &T, work: &Work) -> bool {
    is_tcp(&work.key) && work.tcp_flags as u8 & RST == 0 && has_switch(tables, SYSCTL_SLOPPY_TCP)
}

/// Whether this attempt to open a flow is one of those that `drop_packet` drops: the first on each CPU, and then every
/// so many-th.
#[inline(always)]
fn is_dropped<T: Tables>(tables: &T) -> bool {
    let rate = tables.settings().map(|settings| settings.sysctls.drop_rate).unwrap_or_default();
    if rate == 0 {
        return false;
    }
    let answers = tables.answers();
    tables.set_answers(Answers { attempts: answers.attempts.wrapping_add(1), ..answers });
    answers.attempts.checked_rem(u64::from(rate)) == Some(0)
}

/// Removes a finished flow that stands in the way of a new one.
#[inline(always)]
pub(crate) fn forget_stale<T: Tables>(tables: &T, work: &Work) {
    let found = match work.stale & !STALE_RESCUED {
        STALE_ESTABLISHED => tables.established(&work.key),
        STALE_EMBRYONIC => tables.embryonic(&work.key),
        _ => return,
    };
    let Some(handle) = found else { return };
    let flow = tables.flow(handle);
    let removed = if work.stale & STALE_ESTABLISHED != 0 {
        tables.remove_established(&work.key)
    } else {
        tables.remove_embryonic(&work.key)
    };
    if removed {
        tables.add_load(flow.real, Load::of(&flow).negated());
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
        return Step::stop(tables, Verdict::DropInternal);
    };
    // No flow may tie the client to a real server that cannot be reached.
    if let Err(verdict) = is_reachable(&real) {
        return Step::stop(tables, verdict);
    }
    let mut verdict = Verdict::ForwardStateless;
    if opens {
        let Some(flow) = open(tables, work, index, now_ns) else {
            return Step::stop(tables, Verdict::DropInternal);
        };
        if !tables.insert_embryonic(&work.key, &flow) {
            return Step::stop(tables, Verdict::DropFlowTable);
        }
        tables.add_load(index, Load::of(&flow));
        let rescued = work.stale & STALE_RESCUED != 0 && index != work.real;
        verdict = if rescued { Verdict::ForwardRescued } else { Verdict::ForwardNew };
    }
    tables.count_in(index, work.ip_len, opens);
    deliver(bytes, tables, &Work { real: index, ..*work }, &real, verdict)
}

/// A new flow in the state after its first packet.
#[inline(always)]
fn open<T: Tables>(tables: &T, work: &Work, real: u32, now_ns: u64) -> Option<Flow> {
    let settings = tables.settings()?;
    let flags = FLOW_EMBRYONIC | FLOW_NO_OUTPUT | FLOW_INACTIVE;
    let state = if is_tcp(&work.key) { TcpState::None as u8 } else { UDP_STATE };
    let opened_s = now_ns.checked_div(SECOND_NS).unwrap_or_default() as u32;
    let mut flow = Flow { real, state, flags, opened_s, ..Flow::default() };
    advance(&mut flow, work, settings, now_ns);
    Some(flow)
}
