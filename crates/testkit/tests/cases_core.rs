//! Every golden case on the core.

use std::collections::BTreeMap;

use abi::Verdict;
use testkit::MemoryTables;
use testkit::case::{Case, Compiled, directory, read_all};
use testkit::strict::Refused;

/// A moment that is no round number of anything.
const NOW_NS: u64 = 1_234_567_890_123;

fn cases() -> Vec<Case> {
    match read_all(&directory()) {
        Ok(cases) => cases,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string)),
    }
}

fn run(case: &Case) -> Result<(), Vec<String>> {
    let tables = Compiled::new(&case.tables, NOW_NS).map_err(|error| vec![error.to_string()])?;
    let memory = MemoryTables::new(&tables);
    let mut wrong = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let packet = step.packet().map_err(|error| vec![error])?;
        let counted_before = memory.verdicts();
        let (seen, refused) = memory.run(packet.to_bytes(), step.key().as_ref(), NOW_NS);
        let mut problems = step.check(&tables, &seen);
        problems.extend(counted(&counted_before, &memory.verdicts(), seen.verdict));
        if (refused != Refused { short: refused.short, ..Refused::default() })
            || (refused.short > 0 && seen.verdict != Verdict::DropTruncated)
        {
            problems.push(format!("packet access: {refused:?} with verdict {}", seen.verdict.name()));
        }
        wrong.extend(problems.into_iter().map(|problem| format!("step {}: {problem}", number + 1)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Each packet counts one verdict, its own; but for `forward_known`, which the statistics count.
fn counted(
    before: &BTreeMap<Verdict, u64>,
    after: &BTreeMap<Verdict, u64>,
    verdict: Verdict,
) -> Option<String> {
    let mut expected = before.clone();
    if verdict != Verdict::ForwardKnown {
        *expected.entry(verdict).or_default() += 1;
    }
    (expected != *after).then(|| format!("verdict counters: expected {expected:?}, seen {after:?}"))
}

#[test]
fn every_case_holds_on_the_core() {
    let cases = cases();
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| run(case).err().map(|wrong| format!("{}\n  {}", case.name, wrong.join("\n  "))))
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn there_are_cases_for_every_verdict_that_a_packet_can_meet() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    // These two need tables that contradict each other or a map that refuses: tests of the runners.
    let not_by_a_packet = [Verdict::DropInternal, Verdict::DropFlowTable];
    for verdict in Verdict::ALL.into_iter().filter(|verdict| !not_by_a_packet.contains(verdict)) {
        let steps = cases.iter().flat_map(|case| &case.steps);
        assert!(steps.into_iter().any(|step| step.verdict == verdict.name()), "{}", verdict.name());
    }
}
