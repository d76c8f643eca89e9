//! The proofs named in the documents: every test, case and script that stands in `docs/` must exist.
//!
//! In `docs/compatibility.md` each table ends with a column `held by`. A proof there is one of these, in backticks:
//!
//! - a file, `forward/src/tcp_state.rs` (of a crate) or `cases/nat.toml`, also `nat.toml`;
//! - a test, `forward/src/tcp_state.rs: name`; a bare `name` after it is of the same file;
//! - the name of a case in `cases/` or of a script in `crates/compare/scripts/`, where `...` at an end stands for any text;
//! - a command, `./dev ...` or `cargo test ...`.
//!
//! A row without a proof says `none`. In tables of three columns the second says how it is, by a word of [`HOW`].
//! Files and tests named elsewhere in `docs/` are looked for as well. Deliberately absent: whether a test proves what stands beside it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

use super::Finding;

/// The page whose tables are checked.
const PAGE: &str = "docs/compatibility.md";
/// Heading of the column of proofs.
const COLUMN: &str = "held by";
/// What the second of three columns may begin with.
const HOW: [&str; 5] = ["works", "better", "differs", "not applicable", "not in this release"];

/// Names that a proof may be.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// Cases and scripts.
    names: BTreeSet<String>,
    /// How many there are of each, for the report.
    pub(super) cases: usize,
    pub(super) scripts: usize,
}

/// Reads the names of all cases and scripts.
pub(super) fn list(root: &Path) -> anyhow::Result<Proofs> {
    let mut proofs = Proofs::default();
    let cases = names(&root.join("cases"), "case")?;
    let scripts = names(&root.join("crates/compare/scripts"), "script")?;
    (proofs.cases, proofs.scripts) = (cases.len(), scripts.len());
    proofs.names.extend(cases.into_iter().chain(scripts));
    Ok(proofs)
}

/// The `name` of every table of this kind in the TOML files of a folder.
fn names(folder: &Path, kind: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let file: toml::Table =
            crate::read(&path)?.parse().with_context(|| format!("{} is no TOML", path.display()))?;
        let tables = file.get(kind).and_then(toml::Value::as_array).into_iter().flatten();
        names.extend(tables.filter_map(|table| Some(table.get("name")?.as_str()?.to_owned())));
    }
    Ok(names)
}

/// Checks every page of `docs/`.
pub(super) fn check(root: &Path, proofs: &Proofs) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let folder = root.join("docs");
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let name = entry.with_context(|| format!("cannot list {}", folder.display()))?.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".md")) else { continue };
        let path = format!("docs/{name}");
        let text = crate::read(&root.join(&path))?;
        findings.extend(page(&path, &text, proofs, &|file| std::fs::read_to_string(root.join(file)).ok()));
    }
    Ok(findings)
}

/// Reads a file of the repository, if it is there.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

fn page(path: &str, text: &str, proofs: &Proofs, read: Read<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut columns = 0;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let mut found = |text: String| findings.push(Finding::new(path, number, text));
        let cells = cells(line);
        columns = match cells.last() {
            None => 0,
            Some(last) if *last == COLUMN => cells.len(),
            Some(_) => columns,
        };
        let row = columns > 0 && cells.last() != Some(&COLUMN) && !line.starts_with("| ---");
        if path != PAGE || !row {
            words(line)
                .filter(|word| word.contains('/') && is_path(word))
                .filter_map(|word| missing(word, read))
                .for_each(found);
            continue;
        }
        if cells.len() != columns {
            found(format!(
                "a row of {} cells in a table of {columns}; write | in a cell as \\|",
                cells.len()
            ));
            continue;
        }
        if columns == 3 && !HOW.iter().any(|how| cells[1].starts_with(how)) {
            found(format!("`{}` does not say how it is; begin with one of: {}", cells[1], HOW.join(", ")));
        }
        proof(cells[columns - 1], proofs, read).for_each(found);
    }
    findings
}

/// What is wrong with a cell of proofs.
fn proof<'a>(cell: &'a str, proofs: &'a Proofs, read: Read<'a>) -> impl Iterator<Item = String> + 'a {
    let unproved = words(cell).next().is_none() && !cell.starts_with("none");
    let mut last = None;
    let named = words(cell).filter_map(move |word| {
        if is_path(word) {
            last = word.split(": ").next().filter(|file| file.ends_with(".rs"));
            return missing(word, read);
        }
        let command = word.starts_with("./dev ") || word.starts_with("cargo test ");
        let in_last = || last.is_some_and(|file| missing(&format!("{file}: {word}"), read).is_none());
        let there = command || proofs.names.iter().any(|name| fits(word, name)) || in_last();
        (!there).then(|| format!("there is no case, script or test `{word}`; name one that there is"))
    });
    unproved.then(|| "no proof; name a test, case or script, or say none".to_owned()).into_iter().chain(named)
}

/// Whether a name fits what is written, where `...` at an end stands for any text.
fn fits(written: &str, name: &str) -> bool {
    match (written.strip_prefix("..."), written.strip_suffix("...")) {
        (Some(end), None) => name.ends_with(end.trim_start()),
        (None, Some(start)) => name.starts_with(start.trim_end()),
        _ => written == name,
    }
}

/// Whether a word names a file of the repository, or a test in one.
fn is_path(word: &str) -> bool {
    let file = word.split(": ").next().unwrap_or(word);
    let rust = file.ends_with(".rs") && (file.contains("/src/") || file.contains("/tests/"));
    rust || (file.ends_with(".toml")
        && (!file.contains('/') || file.starts_with("cases/") || file.contains("/scripts/")))
}

/// What is wrong with the name of a file, or of a test in one.
fn missing(word: &str, read: Read<'_>) -> Option<String> {
    let (file, test) = word.split_once(": ").map_or((word, None), |(file, test)| (file, Some(test)));
    let beside = ["cases/", "crates/", "xtask/", "bpf/"].iter().any(|folder| file.starts_with(folder));
    let at = match file.contains('/') {
        false => format!("cases/{file}"),
        true if beside => file.to_owned(),
        true => format!("crates/{file}"),
    };
    let Some(text) = read(&at) else {
        return Some(format!("there is no file {at}; name one that there is"));
    };
    let test = test?;
    let there = if file.ends_with(".rs") {
        text.contains(&format!("fn {test}("))
    } else {
        text.lines()
            .filter_map(|line| line.strip_prefix("name = "))
            .any(|name| fits(test, name.trim_matches('"')))
    };
    (!there).then(|| format!("{at} has no `{test}`; name one that it has"))
}

/// The cells of a row of a table; empty if the line is none.
fn cells(line: &str) -> Vec<&str> {
    let Some(inside) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
        return Vec::new();
    };
    let mut cells = Vec::new();
    let (mut from, mut escaped) = (0, false);
    for (at, letter) in inside.char_indices() {
        if letter == '|' && !escaped {
            cells.push(inside[from..at].trim());
            from = at + 1;
        }
        escaped = letter == '\\';
    }
    cells.push(inside[from..].trim());
    cells
}

/// The words in backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(rows: &str) -> Vec<(usize, String)> {
        let names = ["rr goes round", "a reply of a flow, and on"].map(str::to_owned);
        let proofs = Proofs { names: names.into(), ..Proofs::default() };
        let text = format!("| what | Sluice | held by |\n| --- | --- | --- |\n{rows}");
        let read = |file: &str| match file {
            "crates/plan/src/a.rs" => Some("fn one() {}\nfn two() {}\n".to_owned()),
            "cases/a.toml" => Some("name = \"rr goes round\"\n".to_owned()),
            _ => None,
        };
        let findings = page(PAGE, &text, &proofs, &read);
        findings.into_iter().map(|finding| (finding.line, finding.text)).collect()
    }

    #[test]
    fn what_exists_is_found_in_every_form() {
        let rows = "| a | works | case `rr goes round`, `a reply of a flow ...` and `... on` |\n\
            | b \\| c | works: so | `plan/src/a.rs: one`, `two`; `a.toml`; `cases/a.toml: rr goes ...` |\n\
            | d | not applicable: no | none |\n| e | differs | `./dev compare` |\n";
        assert_eq!(texts(rows), []);
    }

    #[test]
    fn what_does_not_exist_is_a_finding() {
        for proof in [
            "`rr`",
            "`plan/src/b.rs`",
            "`plan/src/a.rs: three`",
            "`cases/a.toml: wrr`",
            "`b.toml`",
            "",
            "`one`",
        ] {
            let lines: Vec<usize> =
                texts(&format!("| a | works | {proof} |\n")).iter().map(|it| it.0).collect();
            assert_eq!(lines, [3], "{proof}");
        }
    }

    #[test]
    fn a_row_says_how_it_is_and_has_all_its_cells() {
        assert_eq!(texts("| a | obeyed | none |\n").len(), 1);
        assert_eq!(texts("| a | works |\n").len(), 1);
        assert_eq!(texts("| a | b | works | none |\n").len(), 1);
    }

    #[test]
    fn outside_of_tables_only_paths_are_looked_for() {
        assert_eq!(texts("\nthe words `rr` and `plan/src/a.rs: one`\n"), []);
        assert_eq!(texts("\nthe words `rr` and `plan/src/a.rs: three`\n").len(), 1);
    }
}
