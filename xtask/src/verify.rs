//! What the kernel's verifier makes of every program, on the running kernel and on the oldest supported one.
//!
//! The number of verified instructions decides whether a program loads at all (the kernel gives up at one
//! million) and it jumps for reasons nobody sees in a review. So it is pinned in `bpf/verified.toml`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The oldest kernel that Sluice supports; Debian 12's.
const OLDEST: &str = "6.1";

/// Verified instructions that a program may cost on the oldest kernel: a quarter of what it accepts,
/// because other compilers and later kernels count differently.
const BUDGET: u32 = 250_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write what was measured to bpf/verified.toml
    #[arg(long)]
    bless: bool,
    /// Only the running kernel, not 6.1 in the VM
    #[arg(long, conflicts_with = "bless")]
    no_vm: bool,
}

/// The golden file.
#[derive(Default, Serialize, Deserialize)]
struct Golden {
    /// The compiler whose programs were counted; another one's counts are not comparable.
    #[serde(default)]
    toolchain: String,
    /// Verified instructions by kernel release series (`6.1`) and program.
    #[serde(default)]
    kernel: BTreeMap<String, BTreeMap<String, u32>>,
}

/// What one kernel said.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Report {
    /// As `uname -r` prints it.
    release: String,
    programs: Vec<Program>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Program {
    name: String,
    /// Instructions that the verifier walked through.
    verified: u32,
    /// Bytes of machine code.
    jited: u32,
}

/// Loads every program on both kernels; true if all counts are as they should be.
///
/// # Errors
/// A program was refused, or a kernel or tool is missing.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<bool> {
    let loader = build_loader(root)?;
    let mut reports = vec![ask(Command::new(root.join("scripts/as-root")).arg(&loader), "this kernel")?];
    if !options.no_vm {
        let mut vm = Command::new(root.join("tools/vm"));
        // A boot takes seconds, loading under emulation too; five minutes mean that it hangs.
        vm.args(["run", "--timeout", "300", "--"]).arg(&loader);
        let report = ask(&mut vm, "the VM")?;
        if series(&report.release) != OLDEST {
            bail!(
                "the VM's kernel is {}, not {OLDEST}: this machine's package archive holds no {OLDEST} \
                 kernel. Run on Debian 12, or with --no-vm",
                report.release
            );
        }
        reports.push(report);
    }

    let path = root.join("bpf/verified.toml");
    let toolchain = crate::read(&root.join("target/bpf/toolchain.txt"))?;
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut golden: Golden =
        toml::from_str(&text).with_context(|| format!("{} is not a golden file", path.display()))?;
    if options.bless {
        golden.bless(&reports, &toolchain);
        let text = toml::to_string(&golden).context("cannot write the golden file as TOML")?;
        let text = format!(
            "# Written by ./dev verify --bless; verified instructions by kernel and program.\n{text}"
        );
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let findings: Vec<String> =
        reports.iter().flat_map(|report| golden.compare(report, &toolchain)).collect();
    for finding in &findings {
        println!("FAILED: {finding}");
    }
    if findings.is_empty() {
        println!("verify: every program loads within its budget");
    }
    Ok(findings.is_empty())
}

/// Builds the program that loads the programs.
fn build_loader(root: &Path) -> anyhow::Result<std::path::PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = root.join("target");
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["build", "--quiet", "--package", "sluice-verify"]);
    let status = command.arg("--target-dir").arg(&target).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("building tools/verify failed");
    }
    Ok(target.join("debug/sluice-verify"))
}

/// Runs the loader on a kernel and reads the one line it prints.
fn ask(command: &mut Command, place: &str) -> anyhow::Result<Report> {
    let output = command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run the loader on {place}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // In the VM one pipe carries everything, what the loader prints to standard error too.
    let Some(line) = text.lines().find(|line| line.starts_with('{')).filter(|_| output.status.success())
    else {
        bail!("loading the programs on {place} failed ({}): {}", output.status, text.trim());
    };
    serde_json::from_str(line).with_context(|| format!("the loader on {place} printed {line:?}"))
}

/// `6.1` out of `6.1.0-30-amd64`.
fn series(release: &str) -> String {
    let mut numbers = release.split(['.', '-']);
    format!("{}.{}", numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

impl Golden {
    fn bless(&mut self, reports: &[Report], toolchain: &str) {
        toolchain.clone_into(&mut self.toolchain);
        // Counts of kernels that were not asked now belong to other programs or another compiler.
        self.kernel.clear();
        for report in reports {
            let counts = report.programs.iter().map(|program| (program.name.clone(), program.verified));
            self.kernel.insert(series(&report.release), counts.collect());
        }
    }

    /// Prints the table of one kernel; returns what is wrong with it.
    fn compare(&self, report: &Report, toolchain: &str) -> Vec<String> {
        let series = series(&report.release);
        let golden = self.kernel.get(&series);
        let same = self.toolchain == toolchain;
        println!("kernel {}, {toolchain}", report.release);
        if golden.is_none() {
            println!("  (the golden file has no counts for {series}; nothing to compare)");
        } else if !same {
            println!("  (the golden counts are of {}; differences are only shown)", self.toolchain);
        }
        println!("  {:<28} {:>9} {:>9} {:>9}", "program", "verified", "golden", "bytes");
        let mut findings = Vec::new();
        for program in &report.programs {
            let expected = golden.and_then(|counts| counts.get(&program.name)).copied();
            let shown = expected.map_or_else(|| "-".to_owned(), |count| count.to_string());
            println!("  {:<28} {:>9} {shown:>9} {:>9}", program.name, program.verified, program.jited);
            findings.extend(wrong(program, &series, expected).filter(|_| same && golden.is_some()));
            if series == OLDEST && program.verified > BUDGET {
                findings.push(format!(
                    "{} costs {} verified instructions on {series}, over the budget of {BUDGET}; split it",
                    program.name, program.verified
                ));
            }
        }
        let loaded = |name: &String| report.programs.iter().any(|program| program.name == *name);
        let gone = golden.into_iter().flatten().map(|(name, _)| name).filter(|name| !loaded(name));
        findings
            .extend(gone.map(|name| format!("{name} is in the golden file for {series} but was not loaded")));
        findings
    }
}

fn wrong(program: &Program, series: &str, expected: Option<u32>) -> Option<String> {
    let Program { name, verified, .. } = program;
    match expected {
        Some(expected) if expected == *verified => None,
        Some(expected) => Some(format!(
            "{name} costs {verified} verified instructions on {series}, the golden file says {expected}; if \
             that is meant, run ./dev verify --bless"
        )),
        None => Some(format!("{name} is not in the golden file for {series}; run ./dev verify --bless")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(release: &str, verified: u32) -> Report {
        let program = Program { name: "entry".to_owned(), verified, jited: 10 };
        Report { release: release.to_owned(), programs: vec![program] }
    }

    fn blessed() -> Golden {
        let mut golden = Golden::default();
        golden.bless(&[report("6.1.0-30-amd64", 100), report("6.18.4", 90)], "rustc 1.96.0, LLVM 22.1.8");
        golden
    }

    #[test]
    fn the_series_is_major_and_minor() {
        assert_eq!(series("6.1.0-30-amd64"), "6.1");
        assert_eq!(series("6.18.4"), "6.18");
        assert_eq!(series("7.0-rc1"), "7.0");
    }

    #[test]
    fn what_was_blessed_compares_equal_after_a_round_trip() {
        let text = toml::to_string(&blessed()).unwrap();
        let golden: Golden = toml::from_str(&text).unwrap();
        assert_eq!(golden.compare(&report("6.1.0-31-amd64", 100), "rustc 1.96.0, LLVM 22.1.8"), [""; 0]);
        assert_eq!(golden.kernel["6.18"]["entry"], 90);
    }

    #[test]
    fn a_change_is_found_on_a_listed_kernel_with_the_same_compiler_only() {
        let compare =
            |release, verified, toolchain| blessed().compare(&report(release, verified), toolchain).len();
        assert_eq!(compare("6.1.0", 101, "rustc 1.96.0, LLVM 22.1.8"), 1);
        assert_eq!(compare("6.18.9", 91, "rustc 1.96.0, LLVM 22.1.8"), 1);
        assert_eq!(compare("6.12.0", 101, "rustc 1.96.0, LLVM 22.1.8"), 0);
        assert_eq!(compare("6.1.0", 101, "rustc 1.97.0, LLVM 22.1.8"), 0);
    }

    #[test]
    fn the_budget_holds_on_the_oldest_kernel_with_every_compiler() {
        let compare = |release, verified| blessed().compare(&report(release, verified), "another").len();
        assert_eq!(compare("6.1.0", BUDGET), 0);
        assert_eq!(compare("6.1.0", BUDGET + 1), 1);
        assert_eq!(compare("6.12.0", BUDGET + 1), 0);
    }

    #[test]
    fn a_program_that_vanished_or_is_new_is_found() {
        let mut report = report("6.1.0", 100);
        report.programs[0].name = "other".to_owned();
        assert_eq!(blessed().compare(&report, "rustc 1.96.0, LLVM 22.1.8").len(), 2);
    }

    #[test]
    fn the_loader_s_line_is_read() {
        let line = r#"{"release":"6.1.0","programs":[{"name":"entry","verified":7,"jited":8}]}"#;
        let report: Report = serde_json::from_str(line).unwrap();
        assert_eq!((report.programs[0].verified, report.programs[0].jited), (7, 8));
    }
}
