//! Upgrades under load, in short: `sluice bench upgrade` counts, this test judges.
//!
//! Needs root and nginx. The cluster is the benchmark's own and goes with it.

use std::process::Command;

#[test]
fn no_request_fails_and_no_segment_is_lost_while_the_director_is_upgraded() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    if !lab_can_run() {
        testkit::skip!("needs nginx, ip and ethtool");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["bench", "upgrade", "--starts", "3", "--rate", "100", "--json"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {said}", String::from_utf8_lossy(&output.stdout)));
    assert!(output.status.success(), "{report:#} {said}");

    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{report:#}"));
    let rows = report["rows"].as_array().expect("rows");
    let exchanges: Vec<_> =
        rows.iter().map(|row| (row["way"].as_str().unwrap_or_default(), number(&row["exchanges"]))).collect();
    assert_eq!(exchanges, [("restart", 0), ("upgrade", 1), ("kill -9, upgrade", 1)], "{report:#}");
    for row in rows {
        assert!(number(&row["answered"]) > 0, "requests met each of them: {report:#}");
        assert_eq!((number(&row["starts"]), number(&row["failed"])), (1, 0), "{report:#}");
    }
    assert_eq!(report["failed"], serde_json::json!([0, 0]), "{report:#}");
    let sent = number(&report["segments_sent"]);
    assert!(sent > 500, "{report:#}");
    for same in ["segments_received", "frames_out", "forwarded"] {
        assert_eq!(number(&report[same]), sent, "{same}: {report:#}");
    }
    for none in ["frames_lost", "dropped"] {
        assert_eq!(number(&report[none]), 0, "{none}: {report:#}");
    }
}

fn lab_can_run() -> bool {
    [("nginx", "nginx-light"), ("ip", "iproute2"), ("ethtool", "ethtool")]
        .iter()
        .all(|(program, package)| lab::command::find(program, package).is_ok())
}
