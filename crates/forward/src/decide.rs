//! The whole path: how the programs follow each other, for runners without programs.

use crate::packet::{Unserved, Work};
use crate::tables::Tables;
use crate::{
    admit, answer, assure, call, enter, error, fragment, masquerade, place, place_affine, place_persistent,
    related, reply, reply_piece, reset, sctp, source, track, tunnel, unwrap,
};
use abi::{Program, Verdict};

/// Most programs that one packet goes through.
const PROGRAMS_IN_A_ROW_MAX: usize = 14;

/// What became of a packet, and where a forwarded one leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// What became of it.
    pub verdict: Verdict,
    /// Index of the interface it leaves by, for a forwarding verdict; 0 when it does not leave, or goes to
    /// the director's own stack.
    pub ifindex: u32,
}

impl Outcome {
    /// The end of a packet that does not leave.
    #[inline(always)]
    pub const fn stop(verdict: Verdict) -> Self {
        Self { verdict, ifindex: 0 }
    }

    /// The end of one that leaves, counted.
    #[inline(always)]
    pub fn leave<T: Tables>(tables: &T, verdict: Verdict, ifindex: u32) -> Self {
        tables.count_verdict(verdict);
        Self { verdict, ifindex }
    }

    /// The end of one that does not, counted.
    #[inline(always)]
    pub fn count<T: Tables>(tables: &T, verdict: Verdict) -> Self {
        tables.count_verdict(verdict);
        Self::stop(verdict)
    }
}

/// The end of one program: an outcome, or work for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The end of the packet.
    Done(Outcome),
    /// Another program goes on.
    Next(Program, Work),
}

impl Step {
    /// The end of a packet that does not leave, counted.
    #[inline(always)]
    pub fn stop<T: Tables>(tables: &T, verdict: Verdict) -> Self {
        Self::Done(Outcome::count(tables, verdict))
    }

    /// The sender is to get an ICMP error.
    #[inline(always)]
    pub const fn answer(work: &Work, verdict: Verdict) -> Self {
        Self::Next(Program::Answer, Work { verdict: verdict as u8, ..*work })
    }
}

/// The end of a program that changes its work in place: where a [`Step`] carries a copy, the compiler keeps parts of it in
/// registers that are written on one way only, which the verifier refuses to see saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Onward {
    /// The end of the packet.
    Done(Outcome),
    /// Another program goes on with the work.
    To(Program),
}

impl Onward {
    /// The end of a program that served the packet, or did not.
    #[inline(always)]
    pub(crate) fn of<T: Tables>(tables: &T, served: Result<Outcome, Unserved>) -> Self {
        match served {
            Ok(outcome) => Self::Done(outcome),
            Err(Unserved::Next(program)) => Self::To(program),
            Err(Unserved::Stop(verdict)) => Self::Done(Outcome::count(tables, verdict)),
        }
    }

    /// The same with the work.
    #[inline(always)]
    pub const fn with(self, work: Work) -> Step {
        match self {
            Self::Done(outcome) => Step::Done(outcome),
            Self::To(program) => Step::Next(program, work),
        }
    }
}

/// The whole path.
pub fn decide<B: crate::Resize, T: Tables>(bytes: B, tables: &T, now_ns: u64) -> (Outcome, B) {
    let mut bytes = bytes;
    let mut step = enter(&mut bytes, tables, || now_ns);
    for _ in 0..PROGRAMS_IN_A_ROW_MAX {
        let (program, work) = match step {
            Step::Done(outcome) => return (outcome, bytes),
            Step::Next(program, work) => (program, work),
        };
        (step, bytes) = run(program, bytes, tables, work, now_ns);
    }
    (Outcome::count(tables, Verdict::DropInternal), bytes)
}

/// One program behind the entry.
fn run<B: crate::Resize, T: Tables>(
    program: Program,
    mut bytes: B,
    tables: &T,
    mut work: Work,
    now_ns: u64,
) -> (Step, B) {
    match program {
        Program::Schedule => (place(tables, &mut work, now_ns).with(work), bytes),
        Program::Answer => answer(bytes, tables, &work, now_ns),
        Program::Masquerade => (masquerade(&mut bytes, tables, &work), bytes),
        Program::Reply => (reply(&mut bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::ReplyPiece => (reply_piece(&mut bytes, tables, &work, now_ns), bytes),
        Program::Source => (source(&bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::Error => (error(&mut bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::Tunnel => tunnel(bytes, tables, &work),
        Program::Unwrap => unwrap(bytes, tables, &work, now_ns),
        Program::Reset => reset(bytes, tables, &work, now_ns),
        Program::Fragment => (fragment(&mut bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::Related => (related(&mut bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::Sctp => (sctp(&mut bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::Track => (track(&mut bytes, tables, &mut work, now_ns).with(work), bytes),
        Program::Call => (call(&bytes, tables, &work), bytes),
        Program::Persist => (place_persistent(tables, &mut work, now_ns).with(work), bytes),
        Program::Assure => (assure(&mut bytes, tables, &work), bytes),
        Program::Admit => (admit(tables, &mut work, now_ns).with(work), bytes),
        Program::Affinity => (place_affine(tables, &mut work, now_ns).with(work), bytes),
    }
}
