//! The last decisions before a packet leaves: may it, which way, and which program makes it ready.

use crate::decide::{Outcome, Step};
use crate::packet::Work;
use crate::rewrite;
use crate::tables::Tables;
use abi::{METHOD_DIRECT_ROUTING, METHOD_TUNNEL, Program, REAL_LOCAL, REAL_RESOLVED, Real, Verdict};
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
    match send(bytes, work, real, verdict) {
        Ok(Step::Done(outcome)) => {
            if outcome.verdict != Verdict::ForwardKnown {
                tables.count_verdict(outcome.verdict);
            }
            if outcome.verdict == Verdict::ForwardLocal {
                tables.take_back_known();
            }
            Step::Done(outcome)
        }
        Ok(step) => {
            if let Step::Next(Program::Answer, _) = step {
                tables.take_back_known();
            }
            step
        }
        Err(verdict) => {
            tables.take_back_known();
            Step::Done(Outcome::count(tables, verdict))
        }
    }
}

#[inline(always)]
fn send<B: Bytes>(bytes: &mut B, work: &Work, real: &Real, verdict: Verdict) -> Result<Step, Verdict> {
    is_reachable(real)?;
    if real.flags & REAL_LOCAL != 0 {
        return Ok(Step::Done(Outcome { verdict: Verdict::ForwardLocal, ifindex: 0 }));
    }
    if work.ttl <= 1 {
        return Ok(Step::answer(work, Verdict::AnswerTimeExceeded));
    }
    if real.method == METHOD_TUNNEL {
        return Ok(Step::Next(Program::Tunnel, Work { verdict: verdict as u8, ..*work }));
    }
    // An unknown MTU is asked for second: nearly every packet is shorter than the MTU.
    if work.ip_len > real.mtu && real.mtu != 0 {
        return Ok(Step::answer(work, Verdict::AnswerTooBig));
    }
    if real.method != METHOD_DIRECT_ROUTING {
        return Err(Verdict::DropMethod);
    }
    rewrite::direct_routing(bytes, work, real).map_err(crate::packet::truncated)?;
    Ok(Step::Done(Outcome { verdict, ifindex: real.ifindex }))
}

/// The end of a packet that leaves for its real server by another program than the one that counted it:
/// `work.verdict` says what is counted.
#[inline(always)]
pub fn leave<T: Tables>(tables: &T, work: &Work, ifindex: u32) -> Step {
    let verdict = Verdict::of_forward(work.verdict);
    if verdict == Verdict::ForwardKnown {
        return Step::Done(Outcome { verdict, ifindex });
    }
    tables.count_verdict(verdict);
    Step::Done(Outcome { verdict, ifindex })
}
