//! Finds the compiled eBPF programs of the benchmark, so that the library can carry them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names the directory of the objects, when they are not in `target/bpf` of the workspace.
const DIRECTORY: &str = "SLUICE_BPF_DIR";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={DIRECTORY}");
    let directory = match std::env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf"),
    };
    let object = directory.join("bench.o");
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) => {
            println!("cargo::rustc-env=SLUICE_BENCH_OBJECT={}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!(
                "cargo::error=the eBPF object {} is missing ({error}): run `./dev build` (or `cargo xtask build-bpf`) \
                 first, or name its directory in {DIRECTORY}",
                object.display()
            );
            ExitCode::FAILURE
        }
    }
}
