//! Finds the schedulers that were added: each `NAME.rs` in the directory `schedulers` of the repository, or in the one that
//! `SLUICE_SCHEDULERS` names, is a module of this library and a line in the tables of [`schedule::added`].

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names the directory, when it is not that of the repository.
const DIRECTORY: &str = "SLUICE_SCHEDULERS";
/// Longest name; the classic listing has room for no more.
const NAME_LEN_MAX: usize = 15;

/// A file of the directory.
struct Found {
    name: String,
    path: PathBuf,
    /// It has a score, not a ring.
    scores: bool,
}

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={DIRECTORY}");
    let directory = match std::env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schedulers"),
    };
    println!("cargo::rerun-if-changed={}", directory.display());
    let written = find(&directory).and_then(|found| {
        let out = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR: this is a build script of cargo")?;
        std::fs::write(Path::new(&out).join("added.rs"), text(&found)).map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn find(directory: &Path) -> Result<Vec<Found>, String> {
    let failed = |error: std::io::Error| format!("schedulers in {}: {error}", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path().canonicalize().map_err(failed)?;
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !is_plain
            || !name.starts_with(|first: char| first.is_ascii_lowercase())
            || name.len() > NAME_LEN_MAX
        {
            return Err(format!(
                "{}: a scheduler's name has 1 to {NAME_LEN_MAX} lower-case letters and digits, a letter first",
                path.display()
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let [scores, rings] = ["pub fn score(", "pub fn ring("].map(|function| text.contains(function));
        if scores == rings {
            return Err(format!("{}: expected one of `pub fn score(` and `pub fn ring(`", path.display()));
        }
        found.push(Found { name, path, scores });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The source text that makes modules of the files and tables of the modules.
fn text(found: &[Found]) -> String {
    let mut text = String::new();
    let mut list = String::new();
    let (mut scores, mut rings) = (String::new(), String::new());
    for Found { name, path, scores: has_score } in found {
        let path = path.display().to_string();
        let _ = writeln!(text, "#[path = {path:?}]\npub mod {name};");
        let kind = if *has_score { "Kind::Score".to_owned() } else { format!("Kind::Ring({name}::RING)") };
        let _ = writeln!(list, "    Added {{ name: {name:?}, number: {name}::NUMBER, kind: {kind} }},");
        let (chosen, call) =
            if *has_score { (&mut scores, "score(candidate)") } else { (&mut rings, "ring(members, push)") };
        let _ =
            writeln!(chosen, "    if number == {name}::NUMBER {{\n        return {name}::{call};\n    }}");
    }
    let _ =
        writeln!(text, "\n/// Every added scheduler, by name.\npub const ADDED: &[Added] = &[\n{list}];\n");
    let _ = writeln!(
        text,
        "#[inline(always)]\nfn score_of(number: u16, candidate: &Candidate) -> Option<(u64, u64)> {{
    let _ = (number, candidate);\n{scores}    None\n}}\n"
    );
    let _ = writeln!(
        text,
        "fn ring_of(number: u16, members: &[Member], push: &mut dyn FnMut(u32)) {{
    let _ = (number, members, &push);\n{rings}}}"
    );
    text
}
