//! The cluster file on the command line: exit codes, streams, and what happens to the file. Needs no root.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const GOOD: &str = "# the shop\n[service.www]\nvip = \"192.0.2.10\"\nports = [\"tcp/80\", \"tcp/443\"]\nservers = [\"10.0.0.1\", \"10.0.0.2\"]\n";

/// Exit code, standard output and standard error.
fn sluice(folder: &Path, words: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program to start");
    // Whoever does not read its input may be gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program to end");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn validate_counts_what_is_good_and_points_at_what_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("good.toml"), GOOD).expect("written");
    fs::write(folder.path().join("bad.toml"), "[service.www]\nvipp = 1\n").expect("written");
    fs::write(folder.path().join("latin.toml"), b"# caf\xe9\n").expect("written");
    let of = |words: &[&str]| sluice(folder.path(), words, GOOD);
    let good = "good: 2 services with 4 real servers in all, 0 warnings\n";
    assert_eq!(of(&["validate", "good.toml"]), (Some(0), format!("good.toml: {good}"), String::new()));
    assert_eq!(of(&["validate", "-"]), (Some(0), format!("<stdin>: {good}"), String::new()));
    let (code, out, err) = of(&["validate", "bad.toml"]);
    assert_eq!((code, out.as_str()), (Some(1), "bad.toml: 1 error, 0 warnings\n"));
    assert_eq!(
        err,
        "bad.toml:2:1: error: unknown key `vipp' in a service: did you mean `vip'?\n 2 | vipp = 1\n   | ^^^^\n"
    );
    let (code, _, err) = of(&["validate", "latin.toml"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("latin.toml:1:6: error: byte 0xe9 is no UTF-8"), "{err}");
    let (code, _, err) = of(&["validate", "--services-max", "1", "good.toml"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("good.toml:4:20: error: limit services_max of 1 "), "{err}");
    let (code, _, err) = of(&["validate", "none.toml"]);
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "error: cannot read none.toml: No such file or directory (os error 2)\n")
    );
    assert_eq!(of(&["validate"]).0, Some(2));
}

#[test]
fn validate_speaks_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, out, err) = sluice(folder.path(), &["validate", "--json", "-"], GOOD);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(report, serde_json::json!({ "good": true, "findings": [], "services": 2, "reals": 4 }));
    let (code, out, _) = sluice(folder.path(), &["validate", "--json", "-"], "[policy]\ngone = 1\n");
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(1));
    assert_eq!(
        report["findings"],
        serde_json::json!([{
            "file": "<stdin>", "line": 2, "column": 8, "end_line": 2, "end_column": 9, "severity": "error",
            "message": "found `1', expected \"keep\", \"reschedule\" or \"reset\"",
        }])
    );
}

#[test]
fn a_huge_file_is_refused_without_being_read_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    // 100 MB of nothing, which takes no room on the disk.
    fs::File::create(folder.path().join("huge.toml")).and_then(|it| it.set_len(100_000_000)).expect("made");
    let (code, _, err) = sluice(folder.path(), &["validate", "huge.toml"], "");
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "huge.toml:1:1: error: the file is too large: at most 16 MiB\n")
    );
}

#[test]
fn fmt_writes_the_file_anew_only_if_it_must() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.toml");
    let untidy = GOOD.replace(" = ", "=");
    fs::write(&path, &untidy).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    std::os::unix::fs::symlink("cluster.toml", folder.path().join("link.toml")).expect("linked");
    let of = |words: &[&str]| sluice(folder.path(), words, &untidy);
    let (code, _, err) = of(&["fmt", "--check", "cluster.toml"]);
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "cluster.toml: the layout differs: `sluice fmt' writes it anew\n")
    );
    assert_eq!(fs::read_to_string(&path).expect("there"), untidy);
    assert_eq!(of(&["fmt", "-"]), (Some(0), GOOD.to_owned(), String::new()));
    assert_eq!(of(&["fmt", "link.toml"]), (Some(0), String::new(), String::new()));
    assert_eq!(fs::read_to_string(&path).expect("there"), GOOD);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(folder.path().join("link.toml")).expect("there").is_symlink());
    assert_eq!(of(&["fmt", "--check", "cluster.toml"]).0, Some(0));
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2);

    fs::write(&path, "a = \n").expect("written");
    let (code, _, err) = of(&["fmt", "cluster.toml"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("cluster.toml:1:5: error: a value is missing here"), "{err}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "a = \n");
}

#[test]
fn import_prints_a_cluster_file_and_lists_what_it_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let saved = "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1\n";
    let file = "[service.tcp-192-0-2-10-80]\nvip = \"192.0.2.10\"\nports = \"tcp/80\"\nservers = [\"10.0.0.1\"]\nscheduler = \"rr\"\n";
    let of = |words: &[&str], input: &str| sluice(folder.path(), words, input);
    assert_eq!(of(&["import", "ipvsadm-save", "-"], saved), (Some(0), file.to_owned(), String::new()));
    let more = format!("{saved}-A -t 192.0.2.10:81 -s what\n");
    let (code, out, err) = of(&["import", "ipvsadm-save", "-"], &more);
    assert_eq!((code, out.as_str()), (Some(3), file));
    assert!(
        err.starts_with("<stdin>:3: not carried over: -A -t 192.0.2.10:81 -s what: no scheduler `what'"),
        "{err}"
    );
    let (_, _, err) = of(&["import", "--json", "ipvsadm-save", "-"], &more);
    let left: serde_json::Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(left[0]["line"], 3);
    let (code, _, err) = of(&["import", "nginx", "-"], "");
    assert_eq!(code, Some(2));
    assert!(err.contains("there are ipvsadm-save, keepalived, ldirectord, lvs-dr, piranha"), "{err}");
}

#[test]
fn the_schema_is_json() {
    let (code, out, _) = sluice(Path::new("/"), &["schema"], "");
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(schema["title"], "Sluice cluster file");
}
