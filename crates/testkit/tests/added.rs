//! A scheduler of one's own is one file: here two are added, Sluice is built with them, and they schedule.
//!
//! In a package of its own with a target directory of its own, so that the workspace is not built twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The crates that the program uses.
const CRATES: [&str; 5] = ["abi", "api", "forward", "plan", "testkit"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Makes the package, with these files as the added schedulers, and runs it with these words.
fn run(schedulers: &Path, words: &[&str]) -> Output {
    let test = std::env::current_exe().expect("own path");
    let target = test.ancestors().nth(3).expect("target directory").join("added");
    let package = tempfile::tempdir().expect("temporary directory");
    let mut manifest =
        "[package]\nname = \"added\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n".to_owned();
    for name in CRATES {
        let path = root().join("crates").join(name);
        manifest += &format!("{name} = {{ path = {path:?}, package = \"sluice-{name}\" }}\n");
    }
    manifest += "\n[[bin]]\nname = \"added\"\npath = \"program.rs\"\n";
    let write = |name: &str, text: &[u8]| fs::write(package.path().join(name), text).expect("written");
    write("Cargo.toml", manifest.as_bytes());
    // The versions that the workspace is built with, which are there without a network.
    write("Cargo.lock", &fs::read(root().join("Cargo.lock")).expect("lock file"));
    write("program.rs", include_bytes!("added_schedulers/program.rs"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["run", "--quiet", "--offline", "--target-dir"]).arg(target).arg("--").args(words);
    cargo
        .current_dir(package.path())
        .env("SLUICE_SCHEDULERS", schedulers)
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.output().expect("cargo")
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect("written");
    }
    directory
}

const COLDEST: (&str, &str) = ("coldest.rs", include_str!("added_schedulers/coldest.rs"));
const LADDER: (&str, &str) = ("ladder.rs", include_str!("added_schedulers/ladder.rs"));

#[test]
fn a_file_is_a_scheduler_that_ipvsadm_can_name() {
    let added = directory(&[COLDEST, LADDER, ("README.md", "no scheduler")]);
    let done = run(added.path(), &["coldest", "ladder", "rr"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    // coldest: weights 1, 2, 3, and two connections that are closing at the first. ladder: by weight, the oldest first.
    let expected = "coldest 3 2 3 2 3 3 2 3\nladder 1 2 2 3 3 3 1 2\nrr 3 2 1 3 2 1 3 2\n";
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected, "{said}");
    // What is wrong with a file is said by name, and nothing is built.
    for (file, text, expected) in [
        ("Coldest.rs", COLDEST.1, "a scheduler's name has 1 to 15 lower-case letters and digits"),
        ("empty.rs", "//! Nothing.", "expected one of `pub fn score(` and `pub fn ring(`"),
        ("twice.rs", COLDEST.1, "two added schedulers have the same number"),
        ("low.rs", &COLDEST.1.replace("1000", "7"), "the number of an added scheduler is 1000 or higher"),
    ] {
        let wrong = directory(&[COLDEST, (file, text)]);
        let done = run(wrong.path(), &["coldest"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(expected), "{file}: {said}");
    }
}

#[test]
fn the_examples_of_the_documentation_are_these() {
    let page = fs::read_to_string(root().join("docs/schedulers.md")).expect("docs/schedulers.md");
    for (name, text) in [COLDEST, LADDER] {
        assert!(page.contains(text), "{name}");
    }
}
