//! Where `unsafe` may stand, and which crates must forbid it to themselves.

use super::Finding;
use super::source::Source;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !allowed(source) {
        let stands = |at: &usize| {
            // `#[unsafe(no_mangle)]` is an attribute; it is judged where the item is.
            source.reads(*at, &["unsafe"]) && !source.reads(*at, &["unsafe", "("])
        };
        for at in (0..source.tokens.len()).filter(stands) {
            let text =
                "unsafe code stands only in tier 2 (kernel, host, runtime), testkit and bpf; move it there";
            findings.push(Finding::new(&source.path, source.tokens[at].line, text));
        }
    }
    let library = source.path == format!("crates/{}/src/lib.rs", source.member());
    if library {
        findings.extend(library_root(source));
    }
    findings
}

fn allowed(source: &Source) -> bool {
    // Tests of every tier may need a system call; what they may not do is ship.
    let tests = source.tier().is_some_and(|tier| tier >= 2) && source.is_test();
    source.tier() == Some(2) || tests || matches!(source.member(), "bpf" | "testkit")
}

/// What the root of a library must say: tiers 0 and 1 forbid unsafe code, tier 0 is `no_std` without alloc.
fn library_root(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tier = source.tier().unwrap_or(u8::MAX);
    if tier <= 1 && source.find(&["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"]).is_none() {
        let text = format!("a library of tier {tier} begins with #![forbid(unsafe_code)]; add it");
        findings.push(Finding::new(&source.path, 1, text));
    }
    if tier == 0 {
        if source.find(&["no_std"]).is_none() {
            let text = "a library of tier 0 begins with #![no_std]; add it";
            findings.push(Finding::new(&source.path, 1, text));
        }
        for name in ["alloc", "std"] {
            let at = source.find(&["extern", "crate", name]);
            // `#[cfg(test)] extern crate std;` is the way tests of a no_std library get theirs.
            let tests = at
                .is_some_and(|at| at >= 7 && source.reads(at - 7, &["#", "[", "cfg", "(", "test", ")", "]"]));
            if let Some(at) = at.filter(|_| !tests) {
                let text = format!("tier 0 uses neither alloc nor std; remove extern crate {name}");
                findings.push(Finding::new(&source.path, source.tokens[at].line, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::parse(path, text).unwrap()).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_code_stands_in_tier_2_and_bpf_only() {
        let text = "fn a() {\n    unsafe { b() }\n}\n";
        assert_eq!(lines("crates/kernel/src/a.rs", text), [0; 0]);
        assert_eq!(lines("bpf/src/a.rs", text), [0; 0]);
        assert_eq!(lines("crates/lab/tests/a.rs", text), [0; 0]);
        assert_eq!(lines("crates/lab/src/a.rs", text), [2]);
        assert_eq!(lines("crates/forward/src/a.rs", text), [2]);
        assert_eq!(lines("crates/forward/tests/a.rs", text), [2]);
        assert_eq!(lines("xtask/src/a.rs", text), [2]);
    }

    #[test]
    fn every_kind_of_unsafe_code_is_seen() {
        let text = "unsafe fn a() {}\nunsafe impl B for C {}\nunsafe trait D {}\nmacro_rules! e { () => {\nunsafe { f() } } }\n";
        assert_eq!(lines("crates/plan/src/a.rs", text), [1, 2, 3, 5]);
        assert_eq!(
            lines("crates/plan/src/a.rs", "// unsafe\n/// unsafe\nconst A: &str = \"unsafe\";\n"),
            [0; 0]
        );
    }

    #[test]
    fn lower_tiers_forbid_it() {
        assert_eq!(lines("crates/plan/src/lib.rs", "#![forbid(unsafe_code)]\n"), [0; 0]);
        assert_eq!(lines("crates/plan/src/lib.rs", "//! Doc.\n"), [1]);
        assert_eq!(lines("crates/kernel/src/lib.rs", "//! Doc.\n"), [0; 0]);
    }

    #[test]
    fn tier_0_has_neither_std_nor_alloc() {
        let head = "#![no_std]\n#![forbid(unsafe_code)]\n";
        assert_eq!(lines("crates/wire/src/lib.rs", head), [0; 0]);
        assert_eq!(lines("crates/wire/src/lib.rs", "#![forbid(unsafe_code)]\n"), [1]);
        assert_eq!(lines("crates/wire/src/lib.rs", &format!("{head}extern crate alloc;\n")), [3]);
        assert_eq!(
            lines("crates/wire/src/lib.rs", &format!("{head}#[cfg(test)]\nextern crate std;\n")),
            [0; 0]
        );
    }
}
