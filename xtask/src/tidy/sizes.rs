//! Limits on the length of functions, files and eBPF programs.

use syn::visit::{self, Visit};

use super::Finding;
use super::source::Source;

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;

/// Lines of a file that is the root of an eBPF program.
const PROGRAM_LINES_MAX: usize = 200;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut lengths = Lengths { path: &source.path, findings: Vec::new() };
    lengths.visit_file(&source.file);
    let mut findings = lengths.findings;

    let lines = source.tests_from.map_or(source.lines, |from| from.saturating_sub(1));
    let program = source.member() == "bpf" && source.find(&["no_main"]).is_some();
    let (what, limit) = if program { ("eBPF program", PROGRAM_LINES_MAX) } else { ("file", FILE_LINES_MAX) };
    if lines > limit {
        let text =
            format!("this {what} has {lines} lines before its tests, {limit} are allowed; split it by noun");
        findings.push(Finding::new(&source.path, limit + 1, text));
    }
    findings
}

struct Lengths<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Lengths<'_> {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let from = signature.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line - from + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            let text = format!(
                "function {name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed; give its steps names"
            );
            self.findings.push(Finding::new(self.path, from, text));
        }
    }
}

impl<'ast> Visit<'ast> for Lengths<'_> {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.function(&node.sig, block);
        }
        visit::visit_trait_item_fn(self, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<Finding> {
        check(&Source::parse(path, text).unwrap())
    }

    fn function(lines: usize) -> String {
        format!("/// Doc.\nfn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_of_70_lines_is_the_longest() {
        assert_eq!(findings("crates/plan/src/a.rs", &function(70)), []);
        let found = findings("crates/plan/src/a.rs", &function(71));
        assert_eq!((found.len(), found[0].line), (1, 2));
        assert!(found[0].text.contains("long has 71 lines"), "{}", found[0].text);
    }

    #[test]
    fn methods_and_functions_in_functions_count() {
        let method = format!("impl A {{\n{}}}\n", function(71));
        assert_eq!(findings("crates/plan/src/a.rs", &method).len(), 1);
        let method = format!("trait A {{\n{}}}\n", function(71));
        assert_eq!(findings("crates/plan/src/a.rs", &method).len(), 1);
        let nested = format!("fn outer() {{\n{}}}\n", function(71));
        assert_eq!(findings("crates/plan/src/a.rs", &nested).len(), 2);
    }

    #[test]
    fn a_file_ends_where_its_tests_begin() {
        let code = "const A: u8 = 1;\n".repeat(600);
        assert_eq!(findings("crates/plan/src/a.rs", &format!("{code}#[cfg(test)]\nmod tests {{}}\n")), []);
        let found = findings("crates/plan/src/a.rs", &format!("{code}const A: u8 = 1;\n"));
        assert_eq!((found.len(), found[0].line), (1, 601));
    }

    #[test]
    fn a_program_has_at_most_200_lines() {
        let text = |lines: usize| format!("#![no_main]\n{}", "const A: u8 = 1;\n".repeat(lines - 1));
        assert_eq!(findings("bpf/src/entry.rs", &text(200)), []);
        assert_eq!(findings("bpf/src/entry.rs", &text(201)).len(), 1);
        assert_eq!(findings("bpf/src/maps.rs", &"const A: u8 = 1;\n".repeat(201)), []);
        assert_eq!(findings("fuzz/fuzz_targets/decide.rs", &text(201)), []);
    }
}
