//! Compares this crate, byte for byte, with what the classic tool printed. See the README beside this file.

mod model;
mod traffic;

use model::{HOSTS, Hosts, Model};
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    group: String,
    argv0: String,
    argv: Vec<String>,
    #[serde(default)]
    stdin: String,
    stdout: String,
    stderr: String,
    code: u8,
    #[serde(default)]
    first_line_only: bool,
}

#[test]
fn every_recorded_command_line_gives_the_same_bytes() {
    let records: Vec<Record> = include_str!("recorded.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a recorded command line"))
        .collect();
    assert!(records.len() > 1000, "the recording is cut short: {} lines", records.len());
    let mut differences = Vec::new();
    let mut group = "";
    let mut model = Model::default();
    for record in &records {
        if record.group != group {
            group = &record.group;
            model = Model::default();
        }
        let mut input = || record.stdin.clone();
        let mut got = ipvsadm::run(&record.argv0, &record.argv, &mut input, &mut model, &Hosts(HOSTS));
        if record.first_line_only {
            got.stdout = got.stdout.split_inclusive('\n').next().unwrap_or_default().to_owned();
        }
        if (&got.stdout, &got.stderr, got.code) != (&record.stdout, &record.stderr, record.code) {
            differences.push(format!(
                "[{group}] {:?} {:?}\n  want {} {:?} {:?}\n  got  {} {:?} {:?}",
                record.argv,
                record.stdin,
                record.code,
                record.stderr,
                record.stdout,
                got.code,
                got.stderr,
                got.stdout
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        records.len(),
        differences.join("\n")
    );
}
