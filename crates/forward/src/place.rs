//! Packets of no known flow: looks up the service, schedules, tracks.

use crate::admit;
use crate::decide::{Onward, Outcome};
use crate::deliver::{self, is_reachable};
use crate::enter::{advance, opens};
use crate::find::{FTP_BE, FTP_DATA_BE};
use crate::fragment::{leave_to_host, remember};
use crate::packet::{
    MARK_ICMP_ERROR, MARK_NO_REPLY, STALE_CHOSEN, STALE_EMBRYONIC, STALE_ESTABLISHED, STALE_RESCUED,
    TRANSLATE_EMBRYONIC, TRANSLATE_KEEPS_PORT, TRANSLATE_KNOWN, TRANSLATE_NOT, Unserved, Work, is_tcp,
};
use crate::schedule::affinity;
use crate::tables::Tables;
use crate::{bind, find, persist, schedule};
use abi::{
    Answers, FLOW_CONTROLLED, FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_KEEPS_PORT, FLOW_NO_OUTPUT,
    FLOW_TRANSLATED, Flow, METHOD_MASQUERADE, Program, REAL_LOCAL, REAL_TRANSLATE_SOURCE, Real,
    SERVICE_ONE_PACKET, SERVICE_SIP, SYSCTL_CACHE_BYPASS, SYSCTL_SLOPPY_TCP, Service, TcpState, UDP_STATE,
    Verdict, protocol,
};
use wire::Bytes;
use wire::tcp::RST;

const SECOND_NS: u64 = 1_000_000_000;
/// Time-out of a flow before its first packet has moved its state [`ip_vs_conn.c`, `ip_vs_conn_new`].
const NEW_FLOW_NS: u64 = 3 * SECOND_NS;

/// Finds the real server for a packet of no known flow: looks up the service, schedules. [`track`] does the rest, in a
/// program of its own: after a scan the verifier of 6.1 tells apart all that schedulers leave behind, and what follows
/// would be gone through once for each.
#[inline(always)]
pub fn place<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve(tables, work, now_ns);
    Onward::of(tables, served)
}

#[inline(always)]
fn serve<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Result<Outcome, Unserved> {
    // Only here: a flow with such a client is never made, so known flows need no check.
    if !work.key.client.may_be_source() {
        return Err(Verdict::DropBadAddress.into());
    }
    // The director's own address, to which translated sources are answered, may be a VIP as well. And the filter of the
    // VIPs may be wrong about the client of a reply.
    if tables.may_be_masqueraded(&work.key.client) && work.marks & MARK_NO_REPLY == 0 {
        return Err(Unserved::Next(Program::Reply));
    }
    forget_stale(tables, work);
    let Some(service) = find::service(tables, &work.key) else {
        leave_to_host(tables, work, now_ns);
        return Err(Verdict::PassNoService.into());
    };
    if work.key.client_port_be == FTP_DATA_BE {
        leave_to_host(tables, work, now_ns);
        return Err(Verdict::PassFtpData.into());
    }
    let overflow = now_ns < tables.overflow_until_ns();
    let opens = may_open(tables, work);
    if !opens && !overflow {
        leave_to_host(tables, work, now_ns);
        return Err(Verdict::PassNoFlow.into());
    }
    if admit::is_due(&service, work) {
        return Err(Unserved::Next(Program::Admit));
    }
    if opens && is_dropped(tables) {
        return Err(Verdict::DropRate.into());
    }
    if service.persistence_s != 0 {
        let is_sip = service.flags & SERVICE_SIP != 0;
        return Err(Unserved::Next(if is_sip { Program::Call } else { Program::Persist }));
    }
    // Only persistence ties the other ports of a VIP together.
    let chosen = if service.mark == 0 && service.port_be != work.key.virtual_port_be {
        None
    } else if work.stale & STALE_RESCUED != 0 {
        Some(schedule::another(tables, &service, &work.key, work.real))
    } else if affinity::is_affine(&service) && !overflow {
        return Err(Unserved::Next(Program::Affinity));
    } else {
        schedule(tables, &service, work, overflow)
    };
    let Some(real) = chosen else { return without_real(tables, &service, work, now_ns) };
    let rescued = work.stale & STALE_RESCUED != 0 && real != work.real;
    let verdict = match opens {
        false => Verdict::ForwardStateless,
        true if rescued => Verdict::ForwardRescued,
        true => of_new_flow(&service, work),
    };
    placed(work, real, 0, verdict);
    Err(Unserved::Next(Program::Track))
}

/// The same for a packet to a persistent service, of which [`place`] has found out that it opens a flow or may go without:
/// its client's template decides first. [`track`] does the rest, in a program of its own: the stack of one is too small.
#[inline(always)]
pub fn place_persistent<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve_persistent(tables, work, now_ns);
    Onward::of(tables, served)
}

#[inline(always)]
fn serve_persistent<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Result<Outcome, Unserved> {
    let Some(service) = find::service(tables, &work.key) else {
        return Err(Verdict::PassNoService.into());
    };
    let template = persist::find(tables, &service, &work.key, now_ns);
    let chosen = match template.real {
        Some(real) => Some(real),
        None if work.stale & STALE_CHOSEN != 0 => Some(work.real),
        None => {
            let overflow = now_ns < tables.overflow_until_ns();
            if affinity::is_affine(&service) && !overflow {
                return Err(Unserved::Next(Program::Affinity));
            }
            schedule(tables, &service, work, overflow)
        }
    };
    let Some(index) = chosen else { return without_real(tables, &service, work, now_ns) };
    let Some(real) = tables.real(index) else {
        return Err(Verdict::DropInternal.into());
    };
    // No template may tie the client to a real server that cannot be reached.
    if let Err(verdict) = is_reachable(&real) {
        return Err(verdict.into());
    }
    let mut flags = 0;
    let mut verdict = Verdict::ForwardStateless;
    if may_open(tables, work) {
        verdict = of_new_flow(&service, work);
        let controls = verdict == Verdict::ForwardNew;
        if template.keep(tables, &service, index, controls, now_ns) {
            flags |= FLOW_CONTROLLED;
        } else if controls {
            verdict = Verdict::ForwardNoTemplate;
        }
    }
    if service.port_be != work.key.virtual_port_be {
        flags |= FLOW_KEEPS_PORT;
    }
    placed(work, index, flags, verdict);
    Err(Unserved::Next(Program::Track))
}

/// The same for a packet that opens a flow of a service whose scheduler remembers destinations; [`track`] does the rest,
/// or [`place_persistent`], which asked for it.
#[inline(always)]
pub fn place_affine<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve_affine(tables, work, now_ns);
    Onward::of(tables, served)
}

#[inline(always)]
fn serve_affine<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Result<Outcome, Unserved> {
    let Some(service) = find::service(tables, &work.key) else {
        return Err(Verdict::PassNoService.into());
    };
    let Some(real) = affinity::choose(tables, &service, &work.key, now_ns) else {
        return without_real(tables, &service, work, now_ns);
    };
    if service.persistence_s != 0 {
        work.real = real;
        work.stale |= STALE_CHOSEN;
        return Err(Unserved::Next(Program::Persist));
    }
    placed(work, real, 0, of_new_flow(&service, work));
    Err(Unserved::Next(Program::Track))
}

/// A packet with its real server, for [`track`].
#[inline(always)]
fn placed(work: &mut Work, real: u32, flags: u8, verdict: Verdict) {
    work.real = real;
    work.stale = flags;
    work.verdict = verdict as u8;
}

/// What a packet that opens a flow counts as: of a one-packet service, which looks at UDP only, nothing is tracked.
#[inline(always)]
fn of_new_flow(service: &Service, work: &Work) -> Verdict {
    let one_packet = service.flags & SERVICE_ONE_PACKET != 0;
    if one_packet && work.key.protocol == u32::from(protocol::UDP) {
        Verdict::ForwardOnePacket
    } else {
        Verdict::ForwardNew
    }
}

/// The real server that the service's scheduler gives the packet or, after overflow, consistent hashing.
#[inline(always)]
fn schedule<T: Tables>(tables: &T, service: &Service, work: &Work, overflow: bool) -> Option<u32> {
    if overflow {
        schedule::consistent(tables, service, &work.key)
    } else {
        schedule::schedule(tables, service, &work.key)
    }
}

/// The end of a packet whose service has no real server for it [`ip_vs_core.c`, `ip_vs_leave`].
#[inline(always)]
fn without_real<T: Tables>(
    tables: &T,
    service: &Service,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    let error = work.marks & MARK_ICMP_ERROR != 0;
    if service.mark != 0 && !error && has_switch(tables, SYSCTL_CACHE_BYPASS) {
        leave_to_host(tables, work, now_ns);
        return Err(Verdict::PassBypass.into());
    }
    if service.port_be == FTP_BE && work.key.virtual_port_be != FTP_BE {
        return Err(Verdict::PassNoService.into());
    }
    work.verdict = Verdict::AnswerPortUnreachable as u8;
    Err(Unserved::Next(Program::Answer))
}

#[inline(always)]
fn has_switch<T: Tables>(tables: &T, switch: u32) -> bool {
    tables.settings().is_some_and(|settings| settings.sysctls.switches & switch != 0)
}

/// Whether the packet may open a flow of its own.
#[inline(always)]
pub(crate) fn may_open<T: Tables>(tables: &T, work: &Work) -> bool {
    opens::<false>(work) || is_sloppy(tables, work)
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
        bind::unbind(tables, &flow);
    }
}

/// Sends a packet to the real server that was chosen for it, and tracks its flow if it opens one.
#[inline(always)]
pub fn track<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = send(bytes, tables, work, now_ns);
    Onward::of(tables, served)
}

#[inline(always)]
fn send<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    let real = tables.real(work.real).ok_or(Verdict::DropInternal)?;
    // No flow may tie the client to a real server that cannot be reached.
    is_reachable(&real)?;
    let verdict = Verdict::of_forward(work.verdict);
    let mut opens =
        matches!(verdict, Verdict::ForwardNew | Verdict::ForwardNoTemplate | Verdict::ForwardRescued);
    if real.method == METHOD_MASQUERADE {
        work.translate = translate(&real, work);
        if work.translate != TRANSLATE_NOT {
            if real.flags & REAL_TRANSLATE_SOURCE != 0 {
                return Err(Unserved::Next(Program::Source));
            }
            // A translated flow that was evicted is opened again by any packet: without it replies find no way back.
            opens = verdict != Verdict::ForwardOnePacket;
        }
    }
    if opens {
        begin(tables, work, &real, now_ns)?;
    }
    remember(tables, work, work.real, now_ns);
    tables.count_in(work.real, work.ip_len, verdict != Verdict::ForwardStateless);
    deliver::send(bytes, tables, work, &real, verdict)
}

/// How packets to a masqueraded real server that was chosen now are translated.
#[inline(always)]
fn translate(real: &Real, work: &Work) -> u32 {
    if real.flags & REAL_LOCAL != 0 {
        return TRANSLATE_NOT;
    }
    let one_packet = work.verdict == Verdict::ForwardOnePacket as u8;
    let way_back = if one_packet { TRANSLATE_KNOWN } else { TRANSLATE_EMBRYONIC };
    way_back | if work.stale & FLOW_KEEPS_PORT != 0 { TRANSLATE_KEEPS_PORT } else { 0 }
}

/// Opens a flow to `work.real`.
#[inline(always)]
pub(crate) fn begin<T: Tables>(tables: &T, work: &Work, real: &Real, now_ns: u64) -> Result<(), Verdict> {
    let flow = open(tables, work, now_ns).ok_or(Verdict::DropInternal)?;
    if !tables.insert_embryonic(&work.key, &flow) {
        return Err(Verdict::DropFlowTable);
    }
    bind::bind(tables, work.real, real, &flow);
    Ok(())
}

/// A new flow in the state after its first packet. Of one that is translated both directions are seen.
#[inline(always)]
fn open<T: Tables>(tables: &T, work: &Work, now_ns: u64) -> Option<Flow> {
    let settings = tables.settings()?;
    let seen = if work.translate == TRANSLATE_NOT { FLOW_NO_OUTPUT } else { FLOW_TRANSLATED };
    let mut flow = Flow {
        real: work.real,
        state: if is_tcp(&work.key) { TcpState::None as u8 } else { UDP_STATE },
        flags: FLOW_EMBRYONIC | FLOW_INACTIVE | seen | work.stale,
        source_port_be: work.source_port_be,
        opened_s: now_ns.checked_div(SECOND_NS).unwrap_or_default() as u32,
        ..Flow::default()
    };
    if work.marks & MARK_ICMP_ERROR != 0 {
        // No packet of the flow itself has come: it stays as it was made, with the time-out of a new one.
        flow.expires_ns = now_ns.wrapping_add(NEW_FLOW_NS);
    } else {
        advance::<false>(&mut flow, work, settings, now_ns);
    }
    Some(flow)
}
