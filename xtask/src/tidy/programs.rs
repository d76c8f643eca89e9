//! The eBPF programs: each one is measured by `./dev verify`, and nothing else is.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;

/// Verified instructions per kernel and program, written by `./dev verify --bless`.
pub(super) const GOLDEN: &str = "bpf/verified.toml";

/// Attributes of aya-ebpf that make a function a program.
const KINDS: [&str; 3] = ["xdp", "classifier", "sk_lookup"];

/// Roots of programs that only measure: the benchmark loads them and no machine forwards with them.
const MEASURING: [&str; 1] = ["bpf/src/bench.rs"];

/// A function that the kernel loads as a program.
pub(super) struct Program {
    pub(super) name: String,
    file: String,
    line: usize,
}

/// Every program of the eBPF workspace.
pub(super) fn list(sources: &[Source]) -> Vec<Program> {
    let mut programs = Vec::new();
    for source in sources.iter().filter(|source| source.member() == "bpf") {
        let functions = source.file.items.iter().filter_map(|item| match item {
            syn::Item::Fn(function) => Some(function),
            _ => None,
        });
        for function in functions {
            let program = |attr: &syn::Attribute| KINDS.iter().any(|kind| attr.path().is_ident(kind));
            if function.attrs.iter().any(program) {
                let line = function.sig.fn_token.span.start().line;
                programs.push(Program {
                    name: function.sig.ident.to_string(),
                    file: source.path.clone(),
                    line,
                });
            }
        }
    }
    programs
}

/// Compares the programs with the golden file.
pub(super) fn check(sources: &[Source], programs: &[Program], golden: &str) -> Vec<Finding> {
    let bpf = sources.iter().any(|source| source.member() == "bpf");
    if !bpf {
        return Vec::new();
    }
    let bless = "run ./dev verify --bless and look at what changed";
    let listed = match toml::from_str::<Golden>(golden) {
        Ok(golden) => golden.kernel.into_values().next().unwrap_or_default(),
        Err(error) => return vec![Finding::new(GOLDEN, 0, format!("{}; {bless}", error.message()))],
    };
    let pinned = programs.iter().filter(|program| !MEASURING.contains(&program.file.as_str()));
    let unlisted = pinned.filter(|program| !listed.contains_key(&program.name)).map(|program| {
        let text = format!("program {} is not in {GOLDEN}; {bless}", program.name);
        Finding::new(&program.file, program.line, text)
    });
    let known = |name: &String| programs.iter().any(|program| program.name == *name);
    let gone = listed.keys().filter(|name| !known(name)).map(|name| {
        let line = golden.lines().position(|line| line.starts_with(name.as_str())).map_or(0, |at| at + 1);
        Finding::new(GOLDEN, line, format!("there is no program {name} any more; {bless}"))
    });
    unlisted.chain(gone).collect()
}

#[derive(serde::Deserialize)]
struct Golden {
    /// By release series; every series lists the same programs, so the first speaks for all.
    #[serde(default)]
    kernel: BTreeMap<String, BTreeMap<String, u32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#![no_main]\n#[xdp]\npub fn entry(ctx: XdpContext) -> u32 { 0 }\nfn helper() {}\n";

    fn texts(golden: &str) -> Vec<(String, usize)> {
        let sources = [Source::parse("bpf/src/entry.rs", TEXT).unwrap()];
        let programs = list(&sources);
        assert_eq!(programs.len(), 1);
        check(&sources, &programs, golden).into_iter().map(|finding| (finding.file, finding.line)).collect()
    }

    #[test]
    fn every_program_is_in_the_golden_file_and_nothing_else() {
        assert_eq!(texts("[kernel.\"6.1\"]\nentry = 100\n"), []);
        assert_eq!(texts(""), [("bpf/src/entry.rs".to_owned(), 3)]);
        assert_eq!(texts("[kernel.\"6.1\"]\nentry = 1\nold = 2\n"), [(GOLDEN.to_owned(), 3)]);
    }

    #[test]
    fn programs_that_only_measure_are_not_pinned() {
        let sources = [Source::parse("bpf/src/bench.rs", TEXT).unwrap()];
        assert_eq!(check(&sources, &list(&sources), ""), []);
    }

    #[test]
    fn a_broken_golden_file_is_a_finding() {
        assert_eq!(texts("[kernel\n"), [(GOLDEN.to_owned(), 0)]);
    }
}
