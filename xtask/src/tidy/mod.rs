//! The rules of the house that neither the compiler nor clippy holds.
//!
//! Every finding is printed as `file:line: what is wrong; what to do`. Deliberately absent: style that
//! rustfmt decides, and whatever a lint of the compiler or clippy can say (`clippy.toml`, `[lints]`).

mod programs;
mod proof;
mod sizes;
mod source;
mod tiers;
mod unsafety;
mod words;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use source::Source;

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From the root of the repository.
    file: String,
    /// Counted from 1; 0 when the finding is about the whole file.
    line: usize,
    /// What is wrong, and what to do.
    text: String,
}

impl Finding {
    fn new(file: &str, line: usize, text: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, text: text.into() }
    }
}

/// Checks everything and prints what is wrong; true if nothing is.
///
/// # Errors
/// git or cargo could not list the files or crates, or a file could not be read.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for path in tracked(root)? {
        // Deleted, but not yet committed.
        if !root.join(&path).exists() {
            continue;
        }
        match Source::parse(&path, &crate::read(&root.join(&path))?) {
            Ok(source) => sources.push(source),
            Err(finding) => findings.push(finding),
        }
    }
    for source in &sources {
        findings.extend(sizes::check(source));
        findings.extend(unsafety::check(source));
        findings.extend(words::check(source));
    }
    let crates = tiers::crates(root)?;
    findings.extend(tiers::check(&crates));
    let programs = programs::list(&sources);
    let golden = std::fs::read_to_string(root.join(programs::GOLDEN)).unwrap_or_default();
    findings.extend(programs::check(&sources, &programs, &golden));
    let proofs = proof::list(root)?;
    findings.extend(proof::check(root, &proofs)?);

    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    for Finding { file, line, text } in &findings {
        println!("{file}:{line}: {text}");
    }
    let (files, crates, programs) = (sources.len(), crates.len(), programs.len());
    println!(
        "tidy: {files} files, {crates} crates, {programs} eBPF programs, {} cases, {} scripts, {} findings",
        proofs.cases,
        proofs.scripts,
        findings.len()
    );
    Ok(findings.is_empty())
}

/// Every Rust file that git tracks or would add.
fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("git");
    // A checkout of another user is only listed here; nothing in it is run.
    command.current_dir(root).args(["-c", "safe.directory=*", "ls-files", "-z"]);
    command.args(["--cached", "--others", "--exclude-standard", "--deduplicate", "--", "*.rs"]);
    let output = command.output().context("cannot run git")?;
    if !output.status.success() {
        bail!("git cannot list the files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let list = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}
