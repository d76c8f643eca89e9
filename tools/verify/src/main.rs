//! Loads every eBPF program into the running kernel and prints one line of JSON: what the verifier made of each.
//!
//! `./dev verify` runs it on this machine and, unchanged, inside the VM. It attaches nothing and pins
//! nothing: the programs are gone when it ends. Deliberately absent: any judgement of the numbers.

use std::process::ExitCode;

fn main() -> ExitCode {
    let release = match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release.trim().to_owned(),
        Err(error) => {
            eprintln!(
                "sluice-verify: cannot read the kernel's release from /proc/sys/kernel/osrelease: {error}"
            );
            return ExitCode::FAILURE;
        }
    };
    let programs = match kernel::verify_programs() {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("sluice-verify: kernel {release}: {}", runtime::Chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let programs: Vec<_> = programs
        .iter()
        .map(
            |(name, verified, jited)| serde_json::json!({"name": name, "verified": verified, "jited": jited}),
        )
        .collect();
    println!("{}", serde_json::json!({"release": release, "programs": programs}));
    ExitCode::SUCCESS
}
