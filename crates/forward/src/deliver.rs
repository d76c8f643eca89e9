//! The last decisions before a packet leaves: may it, which way, and which program makes it ready.

use crate::decide::{Onward, Outcome, Step};
use crate::packet::{MARK_ICMP_ERROR, TRANSLATE_NOT, Unserved, Work};
use crate::rewrite;
use crate::tables::Tables;
use abi::{
    METHOD_DIRECT_ROUTING, METHOD_MASQUERADE, METHOD_TUNNEL, Program, REAL_LOCAL, REAL_RESOLVED, Real,
    Verdict,
};
use wire::Bytes;

/// Whether packets can be sent to the real server at all.
///
/// # Errors
/// The verdict, when they cannot.
#[inline(always)]
pub fn is_reachable(real: &Real) -> Result<(), Verdict> {
    if real.flags & (REAL_RESOLVED | REAL_LOCAL) == 0 { Err(Verdict::DropUnresolved) } else { Ok(()) }
}

/// Sends a packet that was counted for its real server. `verdict` says what is counted once it leaves.
#[inline(always)]
pub fn deliver<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    real: &Real,
    verdict: Verdict,
) -> Step {
    let mut next = *work;
    let served = send(bytes, tables, &mut next, real, verdict);
    Onward::of(tables, served).with(next)
}

/// The same, with the work of the next program left where it is.
///
/// # Errors
/// The verdict, or the program that makes the packet ready.
#[inline(always)]
pub fn send<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    real: &Real,
    verdict: Verdict,
) -> Result<Outcome, Unserved> {
    if work.translate == TRANSLATE_NOT {
        send_as_it_is(bytes, tables, work, real, verdict)
    } else {
        send_translated(tables, work, real, verdict)
    }
}

/// The same for a packet whose flow is not translated, which the entry knows.
///
/// # Errors
/// As for [`send`].
#[inline(always)]
pub fn send_as_it_is<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    real: &Real,
    verdict: Verdict,
) -> Result<Outcome, Unserved> {
    may_leave(tables, work, real)?;
    if real.method == METHOD_TUNNEL {
        work.verdict = verdict as u8;
        return Err(Unserved::Next(Program::Tunnel));
    }
    fits(tables, work, real)?;
    // That it is not translated says the flow and not the method: one that is edited to masquerading is so for new flows only.
    if real.method != METHOD_DIRECT_ROUTING && real.method != METHOD_MASQUERADE {
        return Err(refuse(tables, Verdict::DropMethod));
    }
    if rewrite::direct_routing(bytes, work, real).is_err() {
        return Err(refuse(tables, Verdict::DropTruncated));
    }
    if verdict != Verdict::ForwardKnown {
        tables.count_verdict(verdict);
    }
    Ok(Outcome { verdict, ifindex: real.ifindex })
}

/// The same for a packet of a translated flow, whatever the method is by now.
///
/// # Errors
/// The verdict, or the program that makes the packet ready.
#[inline(always)]
pub fn send_translated<T: Tables>(
    tables: &T,
    work: &mut Work,
    real: &Real,
    verdict: Verdict,
) -> Result<Outcome, Unserved> {
    may_leave(tables, work, real)?;
    fits(tables, work, real)?;
    work.verdict = verdict as u8;
    let error = work.marks & MARK_ICMP_ERROR != 0;
    Err(Unserved::Next(if error { Program::Error } else { Program::Masquerade }))
}

/// What holds for every method: there is a way to the real server, it is another machine, and the packet has a hop left.
#[inline(always)]
fn may_leave<T: Tables>(tables: &T, work: &mut Work, real: &Real) -> Result<(), Unserved> {
    if let Err(verdict) = is_reachable(real) {
        return Err(refuse(tables, verdict));
    }
    if real.flags & REAL_LOCAL != 0 {
        return Err(refuse(tables, Verdict::ForwardLocal));
    }
    if work.ttl <= 1 {
        return Err(answer(tables, work, Verdict::AnswerTimeExceeded));
    }
    Ok(())
}

/// Whether the packet is short enough for the way to the real server.
#[inline(always)]
fn fits<T: Tables>(tables: &T, work: &mut Work, real: &Real) -> Result<(), Unserved> {
    // An unknown MTU is asked for second: nearly every packet is shorter than the MTU.
    if work.ip_len > real.mtu && real.mtu != 0 {
        return Err(answer(tables, work, Verdict::AnswerTooBig));
    }
    Ok(())
}

/// The end of a packet that was counted for its real server and does not leave for it.
#[inline(always)]
fn refuse<T: Tables>(tables: &T, verdict: Verdict) -> Unserved {
    tables.take_back_known();
    Unserved::Stop(verdict)
}

/// The end of one whose sender is to get an ICMP error.
#[inline(always)]
fn answer<T: Tables>(tables: &T, work: &mut Work, verdict: Verdict) -> Unserved {
    tables.take_back_known();
    work.verdict = verdict as u8;
    Unserved::Next(Program::Answer)
}

/// The end of a packet that leaves for its real server by another program than the one that counted it:
/// `work.verdict` says what is counted.
#[inline(always)]
pub fn leave<T: Tables>(tables: &T, work: &Work, ifindex: u32) -> Outcome {
    let verdict = Verdict::of_forward(work.verdict);
    if verdict == Verdict::ForwardKnown {
        return Outcome { verdict, ifindex };
    }
    Outcome::leave(tables, verdict, ifindex)
}
