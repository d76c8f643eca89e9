//! What holds on the core for any bytes and any tables.

use std::sync::LazyLock;

use proptest::prelude::*;
use testkit::MemoryTables;
use testkit::case::{Compiled, directory, read_all};
use testkit::scenario::{Scenario, check};

const NOW_NS: u64 = 1_234_567_890_123;

/// Runs a scenario and checks it; the error says which packet broke what.
fn run(scenario: &Scenario) -> Result<(), TestCaseError> {
    let tables = Compiled::new(&scenario.tables, NOW_NS)
        .map_err(|error| TestCaseError::fail(format!("tables: {error}")))?;
    let memory = MemoryTables::new(&tables);
    for (number, packet) in scenario.packets.iter().enumerate() {
        let (seen, refused) = memory.run(packet.clone(), None, NOW_NS);
        check(&tables, packet, &seen, Some(refused)).map_err(|problem| {
            TestCaseError::fail(format!("packet {number} ({}): {problem}", testkit::packet::read(packet)))
        })?;
    }
    Ok(())
}

/// The packets of all golden cases: valid ones, and ones that are wrong in an interesting way.
static PACKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let cases = read_all(&directory()).expect("cases");
    let steps = cases.iter().flat_map(|case| &case.steps);
    steps.filter_map(|step| step.packet().ok()).map(|packet| packet.to_bytes()).collect()
});

#[test]
fn every_packet_of_every_case_on_many_tables() {
    for seed in 0..200 {
        for chunk in PACKETS.chunks(testkit::scenario::PACKETS_MAX) {
            let scenario = Scenario::from_bytes(&Scenario::to_bytes(seed, chunk));
            assert_eq!(scenario.packets.len(), chunk.len());
            if let Err(error) = run(&scenario) {
                panic!("seed {seed}: {error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes_at_all(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        run(&Scenario::from_bytes(&bytes))?;
    }

    #[test]
    fn mutated_packets_of_the_cases(
        seed in any::<u64>(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut chosen: Vec<Vec<u8>> = picks.iter().map(|pick| pick.get(&PACKETS).clone()).collect();
        for packet in chosen.iter_mut().filter(|packet| !packet.is_empty()) {
            for (place, byte) in &mutations {
                let place = place.index(packet.len());
                packet[place] = *byte;
            }
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
        }
        run(&Scenario::from_bytes(&Scenario::to_bytes(seed, &chosen)))?;
    }
}
