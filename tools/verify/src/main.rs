//! Loads every eBPF program into the running kernel and prints one line of JSON: what the verifier made of each.
//!
//! `./dev verify` runs it on this machine and, unchanged, inside the VM. It attaches nothing and pins
//! nothing: the programs are gone when it ends. Deliberately absent: any judgement of the numbers.

use std::io;
use std::process::ExitCode;

use abi::{CaptureSettings, Limits};
use kernel::{Capture, Datapath, LoadError, ProgramError};

/// Small tables: their size changes nothing for the verifier, and the VM has little memory.
const LIMITS: Limits = Limits {
    services_max: 64,
    reals_max: 64,
    slots_max: 4096,
    embryonic_flows_max: 1024,
    established_flows_max: 1024,
    templates_max: 1024,
    fragments_max: 1024,
    affinities_max: 64,
    networks_max: 64,
    clients_max: 64,
};

#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("cannot read the kernel's release from /proc/sys/kernel/osrelease")]
    Release(#[source] io::Error),
    #[error("the eBPF programs do not load on this kernel")]
    Load(#[from] LoadError),
    #[error("the programs loaded, but the kernel does not tell what they cost")]
    Info(#[from] ProgramError),
}

fn main() -> ExitCode {
    match measure() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            runtime::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<serde_json::Value, VerifyError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").map_err(VerifyError::Release)?;
    let datapath = Datapath::load(&LIMITS)?;
    // All of these must load, but only those that are not among the others are measured.
    let (capture, _) = Capture::load(&LIMITS, None, &CaptureSettings::default())?;
    let is_known = |name: &str| datapath.programs().any(|program| program.name() == name);
    let own = capture.programs().filter(|program| !is_known(program.name()));
    let mut programs = Vec::new();
    for program in datapath.programs().chain(own) {
        let info = program.info()?;
        programs.push(serde_json::json!({
            "name": program.name(),
            "verified": info.verified_instructions,
            "jited": info.jited_bytes,
        }));
    }
    Ok(serde_json::json!({"release": release.trim(), "programs": programs}))
}
