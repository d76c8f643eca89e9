//! The short part of the comparison: a dozen scripts, played into kernel IPVS in the virtual machine and into Sluice here.

use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::{need_bpf, skip};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Fails unless the virtual machine can be started.
fn need_vm() -> Result<(), String> {
    if Command::new("ipvsadm").arg("--version").output().is_err() {
        return Err("needs ipvsadm; ./dev setup compare installs it".to_owned());
    }
    let output = Command::new(root().join("tools/vm")).arg("setup").output();
    let output = output.map_err(|error| format!("needs tools/vm: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("needs the virtual machine: {}", said.trim())) }
}

#[test]
fn sluice_does_what_ipvs_does() {
    let compare = Path::new(env!("CARGO_BIN_EXE_compare"));
    let sluice = compare.with_file_name("sluice");
    if let Err(reason) = need_bpf().and_then(|()| need_vm()) {
        skip!("{reason}");
    }
    // Nothing to do when the whole workspace is tested; else a stale binary would be compared.
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "sluice-cli"]).status();
    assert!(built.expect("run cargo").success(), "sluice could not be built");
    let records = tempfile::tempdir().expect("temporary directory");
    let output = Command::new(compare)
        .args(["run", "--short", "--sluice"])
        .arg(&sluice)
        .arg("--out")
        .arg(records.path())
        .output()
        .expect("run compare");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    assert!(said.contains(" 0 differ "), "{said}");
}
