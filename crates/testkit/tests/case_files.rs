//! Case files that are wrong say where, and a check that should fail does.

use std::error::Error as _;

use testkit::MemoryTables;
use testkit::case::{Case, CaseError, Compiled, directory, read_all};

const NOW_NS: u64 = 1_234_567_890_123;

/// Reads one case file, written as given, beside the shared tables.
fn read(text: &str) -> Result<Vec<Case>, CaseError> {
    let temporary = tempfile::tempdir().expect("temporary directory");
    std::fs::copy(directory().join("tables.toml"), temporary.path().join("tables.toml")).expect("copy");
    std::fs::write(temporary.path().join("topic.toml"), text).expect("write");
    read_all(temporary.path())
}

fn refused(text: &str) -> String {
    let error = read(text).expect_err("the file is wrong");
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

const GOOD: &str = "[[case]]\nname = 'a'\ntables = 'web'\nin = '{client} / {v4} / tcp 1 > 80 syn'\nverdict = 'forward_new'\n";

#[test]
fn mistakes_name_their_place() {
    assert_eq!(refused(&GOOD.replace("'web'", "'wob'")), "topic: a: there are no tables called \"wob\"");
    assert_eq!(refused(&GOOD.replace("{v4}", "{v5}")), "topic: a: no word {v5} is defined");
    assert_eq!(refused(&format!("{GOOD}{GOOD}")), "two cases are called \"topic: a\"");
    assert!(refused(&format!("{GOOD}verdikt = 'x'\n")).contains("unknown field `verdikt`"));
    assert!(refused(&GOOD.replace("verdict", "#")).contains("missing field `verdict`"));
    assert!(refused("[[case]\n").contains("TOML parse error at line 1"));
}

#[test]
fn tables_that_mean_nothing_do_not_compile() {
    for (addition, expected) in [
        ("services = [{ at = 'tcp 1', scheduler = 'rr', reals = [] }]", "endpoint \"tcp 1\""),
        ("services = [{ at = 'tcp 1.1.1.1:1', scheduler = 'xx', reals = [] }]", "scheduler \"xx\""),
        (
            "services = [{ at = 'tcp 1.1.1.1:1', scheduler = 'rr', reals = [{ address = '10.0.0.1' }] }]",
            "unique",
        ),
        (
            "flows = [{ flow = 'tcp 1.1.1.1:1 > 2.2.2.2:2', real = '9.9.9.9', state = 'CLOSE', expires_in = 1 }]",
            "9.9.9.9",
        ),
        (
            "flows = [{ flow = 'tcp 1.1.1.1:1 > 2.2.2.2:2', real = '10.0.0.1', state = 'OPEN', expires_in = 1 }]",
            "OPEN",
        ),
    ] {
        let cases = read(&format!("{GOOD}{addition}\n")).expect("well-formed");
        let error = Compiled::new(&cases[0].tables, NOW_NS).expect_err(addition).to_string();
        assert!(error.contains(expected), "{addition}: {error}");
    }
}

/// Every expectation of a case can fail.
#[test]
fn a_wrong_expectation_is_found() {
    for (addition, expected) in [
        ("to = '10.0.0.2'", "first difference at byte 5 (eth.dst): expected 0x02, seen 0x03"),
        ("to = '10.0.0.3'\ninterface = 7", ""),
        (
            "change = 'eth 02:00:00:00:00:fe > 02:00:00:00:01:03; ttl 62'",
            "(ip4.ttl): expected 0x3e, seen 0x3f",
        ),
        ("out = '{r3} / {v4} ttl 63 id 1 / tcp 1 > 80 syn'", "(ip4.id): expected 0x01, seen 0x00"),
        ("to = '10.0.0.3'\nflow = 'none'", "flow: expected none"),
        (
            "flow = { real = '10.0.0.2', state = 'SYN_RECV', expires_in = 60, table = 'embryonic' }",
            "flow real: expected 10.0.0.2, seen 10.0.0.3",
        ),
        (
            "flow = { real = '10.0.0.3', state = 'CLOSE', expires_in = 60, table = 'embryonic' }",
            "flow state: expected CLOSE",
        ),
        (
            "flow = { real = '10.0.0.3', state = 'SYN_RECV', expires_in = 61, table = 'embryonic' }",
            "flow expires_in: expected 61, seen 60",
        ),
        (
            "flow = { real = '10.0.0.3', state = 'SYN_RECV', expires_in = 60, table = 'established' }",
            "flow table: expected established, seen embryonic",
        ),
        ("load = { '10.0.0.3' = [0, 0] }", "load of 10.0.0.3: expected 0 and 0, seen 1 active 0 inactive"),
        ("stats = { '10.0.0.3' = { connections = 1, packets = 1, bytes = 54 } }", "statistics of 10.0.0.3"),
        ("interface = 8", "interface: expected 8, seen 7"),
    ] {
        let cases = read(&format!("{GOOD}{addition}\n")).expect("well-formed");
        let tables = Compiled::new(&cases[0].tables, NOW_NS).expect("tables");
        let step = &cases[0].steps[0];
        let packet = step.packet().expect("packet").to_bytes();
        let (seen, _) = MemoryTables::new(&tables).run(packet, step.key().as_ref(), NOW_NS);
        let problems = step.check(&tables, &seen).join("\n");
        if expected.is_empty() {
            assert_eq!(problems, "", "{addition}");
        } else {
            assert!(problems.contains(expected), "{addition}: {problems}");
        }
    }
}
