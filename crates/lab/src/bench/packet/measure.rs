//! Checks, rounds and clocks.

use super::case::Case;
use super::error::BenchError;
use super::flows;
use super::rig::{Pass, Rig, Target};
use super::tally::Tally;
use abi::{TcpState, UDP_STATE};
use api::Protocol;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::io;
use std::time::Duration;

/// Time that one measurement of a case should take.
const SAMPLE_NS: f64 = 30e6;
/// Time that one measurement of the way to it should take.
const WAY_NS: f64 = 15e6;
/// Fewest and most passes of one measurement.
const REPEATS: (f64, f64) = (2_000.0, 4_000_000.0);
/// Numbers of passes of the checks: alone, the first that sees a used frame, and many.
const CHECKED_REPEATS: [u32; 3] = [1, 2, 1_001];
/// Flows whose state is looked at after the measurements.
const FLOWS_CHECKED: u64 = 64;

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// What one round measured of a case, in ns a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// What the test run of the case alone would take.
    pub(super) ns: f64,
    /// What restoring the frame and the tail call took, taken off already.
    pub(super) harness_ns: f64,
}

/// This thread on one CPU; the former set comes back at the end.
pub(super) struct Pinned {
    before: CpuSet,
    cpu: usize,
}

impl Pinned {
    /// Pins to the last CPU allowed: the first ones have the interrupts.
    pub(super) fn new() -> Result<Self, BenchError> {
        let failed =
            |operation| move |error: nix::Error| BenchError::System { operation, source: error.into() };
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).map_err(failed("read the CPUs of this thread"))?;
        let is_allowed = |cpu: &usize| before.is_set(*cpu).unwrap_or(false);
        let cpu = (0..CpuSet::count()).rev().find(is_allowed).unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(cpu).and_then(|()| sched_setaffinity(this, &one)).map_err(failed("pin to one CPU"))?;
        Ok(Self { before, cpu })
    }

    /// Its number.
    pub(super) fn cpu(&self) -> usize {
        self.cpu
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The set was this thread's a moment ago; if a CPU went away meanwhile, it stays pinned.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// CPU time of this thread. Time in which another task had the CPU does not count.
pub(super) fn cpu_time() -> Result<Duration, BenchError> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).map_err(|error| BenchError::System {
        operation: "read the CPU clock",
        source: io::Error::from(error),
    })
}

/// Says on standard error what is going on.
pub(super) fn progress(text: &str) {
    runtime::tell(format_args!("bench: {text}"));
}

/// Checks that every pass of a case sees the original frame, does the same and counts the same.
pub(super) fn check(rig: &mut Rig, at: usize) -> Result<(), BenchError> {
    for repeats in CHECKED_REPEATS {
        let way = rig.run(at, Target::Nothing, repeats)?;
        if way.action != XDP_TX {
            return Err(rig.invalid(
                at,
                repeats,
                format!("the way there returns {}, not {XDP_TX}", way.action),
            ));
        }
        counted(rig, at, repeats)?;
    }
    Ok(())
}

/// Runs a case and checks what came of it.
fn counted(rig: &mut Rig, at: usize, repeats: u32) -> Result<Pass, BenchError> {
    let before = rig.tally(at)?;
    let pass = rig.run(at, Target::Case, repeats)?;
    let found = rig.tally(at)?.since(&before);
    let Some(prepared) = rig.cases().get(at) else { return Err(BenchError::Missing { name: "case" }) };
    let expected = Tally::expected(&prepared.case, repeats.into());
    if found != expected {
        let what = format!("counted {}, not {}", found.text(), expected.text());
        return Err(rig.invalid(at, repeats, what));
    }
    let action = match prepared.case {
        Case::PassNoVip | Case::PassNonIp => XDP_PASS,
        _ => XDP_TX,
    };
    if pass.action != action {
        return Err(rig.invalid(at, repeats, format!("returned {}, not {action}", pass.action)));
    }
    let frame = &prepared.frame;
    let Some(client) = frame.client_of(&pass.packet) else {
        return Err(rig.invalid(at, repeats, "the frame came out cut".to_owned()));
    };
    let sent = frame.with_client(client);
    let is_right = match prepared.case {
        Case::Hit { .. } => prepared
            .reals
            .get(flows::real_of(client, prepared.reals.len()))
            .is_some_and(|(_, real)| sent.routed(real.destination_mac(), real.source_mac()) == pass.packet),
        Case::New { .. } | Case::SynAgain => prepared
            .reals
            .iter()
            .any(|(_, real)| sent.routed(real.destination_mac(), real.source_mac()) == pass.packet),
        _ => sent.bytes == pass.packet,
    };
    if is_right {
        return Ok(pass);
    }
    Err(rig.invalid(at, repeats, format!("the wrong frame came out: {:02x?}", pass.packet)))
}

/// Measures every case once a round, and checks after the last that hit flows are what they were.
pub(super) fn rounds(rig: &mut Rig, rounds: u32) -> Result<Vec<Vec<Sample>>, BenchError> {
    let mut samples = vec![Vec::new(); rig.cases().len()];
    let mut repeats = Vec::new();
    for at in 0..rig.cases().len() {
        repeats.push([
            calibrate(rig, at, Target::Nothing, WAY_NS)?,
            calibrate(rig, at, Target::Case, SAMPLE_NS)?,
        ]);
    }
    for round in 1..=rounds {
        progress(&format!("round {round} of {rounds}"));
        for (at, samples) in samples.iter_mut().enumerate() {
            let Some(repeats) = repeats.get(at) else { continue };
            samples.push(sample(rig, at, *repeats)?);
        }
    }
    for at in 0..rig.cases().len() {
        check_flows(rig, at)?;
    }
    Ok(samples)
}

/// How many passes take about this long.
fn calibrate(rig: &mut Rig, at: usize, target: Target, want_ns: f64) -> Result<u32, BenchError> {
    let (fewest, most) = REPEATS;
    rig.run(at, target, 10 * fewest as u32)?;
    let ns = rig.run(at, target, 10 * fewest as u32)?.ns.max(1.0);
    Ok((want_ns / ns).clamp(fewest, most) as u32)
}

/// One figure: the case through the harness, less the harness. The harness costs what the trivial program
/// costs through it, less what that program costs alone.
fn sample(rig: &mut Rig, at: usize, [way, case]: [u32; 2]) -> Result<Sample, BenchError> {
    let floor_ns = rig.run_floor(way)?.ns;
    let way_ns = rig.run(at, Target::Nothing, way)?.ns;
    let harness_ns = way_ns - floor_ns;
    if rig.cases().get(at).is_some_and(|prepared| prepared.case == Case::FloorTx) {
        return Ok(Sample { ns: floor_ns, harness_ns });
    }
    let pass = counted(rig, at, case)?;
    Ok(Sample { ns: pass.ns - harness_ns, harness_ns })
}

/// Checks that the measured flows are still what they were.
fn check_flows(rig: &Rig, at: usize) -> Result<(), BenchError> {
    let Some(Case::Hit { protocol, flows, .. }) = rig.cases().get(at).map(|prepared| prepared.case) else {
        return Ok(());
    };
    let state = if protocol == Protocol::Tcp { TcpState::Established as u8 } else { UDP_STATE };
    for client in 0..u64::from(flows).min(FLOWS_CHECKED) {
        let flow = rig.flow(at, client)?;
        if flow.is_none_or(|flow| flow.state != state) {
            return Err(rig.invalid(at, 0, format!("the flow of client {client} is now {flow:?}")));
        }
    }
    Ok(())
}
