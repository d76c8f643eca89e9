//! One Rust file: its place in the house, its syntax tree, and its tokens with line numbers.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use super::{Finding, tiers};

/// A parsed file.
pub(super) struct Source {
    /// From the root of the repository, with slashes.
    pub(super) path: String,
    pub(super) file: syn::File,
    /// Every token in order, those inside macro calls too; brackets are tokens of their own.
    pub(super) tokens: Vec<Token>,
    /// Number of lines.
    pub(super) lines: usize,
    /// The line of the first `#[cfg(test)]` item at the top level; code after it is a test's.
    pub(super) tests_from: Option<usize>,
}

/// One token. A `::` is one token, other punctuation one per character.
pub(super) struct Token {
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Result<Source, Finding> {
        let wrong = |line, error: &dyn std::fmt::Display| {
            Finding::new(path, line, format!("this does not parse ({error}); correct the syntax"))
        };
        let file = syn::parse_file(text).map_err(|error| wrong(error.span().start().line, &error))?;
        let stream: TokenStream =
            text.parse().map_err(|error: proc_macro2::LexError| wrong(error.span().start().line, &error))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let tests_from = first_test(&file, &tokens);
        Ok(Source { path: path.to_owned(), file, tokens, lines: text.lines().count(), tests_from })
    }

    /// The crate's folder name under `crates/`, or the first folder (`bpf`, `xtask`, `fuzz`, ...).
    pub(super) fn member(&self) -> &str {
        let mut parts = self.path.split('/');
        match parts.next() {
            Some("crates" | "tools") => parts.next().unwrap_or_default(),
            first => first.unwrap_or_default(),
        }
    }

    /// The tier of the crate, if it has one.
    pub(super) fn tier(&self) -> Option<u8> {
        self.path.starts_with("crates/").then(|| tiers::tier(self.member())).flatten()
    }

    /// Whether the whole file is a test's: under `tests/`, `benches/` or `examples/`, or named `tests.rs`.
    pub(super) fn is_test(&self) -> bool {
        let beside = |dir: &&str| matches!(*dir, "tests" | "benches" | "examples" | "tests.rs");
        self.path.split('/').any(|part| beside(&part))
    }

    /// Whether the line belongs to a test.
    pub(super) fn in_test(&self, line: usize) -> bool {
        self.is_test() || self.tests_from.is_some_and(|from| line >= from)
    }

    /// Whether the tokens from `at` on read `texts`.
    pub(super) fn reads(&self, at: usize, texts: &[&str]) -> bool {
        self.tokens.get(at..).is_some_and(|rest| {
            rest.len() >= texts.len() && rest.iter().zip(texts).all(|(token, text)| token.text == *text)
        })
    }

    /// The place of the first token at which the tokens read `texts`.
    pub(super) fn find(&self, texts: &[&str]) -> Option<usize> {
        (0..self.tokens.len()).find(|&at| self.reads(at, texts))
    }
}

/// The line where the tests begin: only items at the top level count.
fn first_test(file: &syn::File, tokens: &[Token]) -> Option<usize> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(&module.attrs),
        _ => None,
    });
    let lines =
        modules.flatten().filter(|attr| attr.path().is_ident("cfg")).map(|attr| attr.pound_token.span);
    let lines = lines.map(|span| span.start().line);
    lines
        .filter(|&line| {
            let on_line: Vec<&str> =
                tokens.iter().filter(|token| token.line == line).map(|token| token.text.as_str()).collect();
            on_line.starts_with(&["#", "[", "cfg", "(", "test", ")", "]"])
        })
        .min()
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut colon = false;
    for tree in stream {
        let line = tree.span().start().line;
        let mut joined = false;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                tokens.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && colon => {
                if let Some(last) = tokens.last_mut() {
                    last.text.push(':');
                }
            }
            TokenTree::Punct(punct) => {
                joined = punct.as_char() == ':' && punct.spacing() == Spacing::Joint;
                tokens.push(Token { text: punct.to_string(), line });
            }
            TokenTree::Ident(ident) => tokens.push(Token { text: ident.to_string(), line }),
            TokenTree::Literal(literal) => tokens.push(Token { text: literal.to_string(), line }),
        }
        colon = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_their_lines_even_inside_macros() {
        let source = Source::parse("crates/wire/src/a.rs", "use a::b;\nfoo! {\n  x\n}\n").unwrap();
        let seen: Vec<_> = source.tokens.iter().map(|token| (token.text.as_str(), token.line)).collect();
        assert_eq!(seen[..5], [("use", 1), ("a", 1), ("::", 1), ("b", 1), (";", 1)]);
        assert!(seen.contains(&("x", 3)));
        assert_eq!(seen.last(), Some(&("}", 4)));
    }

    #[test]
    fn tests_begin_at_the_module_and_nowhere_else() {
        let text = "#[cfg(test)]\nfn helper() {}\nfn code() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(Source::parse("crates/wire/src/a.rs", text).unwrap().tests_from, Some(4));
        let text = "#[cfg(feature = \"x\")]\nmod x {}\n";
        assert_eq!(Source::parse("crates/wire/src/a.rs", text).unwrap().tests_from, None);
    }

    #[test]
    fn the_path_tells_the_crate_and_the_tier() {
        let tier = |path| {
            let source = Source::parse(path, "").unwrap();
            (source.member().to_owned(), source.tier())
        };
        assert_eq!(tier("crates/wire/src/lib.rs"), ("wire".to_owned(), Some(0)));
        assert_eq!(tier("crates/cli/src/main.rs"), ("cli".to_owned(), Some(3)));
        assert_eq!(tier("bpf/src/main.rs"), ("bpf".to_owned(), None));
    }

    #[test]
    fn a_syntax_error_is_a_finding() {
        let finding = Source::parse("a.rs", "fn a() {\n  let = 1;\n}\n").err().unwrap();
        assert_eq!((finding.file.as_str(), finding.line), ("a.rs", 2));
    }
}
