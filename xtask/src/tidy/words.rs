//! Words that must not stand in finished code, and those that need a reason beside them.

use super::Finding;
use super::source::Source;

/// What tier 1 must not touch: paths of files, clocks, threads, processes, the environment, sockets.
const IMPURE: [&[&str]; 12] = [
    &["std", "::", "fs"],
    &["std", "::", "env"],
    &["std", "::", "process"],
    &["std", "::", "thread"],
    &["std", "::", "io", "::", "stdin"],
    &["std", "::", "io", "::", "stdout"],
    &["TcpStream"],
    &["UdpSocket"],
    &["UnixStream"],
    &["Instant", "::", "now"],
    &["SystemTime", "::", "now"],
    &["tokio", "::"],
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in 0..source.tokens.len() {
        let text = unfinished(source, at)
            .or_else(|| ignored(source, at))
            .or_else(|| unexplained(source, at))
            .or_else(|| impure(source, at));
        if let Some(text) = text {
            findings.push(Finding::new(&source.path, source.tokens[at].line, text));
        }
    }
    findings
}

fn unfinished(source: &Source, at: usize) -> Option<String> {
    let word = ["todo", "unimplemented"].into_iter().find(|word| source.reads(at, &[word, "!"]))?;
    Some(format!("{word}! stands for code that is not written; write it, or leave the item out"))
}

fn ignored(source: &Source, at: usize) -> Option<String> {
    source.reads(at, &["#", "[", "ignore", "]"]).then(|| {
        "an ignored test says why: #[ignore = \"reason\"]; or use testkit::skip! with a reason".to_owned()
    })
}

/// `#[allow(..)]` and `#[expect(..)]` without `reason = ".."`.
fn unexplained(source: &Source, at: usize) -> Option<String> {
    let word = ["allow", "expect"].into_iter().find(|word| {
        source.reads(at, &["#", "[", word, "("]) || source.reads(at, &["#", "!", "[", word, "("])
    })?;
    let end = (at..source.tokens.len()).find(|&end| source.reads(end, &[")", "]"]))?;
    let explained = (at..end).any(|at| source.reads(at, &["reason", "="]));
    (!explained)
        .then(|| format!("#[{word}(..)] says why: add reason = \"..\", or correct what the lint found"))
}

fn impure(source: &Source, at: usize) -> Option<String> {
    let line = source.tokens[at].line;
    if source.tier() != Some(1) || source.in_test(line) {
        return None;
    }
    let path = IMPURE.iter().find(|path| source.reads(at, path))?.concat();
    Some(format!("tier 1 has no I/O, no clock and no async, so not {path}; take the value as an argument"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::parse(path, text).unwrap()).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unfinished_code_is_found_but_not_talk_about_it() {
        let text =
            "fn a() {\n    todo!()\n}\nfn b() { unimplemented!(\"later\") }\n// todo!()\nfn todo() {}\n";
        assert_eq!(lines("crates/host/src/a.rs", text), [2, 4]);
    }

    #[test]
    fn an_ignored_test_has_a_reason() {
        assert_eq!(lines("crates/host/src/a.rs", "#[test]\n#[ignore]\nfn a() {}\n"), [2]);
        assert_eq!(
            lines("crates/host/src/a.rs", "#[test]\n#[ignore = \"takes an hour\"]\nfn a() {}\n"),
            [0; 0]
        );
    }

    #[test]
    fn a_silenced_lint_has_a_reason() {
        assert_eq!(lines("bpf/src/a.rs", "#![allow(dead_code)]\n#[expect(unused)]\nfn a() {}\n"), [1, 2]);
        let text = "#![allow(dead_code, reason = \"shared by two programs\")]\nfn a() { b.expect(\"c\"); }\n";
        assert_eq!(lines("bpf/src/a.rs", text), [0; 0]);
    }

    #[test]
    fn tier_1_touches_nothing_outside_but_its_tests_may() {
        let text = "use std::fs;\nfn a() { std::time::Instant::now(); }\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(lines("crates/plan/src/a.rs", text), [1, 2]);
        assert_eq!(lines("crates/plan/tests/a.rs", text), [0; 0]);
        assert_eq!(lines("crates/host/src/a.rs", text), [0; 0]);
    }
}
