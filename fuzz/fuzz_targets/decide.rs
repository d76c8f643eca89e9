//! Any tables, any packets: the core must not panic, touch what it should not, or change a packet in
//! a wrong way. The bytes are a scenario of testkit: eight of seed, then packets after their length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use testkit::MemoryTables;
use testkit::case::Compiled;
use testkit::scenario::{Scenario, check};

/// The moment everything happens, in ns.
const NOW_NS: u64 = 1_234_567_890_123;

fuzz_target!(|bytes: &[u8]| {
    let scenario = Scenario::from_bytes(bytes);
    let tables = match Compiled::new(&scenario.tables, NOW_NS) {
        Ok(tables) => tables,
        Err(error) => panic!("a scenario's tables always compile: {error}"),
    };
    let memory = MemoryTables::new(&tables);
    for packet in &scenario.packets {
        let (seen, refused) = memory.run(packet.clone(), None, NOW_NS);
        if let Err(problem) = check(&tables, packet, &seen, Some(refused)) {
            panic!("{}: {problem}", testkit::packet::read(packet));
        }
    }
});
