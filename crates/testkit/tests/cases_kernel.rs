//! Every golden case through the programs in the kernel, by its own test run.

mod support;

use support::{Runner, now_ns};
use testkit::case::{Case, Compiled, directory, read_all};

/// The kernel runs no frame that is shorter than an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;

fn run(runner: &Runner, case: &Case) -> Result<(), Vec<String>> {
    let tables = Compiled::new(&case.tables, now_ns()).map_err(|error| vec![error.to_string()])?;
    runner.fill(&tables).map_err(|error| vec![format!("fill the tables: {error}")])?;
    let mut wrong = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let packet = step.packet().map_err(|error| vec![error])?.to_bytes();
        let problems = match runner.run(&tables, &packet, step.key().as_ref()) {
            Ok(seen) => step.check(&tables, &seen),
            Err(problem) => vec![problem],
        };
        wrong.extend(problems.into_iter().map(|problem| format!("step {}: {problem}", number + 1)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn is_long_enough(case: &Case) -> bool {
    let mut packets = case.steps.iter().filter_map(|step| step.packet().ok());
    packets.all(|packet| packet.to_bytes().len() >= FRAME_BYTES_MIN)
}

#[test]
fn every_case_holds_in_the_kernel() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let cases = read_all(&directory()).expect("cases");
    let (usual, full) = (Runner::new(false), Runner::new(true));
    let long: Vec<&Case> = cases.iter().filter(|case| is_long_enough(case)).collect();
    assert!(cases.len() - long.len() <= 3, "only frames without an Ethernet header may be left out");
    // The test run asks the routes of the machine; a director between namespaces shows what they do.
    let runnable: Vec<&Case> = long.into_iter().filter(|case| case.tables.routes.is_empty()).collect();
    let failed: Vec<String> = runnable
        .iter()
        .filter_map(|case| {
            let runner = if case.tables.established_full { &full } else { &usual };
            run(runner, case).err().map(|wrong| format!("{}\n  {}", case.name, wrong.join("\n  ")))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), runnable.len(), failed.join("\n"));
}
