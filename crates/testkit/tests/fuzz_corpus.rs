//! The seeds of the fuzzer are made from the golden cases: one file a case file, a few packets in each.
//!
//! `SLUICE_BLESS=1 cargo test -p sluice-testkit --test fuzz_corpus` writes them anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use testkit::case::{directory, read_all};
use testkit::scenario::{PACKETS_MAX, Scenario};

/// When set, the seeds are written instead of compared.
const BLESS: &str = "SLUICE_BLESS";

fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut packets: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for case in read_all(&directory()).expect("cases") {
        let topic = case.name.split(':').next().unwrap_or_default().to_owned();
        let of_topic = packets.entry(topic).or_default();
        of_topic
            .extend(case.steps.iter().filter_map(|step| step.packet().ok()).map(|packet| packet.to_bytes()));
    }
    let mut seeds = BTreeMap::new();
    for (topic, packets) in packets {
        // One byte's worth of different tables is plenty to start from.
        for (number, chunk) in packets.chunks(PACKETS_MAX).enumerate() {
            let bytes = Scenario::to_bytes(number as u64, chunk);
            seeds.insert(format!("case-{topic}-{number}"), bytes);
        }
    }
    seeds
}

#[test]
fn the_seeds_are_those_of_the_cases() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decide");
    let seeds = seeds();
    if std::env::var_os(BLESS).is_some() {
        std::fs::create_dir_all(&corpus).expect("make the corpus directory");
        for (name, bytes) in &seeds {
            std::fs::write(corpus.join(name), bytes).expect("write a seed");
        }
    }
    for (name, bytes) in &seeds {
        let found = std::fs::read(corpus.join(name)).unwrap_or_default();
        assert!(found == *bytes, "fuzz/corpus/decide/{name} is not what the cases make: run with {BLESS}=1");
    }
}
