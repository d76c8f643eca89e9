//! Runs every test and counts: the last line is `N passed, N failed, N skipped`.
//!
//! A test that cannot run here prints a line `SKIPPED name: reason` (see testkit) and ends well, so the
//! test harness calls it passed; this runner counts it as skipped and says so. With `CI=true` a skip
//! is a failure unless a line of `.ci/allowed-skips` occurs in it.

use std::io::{BufRead as _, BufReader, IsTerminal as _, PipeReader};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Count this step, which failed before, as one failure
    #[arg(long, value_name = "NAME")]
    failed_step: Vec<String>,
    /// Run only the tests of these packages
    #[arg(long, short, value_name = "PACKAGE")]
    package: Vec<String>,
    /// Handed to cargo test: a filter, or -- and options of the test harness
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// What the output of the test programs adds up to.
#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The lines of tests that could not run here, without `SKIPPED `.
    skips: Vec<String>,
    /// The names of the tests that failed.
    names: Vec<String>,
    /// A test program has begun and not yet said how it went.
    running: bool,
}

/// Runs the tests; true if none failed.
///
/// # Errors
/// cargo could not be started.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<bool> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = cargo_test(root, options);
    // One pipe for both, so that the lines stay in order.
    command.stdout(writer.try_clone().context("cannot share the pipe")?).stderr(writer);
    let mut child = command.spawn().context("cannot start cargo")?;
    // Holds the writing ends; with them open the pipe would never end.
    drop(command);
    let mut count = Count::default();
    follow(reader, &mut count)?;
    let status = child.wait().context("cannot wait for cargo")?;
    count.end(status.success());

    let allowed = std::fs::read_to_string(root.join(".ci/allowed-skips")).unwrap_or_default();
    let strict = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let refused = if strict { refused(&count.skips, &allowed) } else { Vec::new() };
    for skip in &count.skips {
        println!("SKIPPED {skip}");
    }
    for skip in &refused {
        println!("FAILED: a skip that .ci/allowed-skips does not list: {skip}");
    }
    for step in count.names.iter().chain(&options.failed_step) {
        println!("FAILED: {step}");
    }
    let before = (options.failed_step.len() + refused.len()) as u64;
    println!("{}", count.summary(before, refused.len() as u64));
    Ok(count.failed + before == 0)
}

fn cargo_test(root: &Path, options: &Options) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["test", "--no-fail-fast"]);
    if std::io::stdout().is_terminal() {
        command.args(["--color", "always"]);
    }
    let helper = root.join("scripts/as-root");
    if !is_root() && Command::new(&helper).arg("true").output().is_ok_and(|output| output.status.success()) {
        // Build as the user, run as root.
        command
            .arg("--config")
            .arg(format!("target.'cfg(unix)'.runner = [{:?}]", helper.display().to_string()));
    }
    if options.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &options.package {
        command.args(["--package", package]);
    }
    command.args(&options.rest);
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

/// Copies the output through and counts.
fn follow(reader: PipeReader, count: &mut Count) -> anyhow::Result<()> {
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read the output of the tests")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        count.line(&line);
    }
    Ok(())
}

impl Count {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        // With one test thread the harness has printed "test NAME ... " before the test speaks.
        let said = line.split_once(" ... ").map_or(line, |(_, said)| said);
        if let Some(skip) = said.strip_prefix("SKIPPED ") {
            self.skips.push(skip.to_owned());
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.names.push(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.running = false;
            for part in rest.split([';', '.']) {
                let mut words = part.split_whitespace();
                let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
                let Ok(number) = number.parse::<u64>() else { continue };
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        } else if begins(line) {
            self.died();
            self.running = true;
        }
    }

    /// A test program that ended without a result was killed or crashed.
    fn died(&mut self) {
        if std::mem::take(&mut self.running) {
            println!("FAILED: a test program ended without a result (see above)");
            self.failed += 1;
        }
    }

    fn end(&mut self, success: bool) {
        self.died();
        if !success && self.failed == 0 {
            println!("FAILED: cargo test (see above)");
            self.failed = 1;
        }
    }

    /// The last line. `more` failures were found outside the tests, `refused` of them skips.
    fn summary(&self, more: u64, refused: u64) -> String {
        let skips = self.skips.len() as u64;
        let passed = self.passed.saturating_sub(skips);
        let skipped = skips.saturating_sub(refused) + self.ignored;
        format!("{passed} passed, {} failed, {skipped} skipped", self.failed + more)
    }
}

/// Whether the line is the harness's `running 12 tests`.
fn begins(line: &str) -> bool {
    let mut words = line.split(' ');
    words.next() == Some("running")
        && words.next().is_some_and(|number| number.parse::<u64>().is_ok())
        && words.next().is_some_and(|what| what == "test" || what == "tests")
        && words.next().is_none()
}

/// The skips that no line of the list allows.
fn refused<'a>(skips: &'a [String], allowed: &str) -> Vec<&'a str> {
    let allowed: Vec<&str> =
        allowed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let listed = |skip: &str| allowed.iter().any(|line| skip.contains(line));
    skips.iter().map(String::as_str).filter(|skip| !listed(skip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str, success: bool) -> Count {
        let mut count = Count::default();
        output.lines().for_each(|line| count.line(line));
        count.end(success);
        count
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let output = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n\
            running 4 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\
            test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let count = count(output, false);
        assert_eq!(count.summary(0, 0), "4 passed, 1 failed, 1 skipped");
        assert_eq!(count.names, ["a::c"]);
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let output = "running 2 tests\nSKIPPED attach: needs root\ntest b ... SKIPPED b: needs eBPF\nok\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let count = count(output, true);
        assert_eq!(count.skips, ["attach: needs root", "b: needs eBPF"]);
        assert_eq!(count.summary(0, 0), "0 passed, 0 failed, 2 skipped");
        assert_eq!(refused(&count.skips, "# why\nneeds root\n"), ["b: needs eBPF"]);
        assert_eq!(count.summary(1, 1), "0 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let output = "running 2 tests\ntest a ... ok\nrunning 1 test\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(count(output, false).summary(0, 0), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_build_that_fails_is_a_failure() {
        assert_eq!(
            count("error: could not compile `x`\n", false).summary(0, 0),
            "0 passed, 1 failed, 0 skipped"
        );
    }

    #[test]
    fn text_that_looks_like_a_beginning_is_none() {
        assert!(begins("running 12 tests"));
        assert!(!begins("running two tests"));
        assert!(!begins("running 12 tests of mine"));
    }
}
