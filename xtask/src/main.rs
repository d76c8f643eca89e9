//! `cargo xtask`: the chores that need more than a shell script and less than a program of their own.
//!
//! Deliberately absent: installing anything (that is `./dev setup`), and every dependency on the
//! crates of the workspace. They cannot be built before `build-bpf` has run, and `tidy` must run
//! when they do not compile.

mod build_bpf;
mod package;
mod test;
mod tidy;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the workspace")]
enum Chore {
    /// Build the eBPF programs into target/bpf, with whichever toolchain is there
    BuildBpf(build_bpf::Options),
    /// Make the Debian package target/debian/sluice_VERSION_ARCH.deb
    Package(package::Options),
    /// Check the rules of the house: tiers, sizes, unsafe code, forbidden words
    Tidy,
    /// Run every test; the last line reads: N passed, N failed, N skipped
    Test(test::Options),
    /// Load every eBPF program on this kernel and on 6.1 in the VM, and compare with bpf/verified.toml
    Verify(verify::Options),
}

fn main() -> ExitCode {
    let root = root();
    let result = match Chore::parse() {
        Chore::BuildBpf(options) => build_bpf::run(&root, &options).map(|()| true),
        Chore::Package(options) => package::run(&root, &options).map(|()| true),
        Chore::Tidy => tidy::run(&root),
        Chore::Test(options) => test::run(&root, &options),
        Chore::Verify(options) => verify::run(&root, &options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    // xtask is always run by cargo from a checkout, never installed.
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Reads a text file; the error names it.
fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
