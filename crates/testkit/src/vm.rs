//! Tests that are played in the virtual machine with Debian's kernel, because this machine's may lack something.

use std::path::Path;
use std::process::Command;

/// Set inside.
const INSIDE: &str = "SLUICE_TEST_IN_VM";
/// Seconds that a test may take there, boot included: everything is emulated.
const TIMEOUT_S: &str = "480";

/// Whether this is the virtual machine.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Plays a test of this program, by its name, as root in the virtual machine.
///
/// # Errors
/// The reason why it cannot be played, fit for [`skip!`](crate::skip!).
///
/// # Panics
/// When it fails there.
pub fn play(test: &str) -> Result<(), String> {
    let vm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/vm");
    let ready = Command::new(&vm).arg("setup").output().map_err(|error| format!("tools/vm: {error}"))?;
    if !ready.status.success() {
        return Err(String::from_utf8_lossy(&ready.stderr).trim().to_owned());
    }
    let mut command = Command::new(vm);
    command.args(["run", "--timeout", TIMEOUT_S, "--mem", "1024", "--env", &format!("{INSIDE}=1"), "--"]);
    command.arg(std::env::current_exe().map_err(|error| format!("this program: {error}"))?);
    command.args(["--exact", test, "--nocapture"]);
    let done = command.output().map_err(|error| format!("tools/vm: {error}"))?;
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success() && said.contains("1 passed"), "in the virtual machine:\n{said}");
    Ok(())
}
