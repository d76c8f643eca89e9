//! The programs under test, the programs of the benchmark, and the tables between them.

use super::case::{Case, FLOWS_MAX};
use super::error::BenchError;
use super::frame::{self, Frame};
use super::reset::{CLIENT_FIXED, CLIENT_NEXT, CLIENT_RANDOM, Reset, WORDS_FROM};
use super::services::{self, Services};
use super::tally::Tally;
use super::{flows, measure};
use abi::{FLOW_EMBRYONIC, FLOW_NO_OUTPUT, Flow, FlowKey, Limits, Real, TcpState};
use api::{Family, Protocol};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use kernel::{Datapath, ProgramInfo, Put};
use std::time::Duration;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SLUICE_BENCH_OBJECT"));

/// Entries of the embryonic table: what the figures to beat were measured with.
const EMBRYONIC_MAX: u32 = 1_048_576;
/// The same where no case needs it.
const EMBRYONIC_UNUSED: u32 = 1_024;
/// A table of this many entries counts as full with this share of them: the kernel keeps free lists per CPU.
const FULL_PERCENT: usize = 95;
/// Room for what a program adds to a frame.
const GROWTH_MAX: usize = 256;
/// Client of [`Case::SynAgain`]: none of those in the established table.
const CLIENT_AGAIN: u64 = FLOWS_MAX as u64 + 1;
/// First client of the new flows.
const CLIENT_FIRST_NEW: u64 = FLOWS_MAX as u64 + 2;

/// What a test run gives.
pub(super) struct Pass {
    /// `XDP_*` of the last pass.
    pub(super) action: u32,
    /// The frame after the last pass.
    pub(super) packet: Vec<u8>,
    /// Mean time of a pass in ns.
    pub(super) ns: f64,
}

/// Which program a test run ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The one that the case is about.
    Case,
    /// The one that does nothing, to know the cost of the way there.
    Nothing,
}

/// A case with all it needs.
pub(super) struct Prepared {
    pub(super) case: Case,
    pub(super) name: String,
    pub(super) frame: Frame,
    /// Real servers its packets may go to.
    pub(super) reals: Vec<(u32, Real)>,
    stage: usize,
}

/// Programs and tables of their own. The cost of a hit depends on how many flows stand in the table, so cases with
/// other numbers of flows have other tables.
struct Stage {
    flows: u32,
    /// Whose flows these are, where no second family or protocol has room.
    only: Option<(Family, Protocol)>,
    path: Datapath,
    director: ProgramFd,
}

/// See the module.
pub(super) struct Rig {
    stages: Vec<Stage>,
    harness: aya::Ebpf,
    reset: Array<MapData, [u8; size_of::<Reset>()]>,
    under_test: ProgramArray<MapData>,
    reals: u32,
    next_client: u64,
    seed: u64,
    cases: Vec<Prepared>,
}

impl Rig {
    /// Loads the programs and fills the tables with all that these cases need.
    pub(super) fn new(cases: &[Case]) -> Result<Self, BenchError> {
        let services = Services::new(cases, &Limits::default())?;
        let mut stages: Vec<Stage> = Vec::new();
        for case in cases {
            let at = match stages.iter().position(|stage| stage.serves(case)) {
                Some(at) => at,
                None => {
                    stages.push(Stage::new(case, &services)?);
                    stages.len() - 1
                }
            };
            if let (Case::Hit { .. }, Some(stage)) = (case, stages.get(at)) {
                stage.fill(case, &services)?;
            }
        }
        let mut harness = aya::EbpfLoader::new().btf(None).load(OBJECT).map_err(BenchError::Harness)?;
        for name in ["reset_v4", "reset_v6", "floor_tx", "floor_parse"] {
            program_mut(&mut harness, name)?.load().map_err(|source| BenchError::Program { name, source })?;
        }
        let reset = harness.take_map("RESET").ok_or(BenchError::Missing { name: "RESET" })?;
        let under_test = harness.take_map("UNDER_TEST").ok_or(BenchError::Missing { name: "UNDER_TEST" })?;
        let mut rig = Self {
            reals: services.tables.reals.keys().max().map_or(0, |index| index + 1),
            stages,
            harness,
            reset: Array::try_from(reset).map_err(|source| BenchError::Map { name: "RESET", source })?,
            under_test: ProgramArray::try_from(under_test)
                .map_err(|source| BenchError::Map { name: "UNDER_TEST", source })?,
            next_client: CLIENT_FIRST_NEW,
            seed: 1,
            cases: Vec::new(),
        };
        rig.cases = rig.prepare(cases, &services)?;
        rig.fill_embryonic()?;
        Ok(rig)
    }

    /// The cases, in the order given.
    pub(super) fn cases(&self) -> &[Prepared] {
        &self.cases
    }

    /// What the kernel says of the programs under test, the entry first.
    pub(super) fn programs(&self) -> Result<Vec<ProgramInfo>, BenchError> {
        let Some(stage) = self.stages.first() else { return Err(BenchError::Missing { name: "director" }) };
        Ok(stage.path.verify_programs()?)
    }

    /// What the packet path of a case has counted so far.
    pub(super) fn tally(&self, at: usize) -> Result<Tally, BenchError> {
        Tally::read(self.tables(at)?, self.reals)
    }

    fn stage(&self, at: usize) -> Result<&Stage, BenchError> {
        let stage = self.cases.get(at).and_then(|prepared| self.stages.get(prepared.stage));
        stage.ok_or(BenchError::Missing { name: "director" })
    }

    fn tables(&self, at: usize) -> Result<&kernel::Tables, BenchError> {
        Ok(self.stage(at)?.path.tables())
    }

    /// The state of the flow that belongs to a client of a hit case.
    pub(super) fn flow(&self, at: usize, client: u64) -> Result<Option<Flow>, BenchError> {
        let Some(Case::Hit { family, protocol, .. }) = self.cases.get(at).map(|prepared| prepared.case)
        else {
            return Ok(None);
        };
        Ok(self.tables(at)?.established.get(&flows::key(family, protocol, client))?)
    }

    fn prepare(&self, cases: &[Case], services: &Services) -> Result<Vec<Prepared>, BenchError> {
        let one = |(at, case): (usize, &Case)| {
            let frame = frame::of(case, services::new_port(at))?;
            let frame = if *case == Case::SynAgain { frame.with_client(CLIENT_AGAIN) } else { frame };
            let stage = self.stages.iter().position(|stage| stage.serves(case));
            let stage = stage.ok_or(BenchError::Missing { name: "director" })?;
            let reals = services.reals_of(at, case);
            Ok(Prepared { case: *case, name: case.name(), frame, reals, stage })
        };
        cases.iter().enumerate().map(one).collect()
    }

    /// Makes the embryonic table full, with flows of the first service that new flows are measured on.
    fn fill_embryonic(&mut self) -> Result<(), BenchError> {
        let is_new = |prepared: &Prepared| matches!(prepared.case, Case::New { .. });
        let Some(at) = self.cases.iter().position(is_new) else { return Ok(()) };
        measure::progress(&format!("filling the embryonic table ({EMBRYONIC_MAX} flows)"));
        let repeats = EMBRYONIC_MAX + EMBRYONIC_MAX / 4;
        self.run(at, Target::Case, repeats)?;
        let entries = self.tables(at)?.embryonic.entries()?.len();
        if entries * 100 < EMBRYONIC_MAX as usize * FULL_PERCENT {
            let what = format!("the embryonic table has only {entries} of {EMBRYONIC_MAX} flows");
            return Err(self.invalid(at, repeats, what));
        }
        Ok(())
    }

    /// An error of a check.
    pub(super) fn invalid(&self, at: usize, repeats: u32, what: String) -> BenchError {
        let case = self.cases.get(at).map(|prepared| prepared.name.clone()).unwrap_or_default();
        BenchError::Invalid { case, repeats, what }
    }

    /// Runs the program that only returns, without anything around it.
    pub(super) fn run_floor(&mut self, repeats: u32) -> Result<Pass, BenchError> {
        let frame = self.cases.first().map(|prepared| prepared.frame.bytes.clone()).unwrap_or_default();
        self.test_run("floor_tx", &frame, repeats)
    }

    /// Runs a case, or its way to the program that only returns.
    pub(super) fn run(&mut self, at: usize, target: Target, repeats: u32) -> Result<Pass, BenchError> {
        let Some(prepared) = self.cases.get(at) else { return Err(BenchError::Missing { name: "case" }) };
        let (case, frame) = (prepared.case, prepared.frame.clone());
        let entry = match frame.family {
            Family::Ipv4 => "reset_v4",
            Family::Ipv6 => "reset_v6",
        };
        self.seed += 1;
        let reset = reset_of(&case, &frame.bytes, self.next_client, self.seed);
        if target == Target::Case && reset.client == CLIENT_NEXT {
            self.next_client += u64::from(repeats);
        }
        if case == Case::SynAgain {
            self.put_embryonic(at)?;
        }
        let value: [u8; size_of::<Reset>()] = bytemuck::cast(reset);
        self.reset.set(0, value, 0).map_err(|source| BenchError::Map { name: "RESET", source })?;
        self.put_under_test(at, &case, target)?;
        self.test_run(entry, &frame.bytes, repeats)
    }

    fn put_under_test(&mut self, at: usize, case: &Case, target: Target) -> Result<(), BenchError> {
        let floor = match (case, target) {
            (_, Target::Nothing) | (Case::FloorTx, _) => Some("floor_tx"),
            (Case::FloorParse, _) => Some("floor_parse"),
            _ => None,
        };
        let descriptor = match floor {
            Some(name) => {
                let program = program_mut(&mut self.harness, name)?;
                program.fd().map_err(|source| BenchError::Program { name, source })?
            }
            None => {
                let stage = self.cases.get(at).and_then(|prepared| self.stages.get(prepared.stage));
                &stage.ok_or(BenchError::Missing { name: "director" })?.director
            }
        };
        self.under_test.set(0, descriptor, 0).map_err(|source| BenchError::Map { name: "UNDER_TEST", source })
    }

    /// Writes the flow of [`Case::SynAgain`], which the new flows of other cases push out.
    fn put_embryonic(&self, at: usize) -> Result<(), BenchError> {
        let Some((real, _)) = self.cases.get(at).and_then(|prepared| prepared.reals.first()) else {
            return Err(BenchError::Missing { name: "real server" });
        };
        let key: FlowKey = flows::key(Family::Ipv4, Protocol::Tcp, CLIENT_AGAIN);
        let flags = FLOW_EMBRYONIC | FLOW_NO_OUTPUT;
        let state = TcpState::SynRecv as u8;
        let flow = Flow { expires_ns: u64::MAX, real: *real, state, flags, ..Flow::default() };
        Ok(self.tables(at)?.embryonic.put(&key, &flow, Put::Any)?)
    }

    fn test_run(&mut self, name: &'static str, frame: &[u8], repeats: u32) -> Result<Pass, BenchError> {
        // The call has a cost of its own, a hundred microseconds and more: the kernel patches the program into its
        // dispatcher. It is the same for two passes as for a million, and for every program.
        let (_, call) = self.timed_run("floor_tx", frame, 2)?;
        let (mut pass, spent) = self.timed_run(name, frame, repeats)?;
        pass.ns = spent.saturating_sub(call).as_secs_f64() * 1e9 / f64::from(repeats.max(1));
        Ok(pass)
    }

    fn timed_run(
        &mut self,
        name: &'static str,
        frame: &[u8],
        repeats: u32,
    ) -> Result<(Pass, Duration), BenchError> {
        let program = program_mut(&mut self.harness, name)?;
        let mut packet = vec![0; frame.len() + GROWTH_MAX];
        let before = measure::cpu_time()?;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut packet),
            repeat: repeats,
            ..TestRunOptions::default()
        };
        let done = program.test_run(options).map_err(|source| BenchError::Program { name, source })?;
        let spent = measure::cpu_time()?.saturating_sub(before);
        packet.truncate(done.data_size_out as usize);
        Ok((Pass { action: done.return_value, packet, ns: 0.0 }, spent))
    }
}

impl Stage {
    /// Of how many flows a case wants its table, and whose they must be.
    fn wanted(case: &Case) -> (u32, Option<(Family, Protocol)>) {
        match *case {
            Case::Hit { family, protocol, flows } if flows == FLOWS_MAX => (flows, Some((family, protocol))),
            Case::Hit { flows, .. } => (flows, None),
            _ => (1, None),
        }
    }

    fn serves(&self, case: &Case) -> bool {
        Self::wanted(case) == (self.flows, self.only)
    }

    fn new(case: &Case, services: &Services) -> Result<Self, BenchError> {
        let (flows, only) = Self::wanted(case);
        let embryonic_flows_max = if flows == 1 { EMBRYONIC_MAX } else { EMBRYONIC_UNUSED };
        let path = Datapath::load(&Limits { embryonic_flows_max, ..Limits::default() })?;
        write_tables(&path, services)?;
        Ok(Self { flows, only, director: descriptor_of(path.entry().info()?.id)?, path })
    }

    /// Adds the flows of a hit case.
    fn fill(&self, case: &Case, services: &Services) -> Result<(), BenchError> {
        let Case::Hit { family, protocol, flows } = *case else { return Ok(()) };
        measure::progress(&format!("filling in the flows of {}", case.name()));
        // The place of a case matters to new flows only.
        let reals = services.reals_of(0, case);
        flows::fill(self.path.tables(), family, protocol, flows, &reals)
    }
}

fn write_tables(path: &Datapath, services: &Services) -> Result<(), BenchError> {
    let (into, from) = (path.tables(), &services.tables);
    into.settings.put(0, &from.settings)?;
    for (index, real) in &from.reals {
        into.reals.put(*index, real)?;
    }
    for (index, slot) in &from.slots {
        into.slots.put(*index, slot)?;
    }
    for (key, service) in &from.services {
        into.services.put(key, service, Put::Any)?;
    }
    for (word, bits) in &from.vip_filter {
        into.vip_filter.put(*word, bits)?;
    }
    Ok(())
}

fn reset_of(case: &Case, frame: &[u8], next_client: u64, seed: u64) -> Reset {
    let mut reset = Reset::default();
    for (place, byte) in reset.head.iter_mut().zip(frame) {
        *place = *byte;
    }
    for (place, byte) in reset.words.as_flattened_mut().iter_mut().zip(frame.iter().skip(WORDS_FROM)) {
        *place = *byte;
    }
    (reset.client, reset.flows, reset.state) = match *case {
        Case::Hit { flows, .. } if flows > 1 => (CLIENT_RANDOM, flows, seed),
        Case::New { .. } => (CLIENT_NEXT, 0, next_client),
        _ => (CLIENT_FIXED, 0, 0),
    };
    reset
}

fn program_mut<'a>(harness: &'a mut aya::Ebpf, name: &'static str) -> Result<&'a mut Xdp, BenchError> {
    let program = harness.program_mut(name).ok_or(BenchError::Missing { name })?;
    program.try_into().map_err(|source| BenchError::Program { name, source })
}

/// A descriptor, as aya wants it, of a program that is loaded already.
fn descriptor_of(id: u32) -> Result<ProgramFd, BenchError> {
    let failed = |source| BenchError::Program { name: "director", source };
    for program in aya::programs::loaded_programs() {
        let program = program.map_err(failed)?;
        if program.id() == id {
            return program.fd().map_err(failed);
        }
    }
    Err(BenchError::Missing { name: "director" })
}
