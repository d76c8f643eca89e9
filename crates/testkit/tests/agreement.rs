//! The core and the programs in the kernel do the same, on random packets and random tables.

mod support;

use abi::FlowKey;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Runner, now_ns};
use testkit::case::{Compiled, Seen, directory, read_all};
use testkit::scenario::{Scenario, check};
use testkit::{MemoryTables, difference, need_bpf, skip};

/// The kernel runs no frame that is shorter than an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;
/// Ends of flows may be off by as much as a busy machine may take between filling and reading.
const CLOCK_SLACK_NS: u64 = 10_000_000_000;

struct Pair {
    usual: Runner,
    full: Runner,
}

impl Pair {
    fn run(&self, scenario: &Scenario) -> Result<(), String> {
        let now_ns = now_ns();
        let tables = Compiled::new(&scenario.tables, now_ns).map_err(|error| error.to_string())?;
        let memory = MemoryTables::new(&tables);
        let runner = if scenario.tables.established_full { &self.full } else { &self.usual };
        runner.fill(&tables).map_err(|error| format!("fill: {error}"))?;
        for packet in scenario.packets.iter().filter(|packet| packet.len() >= FRAME_BYTES_MIN) {
            let said = |problem: String| format!("{}: {problem}", testkit::packet::read(packet));
            let (core, _) = memory.run(packet.clone(), None, now_ns);
            let kernel = runner.run(&tables, packet, None).map_err(said)?;
            check(&tables, packet, &kernel, None).map_err(said)?;
            same(&core, &kernel).map_err(said)?;
            let flows = runner.flows().map_err(|error| said(error.to_string()))?;
            same_flows(memory.flows(), flows).map_err(said)?;
            let templates = runner.templates().map_err(|error| said(error.to_string()))?;
            same_flows(memory.templates(), templates).map_err(said)?;
        }
        Ok(())
    }
}

fn same(core: &Seen, kernel: &Seen) -> Result<(), String> {
    if core.verdict != kernel.verdict {
        return Err(format!("core {}, kernel {}", core.verdict.name(), kernel.verdict.name()));
    }
    let leaves = core.verdict.is_forward() || core.verdict.is_pass() || core.verdict.is_answer();
    if leaves && let Some(said) = difference(&core.bytes, &kernel.bytes) {
        return Err(format!("core (expected) and kernel (seen):\n{said}"));
    }
    if core.loads != kernel.loads {
        return Err(format!("loads: core {:?}, kernel {:?}", core.loads, kernel.loads));
    }
    if core.added != kernel.added {
        return Err(format!("statistics: core {:?}, kernel {:?}", core.added, kernel.added));
    }
    Ok(())
}

fn same_flows(
    mut core: Vec<(FlowKey, abi::Flow)>,
    mut kernel: Vec<(FlowKey, abi::Flow)>,
) -> Result<(), String> {
    // A key may stand in both tables for a moment; the flag tells them apart.
    let order = |(key, flow): &(FlowKey, abi::Flow)| (*key, flow.flags & abi::FLOW_EMBRYONIC);
    core.sort_by_key(order);
    kernel.sort_by_key(order);
    let equal = core.len() == kernel.len()
        && core.iter().zip(&kernel).all(|((core_key, core), (kernel_key, kernel))| {
            core_key == kernel_key
                && timeless(core) == timeless(kernel)
                && core.opened_s.abs_diff(kernel.opened_s) <= (CLOCK_SLACK_NS / 1_000_000_000) as u32
                && core.expires_ns.abs_diff(kernel.expires_ns) <= CLOCK_SLACK_NS
        });
    if equal { Ok(()) } else { Err(format!("flows:\n  core   {core:?}\n  kernel {kernel:?}")) }
}

/// A flow without its times: the kernel's clock runs on.
fn timeless(flow: &abi::Flow) -> abi::Flow {
    abi::Flow { expires_ns: 0, opened_s: 0, ..*flow }
}

fn packets() -> Vec<Vec<u8>> {
    let cases = read_all(&directory()).expect("cases");
    let steps = cases.iter().flat_map(|case| &case.steps);
    steps.filter_map(|step| step.packet().ok()).map(|packet| packet.to_bytes()).collect()
}

#[test]
fn on_mutated_packets_and_random_tables() {
    if let Err(reason) = need_bpf() {
        skip!("{reason}");
    }
    let pair = Pair { usual: Runner::new(false), full: Runner::new(true) };
    let all = packets();
    let strategy = (
        any::<u64>(),
        prop::collection::vec(any::<prop::sample::Index>(), 1..5),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    );
    let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&strategy, |(seed, picks, mutations, cut)| {
        let mut chosen: Vec<Vec<u8>> = picks.iter().map(|pick| pick.get(&all).clone()).collect();
        for packet in chosen.iter_mut().filter(|packet| !packet.is_empty()) {
            // Half of the packets stay whole, so that flows come to be and meet their next packets.
            for (place, byte) in mutations.iter().filter(|(_, byte)| byte % 2 == seed as u8 % 2) {
                let place = place.index(packet.len());
                packet[place] = *byte;
            }
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
        }
        let scenario = Scenario::from_bytes(&Scenario::to_bytes(seed, &chosen));
        pair.run(&scenario).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn on_random_bytes() {
    if let Err(reason) = need_bpf() {
        skip!("{reason}");
    }
    let pair = Pair { usual: Runner::new(false), full: Runner::new(true) };
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let strategy = prop::collection::vec(any::<u8>(), 10..300);
    let result = TestRunner::new(config).run(&strategy, |mut bytes| {
        // One packet to the end; a random length would mostly make it too short for the kernel.
        bytes.splice(8..8, [0xff, 0xff]);
        pair.run(&Scenario::from_bytes(&bytes)).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
