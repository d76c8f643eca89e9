//! `twos` draws, so no single choice can be foretold: how its choices spread, on the core and in the kernel.

mod support;

use support::{Runner, now_ns};
use testkit::MemoryTables;
use testkit::case::{Compiled, Tables};

/// Flows that are opened, none of which ends.
const FLOWS: u16 = 6000;
/// The client's first port.
const PORT: u16 = 10_000;
/// Weights of the real servers, newest first.
const WEIGHTS: [i32; 4] = [1, 2, 0, 3];

/// A service of these weights, as the tables of a case.
fn tables() -> Compiled {
    let reals = WEIGHTS.iter().zip(1..);
    let reals = reals.map(|(weight, last)| format!("{{ address = '10.0.0.{last}', weight = {weight} }}"));
    let reals = reals.collect::<Vec<_>>().join(", ");
    let text = format!("services = [{{ at = 'tcp 192.0.2.10:80', scheduler = 'twos', reals = [{reals}] }}]");
    let tables: Tables = toml::from_str(&text).expect("tables of a case");
    Compiled::new(&tables, now_ns()).expect("tables")
}

fn packet(port: u16) -> Vec<u8> {
    let macs = "eth 02:00:00:00:00:01 > 02:00:00:00:00:fe";
    testkit::packet::packet(&format!("{macs} / ip4 198.51.100.1 > 192.0.2.10 / tcp {port} > 80 syn"))
}

/// Every real server has its share within a hundredth of all flows: two draws hold the loads together. One draw of each
/// would be off by several times that.
fn check(active: &[i32]) {
    let all: i32 = WEIGHTS.iter().sum();
    for (weight, active) in WEIGHTS.iter().zip(active) {
        let share = i32::from(FLOWS) * weight / all;
        assert!((active - share).abs() <= i32::from(FLOWS) / 100, "weight {weight}: {active} of {share}");
    }
}

#[test]
fn loads_follow_the_weights_on_the_core() {
    let memory = MemoryTables::new(&tables());
    for port in PORT..PORT + FLOWS {
        let (seen, _) = memory.run(packet(port), None, now_ns());
        assert_eq!(seen.verdict, abi::Verdict::ForwardNew);
    }
    check(&memory.loads().iter().map(|load| load.active).collect::<Vec<_>>());
}

#[test]
fn loads_follow_the_weights_in_the_kernel() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let (runner, tables) = (Runner::new(false), tables());
    runner.fill(&tables).expect("filled");
    for port in PORT..PORT + FLOWS {
        runner.datapath.entry().test_run(&packet(port), 1).expect("run");
    }
    check(&runner.loads(&tables).expect("loads").iter().map(|load| load.active).collect::<Vec<_>>());
}
