//! `docs/compatibility.md` has a row for every word of the classic command line, every setting, and every state. That the
//! proofs in its last column exist is checked by `cargo xtask tidy`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Words in backticks in the first cell of every row, split at blanks and commas.
fn rows() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    words.flat_map(|word| word.split([' ', ',', '='])).map(str::to_owned).collect()
}

#[track_caller]
fn has_all<'a>(what: &str, words: impl IntoIterator<Item = &'a str>) {
    let rows = rows();
    let (mut seen, mut missing) = (0, Vec::new());
    for word in words {
        seen += 1;
        if !rows.contains(word) {
            missing.push(word);
        }
    }
    assert!(seen > 0, "no {what} to look for");
    assert!(missing.is_empty(), "docs/compatibility.md has no row for {what}: {missing:?}");
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(["ipvsadm", "-h"]).output().expect("sluice");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_command_and_option_has_a_row() {
    let help = help();
    let words = help.lines().skip(1).flat_map(|line| line.split([' ', ',', '|', '[', ']']));
    let options: BTreeSet<&str> = words.filter(|word| word.starts_with('-')).collect();
    assert!(options.len() > 70, "{options:?}");
    has_all("options", options);
    // Two that the help leaves out, as they do nothing.
    has_all("options", ["--sort", "-6"]);
}

#[test]
fn every_scheduler_and_flag_has_a_row() {
    let help = help();
    let line = |word: &str| help.lines().find(|line| line.contains(word)).expect(word).to_owned();
    let schedulers = line("--scheduler NAME");
    has_all("schedulers", schedulers.split_whitespace().skip(3).take_while(|word| !word.starts_with('(')));
    has_all("schedulers", ["twos", "none"]);
    let flags = line("--sched-flags LIST");
    has_all("flags", flags.split_whitespace().skip(3));
    has_all("tunnels", ["ipip", "gue", "gre"]);
}

#[test]
fn every_setting_has_a_row() {
    has_all("settings", api::SETTINGS.iter().map(|setting| setting.name));
    has_all("settings", api::MEANINGLESS.iter().map(|(name, _)| *name));
}

#[test]
fn every_state_has_a_row() {
    has_all("TCP states", abi::TcpState::ALL.map(abi::TcpState::name));
    has_all("SCTP states", abi::SCTP_STATES.map(|(name, _)| name));
    has_all("other states", ["UDP", "NONE", "ASSURED"]);
}
