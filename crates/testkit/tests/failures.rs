//! What of a packet counts against its real server, on the core and in the kernel.

mod support;

use abi::{Failure, Failures};
use support::{Runner, now_ns};
use testkit::MemoryTables;
use testkit::case::{Case, Compiled, directory, read_all};

/// Cases, and what all of their packets count against all of their real servers.
const COUNTED: [(&str, [u32; 3]); 7] = [
    ("policies: a SYN repeated in vain goes to another real server, and the load with it", [1, 0, 0]),
    ("policies: without rescue a repeated SYN stays", [1, 0, 0]),
    ("policies: a repeated SYN stays when another connection got on at its real server meanwhile", [0, 0, 0]),
    ("admission: a masqueraded connection that the real server refuses is none any more", [0, 1, 0]),
    // A reset of an established connection refuses nothing.
    ("nat: a TCP connection over IPv6, both ways", [0, 0, 0]),
    // Of two errors the one that tells an MTU says that the server is reached.
    (
        "nat_related: port unreachable of the real server, to the client; from a router behind the director too, but as the VIP",
        [0, 0, 1],
    ),
    ("tunnel_related: errors about packets in GRE and GUE", [0, 0, 1]),
];

fn numbers(failures: impl Iterator<Item = Failures>) -> [u32; 3] {
    failures.fold([0; 3], |[unanswered, refused, unreachable], it| {
        [unanswered + it.unanswered, refused + it.refused, unreachable + it.unreachable]
    })
}

fn named(cases: &[Case]) -> impl Iterator<Item = (&Case, [u32; 3])> {
    COUNTED.iter().map(|(name, counted)| {
        let case = cases.iter().find(|case| case.name == *name);
        (case.unwrap_or_else(|| panic!("there is no case `{name}'")), *counted)
    })
}

#[test]
fn the_core_counts_what_went_wrong() {
    let cases = read_all(&directory()).expect("cases");
    for (case, counted) in named(&cases) {
        let now_ns = 1_234_567_890_123;
        let tables = Compiled::new(&case.tables, now_ns).expect("tables");
        let memory = MemoryTables::new(&tables);
        for step in &case.steps {
            let _ = memory.run(step.packet().expect("a packet").to_bytes(), step.key().as_ref(), now_ns);
        }
        let of = |index| Failures {
            unanswered: memory.failures(index, Failure::Unanswered),
            refused: memory.failures(index, Failure::Refused),
            unreachable: memory.failures(index, Failure::Unreachable),
            ..Failures::default()
        };
        let reals = u32::try_from(tables.reals.len()).expect("few");
        assert_eq!(numbers((0..reals).map(of)), counted, "{}", case.name);
    }
}

#[test]
fn the_kernel_counts_the_same() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let cases = read_all(&directory()).expect("cases");
    let runner = Runner::new(false);
    // The test run asks the routes of the machine.
    for (case, counted) in named(&cases).filter(|(case, _)| case.tables.routes.is_empty()) {
        let tables = Compiled::new(&case.tables, now_ns()).expect("tables");
        runner.fill(&tables).expect("fill");
        let before = numbers(runner.failures().into_iter());
        for step in &case.steps {
            let packet = step.packet().expect("a packet").to_bytes();
            runner.run(&tables, &packet, step.key().as_ref()).expect("run");
        }
        let after = numbers(runner.failures().into_iter());
        let added = [0, 1, 2].map(|kind| after[kind] - before[kind]);
        assert_eq!(added, counted, "{}", case.name);
    }
}
